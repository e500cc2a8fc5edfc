# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The loops of :mod:`ptnetmap.bench.pingpong`: to lead round trips, and to follow."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.atomic import load64_acquire, pause, store64_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns, poll, read, sched_yield, write
from ptnetmap.jit.memory import load64, store64

FOREVER = 1 << 62
END = 2
"""What the leader writes to the follower's eventfd when all is over; a ping is a 1."""
OVER = -1
"""The same, in the follower's cache line; pings count up from 1."""

lines = np.dtype([("ping", "i8"), ("_leader", "V56"), ("pong", "i8"), ("_follower", "V56")])
"""Shared memory of two processes: a word in a cache line each, written by the leader (ping) and the follower (pong)."""

figures = np.dtype([("nanoseconds", "i8"), ("sampled", "i8")])
"""What a leading loop found: time from the first round trip to the last, and how many of them it timed singly."""

_PING = offsets(lines)["ping"]
_PONG = offsets(lines)["pong"]
_NANOSECONDS = offsets(figures)["nanoseconds"]
_SAMPLED = offsets(figures)["sampled"]

_PATIENCE = 100_000


@piece
def _spin(attempt):
    """Wait by spinning: this is what is measured. Only who has spun for milliseconds shares its core, and yields."""
    if attempt < _PATIENCE:
        pause()
    else:
        sched_yield()


@piece
def _hop(fd, word, value):
    store64(word, value)
    return write(fd, word, 8) == 8


@piece
def _await_word(address, before):
    """Spin until the word at ``address`` is no longer ``before``, and return it."""
    attempt = 0
    now = load64_acquire(address)
    while now == before:
        _spin(attempt)
        attempt += 1
        now = load64_acquire(address)
    return now


@kernel
def lead_eventfds(ping, pong, word, idle_ms, most, deadline, found, samples, capacity):
    """Make up to ``most`` round trips, until the ``deadline`` (CLOCK_MONOTONIC), and return how many.

    Rests ``idle_ms`` before each. Writes eventfd ``ping``, reads ``pong``, both through the 8 bytes at ``word``. Each
    trip's nanoseconds go to the ``capacity`` words at ``samples``, the newest over the oldest; ``found`` is the address
    of :data:`figures`. Ends early if a system call fails.
    """
    made = 0
    first = clock_ns(CLOCK_MONOTONIC)
    now = first
    while made < most and now < deadline:
        if idle_ms != 0:
            poll(0, 0, idle_ms)
            now = clock_ns(CLOCK_MONOTONIC)
        if not _hop(ping, word, 1) or read(pong, word, 8) != 8:
            break
        then = clock_ns(CLOCK_MONOTONIC)
        store64(samples + 8 * (made % capacity), then - now)
        now = then
        made += 1
    store64(found + _NANOSECONDS, now - first)
    store64(found + _SAMPLED, made)
    return made


@kernel
def follow_eventfds(ping, pong, word):
    """Answer each ping until the end; return how many there were."""
    made = 0
    while True:
        if read(ping, word, 8) != 8 or load64(word) == END:
            return made
        if not _hop(pong, word, 1):
            return made
        made += 1


@kernel
def lead_lines(shared, every, most, deadline, found, samples, capacity):
    """As :func:`lead_eventfds`, through the :data:`lines` at ``shared``; times one trip in ``every``."""
    made = 0
    sampled = 0
    count = load64(shared + _PONG)
    first = clock_ns(CLOCK_MONOTONIC)
    now = first
    while made < most and now < deadline:
        start = clock_ns(CLOCK_MONOTONIC)
        store64_release(shared + _PING, count + 1)
        _await_word(shared + _PONG, count)
        count += 1
        made += 1
        now = clock_ns(CLOCK_MONOTONIC)
        store64(samples + 8 * (sampled % capacity), now - start)
        sampled += 1
        for _ in range(min(every - 1, most - made)):
            store64_release(shared + _PING, count + 1)
            _await_word(shared + _PONG, count)
            count += 1
            made += 1
    store64(found + _NANOSECONDS, clock_ns(CLOCK_MONOTONIC) - first)
    store64(found + _SAMPLED, sampled)
    return made


@kernel
def follow_lines(shared):
    """Answer each ping until the end; return how many there were."""
    count = 0
    while True:
        word = _await_word(shared + _PING, count)
        if word == OVER:
            return count
        count = word
        store64_release(shared + _PONG, word)


EVENTFD_LOOPS = (lead_eventfds, follow_eventfds)
LINE_LOOPS = (lead_lines, follow_lines)

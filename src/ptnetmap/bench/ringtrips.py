# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Round trips of single packets between two ports, as :mod:`ptnetmap.bench.trips` makes them of bare words.

Each side waits for its packet as poll(2) on a netmap descriptor does, and sleeps then; or it spins on its ring.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.bench.circulate import release
from ptnetmap.bench.trips import figures
from ptnetmap.jit.atomic import pause
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns, poll, sched_yield
from ptnetmap.jit.memory import load16, load32, load64, store32, store64
from ptnetmap.netmap.binding import INTERRUPTED, READABLE, wait
from ptnetmap.netmap.kring import NUM_SLOTS, RING, SLOT_SIZE, SLOTS, after
from ptnetmap.netmap.sync import OK, rxsync, txsync

_HEAD = abi.ring.fields["head"][1]
_TAIL = abi.ring.fields["tail"][1]
_NANOSECONDS = offsets(figures)["nanoseconds"]
_SAMPLED = offsets(figures)["sampled"]

PING = 60
"""Bytes of a packet that is to be answered."""
LAST = 64
"""Bytes of the one that is not: all is over."""
NO_ANSWER = -1

_PATIENCE_NS = 2_000_000_000
_LONG = 100_000


@piece
def post(k, batch, length):
    """Send one packet."""
    ring = load64(k + RING)
    head = load32(ring + _HEAD)
    store32(load64(k + SLOTS) + head * SLOT_SIZE + 4, length)
    release(ring, after(head, load32(k + NUM_SLOTS)))
    txsync(k, batch)


@piece
def spin_until_filled(k, batch, deadline):
    """Sync an RX ring until it has a packet; return whether one came. Who spins for long shares its core, and yields."""
    ring = load64(k + RING)
    attempt = 0
    while rxsync(k, batch, 0) == OK and load32(ring + _HEAD) == load32(ring + _TAIL):
        if attempt < _LONG:
            pause()
        elif clock_ns(CLOCK_MONOTONIC) >= deadline:
            return False
        else:
            sched_yield()
        attempt += 1
    return load32(ring + _HEAD) != load32(ring + _TAIL)


@piece
def take(waiter, k, batch, spinning, deadline):
    """Wait for a packet on an RX ring and give it back; return its length, 0 if none came in time."""
    if spinning != 0:
        if not spin_until_filled(k, batch, deadline):
            return 0
    else:
        ready = wait(waiter, batch, READABLE, deadline, 0)
        while ready == INTERRUPTED:
            ready = wait(waiter, batch, READABLE, deadline, 0)
        if ready <= 0:
            return 0
    ring = load64(k + RING)
    head = load32(ring + _HEAD)
    if head == load32(ring + _TAIL):
        return 0
    length = load16(load64(k + SLOTS) + head * SLOT_SIZE + 4)
    release(ring, after(head, load32(k + NUM_SLOTS)))
    return length


@kernel
def lead_ring(waiter, tx, rx, batch, spinning, idle_ms, most, deadline, found, samples, capacity):
    """Make up to ``most`` round trips, until the ``deadline`` (CLOCK_MONOTONIC), and return how many, or NO_ANSWER.

    ``waiter`` is the address of a :data:`~ptnetmap.netmap.binding.binding` of the RX ring, ``idle_ms`` how long to rest
    before each trip. ``found``, ``samples`` and ``capacity`` are as in :func:`ptnetmap.bench.trips.lead_eventfds`.
    """
    made = 0
    first = clock_ns(CLOCK_MONOTONIC)
    now = first
    while made < most and now < deadline:
        if idle_ms != 0:
            poll(0, 0, idle_ms)
        start = clock_ns(CLOCK_MONOTONIC)
        post(tx, batch, PING)
        if take(waiter, rx, batch, spinning, start + _PATIENCE_NS) == 0:
            return NO_ANSWER
        now = clock_ns(CLOCK_MONOTONIC)
        store64(samples + 8 * (made % capacity), now - start)
        made += 1
    store64(found + _NANOSECONDS, now - first)
    store64(found + _SAMPLED, made)
    return made


@kernel
def say_last(tx, batch):
    """Tell the other side that all is over."""
    post(tx, batch, LAST)
    return 0


@kernel
def follow_ring(waiter, tx, rx, batch, spinning, patience):
    """Answer each packet until the last one comes, or none for ``patience`` nanoseconds; return how many there were."""
    made = 0
    while True:
        length = take(waiter, rx, batch, spinning, clock_ns(CLOCK_MONOTONIC) + patience)
        if length == 0 or length == LAST:
            return made
        post(tx, batch, PING)
        made += 1


LOOPS = (lead_ring, say_last, follow_ring)

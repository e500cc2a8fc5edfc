# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A binding's rings, as kernels see them: scanning and waiting, which is what poll(2) does on a netmap descriptor."""

from __future__ import annotations

import errno as _errno

import numpy as np

from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, POLLIN, POLLOUT, clock_ns, errno, poll, ppoll, sched_yield
from ptnetmap.jit.memory import load32, load64, store32, store64
from ptnetmap.jit.wait import SPINS, YIELDS
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.csb import csb_served, relax_beside
from ptnetmap.netmap.kring import EVENTFD, IRQFD, KIND, KIND_NIC, NIC, STATE, STATE_ON
from ptnetmap.netmap.nic.ring import FD
from ptnetmap.netmap.sync import OK, blocked, quiet, rxsync, stirred, txsync, unsent

_EINTR = _errno.EINTR
POLLERR = 0x008
READABLE = POLLIN
WRITABLE = POLLOUT
ERROR = POLLERR

MAX_BOUND = 256
"""Rings of one direction that a descriptor can have bound (pipes have up to 256)."""

binding = np.dtype(
    [
        ("closed", "u4"),
        ("flush", "u4"),
        ("tx_count", "u4"),
        ("rx_count", "u4"),
        ("close_fd", "i4"),
        ("naps", "u4"),
        ("nap", "u8", 2),
        ("tx", "u8", MAX_BOUND),
        ("rx", "u8", MAX_BOUND),
    ]
)
"""The rings that one descriptor has bound.

======== ==================================================================================
field    meaning
======== ==================================================================================
closed   1 once the descriptor is being closed: waiters return
flush    1 if a scan also sends what is pending, though only reading was asked (not NO_TX_POLL)
tx, rx   addresses of the bound krings
close_fd eventfd that close() makes readable, for waiters that sleep; -1 until one does
naps     1 if nobody wakes the rings' waiters: they sleep for a moment, look, and sleep for longer
nap      struct timespec of the next such moment
======== ==================================================================================
"""

_AT = offsets(binding)
_CLOSED = _AT["closed"]
_FLUSH = _AT["flush"]
_TX_COUNT = _AT["tx_count"]
_RX_COUNT = _AT["rx_count"]
_CLOSE_FD = _AT["close_fd"]
_NAPS = _AT["naps"]
_NAP = _AT["nap"]
_TX = _AT["tx"]
_RX = _AT["rx"]
_POLLFD = OFFSET["pollfd"]
_DISCARD = OFFSET["discard"]
_DRIVER_MS = 10
_YIELDS_FOR_NAPS = 600
_FIRST_NAP = 50_000
_LONGEST_NAP = 2_000_000

TIMEOUT = 0
CLOSED = -_errno.EBADF
INTERRUPTED = -_errno.EINTR
NEED_FDS = -_errno.EAGAIN
"""Waiting has come to where it sleeps, and some ring has no eventfd yet: make them and call again."""

FOREVER = -1


@piece
def scan(b, batch, events, only):
    """Sync the bound rings as poll(2) does, once. Returns which of ``events`` hold, and ERROR after a ring reinit.

    ``only`` is the one kring that matters, or 0 for all.

    Rings to send from are synced if they have something to send, or if space is asked for; pending packets go out
    even if only reading was asked, unless the binding says no.
    """
    ready = 0
    if events & WRITABLE or load32(b + _FLUSH):
        for i in range(load32(b + _TX_COUNT)):
            k = load64(b + _TX + 8 * i)
            if only not in (0, k):
                continue
            if not unsent(k) and (events & WRITABLE == 0 or ready & WRITABLE):
                continue
            if txsync(k, batch) != OK:
                ready |= ERROR
            elif events & WRITABLE and not blocked(k):
                ready |= WRITABLE
    if events & READABLE:
        for i in range(load32(b + _RX_COUNT)):
            k = load64(b + _RX + 8 * i)
            if only not in (0, k):
                continue
            if rxsync(k, batch, True) != OK:
                ready |= ERROR
            elif not blocked(k):
                ready |= READABLE
    return ready


@piece
def expect(b, batch, events, only):
    """Ask to be woken by every ring that ``events`` is about, and fill pollfd. Returns entries, or NEED_FDS.

    A thread that waits for one ring of several leaves the others' wake-ups to the threads that wait for those.
    """
    n = 0
    if load32(b + _CLOSE_FD) == 0xFFFFFFFF:
        return NEED_FDS
    store32(batch + _POLLFD, load32(b + _CLOSE_FD))
    store32(batch + _POLLFD + 4, READABLE)
    n = 1
    for i in range(load32(b + _TX_COUNT) + load32(b + _RX_COUNT)):
        if i < load32(b + _TX_COUNT):
            k = load64(b + _TX + 8 * i)
            if events & WRITABLE == 0:
                continue
        else:
            k = load64(b + _RX + 8 * (i - load32(b + _TX_COUNT)))
            if events & READABLE == 0:
                continue
        if only not in (0, k):
            continue
        fd = load32(k + IRQFD)
        if fd == 0xFFFFFFFF:
            fd = load32(k + EVENTFD)
        if fd == 0xFFFFFFFF:
            return NEED_FDS
        quiet(k, batch + _DISCARD)
        store32(batch + _POLLFD + 8 * n, fd)
        store32(batch + _POLLFD + 8 * n + 4, READABLE)
        n += 1
        if load32(k + KIND) == KIND_NIC:
            store32(batch + _POLLFD + 8 * n, load32(load64(k + NIC) + FD))
            store32(batch + _POLLFD + 8 * n + 4, WRITABLE if i < load32(b + _TX_COUNT) else READABLE)
            n += 1
    return n


@piece
def time_left(b, events, deadline):
    """Milliseconds until ``deadline``, rounded up; -1 for FOREVER, 0 when it has passed.

    Who waits to send on a network interface looks again soon: a driver that was full tells nobody when it is no more.
    """
    most = 0x7FFFFFFF
    if events & WRITABLE and load32(b + _TX_COUNT) != 0 and load32(load64(b + _TX) + KIND) == KIND_NIC:
        most = _DRIVER_MS
    elif deadline == FOREVER:
        return -1
    if deadline == FOREVER:
        return most
    left = deadline - clock_ns(CLOCK_MONOTONIC)
    return 0 if left <= 0 else min((left + 999_999) // 1_000_000, most)


@piece
def doze(b, batch, n, events, deadline, slept):
    """Sleep until one of ``n`` entries of pollfd tells something, or the deadline; poll(2)'s result.

    Where nothing ever tells, sleep for a moment, that is longer each time: ``slept`` is how often in a row.
    """
    if load32(b + _NAPS) == 0:
        return poll(batch + _POLLFD, n, time_left(b, events, deadline))
    moment = min(_FIRST_NAP << min(slept, 6), _LONGEST_NAP)
    if deadline != FOREVER:
        moment = max(min(moment, deadline - clock_ns(CLOCK_MONOTONIC)), 0)
    store64(b + _NAP + 8, moment)
    return ppoll(batch + _POLLFD, n, b + _NAP, 0)


@piece
def linger(b, events, attempt, only):
    """Spin and yield until a bound ring, or the ``only`` one, stirs; for longer where nobody would wake a sleeper.

    Returns the attempts made in all, or -1 when it is time to sleep.
    """
    first = load64(b + _TX) if load32(b + _TX_COUNT) != 0 else load64(b + _RX)  # one kthread serves them all
    longest = _YIELDS_FOR_NAPS if load32(b + _NAPS) != 0 else 0
    while relax_beside(first, attempt) or attempt < longest:
        if attempt >= SPINS + YIELDS:
            sched_yield()
        attempt += 1
        if load32_acquire(b + _CLOSED) != 0:
            return attempt
        if events & WRITABLE:
            for i in range(load32(b + _TX_COUNT)):
                k = load64(b + _TX + 8 * i)
                if only in (0, k) and stirred(k, attempt):
                    return attempt
        if events & READABLE:
            for i in range(load32(b + _RX_COUNT)):
                k = load64(b + _RX + 8 * i)
                if only in (0, k) and stirred(k, attempt):
                    return attempt
    return -1


@kernel
def wait(b, batch, events, deadline, only):
    """Wait until a bound ring has one of ``events``: spin, yield, sleep.

    ``deadline`` is in nanoseconds of CLOCK_MONOTONIC, or FOREVER; ``only`` is the one kring to wait for, or 0. Returns
    the events, TIMEOUT, or one of CLOSED, INTERRUPTED (a signal: the caller may want to handle it and wait again) and
    NEED_FDS.
    """
    attempt = slept = 0
    while True:
        ready = scan(b, batch, events, only)
        if load32_acquire(b + _CLOSED) != 0:
            return CLOSED
        if ready != 0:
            return ready
        if deadline != FOREVER and clock_ns(CLOCK_MONOTONIC) >= deadline:
            return TIMEOUT
        attempt = linger(b, events, attempt, only)
        if attempt >= 0:
            continue
        attempt = 0
        n = expect(b, batch, events, only)
        if n < 0:
            return n
        ready = scan(b, batch, events, only)
        if load32_acquire(b + _CLOSED) != 0:
            return CLOSED
        if ready != 0:
            return ready
        if doze(b, batch, n, events, deadline, slept) < 0 and errno() == _EINTR:
            return INTERRUPTED
        slept += 1


@kernel
def wait_sent(b, k, batch, deadline):
    """Wait until the TX ring ``k`` has been able to send something more, as :func:`wait` does.

    Returns WRITABLE once nothing is left in the ring that its user has released, or one of wait's other results.
    """
    attempt = slept = 0
    while True:
        if load32_acquire(b + _CLOSED) != 0:
            return CLOSED
        if txsync(k, batch) < 0:
            return CLOSED
        if not unsent(k):
            return WRITABLE
        if deadline != FOREVER and clock_ns(CLOCK_MONOTONIC) >= deadline:
            return TIMEOUT
        attempt = linger(b, WRITABLE, attempt, k)
        if attempt >= 0:
            continue
        attempt = 0
        n = expect(b, batch, WRITABLE, k)
        if n < 0:
            return n
        txsync(k, batch)
        if not unsent(k):
            return WRITABLE
        if load32_acquire(b + _CLOSED) != 0:
            return CLOSED
        if doze(b, batch, n, WRITABLE, deadline, slept) < 0 and errno() == _EINTR:
            return INTERRUPTED
        slept += 1


@kernel
def wait_served(b, k, batch, deadline):
    """Wait until the kthread that serves the TX ring ``k`` has done all that it can about it.

    Returns WRITABLE then, or one of wait's other results.
    """
    attempt = slept = 0
    while True:
        if load32_acquire(b + _CLOSED) != 0:
            return CLOSED
        if load32(k + STATE) != STATE_ON:
            return CLOSED
        if csb_served(k):
            return WRITABLE
        if deadline != FOREVER and clock_ns(CLOCK_MONOTONIC) >= deadline:
            return TIMEOUT
        if relax_beside(k, attempt):
            attempt += 1
            continue
        attempt = 0
        n = expect(b, batch, WRITABLE, k)
        if n < 0:
            return n
        if csb_served(k):
            return WRITABLE
        if doze(b, batch, n, WRITABLE, deadline, slept) < 0 and errno() == _EINTR:
            return INTERRUPTED
        slept += 1

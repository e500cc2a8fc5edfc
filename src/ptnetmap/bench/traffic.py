# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What pkt-gen does, without its options: loops that send and receive on one ring each, as fast as they can."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load64_acquire, pause, store64_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, clock_ns, sched_yield
from ptnetmap.jit.memory import load16, load32, load64, store32, store64
from ptnetmap.jit.wait import relax
from ptnetmap.netmap.csb import relax_beside
from ptnetmap.netmap.kring import NUM_SLOTS, RING, SLOT_SIZE, SLOTS, distance
from ptnetmap.netmap.sync import rxsync, stirred, txsync, unsent

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]

run = np.dtype(
    [
        ("stop", "i8"),
        ("_controller", "V56"),
        ("sent", "i8"),
        ("_sender", "V56"),
        ("received", "i8"),
        ("bytes", "i8"),
        ("first", "i8"),
        ("last", "i8"),
        ("_receiver", "V32"),
    ]
)
"""What a run's threads tell each other, a cache line each.

======== =====================================================================================
field    meaning
======== =====================================================================================
stop     1: senders have ended, and receivers end when their ring stays empty; 2: all end now
sent     packets that a sender has handed to its ring
received packets that the receiver has read, bytes the sum of their lengths
first    when the receiver had its first and last packet, nanoseconds of CLOCK_MONOTONIC
======== =====================================================================================
"""

_STOP = offsets(run)["stop"]
_SENT = offsets(run)["sent"]
_RECEIVED = offsets(run)["received"]
_BYTES = offsets(run)["bytes"]
_FIRST = offsets(run)["first"]
_LAST = offsets(run)["last"]

_CHECK_EVERY = 1024
_FEW = 64
_PATIENCE = 32


@piece
def _breathe(attempt):
    if not relax(attempt):
        sched_yield()


@piece
def _linger(k, shared, attempt):
    """Wait until a ring stirs or the run ends; return the attempts made in all."""
    while True:
        if not relax_beside(k, attempt):
            sched_yield()
        attempt += 1
        if stirred(k, attempt) or load64_acquire(shared + _STOP) != 0:
            return attempt


@piece
def _fill(slots, start, count, length):
    for position in range(start, start + count):
        store32(slots + position * SLOT_SIZE + 4, length)


@kernel
def send(k, batch, shared, burst, length, packets, deadline):
    """Send packets of ``length`` bytes on TX ring ``k``, a sync every ``burst``; return how many.

    Only slots are written; the frames are in the buffers already. ``shared`` is the address of a :data:`run`, ``batch``
    of the thread's scratch. Ends after ``packets``, at the ``deadline`` (CLOCK_MONOTONIC), or when told to stop.
    """
    ring = load64(k + RING)
    slots = load64(k + SLOTS)
    n = load32(k + NUM_SLOTS)
    sent = 0
    check = 0
    head = load32(ring + _HEAD)
    while sent < packets:
        if sent >= check:
            check = sent + _CHECK_EVERY
            if load64_acquire(shared + _STOP) != 0 or clock_ns(CLOCK_MONOTONIC_COARSE) >= deadline:
                break
        count = min(burst, packets - sent)
        room = distance(head, load32(ring + _TAIL), n)
        if room < count:
            enough = max(count, n // 4)
            attempt = 0
            while room < enough and load64_acquire(shared + _STOP) == 0:
                txsync(k, batch)
                room = distance(head, load32(ring + _TAIL), n)
                if room < enough:
                    attempt = _linger(k, shared, attempt)
            if room < count:
                break
        run = min(count, n - head)
        _fill(slots, head, run, length)
        _fill(slots, 0, count - run, length)
        head += count
        if head >= n:
            head -= n
        store32(ring + _CUR, head)
        store32(ring + _HEAD, head)
        txsync(k, batch)
        sent += count
    attempt = 0
    while unsent(k) and load64_acquire(shared + _STOP) == 0:
        txsync(k, batch)
        if unsent(k):
            attempt = _linger(k, shared, attempt)
    store64_release(shared + _SENT, sent)
    return sent


@piece
def _total(slots, start, count):
    octets = 0
    for position in range(start, start + count):
        octets += load16(slots + position * SLOT_SIZE + 4)
    return octets


@kernel
def receive(k, batch, shared, most):
    """Receive on RX ring ``k`` until told to stop and nothing is left; return how many packets there were.

    Only slots are read; at most ``most`` are given back at a time. Leaves its figures in the :data:`run` at ``shared``.
    """
    ring = load64(k + RING)
    slots = load64(k + SLOTS)
    n = load32(k + NUM_SLOTS)
    received = 0
    octets = 0
    attempt = 0
    last = 0
    while True:
        stop = load64_acquire(shared + _STOP)
        rxsync(k, batch, 0)
        head = load32(ring + _HEAD)
        count = distance(head, load32(ring + _TAIL), n)
        if count == 0:
            if stop != 0:
                break
            if attempt == 0:
                last = clock_ns(CLOCK_MONOTONIC)
            attempt = _linger(k, shared, attempt)
            continue
        attempt = 0
        if received == 0:
            store64(shared + _FIRST, clock_ns(CLOCK_MONOTONIC))
        if count < _FEW and stop == 0:
            for _ in range(_PATIENCE):
                pause()
            rxsync(k, batch, 0)
            count = distance(head, load32(ring + _TAIL), n)
        count = min(count, most)
        run = min(count, n - head)
        octets += _total(slots, head, run) + _total(slots, 0, count - run)
        received += count
        head += count
        if head >= n:
            head -= n
        store32(ring + _CUR, head)
        store32(ring + _HEAD, head)
    store64(shared + _LAST, last if last != 0 else clock_ns(CLOCK_MONOTONIC))
    store64(shared + _BYTES, octets)
    store64(shared + _RECEIVED, received)
    return received


@kernel
def send_many(krings, count, batch, shared, burst, length, packets, deadline):
    """As :func:`send`, in turn on each of the ``count`` TX rings whose addresses are at ``krings``."""
    sent = 0
    i = 0
    before = -1
    attempt = 0
    while sent < packets and load64_acquire(shared + _STOP) == 0:
        if i == 0:
            if clock_ns(CLOCK_MONOTONIC_COARSE) >= deadline:
                break
            attempt = attempt + 1 if sent == before else 0
            before = sent
            if attempt > 0:  # a round in which every ring was full
                _breathe(attempt)
        k = load64(krings + 8 * i)
        ring = load64(k + RING)
        n = load32(k + NUM_SLOTS)
        head = load32(ring + _HEAD)
        amount = min(burst, packets - sent, distance(head, load32(ring + _TAIL), n))
        run = min(amount, n - head)
        _fill(load64(k + SLOTS), head, run, length)
        _fill(load64(k + SLOTS), 0, amount - run, length)
        head += amount
        if head >= n:
            head -= n
        store32(ring + _CUR, head)
        store32(ring + _HEAD, head)
        txsync(k, batch)
        sent += amount
        i = i + 1 if i + 1 < count else 0
    for i in range(count):
        attempt = 0
        k = load64(krings + 8 * i)
        while unsent(k) and load64_acquire(shared + _STOP) < 2:
            txsync(k, batch)
            _breathe(attempt)
            attempt += 1
    store64_release(shared + _SENT, sent)
    return sent


@kernel
def receive_many(krings, count, batch, shared):
    """As :func:`receive`, in turn on each of the ``count`` RX rings whose addresses are at ``krings``."""
    received = 0
    octets = 0
    attempt = 0
    last = 0
    while True:
        stop = load64_acquire(shared + _STOP)
        before = received
        for i in range(count):
            k = load64(krings + 8 * i)
            ring = load64(k + RING)
            n = load32(k + NUM_SLOTS)
            rxsync(k, batch, 0)
            head = load32(ring + _HEAD)
            amount = distance(head, load32(ring + _TAIL), n)
            if amount == 0:
                continue
            run = min(amount, n - head)
            octets += _total(load64(k + SLOTS), head, run) + _total(load64(k + SLOTS), 0, amount - run)
            head += amount
            if head >= n:
                head -= n
            store32(ring + _CUR, head)
            store32(ring + _HEAD, head)
            rxsync(k, batch, 0)
            if received == 0:
                store64(shared + _FIRST, clock_ns(CLOCK_MONOTONIC))
            received += amount
        if received != before:
            attempt = 0
            last = 0
            continue
        if stop != 0:
            break
        if attempt == 0:
            last = clock_ns(CLOCK_MONOTONIC)
        _breathe(attempt)
        attempt += 1
    store64(shared + _LAST, last if last != 0 else clock_ns(CLOCK_MONOTONIC))
    store64(shared + _BYTES, octets)
    store64(shared + _RECEIVED, received)
    return received

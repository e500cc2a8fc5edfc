# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Sending back what comes: packets that go round between two ports without being copied by either program."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.bench import traffic
from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, clock_ns, sched_yield
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.csb import relax_beside
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_SLOTS, RING, SLOT_SIZE, SLOTS, after, distance
from ptnetmap.netmap.sync import rxsync, txsync

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_BUF_CHANGED = abi.NS_BUF_CHANGED
_STOP = offsets(traffic.run)["stop"]
_RECEIVED = offsets(traffic.run)["received"]
_BYTES = offsets(traffic.run)["bytes"]
_FIRST = offsets(traffic.run)["first"]
_LAST = offsets(traffic.run)["last"]
_CHECK_EVERY = 64


@piece
def release(ring, head):
    """Give back, or send, the slots before ``head``; takes effect at the next sync."""
    store32(ring + _CUR, head)
    store32(ring + _HEAD, head)


@piece
def start(k, packets, length):
    """Put ``packets`` into a TX ring, whose buffers have the frames already."""
    head = load32(load64(k + RING) + _HEAD)
    for _ in range(packets):
        store32(load64(k + SLOTS) + head * SLOT_SIZE + 4, length)
        head = after(head, load32(k + NUM_SLOTS))
    release(load64(k + RING), head)


@piece
def swap(source, target, header, buffers, buf_size):
    """Exchange the buffers of an RX and a TX slot, so that the packet passes on; return its length.

    ``header`` is the address of 12 bytes, destination and source, for a switch to find the way by; 0 leaves the frame.
    """
    buffer = load32(source)
    length = load16(source + 4)
    store32(source, load32(target))
    store32(target, buffer)
    store32(target + 4, length | (_BUF_CHANGED << 16))
    store16(source + 6, _BUF_CHANGED)
    if header != 0:
        frame = buffers + buffer * buf_size
        store64(frame, load64(header))
        store32(frame + 8, load32(header + 8))
    return length


@kernel
def circulate(rx, tx, batch, shared, burst, packets, length, header, deadline):
    """Send back on TX ring ``tx`` what comes on RX ring ``rx``, up to ``burst`` packets per sync; return how many came.

    Begins with ``packets`` of ``length`` bytes from the TX ring's own buffers. Both rings are of one region. Ends when
    told to stop, or at the ``deadline`` (CLOCK_MONOTONIC). ``shared`` is the address of a
    :data:`~ptnetmap.bench.traffic.run`, which gets the figures of an end that starts packets.
    """
    rx_ring = load64(rx + RING)
    tx_ring = load64(tx + RING)
    rx_n = load32(rx + NUM_SLOTS)
    tx_n = load32(tx + NUM_SLOTS)
    rx_slots = load64(rx + SLOTS)
    tx_slots = load64(tx + SLOTS)
    buffers = load64(rx + BUFFERS)
    buf_size = load32(rx + BUF_SIZE)
    start(tx, packets, length)
    txsync(tx, batch)
    received = 0
    octets = 0
    attempt = 0
    rounds = 0
    first = 0
    while load64_acquire(shared + _STOP) == 0:
        rounds += 1
        if rounds % _CHECK_EVERY == 0 and clock_ns(CLOCK_MONOTONIC_COARSE) >= deadline:
            break
        rxsync(rx, batch, 0)
        source = load32(rx_ring + _HEAD)
        count = distance(source, load32(rx_ring + _TAIL), rx_n)
        target = load32(tx_ring + _HEAD)
        if distance(target, load32(tx_ring + _TAIL), tx_n) < count:
            txsync(tx, batch)
        count = min(count, burst, distance(target, load32(tx_ring + _TAIL), tx_n))
        if count == 0:
            if not relax_beside(rx, attempt):
                sched_yield()
            attempt += 1
            continue
        attempt = 0
        if first == 0:
            first = clock_ns(CLOCK_MONOTONIC)
        for _ in range(count):
            at = rx_slots + source * SLOT_SIZE
            octets += swap(at, tx_slots + target * SLOT_SIZE, header, buffers, buf_size)
            source = after(source, rx_n)
            target = after(target, tx_n)
        received += count
        release(rx_ring, source)
        release(tx_ring, target)
        txsync(tx, batch)
    if packets != 0:
        last = clock_ns(CLOCK_MONOTONIC)
        store64(shared + _FIRST, first if first != 0 else last)
        store64(shared + _LAST, last)
        store64(shared + _BYTES, octets)
        store64(shared + _RECEIVED, received)
    return received

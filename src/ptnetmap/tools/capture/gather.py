# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The capture's inner loop: packets out of rings, into a buffer, laid out as a file wants them."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME, clock_ns
from ptnetmap.jit.memory import copy_bytes, load32, load64, store32, store64
from ptnetmap.jit.wait import relax
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, RING, SLOT_SIZE, SLOTS, after, distance
from ptnetmap.netmap.sync import OK, rxsync

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_TS = abi.ring.fields["ts_sec"][1]
_MOREFRAG = abi.NS_MOREFRAG
_TXMON = abi.NS_TXMON

found = np.dtype([("start", "i8"), ("captured", "i8"), ("length", "i8"), ("ts", "i8"), ("way", "i8")])
"""One packet that was gathered: 40 bytes.

======== ==================================================================
field    meaning
======== ==================================================================
start    where it begins in the buffer
captured its bytes there
length   its bytes on the wire
ts       when its ring was synced, nanoseconds since 1970
way      1 received, 2 sent by the port that is watched, as pcapng has it
======== ==================================================================
"""

_FOUND = found.itemsize
_AT = offsets(found)
_CAPTURED = _AT["captured"]
_LENGTH = _AT["length"]
_STAMP = _AT["ts"]
_WAY = _AT["way"]

order = np.dtype(
    [
        ("buffer", "i8"),
        ("capacity", "i8"),
        ("table", "i8"),
        ("rows", "i8"),
        ("snaplen", "i8"),
        ("before", "i8"),
        ("after", "i8"),
        ("align", "i8"),
        ("krings", "i8"),
        ("rings", "i8"),
        ("count", "i8"),
        ("used", "i8"),
    ]
)
"""What to gather, where to, and how far it has come.

================ ===========================================================================================
field            meaning
================ ===========================================================================================
buffer, capacity address and size of the memory for packets
table, rows      address of an array of :data:`found`, and how many packets it may get
snaplen          bytes of a packet that are kept
before ... align room to leave around a packet: bytes before it, after it, and what its end is padded to
krings, rings    address of the RX krings' addresses, and their number
count, used      packets gathered so far, and bytes of the buffer that they take
================ ===========================================================================================
"""

_ORDER = offsets(order)
_BUFFER = _ORDER["buffer"]
_CAPACITY = _ORDER["capacity"]
_TABLE = _ORDER["table"]
_ROWS = _ORDER["rows"]
_SNAPLEN = _ORDER["snaplen"]
_BEFORE = _ORDER["before"]
_AFTER = _ORDER["after"]
_ALIGN = _ORDER["align"]
_KRINGS = _ORDER["krings"]
_RINGS = _ORDER["rings"]
_COUNT = _ORDER["count"]
_USED = _ORDER["used"]

EMPTY = 0
FULL = 1


@piece
def measure(k, at, left):
    """Return (bytes, slots) of the packet whose first slot is ``at``; slots that name no buffer have no bytes."""
    n = load32(k + NUM_SLOTS)
    size = 0
    taken = 0
    more = True
    while more and taken < left:
        word = load64(load64(k + SLOTS) + at * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        if 2 <= index < load32(k + NUM_BUFS) and length <= load32(k + BUF_SIZE):
            size += length
        more = (word >> 48) & _MOREFRAG != 0
        at = after(at, n)
        taken += 1
    return size, taken


@piece
def copy_packet(k, at, slots, out, captured):
    """Copy the first ``captured`` bytes of the packet in ``slots`` slots from ``at`` on."""
    for _ in range(slots):
        word = load64(load64(k + SLOTS) + at * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        if 2 <= index < load32(k + NUM_BUFS) and length <= load32(k + BUF_SIZE):
            length = min(length, captured)
            copy_bytes(out, load64(k + BUFFERS) + index * load32(k + BUF_SIZE), length)
            out += length
            captured -= length
        at = after(at, load32(k + NUM_SLOTS))


@piece
def gather_ring(k, o, stamp):
    """Take the packets that a synced ring shows, until the buffer or the table is full. Returns EMPTY or FULL."""
    n = load32(k + NUM_SLOTS)
    ring = load64(k + RING)
    at = load32(ring + _HEAD)
    tail = load32(ring + _TAIL)
    if at >= n or tail >= n:
        return EMPTY
    left = distance(at, tail, n)
    count = load64(o + _COUNT)
    used = load64(o + _USED)
    align = load64(o + _ALIGN)
    state = EMPTY
    while left > 0:
        size, slots = measure(k, at, left)
        captured = min(size, load64(o + _SNAPLEN))
        start = used + load64(o + _BEFORE)
        end = start + captured
        end += (align - end % align) % align + load64(o + _AFTER)
        if size > 0:
            if end > load64(o + _CAPACITY) or count == load64(o + _ROWS):
                state = FULL
                break
            flags = (load64(load64(k + SLOTS) + at * SLOT_SIZE) >> 48) & 0xFFFF
            copy_packet(k, at, slots, load64(o + _BUFFER) + start, captured)
            row = load64(o + _TABLE) + count * _FOUND
            store64(row, start)
            store64(row + _CAPTURED, captured)
            store64(row + _LENGTH, size)
            store64(row + _STAMP, stamp)
            store64(row + _WAY, 2 if flags & _TXMON else 1)
            count += 1
            used = end
        at += slots
        if at >= n:
            at -= n
        left -= slots
    store64(o + _COUNT, count)
    store64(o + _USED, used)
    store32(ring + _CUR, at)
    store32(ring + _HEAD, at)
    return state


@kernel
def gather(o, batch, until):
    """Take packets from all rings of an :data:`order` at ``o``, in turn, until the order is filled or no more come.

    ``batch`` is the thread's scratch. While packets keep coming this stays, up to the time ``until`` (ns of
    CLOCK_MONOTONIC): coming back costs waiting for the GIL, and a ring is full in a millisecond. All packets that one
    sync shows get that sync's time, the ring's ts. Returns EMPTY, FULL, or the negative errno of a ring that cannot be
    synced, once the others are empty.
    """
    attempt = 0
    while True:
        before = load64(o + _COUNT)
        failed = 0
        for i in range(load64(o + _RINGS)):
            k = load64(load64(o + _KRINGS) + 8 * i)
            result = rxsync(k, batch, 1)
            if result != OK:
                if result < 0:
                    failed = result
                continue
            ring = load64(k + RING)
            stamp = load64(ring + _TS) * 1_000_000_000 + load64(ring + _TS + 8) * 1000
            if stamp <= 0:  # a ring that nobody has stamped
                stamp = clock_ns(CLOCK_REALTIME)
            state = gather_ring(k, o, stamp)
            rxsync(k, batch, 0)
            if state == FULL:
                return FULL
        attempt = attempt + 1 if load64(o + _COUNT) == before else 0
        if attempt > 0 and failed != 0:
            return failed
        if clock_ns(CLOCK_MONOTONIC_COARSE) >= until or (attempt > 0 and not relax(attempt)):
            return EMPTY

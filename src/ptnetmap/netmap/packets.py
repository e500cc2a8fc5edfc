# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Whole packets in and out of rings: what an application does between two syncs, in compiled batches."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import copy_bytes, load32, load64, store32, store64
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, RING, ROOM, SLOT_SIZE, SLOTS, after, distance

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_MOREFRAG = abi.NS_MOREFRAG

MAX_FRAGMENTS = abi.NETMAP_MAX_FRAGS


@piece
def space(k, head):
    """Slots between the user's ``head``, read once, and its tail; 0 if these make no sense."""
    n = load32(k + NUM_SLOTS)
    tail = load32(load64(k + RING) + _TAIL)
    if head >= n or tail >= n:
        return 0
    return distance(head, tail, n)


@piece
def set_head(k, head):
    """Release slots up to ``head``, and wait from there."""
    store32(load64(k + RING) + _CUR, head)
    store32(load64(k + RING) + _HEAD, head)


@kernel
def put_frames(k, addresses, lengths, first, last):
    """Copy frames ``[first, last)`` into a TX ring, without a sync; a frame longer than a buffer becomes a chain.

    ``addresses`` and ``lengths`` are addresses of int64 arrays. Returns the number of the first frame that was not
    put, for lack of room; -1, and nothing is put, if a slot names no buffer.
    """
    n = load32(k + NUM_SLOTS)
    buf_size = load32(k + BUF_SIZE)
    room = load32(k + ROOM)
    num_bufs = load32(k + NUM_BUFS)
    at = load32_acquire(load64(k + RING) + _HEAD)  # one snapshot: a plain load could be made twice
    left = space(k, at)
    frame = first
    while frame < last:
        source = load64(addresses + 8 * frame)
        length = load64(lengths + 8 * frame)
        fragments = max(1, (length + room - 1) // room)
        if fragments > left:
            break
        place = at
        for i in range(fragments):
            slot = load64(k + SLOTS) + place * SLOT_SIZE
            index = load32(slot)
            if index < 2 or index >= num_bufs:
                return -1
            size = min(length - i * room, room)
            copy_bytes(load64(k + BUFFERS) + index * buf_size, source + i * room, size)
            flags = _MOREFRAG if i + 1 < fragments else 0
            store32(slot + 4, size | (flags << 16))
            store64(slot + 8, 0)
            place = after(place, n)
        at = place
        left -= fragments
        frame += 1
    if frame > first:
        set_head(k, at)
    return frame


@kernel
def get_frames(k, out, capacity, lengths, limit):
    """Copy up to ``limit`` whole packets of an RX ring to ``out``, end to end, and release their slots, without a sync.

    ``lengths`` is the address of an int64 array. Empty packets are released and not reported; so are slots that the
    user has made unusable. Returns (packets, bytes still free, length of the next packet if it did not fit, else 0).
    """
    n = load32(k + NUM_SLOTS)
    buf_size = load32(k + BUF_SIZE)
    num_bufs = load32(k + NUM_BUFS)
    slots = load64(k + SLOTS)
    buffers = load64(k + BUFFERS)
    at = load32_acquire(load64(k + RING) + _HEAD)  # one snapshot: a plain load could be made twice
    left = space(k, at)
    packets = 0
    too_long = 0
    while left > 0 and packets < limit:
        place = at
        size = 0
        more = True
        taken = 0
        while more and taken < left:
            word = load64(slots + place * SLOT_SIZE)
            index = word & 0xFFFFFFFF
            length = (word >> 32) & 0xFFFF
            if 2 <= index < num_bufs and length <= buf_size:
                if size + length <= capacity:
                    copy_bytes(out + size, buffers + index * buf_size, length)
                size += length
            more = (word >> 48) & _MOREFRAG != 0
            place = after(place, n)
            taken += 1
        if size > capacity:
            too_long = size
            break
        at = place
        left -= taken
        if size > 0:
            store64(lengths + 8 * packets, size)
            out += size
            capacity -= size
            packets += 1
    set_head(k, at)
    return packets, capacity, too_long

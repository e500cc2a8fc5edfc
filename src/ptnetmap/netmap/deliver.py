# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Deliver: copy packets of a batch into leased slots of a netmap RX ring."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import (
    copy_bytes,
    copy_half_line,
    copy_line,
    load16,
    load32,
    load32_at,
    load64,
    load64_at,
    prefetch,
    store32,
    store32_at,
)
from ptnetmap.netmap.collect import ADDRESS, FIRST, FRAGMENTS_OF, LENGTH
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, SLOT_SIZE, SLOTS

_MOREFRAG = abi.NS_MOREFRAG
_LINE = 64
_HALF = 32
_AHEAD = 6


@piece
def copy_frame(destination, source, length):
    """Copy exactly ``length`` bytes, the last of them by a wide move that overlaps the one before.

    What follows a frame in a guest's memory is nobody else's business, and may be the end of the memory.
    """
    if length >= _LINE:
        last = length - _LINE
        done = 0
        while done < last:
            copy_line(destination + done, source + done)
            done += _LINE
        copy_line(destination + last, source + last)
    elif length >= _HALF:
        copy_half_line(destination, source)
        copy_half_line(destination + length - _HALF, source + length - _HALF)
    else:
        copy_bytes(destination, source, length)


@piece
def deliver_row(ring, batch, first, n, start, flags):
    """Copy ``n`` packets of one fragment each, from number ``first`` on, to ``n`` slots in a row. Returns (bytes, unusable).

    A frame's buffer is fetched some packets ahead: netmap's buffers are 2 KiB apart, so their first lines share few
    sets of the cache, and no hardware prefetcher follows.
    """
    slots = load64(ring + SLOTS) + start * SLOT_SIZE
    buffers = load64(ring + BUFFERS)
    buf_size = load32(ring + BUF_SIZE)
    num_bufs = load32(ring + NUM_BUFS)
    addresses = batch + ADDRESS + 8 * first
    lengths = batch + LENGTH + 4 * first
    octets = 0
    unusable = 0
    for i in range(n):
        index = load32_at(slots, i * SLOT_SIZE)
        length = load32_at(lengths, 4 * i)
        if index < 2 or index >= num_bufs or length > buf_size:
            length = 0
            unusable += 1
        destination = buffers + index * buf_size
        source = load64_at(addresses, 8 * i)
        prefetch(buffers + load32_at(slots, (i + _AHEAD) * SLOT_SIZE) * buf_size)
        prefetch(load64_at(addresses, 8 * (i + _AHEAD)))
        copy_frame(destination, source, length)
        store32_at(slots, i * SLOT_SIZE + 4, length | (flags << 16))
        octets += length
    return octets, unusable


@piece
def deliver_plain(ring, batch, packets, start, flags):
    """Copy the first ``packets`` packets of a plain batch to the slots from ``start`` on. Returns (bytes, unusable)."""
    row = min(packets, load32(ring + NUM_SLOTS) - start)
    octets, unusable = deliver_row(ring, batch, 0, row, start, flags)
    if row < packets:
        more, others = deliver_row(ring, batch, row, packets - row, 0, flags)
        octets += more
        unusable += others
    return octets, unusable


@piece
def deliver_slots(ring, batch, order, packets, start, granted, extra):
    """Copy up to ``packets`` packets to the slots ``[start, start + granted)`` of an RX ring.

    ``order`` is the address of their numbers, or 0 for the batch as it is. The first packet that does not fit ends the
    copy. Each slot's flags tell how many fragments its packet has (high byte) and whether more follow; ``extra`` is
    or-ed in. Returns (slots used, packets delivered, bytes, slots that the reader or the length made unusable).
    """
    n = load32(ring + NUM_SLOTS)
    slots = load64(ring + SLOTS)
    buffers = load64(ring + BUFFERS)
    buf_size = load32(ring + BUF_SIZE)
    num_bufs = load32(ring + NUM_BUFS)
    at = start
    used = 0
    octets = 0
    truncated = 0
    delivered = 0
    while delivered < packets:
        packet = delivered
        if order != 0:
            packet = load16(order + 2 * delivered)
        record = load16(batch + FIRST + 2 * packet)
        fragments = load16(batch + FRAGMENTS_OF + 2 * record)
        if used + fragments > granted:
            break
        for i in range(fragments):
            slot = slots + at * SLOT_SIZE
            index = load32(slot)
            length = load32(batch + LENGTH + 4 * (record + i))
            if index < 2 or index >= num_bufs or length > buf_size:
                length = 0
                truncated += 1
            else:
                copy_frame(buffers + index * buf_size, load64(batch + ADDRESS + 8 * (record + i)), length)
            flags = (fragments << 8) | extra
            if i + 1 < fragments:
                flags |= _MOREFRAG
            store32(slot + 4, length | (flags << 16))
            octets += length
            at += 1
            if at == n:
                at = 0
        used += fragments
        delivered += 1
    return used, delivered, octets, truncated

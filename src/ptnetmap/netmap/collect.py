# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Collect: read a run of slots of a netmap ring into a batch, each slot from one snapshot, each checked."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import pwrite
from ptnetmap.jit.memory import (
    load16,
    load32,
    load64,
    load64_at,
    store16,
    store16_at,
    store32,
    store32_at,
    store64,
    store64_at,
)
from ptnetmap.netmap.batch import MAX_FRAGMENTS, OFFSET
from ptnetmap.netmap.counters import BAD_INDIRECT, BAD_SLOT, FRAGMENTS
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    INDIRECT,
    NUM_BUFS,
    NUM_SLOTS,
    SLOT_SIZE,
    SLOTS,
)

ADDRESS = OFFSET["address"]
LENGTH = OFFSET["length"]
FLAGS = OFFSET["flags"]
FRAGMENTS_OF = OFFSET["fragments"]
SLOT = OFFSET["slot"]
FIRST = OFFSET["first"]
BLANK = OFFSET["blank"]
VNET = OFFSET["vnet"]
VNETS = OFFSET["vnets"]
VNET_SIZE = 16
_BOUNCE = OFFSET["bounce"]
_BOUNCE_FD = OFFSET["bounce_fd"]

DROPPED = 0x8000
"""In the flags of a packet that goes nowhere; the other bits are the counter of the reason."""

_BUF_CHANGED = abi.NS_BUF_CHANGED
_MOREFRAG = abi.NS_MOREFRAG
_INDIRECT = abi.NS_INDIRECT


@piece
def fetch_indirect(k, batch, record, pointer, length):
    """Copy the bytes that an NS_INDIRECT slot points to. Returns where they are now, or 0 if they cannot be read.

    The kernel does the reading (pwrite to a memfd that is mapped here), so that a wild pointer is an error and not a
    fault.
    """
    offset = record * load32(k + BUF_SIZE)
    if load32(k + INDIRECT) == 0:
        return 0
    if pwrite(load32(batch + _BOUNCE_FD), pointer, length, offset) != length:
        return 0
    return load64(batch + _BOUNCE) + offset


@piece
def collect_plain(k, start, n, batch, base):
    """Collect ``n`` slots in a row as ``n`` packets of one fragment each. Returns the or of their flags, negative if bad.

    One pass without branches, which LLVM turns into vector code. What it wrote counts only if nothing was odd.
    """
    slots = load64(k + SLOTS) + start * SLOT_SIZE
    buffers = load64(k + BUFFERS)
    buf_size = load32(k + BUF_SIZE)
    num_bufs = load32(k + NUM_BUFS)
    addresses = batch + ADDRESS + 8 * base
    lengths = batch + LENGTH + 4 * base
    flags = batch + FLAGS + 2 * base
    fragments = batch + FRAGMENTS_OF + 2 * base
    places = batch + SLOT + 2 * base
    firsts = batch + FIRST + 2 * base
    seen = 0
    bad = 0
    for i in range(n):
        word = load64_at(slots, i * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        store64_at(addresses, 8 * i, buffers + index * buf_size)
        store32_at(lengths, 4 * i, length)
        bad |= (index - 2) | (num_bufs - 1 - index) | (buf_size - length)
        seen |= (word >> 48) & 0xFFFF
    for i in range(n):
        store16_at(flags, 2 * i, 0)
        store16_at(fragments, 2 * i, 1)
    for i in range(n):
        store16_at(places, 2 * i, start + i)
        store16_at(firsts, 2 * i, base + i)
    return seen if bad >= 0 else -1


@piece
def clear_changed(k, start, n):
    """Clear NS_BUF_CHANGED in ``n`` slots in a row: buffers need no remapping here."""
    for i in range(start, start + n):
        at = load64(k + SLOTS) + i * SLOT_SIZE + 6
        store16(at, load16(at) & ~_BUF_CHANGED)


@piece
def collect_slots(k, start, end, batch, limit):
    """Collect packets from the slots ``[start, end)``. Returns (records, packets, index after the last packet taken).

    Stops after ``limit`` records (at most BATCH_PACKETS), at a packet boundary. A chain of NS_MOREFRAG that ``end``
    cuts off ends there. A packet with an unusable slot, or of too many fragments, stays in the batch as one empty
    record marked DROPPED.
    """
    n = load32(k + NUM_SLOTS)
    at = start
    records = 0
    while at != end and records < limit:
        row = min((end if end > at else n) - at, limit - records)
        seen = collect_plain(k, at, row, batch, records)
        if seen < 0 or seen & (_MOREFRAG | _INDIRECT) != 0:
            return collect_chains(k, at, end, batch, records, limit)
        if seen & _BUF_CHANGED:
            clear_changed(k, at, row)
        records += row
        at += row
        if at == n:
            at = 0
    return records, records, at


@piece
def collect_chains(k, start, end, batch, records, limit):
    """Collect what is not plain, slot by slot, behind the ``records`` plain packets that the batch has already."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    buffers = load64(k + BUFFERS)
    buf_size = load32(k + BUF_SIZE)
    num_bufs = load32(k + NUM_BUFS)
    at = start
    packets = records
    while at != end and records < limit:
        first = records
        reason = -1
        store16(batch + SLOT + 2 * packets, at)
        more = True
        while more:
            slot = slots + at * SLOT_SIZE
            word = load64(slot)
            index = word & 0xFFFFFFFF
            length = (word >> 32) & 0xFFFF
            flags = (word >> 48) & 0xFFFF
            address = buffers + index * buf_size
            if length > buf_size or ((index < 2 or index >= num_bufs) and flags & _INDIRECT == 0):
                reason = BAD_SLOT
            elif records - first >= MAX_FRAGMENTS:
                reason = FRAGMENTS
            elif flags & _INDIRECT:
                address = fetch_indirect(k, batch, records, load64(slot + 8), length)
                if address == 0:
                    reason = BAD_INDIRECT
            if flags & _BUF_CHANGED:
                store16(slot + 6, flags & ~_BUF_CHANGED)
            if reason == -1:
                store64(batch + ADDRESS + 8 * records, address)
                store32(batch + LENGTH + 4 * records, length)
                records += 1
            at += 1
            if at == n:
                at = 0
            more = flags & _MOREFRAG != 0 and at != end
        if reason != -1:
            records = first + 1
            store64(batch + ADDRESS + 8 * first, batch + BLANK)
            store32(batch + LENGTH + 4 * first, 0)
        store16(batch + FLAGS + 2 * first, 0 if reason == -1 else DROPPED | reason)
        store16(batch + FRAGMENTS_OF + 2 * first, records - first)
        store16(batch + FIRST + 2 * packets, first)
        packets += 1
    return records, packets, at

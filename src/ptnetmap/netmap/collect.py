# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Collect: read a run of slots of a netmap ring into a batch, each slot from one snapshot, each checked."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import pwrite
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.batch import BATCH_PACKETS, MAX_FRAGMENTS, OFFSET
from ptnetmap.netmap.counters import BAD_INDIRECT, BAD_SLOT, FRAGMENTS
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    INDIRECT,
    NUM_BUFS,
    NUM_SLOTS,
    SLOT_SIZE,
    SLOTS,
    count,
)

ADDRESS = OFFSET["address"]
LENGTH = OFFSET["length"]
FLAGS = OFFSET["flags"]
FRAGMENTS_OF = OFFSET["fragments"]
SLOT = OFFSET["slot"]
FIRST = OFFSET["first"]
BLANK = OFFSET["blank"]
_BOUNCE = OFFSET["bounce"]
_BOUNCE_FD = OFFSET["bounce_fd"]

DROPPED = 0xFFFF
"""Flags of a packet that collect has refused and counted."""

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
def collect_slots(k, start, end, batch):
    """Collect packets from the slots ``[start, end)``. Returns (records, packets, index after the last packet taken).

    Stops when the batch is full, at a packet boundary. A chain of NS_MOREFRAG that ``end`` cuts off ends there. A
    packet with an unusable slot, or of too many fragments, stays in the batch as one empty record marked DROPPED.
    """
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    buffers = load64(k + BUFFERS)
    buf_size = load32(k + BUF_SIZE)
    num_bufs = load32(k + NUM_BUFS)
    at = start
    records = 0
    packets = 0
    while at != end and records < BATCH_PACKETS:
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
            count(k, reason, 1)
            records = first + 1
            store64(batch + ADDRESS + 8 * first, batch + BLANK)
            store32(batch + LENGTH + 4 * first, 0)
        store16(batch + FLAGS + 2 * first, 0 if reason == -1 else DROPPED)
        store16(batch + FRAGMENTS_OF + 2 * first, records - first)
        store16(batch + FIRST + 2 * packets, first)
        packets += 1
    return records, packets, at

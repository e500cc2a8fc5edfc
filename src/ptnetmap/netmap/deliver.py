# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Deliver: copy packets of a batch into leased slots of a netmap RX ring."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import copy_bytes, copy_line, load16, load32, load64, store32
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import ADDRESS, FIRST, FRAGMENTS_OF, LENGTH
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, SLOT_SIZE, SLOTS

EXACT = OFFSET["exact"]
_MOREFRAG = abi.NS_MOREFRAG
_LINE = 64


@piece
def copy_frame(destination, source, length, exact):
    """Copy a fragment between buffers, in whole cache lines unless the source may end with its last byte.

    Buffers are multiples of 64 bytes, so up to 63 bytes after the fragment may be copied along with it.
    """
    if exact:
        copy_bytes(destination, source, length)
        return
    done = 0
    while done < length:
        copy_line(destination + done, source + done)
        done += _LINE


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
    exact = load32(batch + EXACT) != 0
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
                copy_frame(buffers + index * buf_size, load64(batch + ADDRESS + 8 * (record + i)), length, exact)
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

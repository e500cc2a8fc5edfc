# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Pipes: two rings that exchange slots, so that packets pass from one end to the other without being copied.

The TX ring of one end and the RX ring of the other have the same number of slots, and position i of both is one place:
a slot is in the reader's hands from the moment the sender publishes it until the reader gives it back at the same
position, with whatever buffer the reader put there. A full pipe therefore holds its sender back.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire, store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.counters import BAD_SLOT, BYTES, PACKETS, REINITS
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    COPY_MONITORS,
    HWCUR,
    HWTAIL,
    NUM_BUFS,
    NUM_SLOTS,
    PEER,
    PEER_SLOTS,
    PEER_TAIL,
    PEER_TAIL_AT,
    SLOT_SIZE,
    SLOTS,
    TOLD_AT,
    after,
    before,
    count,
    distance,
    slot_is_valid,
    wake_peer,
)
from ptnetmap.netmap.monitor import copy_to_monitors, swap_received, swap_transmitted

_MOREFRAG = abi.NS_MOREFRAG
_BUF_CHANGED = abi.NS_BUF_CHANGED
_FLAGS_AT = abi.slot.fields["flags"][1]


@piece
def copy_slots(destination, source, n, num_bufs, buf_size):
    """Copy ``n`` whole slots. Returns (all flags or-ed, negative if some slot is bad, packets ended, bytes).

    One pass without branches, which LLVM turns into vector code; what is rare is only noticed here.
    """
    flags = 0
    bad = 0
    packets = 0
    octets = 0
    for i in range(n):
        word = load64(source + i * SLOT_SIZE)
        pointer = load64(source + i * SLOT_SIZE + 8)
        store64(destination + i * SLOT_SIZE, word)
        store64(destination + i * SLOT_SIZE + 8, pointer)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        slot_flags = (word >> 48) & 0xFFFF
        bad |= (index - 2) | (num_bufs - 1 - index) | (buf_size - length)
        flags |= slot_flags
        packets += 1 - ((slot_flags & _MOREFRAG) >> 5)
        octets += length
    return flags, bad, packets, octets


@piece
def copy_slots_one_by_one(k, destination, source, n):
    """As :func:`copy_slots`, from one snapshot per slot, with bad slots made empty on both sides and counted."""
    packets = 0
    octets = 0
    flags = 0
    for i in range(n):
        word = load64(source + i * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        slot_flags = (word >> 48) & 0xFFFF
        if not slot_is_valid(k, index, length):
            count(k, BAD_SLOT, 1)
            length = 0
            kept = index if slot_is_valid(k, index, 0) else 0
            word = kept | (slot_flags << 48)
            store64(source + i * SLOT_SIZE, word)
        store64(destination + i * SLOT_SIZE, word)
        store64(destination + i * SLOT_SIZE + 8, load64(source + i * SLOT_SIZE + 8))
        flags |= slot_flags
        packets += 1 - ((slot_flags & _MOREFRAG) >> 5)
        octets += length
    return flags, packets, octets


@piece
def move_slots(k, start, end):
    """Copy the slots ``[start, end)`` of ring ``k`` to the same positions of its peer. Returns the flags seen."""
    n = load32(k + NUM_SLOTS)
    source = load64(k + SLOTS)
    destination = load64(k + PEER_SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    buf_size = load32(k + BUF_SIZE)
    flags = 0
    packets = 0
    octets = 0
    while start != end:
        stop = end if end > start else n
        at = start * SLOT_SIZE
        some, bad, ended, size = copy_slots(destination + at, source + at, stop - start, num_bufs, buf_size)
        if bad < 0:
            some, ended, size = copy_slots_one_by_one(k, destination + at, source + at, stop - start)
        flags |= some
        packets += ended
        octets += size
        start = stop if stop < n else 0
    count(k, PACKETS, packets)
    count(k, BYTES, octets)
    return flags


@piece
def clear_flag(k, start, end, flag):
    """Clear a flag in the slots ``[start, end)``."""
    n = load32(k + NUM_SLOTS)
    while start != end:
        at = load64(k + SLOTS) + start * SLOT_SIZE + _FLAGS_AT
        store16(at, load16(at) & ~flag)
        start = after(start, n)


@piece
def last_packet_end(k, start, end):
    """Index after the last whole packet in ``[start, end)``; ``start`` if there is none."""
    n = load32(k + NUM_SLOTS)
    while end != start:
        last = before(end, n)
        if load16(load64(k + SLOTS) + last * SLOT_SIZE + _FLAGS_AT) & _MOREFRAG == 0:
            return end
        end = last
    return start


@piece
def peer_index(k):
    """Where the other end says it is: between where it was and the slot before our hwcur. Anything else is ignored.

    The word lies in memory that the other end's process can write, so it is read once and checked.
    """
    n = load32(k + NUM_SLOTS)
    known = load32(k + HWTAIL)
    told = load32_acquire(load64(k + PEER_TAIL_AT))
    if told >= n or distance(known, told, n) > distance(known, before(load32(k + HWCUR), n), n):
        count(k, REINITS, 1)
        return known
    return told


@piece
def pipe_txsync(k, head, batch):
    """Hand the slots ``[hwcur, head)`` to the reader, and learn which ones it gave back.

    Only whole packets become visible. Publishing the index is the last store, so death before it changes nothing for
    the reader, and the slots can be copied again. ``peer_tail`` remembers what has been published.
    """
    returned = peer_index(k)
    n = load32(k + NUM_SLOTS)
    swap_transmitted(k, after(load32(k + HWTAIL), n), after(returned, n))
    store32(k + HWTAIL, returned)
    hwcur = load32(k + HWCUR)
    if head == hwcur:
        return
    flags = move_slots(k, hwcur, head)
    if flags & _BUF_CHANGED:
        clear_flag(k, hwcur, head, _BUF_CHANGED)
    store32(k + HWCUR, head)
    if load64(k + COPY_MONITORS) != 0:
        copy_to_monitors(k, hwcur, head, batch, True)
    published = load32(k + PEER_TAIL)
    end = head
    if flags & _MOREFRAG:
        end = last_packet_end(k, published, head)
    if end != published:
        peer = load64(k + PEER)
        if peer != 0 and load64(peer + COPY_MONITORS) != 0:
            copy_to_monitors(peer, published, end, batch, False)
        store32(k + PEER_TAIL, end)
        store32_release(load64(k + TOLD_AT), end)
        wake_peer(k)


@piece
def pipe_rxsync(k, head):
    """Give the slots ``[hwcur, head)`` back to the sender, and learn what it has published since."""
    store32(k + HWTAIL, peer_index(k))
    hwcur = load32(k + HWCUR)
    if head == hwcur:
        return
    swap_received(k, hwcur, head)
    move_slots(k, hwcur, head)
    store32(k + HWCUR, head)
    store32_release(load64(k + TOLD_AT), before(head, load32(k + NUM_SLOTS)))
    wake_peer(k)

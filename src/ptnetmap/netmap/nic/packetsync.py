# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A network interface's syncs by AF_PACKET: each frame is copied once, out of a TPACKET_V3 block or into a socket buffer.

Frames that the stack has left for the hardware are finished: VLAN tags are put back, and checksums completed.
"""

from __future__ import annotations

import errno as _errno

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import packet
from ptnetmap.abi import virtio as virtio_abi
from ptnetmap.jit.atomic import load32_acquire, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import errno, writev
from ptnetmap.jit.memory import load8, load16, load32, load64, store16_be, store32, store64
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.checksum import store_checksum, sum_bytes
from ptnetmap.netmap.counters import (
    BAD_SLOT,
    BYTES,
    FRAGMENTS,
    PACKETS,
    RECEIVED,
    RECEIVED_BYTES,
    TOO_LONG_FOR_XDP,
    TOO_SHORT,
    TRUNCATED,
)
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    COPY_MONITORS,
    HWCUR,
    HWTAIL,
    NUM_BUFS,
    NUM_SLOTS,
    SLOT_SIZE,
    SLOTS,
    after,
    before,
    count,
    distance,
)
from ptnetmap.netmap.monitor import copy_to_monitors, swap_received, swap_transmitted
from ptnetmap.netmap.nic.ring import (
    DOWN,
    FD,
    GIVEN,
    LEFT,
    MASK,
    NEXT,
    ROOM,
    SHIFT,
    TAKE_ENTRIES,
    TAKE_PRODUCER,
    WAITING,
)

_LINEAR = OFFSET["linear"]
_IOVEC = 16
_MOREFRAG = abi.NS_MOREFRAG
_BUF_CHANGED = abi.NS_BUF_CHANGED
_LONGEST_CHAIN = abi.NETMAP_MAX_FRAGS
_LEAST_BYTES = 14
_ADDRESSES = 12
_TAG = 4
_VLAN = 0x8100
_EAGAIN, _ENOBUFS, _ENETDOWN, _EINTR = _errno.EAGAIN, _errno.ENOBUFS, _errno.ENETDOWN, _errno.EINTR

_BLOCK = offsets(packet.tpacket_block_desc)
_STATUS, _COUNT, _FIRST = _BLOCK["block_status"], _BLOCK["num_pkts"], _BLOCK["offset_to_first_pkt"]
_HDR = offsets(packet.tpacket3_hdr)
_HDR_NEXT, _HDR_SNAPLEN, _HDR_LEN, _HDR_STATUS = _HDR["next_offset"], _HDR["snaplen"], _HDR["len"], _HDR["status"]
_HDR_MAC, _HDR_TCI, _HDR_TPID = _HDR["mac"], _HDR["vlan_tci"], _HDR["vlan_tpid"]
_KERNEL = packet.TP_STATUS_KERNEL
_VLAN_VALID, _TPID_VALID = packet.TP_STATUS_VLAN_VALID, packet.TP_STATUS_VLAN_TPID_VALID
_VNET = virtio_abi.virtio_net_hdr.itemsize
_CSUM_START = offsets(virtio_abi.virtio_net_hdr)["csum_start"]
_CSUM_OFFSET = offsets(virtio_abi.virtio_net_hdr)["csum_offset"]
_NEEDS_CSUM = virtio_abi.VIRTIO_NET_HDR_F_NEEDS_CSUM


@piece
def packet_txsync(k, x, head, batch):
    """Send the whole packets in the slots ``[hwcur, head)``, as far as the socket takes them now."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    size_of_buffer = load32(k + BUF_SIZE)
    room = load32(x + ROOM)
    iovecs = load64(batch + _LINEAR)
    first = load32(k + HWCUR)
    start = first
    at = start
    pieces = 0
    size = 0
    reason = 0
    packets = 0
    octets = 0
    waiting = 0
    while at != head and load32(x + DOWN) == 0:
        word = load64(slots + at * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        flags = (word >> 48) & 0xFFFF
        if flags & _BUF_CHANGED:
            store64(slots + at * SLOT_SIZE, word & ~(_BUF_CHANGED << 48))
        if index < 2 or index >= num_bufs:
            reason = BAD_SLOT
        elif length > room:
            reason = TOO_LONG_FOR_XDP
        elif length == 0:
            reason = TOO_SHORT
        else:
            store64(iovecs + _IOVEC * pieces, load64(k + BUFFERS) + index * size_of_buffer)
            store64(iovecs + _IOVEC * pieces + 8, length)
        pieces += 1
        size += length
        at = after(at, n)
        more = flags & _MOREFRAG != 0
        if more and pieces < _LONGEST_CHAIN:
            continue
        if reason == 0 and more:
            reason = FRAGMENTS
        if reason == 0 and size < _LEAST_BYTES:
            reason = TOO_SHORT
        if reason == 0:
            if writev(load32(x + FD), iovecs, pieces) >= 0:
                octets += size
            else:
                why = errno()
                if why in (_EAGAIN, _ENOBUFS, _EINTR):
                    waiting = 1
                    break
                if why == _ENETDOWN:
                    store32(x + DOWN, 1)
                    break
                reason = TOO_LONG_FOR_XDP
        if reason != 0:
            count(k, reason, 1)
        packets += 1
        start = at
        pieces = 0
        size = 0
        reason = 0
    count(k, PACKETS, packets)
    count(k, BYTES, octets)
    store32(x + WAITING, waiting)
    if start != first:
        store32(k + HWCUR, start)
        if load64(k + COPY_MONITORS) != 0:
            copy_to_monitors(k, first, start, batch, True)
        swap_transmitted(k, first, start)
        store32(k + HWTAIL, before(start, n))


@piece
def _complete_checksum(frame, length):
    """Write the checksum that the virtio-net header before a frame says is missing; one that lies is left alone."""
    header = frame - _VNET
    if load8(header) & _NEEDS_CSUM == 0:
        return
    start = load16(header + _CSUM_START)
    place = start + load16(header + _CSUM_OFFSET)
    if start < length and place + 2 <= length:
        store_checksum(frame + place, sum_bytes(frame + start, length - start))


@piece
def _copy_out(k, at, frame, length, tag, room):
    """Copy a frame into the slots from ``at`` on, ``tag`` behind its addresses unless that is 0. Returns the slot after it."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    if tag != 0:
        # The tag goes into the block itself: the addresses move to where the virtio-net header was.
        copy_frame(frame - _TAG, frame, 8)
        copy_frame(frame - _TAG + 8, frame + 8, 4)
        store16_be(frame + _ADDRESSES - _TAG, tag >> 16)
        store16_be(frame + _ADDRESSES - _TAG + 2, tag & 0xFFFF)
        frame -= _TAG
        length += _TAG
    while True:
        part = min(length, room)
        slot = slots + at * SLOT_SIZE
        index = load32(slot)
        if index < 2 or index >= load32(k + NUM_BUFS):
            count(k, TRUNCATED, 1)
            store64(slot, index)
        else:
            copy_frame(load64(k + BUFFERS) + index * load32(k + BUF_SIZE), frame, part)
            store64(slot, index | (part << 32) | ((_MOREFRAG if part < length else 0) << 48))
        store64(slot + 8, 0)
        at = after(at, n)
        frame += part
        length -= part
        if length == 0:
            return at


@piece
def _take_packets(k, x):
    """Copy the frames that have come into the slots from hwtail on. Returns the new hwtail."""
    n = load32(k + NUM_SLOTS)
    room = load32(x + ROOM)
    end = before(load32(k + HWCUR), n)
    at = load32(k + HWTAIL)
    packets = 0
    octets = 0
    full = False
    while not full:
        status = load64(x + TAKE_PRODUCER)
        if load32_acquire(status) == _KERNEL:
            break
        block = status - _STATUS
        left = load32(x + LEFT)
        header = load64(x + NEXT)
        if header == 0:
            left = load32(block + _COUNT)
            header = block + load32(block + _FIRST)
        while left > 0:
            frame = header + load16(header + _HDR_MAC)
            length = load32(header + _HDR_SNAPLEN)
            tag = 0
            if load32(header + _HDR_STATUS) & _VLAN_VALID:
                tpid = load16(header + _HDR_TPID) if load32(header + _HDR_STATUS) & _TPID_VALID else _VLAN
                tag = (tpid << 16) | (load32(header + _HDR_TCI) & 0xFFFF)
            whole = length + (_TAG if tag != 0 else 0)
            slots = (whole + room - 1) // room
            if length < load32(header + _HDR_LEN) or length < _LEAST_BYTES or slots >= n:
                count(k, TRUNCATED, 1)
            elif slots > distance(at, end, n):
                full = True
                break
            else:
                _complete_checksum(frame, length)
                at = _copy_out(k, at, frame, length, tag, room)
                packets += 1
                octets += whole
            left -= 1
            header += load32(header + _HDR_NEXT)
        store32(x + LEFT, left)
        store64(x + NEXT, header)
        if left == 0:
            store64(x + NEXT, 0)
            number = (load32(x + GIVEN) + 1) & load32(x + MASK)
            store32(x + GIVEN, number)
            store64(x + TAKE_PRODUCER, load64(x + TAKE_ENTRIES) + (number << load32(x + SHIFT)) + _STATUS)
            store32_release(status, _KERNEL)
    count(k, RECEIVED, packets)
    count(k, RECEIVED_BYTES, octets)
    return at


@piece
def packet_rxsync(k, x, head, batch):
    """Take back the slots ``[hwcur, head)``, and show what has come."""
    hwcur = load32(k + HWCUR)
    if head != hwcur:
        swap_received(k, hwcur, head)
        count(k, PACKETS, distance(hwcur, head, load32(k + NUM_SLOTS)))
        store32(k + HWCUR, head)
    hwtail = load32(k + HWTAIL)
    reached = _take_packets(k, x)
    if reached != hwtail:
        store32(k + HWTAIL, reached)
        if load64(k + COPY_MONITORS) != 0:
            copy_to_monitors(k, hwtail, reached, batch, False)

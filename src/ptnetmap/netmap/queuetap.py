# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A guest's virtqueues joined to a tap device: one system call a packet, which is what such a device costs anybody.

The device's packets have virtio-net headers of their own, so what is unfinished passes as it is. The kernel copies long
packets from the guest's buffers; a short one and its header are put together first, which costs less than a second piece
costs the kernel. Received packets are read into memory of our own, one right after the other, and copied from there.
"""

from __future__ import annotations

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import read, write, writev
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import ADDRESS, DROPPED, FIRST, FLAGS, FRAGMENTS_OF, LENGTH, VNET, VNET_SIZE, VNETS
from ptnetmap.netmap.counters import BAD_HEADER, BYTES, MISSED, NO_READER, PACKETS, RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.guestqueue import interrupt_driver
from ptnetmap.netmap.kring import PEER, RING, count
from ptnetmap.netmap.queuejoin import joint
from ptnetmap.netmap.virtqueue import (
    collect_virtqueue,
    complete_virtqueue,
    deliver_virtqueue,
    queue_room,
)
from ptnetmap.netmap.vnet import HEADER

_TAP = offsets(joint)["tap"]
_MFS = offsets(joint)["mfs"]
_LINEAR = OFFSET["linear"]
_BOUNCE = OFFSET["bounce"]
_IOVEC = 16
_NO_TAP = 0xFFFFFFFF
_BURST = 64
_PACKET_BYTES = 1 << 17  # more than the longest packet and its header
_SHORT = 2048
_LINE = 64

DRY = 0
MOVED = 1
STUCK = 2


@piece
def is_on_tap(k):
    """Whether a queue is joined to a tap device."""
    join = load64(k + PEER)
    return join != 0 and load32(join + _TAP) != _NO_TAP


@piece
def write_packet(fd, batch, packet, record):
    """Write one collected packet behind its header. Returns the bytes written, or -1."""
    header = batch + VNET + VNET_SIZE * packet
    fragments = load16(batch + FRAGMENTS_OF + 2 * record)
    length = 0
    for i in range(fragments):
        length += load32(batch + LENGTH + 4 * (record + i))
    if length <= _SHORT:
        place = load64(batch + _BOUNCE)
        store64(place, load64(header))
        store32(place + 8, load32(header + 8))
        at = place + HEADER
        for i in range(fragments):
            octets = load32(batch + LENGTH + 4 * (record + i))
            copy_frame(at, load64(batch + ADDRESS + 8 * (record + i)), octets)
            at += octets
        return write(fd, place, HEADER + length)
    pieces = load64(batch + _LINEAR)
    store64(pieces, header)
    store64(pieces + 8, HEADER)
    for i in range(fragments):
        at = pieces + _IOVEC * (i + 1)
        store64(at, load64(batch + ADDRESS + 8 * (record + i)))
        store64(at + 8, load32(batch + LENGTH + 4 * (record + i)))
    return writev(fd, pieces, fragments + 1)


@piece
def write_tap(k, batch):
    """Write what the driver offers to the device. Returns DRY or MOVED."""
    queue = load64(k + RING)
    fd = load32(load64(k + PEER) + _TAP)
    _, packets = collect_virtqueue(queue, batch, _BURST)
    if packets == 0:
        return DRY
    octets = 0
    lost = 0
    lies = 0
    for packet in range(packets):
        record = load16(batch + FIRST + 2 * packet)
        if load16(batch + FLAGS + 2 * record) & DROPPED:
            lies += 1
            continue
        written = write_packet(fd, batch, packet, record)
        if written < 0:
            lost += 1
        else:
            octets += written - HEADER
    count(k, PACKETS, packets)
    count(k, BYTES, octets)
    count(k, NO_READER, lost)  # the interface is down
    count(k, BAD_HEADER, lies)
    complete_virtqueue(queue, batch, packets)
    interrupt_driver(k, queue)
    return MOVED


@piece
def read_tap(k, batch):
    """Give the driver what the device has, as far as it offers chains. Returns DRY, MOVED, or STUCK if there is no more."""
    queue = load64(k + RING)
    join = load64(k + PEER)
    room = queue_room(queue, _BURST)
    packets = 0
    place = load64(batch + _BOUNCE)
    drained = False
    while packets < room and not drained:
        n = read(load32(join + _TAP), place, _PACKET_BYTES)
        if n <= HEADER:
            drained = n < 0
            if not drained:
                break
            continue
        store64(batch + ADDRESS + 8 * packets, place)
        store32(batch + LENGTH + 4 * packets, n)
        store16(batch + FRAGMENTS_OF + 2 * packets, 1)
        store16(batch + FIRST + 2 * packets, packets)
        store16(batch + FLAGS + 2 * packets, 0)
        packets += 1
        place += (n + _LINE - 1) & -_LINE
    if packets > 0:
        store32(batch + VNETS, 0)
        _, delivered, octets = deliver_virtqueue(queue, batch, 0, packets, HEADER, load32(join + _MFS))
        count(k, RECEIVED, delivered)
        count(k, RECEIVED_BYTES, octets)
        count(k, MISSED, packets - delivered)
        interrupt_driver(k, queue)
        return MOVED
    return STUCK if drained else DRY

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Tap devices: a guest's virtqueues joined to one, and one as a port of a switch. A system call a packet, as for anybody.

The device's packets have virtio-net headers of their own, so what is unfinished passes as it is. The kernel copies long
packets from the guest's buffers; a short one and its header are put together first, which costs less than a second piece
costs the kernel. Received packets are read into memory of our own, one right after the other, and copied from there.
"""

from __future__ import annotations

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import read
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import ADDRESS, DROPPED, FIRST, FLAGS, FRAGMENTS_OF, LENGTH, VNET, VNET_SIZE, VNETS
from ptnetmap.netmap.counters import BAD_HEADER, BYTES, MISSED, NO_READER, NO_ROOM, PACKETS, RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.forward import forward
from ptnetmap.netmap.guestqueue import interrupt_driver
from ptnetmap.netmap.joint import TAP, joint
from ptnetmap.netmap.kring import INGRESS, PEER, RING, count
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_room
from ptnetmap.netmap.tapwrite import write_packet
from ptnetmap.netmap.vale import forward_pending
from ptnetmap.netmap.vnet import HEADER, lift_header

_MFS = offsets(joint)["mfs"]
_BOUNCE = OFFSET["bounce"]
_PENDING_COUNT = OFFSET["pending_count"]
_BURST = 64
_PACKET_BYTES = 1 << 17  # more than the longest packet and its header
_LINE = 64

DRY = 0
MOVED = 1
STUCK = 2


@piece
def write_tap(k, batch):
    """Write what the driver offers to the device. Returns DRY or MOVED."""
    queue = load64(k + RING)
    fd = load32(load64(k + PEER) + TAP)
    _, packets = collect_virtqueue(queue, batch, _BURST)
    if packets == 0:
        return DRY
    octets = 0
    lost = 0
    lies = 0
    for packet in range(packets):
        record = load16(batch + FIRST + 2 * packet)
        header = batch + VNET + VNET_SIZE * packet
        if load16(batch + FLAGS + 2 * record) & DROPPED:
            lies += 1
            continue
        written = write_packet(fd, batch, header, record, 0)
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
def read_packets(fd, batch, room):
    """Read up to ``room`` packets, headers and all, to records of a batch. Returns (packets, whether there are no more)."""
    packets = 0
    place = load64(batch + _BOUNCE)
    while packets < room:
        n = read(fd, place, _PACKET_BYTES)
        if n < 0:
            return packets, True
        if n <= HEADER:
            continue
        store64(batch + ADDRESS + 8 * packets, place)
        store32(batch + LENGTH + 4 * packets, n)
        store16(batch + FRAGMENTS_OF + 2 * packets, 1)
        store16(batch + FIRST + 2 * packets, packets)
        store16(batch + FLAGS + 2 * packets, 0)
        packets += 1
        place += (n + _LINE - 1) & -_LINE
    return packets, False


@piece
def read_tap(k, batch):
    """Give the driver what the device has, as far as it offers chains. Returns DRY, MOVED, or STUCK if there is no more."""
    queue = load64(k + RING)
    join = load64(k + PEER)
    packets, drained = read_packets(load32(join + TAP), batch, queue_room(queue, _BURST))
    if packets > 0:
        store32(batch + VNETS, 0)
        _, delivered, octets = deliver_virtqueue(queue, batch, 0, packets, HEADER, load32(join + _MFS))
        count(k, RECEIVED, delivered)
        count(k, RECEIVED_BYTES, octets)
        count(k, MISSED, packets - delivered)
        interrupt_driver(k, queue)
        return MOVED
    return STUCK if drained else DRY


@piece
def forward_tap(k, batch):
    """Forward what the device has, on the switch that it is a port of. Returns MOVED, or STUCK if there is no more.

    What finds no room in a lossless port is dropped: a device cannot take a packet back.
    """
    packets, drained = read_packets(load32(load64(k + PEER) + TAP), batch, _BURST)
    if packets == 0:
        return STUCK if drained else DRY
    store32(batch + VNETS, 0)
    octets = 0
    for packet in range(packets):
        lift_header(batch, packet, packet, 1, load32(batch + LENGTH + 4 * packet), HEADER)
        octets += load32(batch + LENGTH + 4 * packet)
    taken = forward(load64(k + INGRESS), batch, packets, packets)
    count(k, PACKETS, packets)
    count(k, BYTES, octets)
    count(k, NO_ROOM, packets - taken)
    if load32(batch + _PENDING_COUNT) != 0:
        forward_pending(batch)
    return MOVED

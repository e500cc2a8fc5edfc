# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A guest's virtqueues joined to the rings of a port that is no switch's: a pipe, or a port of another netmapd.

The kthread is both the device of the queue and the user of the ring. Packets are copied once, from one into the other;
what finds no room stays where it is.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import load32_acquire, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store16, store32
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import SLOT, VNETS, collect_slots
from ptnetmap.netmap.convert import deliver_converted, header_length
from ptnetmap.netmap.counters import BAD_HEADER, BYTES, MISSED, PACKETS, RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.deliver import deliver_slots
from ptnetmap.netmap.guestqueue import interrupt_driver
from ptnetmap.netmap.joint import joint
from ptnetmap.netmap.kring import (
    COUNTERS_AT,
    CUR_AT,
    HEAD_AT,
    HWTAIL,
    NUM_SLOTS,
    PEER,
    PEER_TAIL_AT,
    RING,
    TAIL_AT,
    count,
    distance,
)
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_available, queue_suppress_kicks
from ptnetmap.netmap.sync import quiet, rxsync, txsync

_RING_AT = offsets(joint)["ring"]
_MFS = offsets(joint)["mfs"]
_HEADER = offsets(joint)["header"]
_ORDER = OFFSET["order"]
_DISCARD = OFFSET["discard"]
_BURST = 256

DRY = 0
MOVED = 1


@piece
def joined_ring(k):
    """The ring that a queue is joined to."""
    return load64(load64(k + PEER) + _RING_AT)


@piece
def waiting(ring):
    """Slots between the user's head and tail: space to send, or packets to read."""
    return distance(load32(load64(ring + HEAD_AT)), load32(load64(ring + TAIL_AT)), load32(ring + NUM_SLOTS))


@piece
def may_move(ring):
    """Whether the ring has slots for its user, or a sync would find some."""
    return waiting(ring) > 0 or load32_acquire(load64(ring + PEER_TAIL_AT)) != load32(ring + HWTAIL)


@piece
def step(ring, head):
    """Release the slots before ``head``, as the ring's user."""
    store32(load64(ring + CUR_AT), head)
    store32_release(load64(ring + HEAD_AT), head)


@piece
def joined_out_has_news(k):
    """Whether there is something to send, and room for it."""
    return queue_available(load64(k + RING)) > 0 and may_move(joined_ring(k))


@piece
def joined_in_has_news(k):
    """Whether there is something to receive, and a chain for it."""
    return may_move(joined_ring(k)) and queue_available(load64(k + RING)) > 0


@piece
def ask_joined_for_kicks(k, batch, on, sends):
    """Ask the driver, and who is at the other side of the ring, for kicks; or the driver not to kick."""
    queue_suppress_kicks(load64(k + RING), not on)
    if on:
        ring = joined_ring(k)
        quiet(ring, batch + _DISCARD)
        if sends:
            txsync(ring, batch)
        else:
            rxsync(ring, batch, 0)


@piece
def put_packets(k, ring, batch, packets, head, space):
    """Copy the collected packets to the ring's slots. Returns (slots, packets done with)."""
    join = load64(k + PEER)
    if load32(batch + VNETS) == 0 and load32(join + _HEADER) == 0:
        used, done, _, _ = deliver_slots(ring, batch, 0, packets, head, space, 0)
        return used, done
    for i in range(packets):
        store16(batch + _ORDER + 2 * i, i)
    used, done, _, _, _ = deliver_converted(
        ring,
        batch,
        batch + _ORDER,
        packets,
        head,
        space,
        header_length(batch, 0),
        load32(join + _HEADER),
        load32(join + _MFS),
        load64(k + COUNTERS_AT) + BAD_HEADER,
    )
    return used, done


@piece
def serve_joined_out(k, batch):
    """Send what the driver offers, as far as the ring has room. Returns DRY or MOVED."""
    ring = joined_ring(k)
    queue = load64(k + RING)
    n = load32(ring + NUM_SLOTS)
    if waiting(ring) < _BURST:
        txsync(ring, batch)
    space = waiting(ring)
    if space == 0:
        return DRY
    _, packets = collect_virtqueue(queue, batch, min(space, _BURST))
    if packets == 0:
        return DRY
    head = load32(load64(ring + HEAD_AT))
    used, done = put_packets(k, ring, batch, packets, head, space)
    head += used
    step(ring, head if head < n else head - n)
    count(k, PACKETS, done)
    complete_virtqueue(queue, batch, done)
    txsync(ring, batch)
    if done == 0:
        return DRY
    interrupt_driver(k, queue)
    return MOVED


@piece
def serve_joined_in(k, batch):
    """Give the driver what has come, as far as it offers chains. Returns DRY or MOVED."""
    ring = joined_ring(k)
    queue = load64(k + RING)
    join = load64(k + PEER)
    rxsync(ring, batch, 0)
    head = load32(load64(ring + HEAD_AT))
    tail = load32(load64(ring + TAIL_AT))
    if head == tail:
        return DRY
    store32(batch + VNETS, 0)
    _, packets, stop = collect_slots(ring, head, tail, batch, _BURST)
    done, delivered, octets = deliver_virtqueue(queue, batch, 0, packets, load32(join + _HEADER), load32(join + _MFS))
    if done < packets:
        stop = load16(batch + SLOT + 2 * done)
    count(k, RECEIVED, delivered)
    count(k, RECEIVED_BYTES, octets)
    count(k, MISSED, done - delivered)
    count(k, BYTES, octets)
    if done > 0:
        step(ring, stop)
        rxsync(ring, batch, 0)
        interrupt_driver(k, queue)
        return MOVED
    return DRY

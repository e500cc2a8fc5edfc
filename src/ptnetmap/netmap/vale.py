# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A VALE port's syncs: the sender's thread forwards what it sends; the reader's takes note of what has arrived."""

from __future__ import annotations

from ptnetmap.jit.atomic import fence, load32_acquire, load64_acquire, store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load32_at, load64, store32
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import FIRST, LENGTH, SLOT, VNETS, collect_slots
from ptnetmap.netmap.counters import BYTES, PACKETS
from ptnetmap.netmap.forward import announce, forward
from ptnetmap.netmap.kring import (
    BURST,
    COPY_MONITORS,
    HELD,
    HWCUR,
    HWTAIL,
    INGRESS,
    LOSSLESS,
    NUM_SLOTS,
    PATCH,
    PEER_TAIL,
    STATE,
    STATE_ON,
    before,
    count,
    distance,
    enter,
    leave,
)
from ptnetmap.netmap.monitor import fill_monitors, swap_received, swap_transmitted
from ptnetmap.netmap.view import INGRESS as INGRESS_AT
from ptnetmap.netmap.view import VIEW

_VIEW_AT = INGRESS_AT["view_at"]
_SENDERS = VIEW["senders"]
_SENDER_COUNT = VIEW["sender_count"]
_PENDING = OFFSET["pending"]
_PENDING_COUNT = OFFSET["pending_count"]
_MAX_HOPS = 256
_LEAST_BURST = 32
_MOST_BURST = 256


@piece
def batch_bytes(batch, records):
    """Sum of the lengths of the first ``records`` fragments."""
    octets = 0
    lengths = batch + LENGTH
    for i in range(records):
        octets += load32_at(lengths, 4 * i)
    return octets


@piece
def forward_slots(k, ingress, start, end, batch):
    """Collect and forward the packets in the slots ``[start, end)``. Returns the index after the last one consumed."""
    store32(batch + VNETS, 0)
    burst = max(load32(k + BURST), _LEAST_BURST)
    while start != end:
        records, packets, stop = collect_slots(k, start, end, batch, burst)
        consumed = forward(ingress, batch, records, packets)
        if consumed < packets:
            records = load16(batch + FIRST + 2 * consumed)
        count(k, PACKETS, consumed)
        count(k, BYTES, batch_bytes(batch, records))
        if load64(k + COPY_MONITORS) != 0 and consumed > 0:
            fill_monitors(load64(k + COPY_MONITORS), batch, 0, consumed, records, True)
        if consumed < packets:
            # What was looked up in vain is looked up again: take less until the destination has caught up.
            store32(k + BURST, min(burst, consumed))
            return load16(batch + SLOT + 2 * consumed)
        burst = min(2 * burst, _MOST_BURST)
        start = stop
    store32(k + BURST, burst)
    return end


@piece
def vale_txsync(k, head, batch):
    """Forward the slots ``[hwcur, head)``. All of them come back at once, but for packets a lossless port cannot take."""
    hwcur = load32(k + HWCUR)
    reached = forward_slots(k, load64(k + INGRESS), hwcur, head, batch)
    swap_transmitted(k, hwcur, reached)
    store32(k + HWCUR, reached)
    store32(k + HWTAIL, before(reached, load32(k + NUM_SLOTS)))


@piece
def wake_senders(k, batch):
    """Wake the senders that wait because this lossless ring was full; wrapped rings among them are forwarded."""
    view = load64_acquire(load64(load64(k + INGRESS) + _VIEW_AT))
    if view == 0:
        return
    senders = load64(view + _SENDERS)
    for i in range(load32(view + _SENDER_COUNT)):
        announce(load64(senders + 8 * i), batch)


@piece
def vale_rxsync(k, head, batch):
    """Release the slots ``[hwcur, head)`` to the senders, and learn what has arrived."""
    hwcur = load32(k + HWCUR)
    n = load32(k + NUM_SLOTS)
    if head != hwcur:
        swap_received(k, hwcur, head)
        count(k, PACKETS, distance(hwcur, head, n))
        store32_release(k + HWCUR, head)
        if load32(k + LOSSLESS) != 0:
            fence()
            if load32_acquire(k + HELD) != 0:
                store32(k + HELD, 0)
                wake_senders(k, batch)
    store32(k + HWTAIL, load32_acquire(k + PEER_TAIL))


@piece
def forward_patched(ring, batch):
    """Forward what has arrived on a wrapped port's RX ring into the port's other switch, until there is no more.

    The caller is inside a ring of its own, whose epoch keeps this one from going away.
    """
    while load32_acquire(ring + PEER_TAIL) != load32(ring + HWCUR):
        if not enter(ring):
            return  # whoever is inside looks again after leaving
        ingress = load64(ring + PATCH)
        if ingress == 0 or load32(ring + STATE) != STATE_ON:
            leave(ring)
            return
        before_all = load32(ring + HWCUR)
        reached = forward_slots(ring, ingress, before_all, load32_acquire(ring + PEER_TAIL), batch)
        store32_release(ring + HWCUR, reached)
        store32(ring + HWTAIL, load32_acquire(ring + PEER_TAIL))
        leave(ring)
        fence()
        if reached == before_all:
            return


@piece
def forward_pending(batch):
    """Carry packets on through ports that join two switches, a bounded number of times: a loop of switches ends.

    Runs inside the ring whose sync it belongs to, so that no change of a switch is completed meanwhile.
    """
    hops = 0
    while load32(batch + _PENDING_COUNT) > 0:
        n = load32(batch + _PENDING_COUNT) - 1
        store32(batch + _PENDING_COUNT, n)
        if hops < _MAX_HOPS:
            forward_patched(load64(batch + _PENDING + 8 * n), batch)
        hops += 1

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Monitors: rings that see what passes through another ring, by copy or by exchange of buffers.

A *copy* monitor is one more destination of each frame: it has memory of its own and sees a frame as it is sent or as
it arrives. A *zero-copy* monitor shares the memory of the ring it watches, and gets a frame's buffer after the ring's
owner is done with it, in exchange for an unused one. Either loses frames, and only its own, when its ring is full.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire, store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store16, store32
from ptnetmap.netmap.batch import BATCH_PACKETS
from ptnetmap.netmap.collect import collect_slots
from ptnetmap.netmap.counters import MISSED, RECEIVED, RECEIVED_BYTES, TRUNCATED
from ptnetmap.netmap.deliver import deliver_slots
from ptnetmap.netmap.kring import (
    COPY_MONITORS,
    HWCUR,
    HWTAIL,
    LOCK,
    NUM_BUFS,
    NUM_SLOTS,
    PEER_TAIL,
    SLOT_SIZE,
    SLOTS,
    STATE,
    STATE_ON,
    SWAP_MONITOR,
    after,
    count,
    count_shared,
    wake,
)
from ptnetmap.netmap.lease import lock, settle_lease, take_lease, unlock

_TXMON = abi.NS_TXMON
_BUF_CHANGED = abi.NS_BUF_CHANGED
_NOT_FROM_TX = ~(_TXMON | _BUF_CHANGED)


@piece
def fill_monitors(monitors, batch, order, packets, records, transmitted):
    """Deliver packets of a batch, of ``records`` fragments at the most, to each monitor ring of a list."""
    extra = _TXMON if transmitted else 0
    for i in range(load64(monitors)):
        ring = load64(monitors + 8 + 8 * i)
        if load32(ring + STATE) != STATE_ON:
            continue
        start, granted, lease, _ = take_lease(ring, records)
        delivered = 0
        if granted > 0:
            used, delivered, octets, truncated = deliver_slots(ring, batch, order, packets, start, granted, extra)
            if settle_lease(ring, start, granted, lease, used, delivered, octets):
                wake(ring)
            count_shared(ring, TRUNCATED, truncated)
        count_shared(ring, MISSED, packets - delivered)


@piece
def copy_to_monitors(k, start, end, batch, transmitted):
    """Copy the frames in the slots ``[start, end)`` of ring ``k`` to its copy monitors."""
    while start != end:
        records, packets, start = collect_slots(k, start, end, batch, BATCH_PACKETS)
        fill_monitors(load64(k + COPY_MONITORS), batch, 0, packets, records, transmitted)


@piece
def swap_slot(ring, slot, num_bufs, keep, mark):
    """Exchange a consumed slot's buffer with the next free one of a zero-copy monitor's ring, which is locked."""
    tail = load32(ring + PEER_TAIL)
    following = after(tail, load32(ring + NUM_SLOTS))
    if following == load32_acquire(ring + HWCUR):
        count_shared(ring, MISSED, 1)
        return
    place = load64(ring + SLOTS) + tail * SLOT_SIZE
    theirs = load32(place)
    ours = load32(slot)
    length = load16(slot + 4)
    if theirs < 2 or theirs >= num_bufs or ours < 2 or ours >= num_bufs:
        count_shared(ring, TRUNCATED, 1)
        return
    flags = load16(slot + 6)
    store32(place, ours)
    store32(place + 4, length | (((flags & keep) | mark) << 16))
    store32(slot, theirs)
    store16(slot + 6, flags | _BUF_CHANGED)
    count(ring, RECEIVED, 1)
    count(ring, RECEIVED_BYTES, length)
    store32_release(ring + PEER_TAIL, following)


@piece
def swap_with_monitor(k, start, end, keep, mark):
    """Exchange the buffers of the consumed slots ``[start, end)`` of ring ``k`` with its zero-copy monitor.

    The monitor's slots get the flags that ``keep`` selects, and ``mark``. A monitor has one RX ring for both directions
    of what it watches, hence the lock; only numbers move under it.
    """
    ring = load64(k + SWAP_MONITOR)
    if load32(ring + STATE) != STATE_ON:
        return
    n = load32(k + NUM_SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    lock(ring + LOCK)
    while start != end:
        swap_slot(ring, load64(k + SLOTS) + start * SLOT_SIZE, num_bufs, keep, mark)
        start = after(start, n)
    unlock(ring + LOCK)
    wake(ring)


@piece
def swap_transmitted(k, start, end):
    """Show the sent slots ``[start, end)`` of a TX ring to its zero-copy monitor, in exchange for unused buffers."""
    if load64(k + SWAP_MONITOR) != 0:
        swap_with_monitor(k, start, end, _NOT_FROM_TX, _TXMON)


@piece
def swap_received(k, start, end):
    """Show the released slots ``[start, end)`` of an RX ring to its zero-copy monitor."""
    if load64(k + SWAP_MONITOR) != 0:
        swap_with_monitor(k, start, end, _NOT_FROM_TX, 0)


@piece
def monitor_rxsync(k, head):
    """Release the slots ``[hwcur, head)`` of a monitor's ring, on to the next zero-copy monitor of a chain if any."""
    hwcur = load32(k + HWCUR)
    if load64(k + SWAP_MONITOR) != 0:
        swap_with_monitor(k, hwcur, head, ~_BUF_CHANGED, 0)
    store32_release(k + HWCUR, head)
    store32(k + HWTAIL, load32_acquire(k + PEER_TAIL))

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A guest's receive queue, or a tap device, as a destination of a switch.

Such a port has krings like any other; what they stand for is a virtqueue in the guest's memory, whose address is where a
netmap_ring's would be. There are no leases in a virtqueue: senders take turns, each for the time of its copies.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import write
from ptnetmap.jit.memory import load32, load64, store64
from ptnetmap.netmap.counters import MISSED, RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.joint import is_taps_own
from ptnetmap.netmap.kring import HELD, LOCK, ONE, RING, SERVICE, count, count_shared
from ptnetmap.netmap.lease import lock, unlock
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_room, queue_suppress_kicks, queue_wants_interrupt
from ptnetmap.netmap.service import SERVICE as SERVICE_AT
from ptnetmap.netmap.tapwrite import deliver_to_tap

_IRQFD = SERVICE_AT["irqfd"]
_IRQS = SERVICE_AT["irqs"]
_NOBODY = 0xFFFFFFFF


@piece
def interrupt_driver(ring, queue):
    """Interrupt the driver if it wants to know of what was published in its queue; for whoever has the queue to himself."""
    if queue_wants_interrupt(queue):
        _interrupt(ring)


@piece
def _interrupt(ring):
    """Interrupt the driver."""
    service = load64(ring + SERVICE)
    if service == 0:
        return
    fd = load32(service + _IRQFD)
    if fd != _NOBODY:
        store64(service + _IRQS, load64(service + _IRQS) + 1)
        write(fd, load64(ring + ONE), 8)


@piece
def deliver_to_queue(ring, batch, order, n, inline, mfs):
    """Deliver ``n`` packets to the virtqueue of an RX kring. Returns how many it took; others are counted as missed.

    A packet that is dropped for its length uses chains up, too: a driver that did not hear of it would never offer
    others. What to tell the driver depends on what it was told before, so that is decided in turn as well.
    """
    if is_taps_own(ring):
        return deliver_to_tap(ring, batch, order, n, inline, mfs)
    queue = load64(ring + RING)
    lock(ring + LOCK)
    done, delivered, octets = deliver_virtqueue(queue, batch, order, n, inline, mfs)
    count(ring, RECEIVED, delivered)
    count(ring, RECEIVED_BYTES, octets)
    wanted = done > 0 and queue_wants_interrupt(queue)
    unlock(ring + LOCK)
    if wanted:
        _interrupt(ring)
    count_shared(ring, MISSED, n - delivered)
    return delivered


@piece
def hold_for_room(ring, needed):
    """Return how many of ``needed`` packets there are chains for; if too few, ask the driver to tell of more.

    The driver's kick is what lets the senders go on, see :func:`~ptnetmap.netmap.queueserve.serve_receive`.
    """
    if is_taps_own(ring):
        return needed
    queue = load64(ring + RING)
    lock(ring + LOCK)
    room = queue_room(queue, needed)
    if room < needed:
        store32_release(ring + HELD, 1)
        queue_suppress_kicks(queue, False)
        room = queue_room(queue, needed)
    unlock(ring + LOCK)
    return min(room, needed)

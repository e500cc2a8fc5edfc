# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Serving a guest's virtqueues: what a kthread does with one when it is its turn.

From a transmit queue packets are collected where they lie in the guest's memory, looked up, and delivered: one copy. A
receive queue is filled by whoever sends to it (:mod:`~ptnetmap.netmap.guestqueue`); its kthread only tells senders that
a lossless one has room again. Queues of a port that is no switch's: :mod:`~ptnetmap.netmap.queuejoin`,
:mod:`~ptnetmap.netmap.queuetap`.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store32
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import FIRST
from ptnetmap.netmap.counters import BYTES, PACKETS, SYNCS
from ptnetmap.netmap.forward import forward
from ptnetmap.netmap.guestqueue import interrupt_driver
from ptnetmap.netmap.joint import is_on_tap, is_taps_own
from ptnetmap.netmap.kring import (
    BURST,
    DIRECTION,
    HELD,
    INGRESS,
    LOCK,
    MOST,
    PEER,
    RING,
    STATE,
    STATE_ON,
    count,
    enter,
    leave,
)
from ptnetmap.netmap.lease import lock, unlock
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuejoin import (
    ask_joined_for_kicks,
    joined_in_has_news,
    joined_out_has_news,
    serve_joined_in,
    serve_joined_out,
)
from ptnetmap.netmap.queuering import queue_available, queue_suppress_kicks
from ptnetmap.netmap.queuetap import forward_tap, read_tap, write_tap
from ptnetmap.netmap.vale import batch_bytes, forward_pending, wake_senders

_TX = abi.TX
_PENDING_COUNT = OFFSET["pending_count"]
_LEAST_BURST = 32
_MOST_BURST = 256

DRY = 0
MOVED = 1
STUCK = 2


@piece
def queue_has_news(k):
    """Whether serving a queue may move something, as far as its driver is concerned."""
    if is_taps_own(k):
        return True  # a system call tells
    if is_on_tap(k):
        return queue_available(load64(k + RING)) > 0
    if load64(k + PEER) != 0:
        return joined_out_has_news(k) if load32(k + DIRECTION) == _TX else joined_in_has_news(k)
    if load32(k + DIRECTION) == _TX:
        return queue_available(load64(k + RING)) > 0
    return load32_acquire(k + HELD) != 0 and queue_available(load64(k + RING)) > 0


@piece
def ask_driver_for_kicks(k, batch, on):
    """Ask the driver to kick, or not to. A receive queue's kicks are its senders' business."""
    if is_taps_own(k):
        return
    if is_on_tap(k):
        queue_suppress_kicks(load64(k + RING), not on)
    elif load64(k + PEER) != 0:
        ask_joined_for_kicks(k, batch, on, load32(k + DIRECTION) == _TX)
    elif load32(k + DIRECTION) == _TX:
        queue_suppress_kicks(load64(k + RING), not on)


@piece
def serve_transmit(k, batch):
    """Forward what the driver sends, up to half a ring. Returns DRY, MOVED, or STUCK if a lossless port is full."""
    if not enter(k):
        return DRY
    if load32(k + STATE) != STATE_ON:
        leave(k)
        return DRY
    count(k, SYNCS, 1)
    queue = load64(k + RING)
    burst = max(load32(k + BURST), _LEAST_BURST)
    taken = 0
    stuck = False
    while taken < load32(k + MOST) and not stuck:
        records, packets = collect_virtqueue(queue, batch, burst)
        if packets == 0:
            break
        consumed = forward(load64(k + INGRESS), batch, records, packets)
        if consumed < packets:
            records = load16(batch + FIRST + 2 * consumed)
            burst = max(min(burst, consumed), _LEAST_BURST)
            stuck = True
        else:
            burst = min(2 * burst, _MOST_BURST)
        count(k, PACKETS, consumed)
        count(k, BYTES, batch_bytes(batch, records))
        complete_virtqueue(queue, batch, consumed)
        taken += consumed
    store32(k + BURST, burst)
    if load32(batch + _PENDING_COUNT) != 0:
        forward_pending(batch)
    if taken > 0:
        interrupt_driver(k, queue)
    leave(k)
    if taken > 0:
        return MOVED
    return STUCK if stuck else DRY


@piece
def serve_receive(k, batch):
    """Let the senders go on that wait for chains in a lossless queue, which its driver has offered now."""
    if load32_acquire(k + HELD) == 0 or not enter(k):
        return DRY
    lock(k + LOCK)
    store32(k + HELD, 0)
    queue_suppress_kicks(load64(k + RING), True)
    unlock(k + LOCK)
    wake_senders(k, batch)
    leave(k)
    return MOVED


@piece
def serve_queue(k, batch):
    """Serve a queue of either direction. Returns DRY, MOVED or STUCK."""
    if load64(k + PEER) != 0:
        if not enter(k):
            return DRY
        if is_taps_own(k):
            outcome = forward_tap(k, batch)
        elif is_on_tap(k):
            outcome = write_tap(k, batch) if load32(k + DIRECTION) == _TX else read_tap(k, batch)
        else:
            outcome = serve_joined_out(k, batch) if load32(k + DIRECTION) == _TX else serve_joined_in(k, batch)
        leave(k)
        return outcome
    if load32(k + DIRECTION) == _TX:
        return serve_transmit(k, batch)
    return serve_receive(k, batch)

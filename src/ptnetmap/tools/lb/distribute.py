# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""lb's inner loop: packets from RX rings to pipes, and from the pipes of one group to those of the next.

Packets stay in their buffers. A slot that a packet leaves gets a free buffer in exchange: the one of the slot that the
packet goes to, or an extra one. When a program has given a slot of the first group back, the packet is still in its
buffer, and goes on to the second group.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire, load64_acquire
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC_COARSE, clock_ns
from ptnetmap.jit.memory import load16, load32, load64, prefetch, store16, store32, store64
from ptnetmap.jit.wait import relax
from ptnetmap.netmap.bridge.move import add_to, look, spoilt, wait_for_more
from ptnetmap.netmap.bridge.waiter import AT as WAIT_AT
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    NUM_BUFS,
    NUM_SLOTS,
    RING,
    SLOT_SIZE,
    SLOTS,
    after,
    before,
    distance,
)
from ptnetmap.netmap.packets import set_head, space
from ptnetmap.netmap.sync import OK, rxsync, txsync
from ptnetmap.tools.lb.backlog import give, oldest_length, park, reserve, take, unpark
from ptnetmap.tools.lb.flow import flow
from ptnetmap.tools.lb.task import (
    GROUP,
    GROUP_SIZE,
    MARKED,
    PIPE,
    PIPE_AT,
    PIPE_SIZE,
    SOURCE,
    SOURCE_SIZE,
    TASK,
)

_RING_HEAD = abi.ring.fields["head"][1]
_RING_TAIL = abi.ring.fields["tail"][1]
_MOREFRAG = abi.NS_MOREFRAG
_BUF_CHANGED = abi.NS_BUF_CHANGED
_WAIT_RX = WAIT_AT["rx"]
_WAIT_TX = WAIT_AT["tx"]
_WAIT_RX_COUNT = WAIT_AT["rx_count"]
_WAIT_TX_COUNT = WAIT_AT["tx_count"]

_KRING = SOURCE["kring"]
_SKIPPING = SOURCE["skipping"]
_TX = PIPE_AT["tx"]
_HEAD = PIPE_AT["head"]
_LIMIT = PIPE_AT["limit"]
_SEEN_TAIL = PIPE_AT["tail"]
_REAPED = PIPE_AT["reaped"]
_MARKS = PIPE_AT["marks"]
_OUTSTANDING = PIPE_AT["outstanding"]
_QUEUED = PIPE_AT["queued"]
_PACKETS = PIPE_AT["packets"]
_BYTES = PIPE_AT["bytes"]
_DROPPED = PIPE_AT["dropped"]
_DROPPED_BYTES = PIPE_AT["dropped_bytes"]
_GROUP_PIPES = GROUP["pipes"]
_GROUP_COUNT = GROUP["count"]
_STOP = TASK["stop"]
_SOURCES = TASK["sources"]
_SOURCE_COUNT = TASK["source_count"]
_GROUPS = TASK["groups"]
_GROUPS_COUNT = TASK["group_count"]
_PIPES = TASK["pipes"]
_PIPE_COUNT = TASK["pipe_count"]
_BATCH = TASK["batch"]
_WAITER = TASK["waiter"]
_RECEIVED = TASK["received"]
_RECEIVED_BYTES = TASK["received_bytes"]
_NON_IP = TASK["non_ip"]
_BAD = TASK["bad"]
_EMPTY = TASK["empty"]
_FAILED = TASK["failed"]

STOPPED = 0
IDLE = 1
BUSY = 2
FAILED = 3


@piece
def place(p, index, length, more, number):
    """Put a fragment into a pipe's next slot: the buffer ``index``. Returns the free buffer that was there."""
    tx = load64(p + _TX)
    at = load64(p + _HEAD)
    slot = load64(tx + SLOTS) + at * SLOT_SIZE
    free = load32(slot)
    store32(slot, index)
    store32(slot + 4, length | ((more | _BUF_CHANGED) << 16))
    store64(slot + 8, 0)
    marks = load64(p + _MARKS)
    if marks != 0:
        store64(marks + 8 * at, number | (length << 32) | ((more | MARKED) << 48))
        add_to(p + _OUTSTANDING, 1)
    store64(p + _HEAD, after(at, load32(tx + NUM_SLOTS)))
    return free


@piece
def has_room(p, count):
    """Whether a pipe has ``count`` free slots in a row, each with a buffer; slots before that go out empty."""
    tx = load64(p + _TX)
    n = load32(tx + NUM_SLOTS)
    while distance(load64(p + _HEAD), load64(p + _LIMIT), n) >= count:
        waste = spoilt(tx, load64(p + _HEAD), count)
        if waste == 0:
            return True
        for _ in range(waste):
            at = load64(p + _HEAD)
            store32(load64(tx + SLOTS) + at * SLOT_SIZE + 4, 0)
            store64(p + _HEAD, after(at, n))
    return False


@piece
def hand_on(t, g, number, k, at, count, size):
    """Give the packet in ``count`` slots of ring ``k`` from ``at`` on to group ``g``; the slots get free buffers instead.

    ``number`` is its flow, ``size`` its bytes. If it can go neither to its pipe nor to that one's backlog, it is lost,
    and the slots keep their buffers.
    """
    p = load64(g + _GROUP_PIPES) + (number % load64(g + _GROUP_COUNT)) * PIPE_SIZE
    tx = load64(p + _TX)
    at_once = load64(p + _QUEUED) == 0 and has_room(p, count)
    if not at_once and (count >= load32(tx + NUM_SLOTS) or not reserve(t, count)):
        add_to(p + _DROPPED, 1)
        add_to(p + _DROPPED_BYTES, size)
        return
    n = load32(k + NUM_SLOTS)
    for i in range(count):
        slot = load64(k + SLOTS) + at * SLOT_SIZE
        word = load64(slot)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        if index < 2 or index >= load32(k + NUM_BUFS) or length > load32(k + BUF_SIZE):
            length = 0  # overwritten since it was looked at; the pipe checks what it is given once more
        more = _MOREFRAG if i + 1 < count else 0
        if at_once:
            free = place(p, index, length, more, number)
        elif 2 <= index < load32(k + NUM_BUFS):
            free = take(t)
            park(t, p, index, length, more, number)
        else:
            free = index
        store32(slot, free)
        store16(slot + 6, ((word >> 48) & 0xFFFF) | _BUF_CHANGED)
        at = after(at, n)
    if at_once:
        add_to(p + _PACKETS, 1)
        add_to(p + _BYTES, size)


@piece
def look_at_marks(p, at, left):
    """Look at the packet whose marks begin at slot ``at``. Returns (slots, or 0 if not all are among ``left``; bytes)."""
    n = load32(load64(p + _TX) + NUM_SLOTS)
    size = 0
    for count in range(1, left + 1):
        mark = load64(load64(p + _MARKS) + 8 * at)
        size += (mark >> 32) & 0xFFFF
        if (mark >> 48) & _MOREFRAG == 0:
            return count, size
        at = after(at, n)
    return 0, size


@piece
def returned(p):
    """Slots from ``reaped`` on that are back.

    The slot at the tail is one of them, though nothing may be sent in it: a reader tells the slot before its head, which
    it has given back as well. Without that, the last packet would wait for another one to be read.
    """
    n = load32(load64(p + _TX) + NUM_SLOTS)
    end = after(load64(p + _SEEN_TAIL), n)
    left = distance(load64(p + _REAPED), end, n)
    if left == 0 and end == load64(p + _HEAD) and load64(p + _OUTSTANDING) > 0:
        return n  # the whole ring is back
    return left


@piece
def reap(t, g, p):
    """Hand packets whose slots a program has given back on to the group after ``g``. Returns their slots.

    What the program left in the slots is ignored, but for the buffers.
    """
    tx = load64(p + _TX)
    n = load32(tx + NUM_SLOTS)
    marks = load64(p + _MARKS)
    at = load64(p + _REAPED)
    left = returned(p)
    done = 0
    while left > 0:
        number = load64(marks + 8 * at) & 0xFFFFFFFF
        if load64(marks + 8 * at) == 0:  # never sent, or sent empty
            at = after(at, n)
            left -= 1
            continue
        count, size = look_at_marks(p, at, left)
        if count == 0:
            break
        here = at
        good = spoilt(tx, at, count) == 0
        for _ in range(count):
            mark = load64(marks + 8 * here)
            store32(load64(tx + SLOTS) + here * SLOT_SIZE + 4, (mark >> 32) & 0xFFFF)
            store64(marks + 8 * here, 0)
            here = after(here, n)
        if good:
            hand_on(t, g + GROUP_SIZE, number, tx, at, count, size)
        else:
            add_to(t + _BAD, 1)
        add_to(p + _OUTSTANDING, -count)
        done += count
        left -= count
        at = here
    store64(p + _REAPED, at)
    store64(p + _LIMIT, at if left > 0 else load64(p + _SEEN_TAIL))
    return done


@piece
def publish(p, batch):
    """Sync a pipe, and see how far its slots are back. Returns whether that worked."""
    tx = load64(p + _TX)
    ring = load64(tx + RING)
    head = load64(p + _HEAD)
    if load32(ring + _RING_HEAD) != head:
        set_head(tx, head)
    if txsync(tx, batch) != OK:
        return False
    tail = load32(ring + _RING_TAIL)
    n = load32(tx + NUM_SLOTS)
    known = load64(p + _SEEN_TAIL)
    # A tail that makes no sense has been written since by a program that shares this memory: the next sync mends it.
    if tail < n and distance(known, tail, n) <= distance(known, before(head, n), n):
        store64(p + _SEEN_TAIL, tail)
    return True


@piece
def empty_backlog(t, p):
    """Put packets of a backlog into their pipe, as many as fit. Returns how many slots they took."""
    done = 0
    while load64(p + _QUEUED) > 0:
        count = oldest_length(t, p)
        if not has_room(p, count):
            break
        size = 0
        for i in range(count):
            index, length, _more, number = unpark(t, p)
            give(t, place(p, index, length, _MOREFRAG if i + 1 < count else 0, number))
            size += length
        add_to(p + _PACKETS, 1)
        add_to(p + _BYTES, size)
        done += count
    return done


@piece
def serve_pipes(t, batch):
    """Sync all pipes, the last group's first, and move what that lets go on. Returns slots moved, -1 for a failure."""
    done = 0
    last = load64(t + _GROUPS_COUNT) - 1
    for i in range(last, -1, -1):
        g = load64(t + _GROUPS) + i * GROUP_SIZE
        for j in range(load64(g + _GROUP_COUNT)):
            p = load64(g + _GROUP_PIPES) + j * PIPE_SIZE
            if not publish(p, batch):
                store64(t + _FAILED, PIPE + (p - load64(t + _PIPES)) // PIPE_SIZE)
                return -1
            if i == last:
                store64(p + _LIMIT, load64(p + _SEEN_TAIL))
            else:
                done += reap(t, g, p)
            done += empty_backlog(t, p)
    return done


@piece
def receive(t, s, batch):
    """Read up to a batch of packets from an RX ring, and give each to the first group. Returns slots, -1 for a failure."""
    k = load64(s + _KRING)
    if rxsync(k, batch, 0) != OK:
        return -1
    n = load32(k + NUM_SLOTS)
    buffers = load64(k + BUFFERS)
    here = load32_acquire(load64(k + RING) + _RING_HEAD)
    left = space(k, here)
    available = left
    packets = 0
    while left > 0 and packets < load64(t + _BATCH):
        count, size, _longest, good = look(k, here, left)
        if count == 0 and left < n - 1 and load64(s + _SKIPPING) == 0:
            break
        slot = load64(k + SLOTS) + here * SLOT_SIZE
        index = load32(slot)
        taken = left if count == 0 else count
        following = here + taken if here + taken < n else here + taken - n
        prefetch(buffers + load32(load64(k + SLOTS) + following * SLOT_SIZE) * load32(k + BUF_SIZE))
        if load64(s + _SKIPPING) != 0:
            store64(s + _SKIPPING, 1 if count == 0 else 0)
        elif count == 0 or not good or (size != 0 and (index < 2 or index >= load32(k + NUM_BUFS))):
            add_to(t + _BAD, 1)
            store64(s + _SKIPPING, 1 if count == 0 else 0)
        elif size == 0:
            add_to(t + _EMPTY, 1)
        else:
            number, is_ip = flow(buffers + index * load32(k + BUF_SIZE), min(load16(slot + 4), load32(k + BUF_SIZE)))
            add_to(t + _RECEIVED, 1)
            add_to(t + _RECEIVED_BYTES, size)
            if not is_ip:
                add_to(t + _NON_IP, 1)
            hand_on(t, load64(t + _GROUPS), number, k, here, count, size)
        here = following
        left -= taken
        packets += 1
    if left != available:
        set_head(k, here)
    return available - left


@piece
def turn(t, batch):
    """Move everything one step on. Returns slots moved, -1 if a ring cannot be synced."""
    done = serve_pipes(t, batch)
    if done < 0:
        return done
    for i in range(load64(t + _SOURCE_COUNT)):
        some = receive(t, load64(t + _SOURCES) + i * SOURCE_SIZE, batch)
        if some < 0:
            store64(t + _FAILED, i)
            return -1
        done += some
    if done > 0:
        for i in range(load64(t + _PIPE_COUNT)):
            if not publish(load64(t + _PIPES) + i * PIPE_SIZE, batch):
                store64(t + _FAILED, PIPE + i)
                return -1
    return done


@piece
def list_rings(t):
    """List what would let something go on: packets that come, and slots that come back to those that miss them."""
    waiter = load64(t + _WAITER)
    store32(waiter + _WAIT_RX_COUNT, 0)
    store32(waiter + _WAIT_TX_COUNT, 0)
    for i in range(load64(t + _SOURCE_COUNT)):
        wait_for_more(waiter, _WAIT_RX_COUNT, _WAIT_RX, load64(load64(t + _SOURCES) + i * SOURCE_SIZE + _KRING))
    for i in range(load64(t + _PIPE_COUNT)):
        p = load64(t + _PIPES) + i * PIPE_SIZE
        if load64(p + _QUEUED) > 0 or load64(p + _OUTSTANDING) > 0:
            wait_for_more(waiter, _WAIT_TX_COUNT, _WAIT_TX, load64(p + _TX))


@kernel
def balance(t, batch, until, linger):
    """Move packets until nothing can be moved, told to stop, or CLOCK_MONOTONIC is ``until``.

    ``t`` is the address of a :data:`~ptnetmap.tools.lb.task.task`, ``batch`` of the thread's scratch. With ``linger``,
    spins for a while before it believes that nothing can be moved. Returns STOPPED, IDLE (and the rings to wait on are
    listed), BUSY, or FAILED (and ``failed`` tells which ring).
    """
    attempt = 0
    while load64_acquire(t + _STOP) == 0:
        done = turn(t, batch)
        if done < 0:
            return FAILED
        if done > 0:
            attempt = 0
        elif linger and relax(attempt):
            attempt += 1
        else:
            list_rings(t)
            return IDLE
        if clock_ns(CLOCK_MONOTONIC_COARSE) >= until:
            return BUSY
    return STOPPED

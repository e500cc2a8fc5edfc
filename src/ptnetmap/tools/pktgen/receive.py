# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The receiver's loop: count what comes on RX rings, look at it only if asked to, and give the slots back."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load64_acquire, pause
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import load16, load32, load32_at, load64, prefetch, store32, store64
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, RING, SLOT_SIZE, SLOTS, after, distance
from ptnetmap.netmap.sync import OK, rxsync
from ptnetmap.tools.pktgen.sequence import check
from ptnetmap.tools.pktgen.task import (
    ACCESS,
    AT,
    DONE,
    DRY,
    EMPTY,
    FAULT,
    HELD,
    HOLD,
    NOTED,
    NUMBERED,
    PREFETCH,
    STOPPED,
)
from ptnetmap.tools.pktgen.waiting import linger

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_MOREFRAG = abi.NS_MOREFRAG
_MOREFRAG_BIT = 5

_STOP = AT["stop"]
_PACKETS = AT["packets"]
_BYTES = AT["bytes"]
_EVENTS = AT["events"]
_SPACE = AT["space"]
_RX = AT["rx"]
_RX_COUNT = AT["rx_count"]
_BURST = AT["burst"]
_LIMIT = AT["limit"]
_MODE = AT["mode"]
_TURN = AT["turn"]
_HELD_SLOTS = AT["held"]
_INSIDE = AT["inside"]
_SEEN = AT["seen"]

_FEW = 64
_PATIENCE = 32


@piece
def totals(slots, start, count):
    """Return how many of ``count`` slots are not the last of their packet, and the sum of all lengths."""
    seen = 0
    octets = 0
    base = slots + start * SLOT_SIZE
    for i in range(count):
        word = load32_at(base, i * SLOT_SIZE + 4)
        octets += word & 0xFFFF
        seen |= word
    open_ended = 0
    if (seen >> 16) & _MOREFRAG:
        for i in range(count):
            open_ended += (load32_at(base, i * SLOT_SIZE + 4) >> (16 + _MOREFRAG_BIT)) & 1
    return open_ended, octets


@piece
def buffer_of(k, position):
    """Address of the buffer of a slot, 0 if it names none."""
    index = load32(load64(k + SLOTS) + position * SLOT_SIZE)
    if index < 2 or index >= load32(k + NUM_BUFS):
        return 0
    return load64(k + BUFFERS) + index * load32(k + BUF_SIZE)


@piece
def look(k, t, head, count, mode):
    """Look into ``count`` slots. Returns how many were looked at, and whether the last one is to be noted."""
    n = load32(k + NUM_SLOTS)
    at = head
    inside = load64(t + _INSIDE)
    seen = load64(t + _SEEN)
    for i in range(count):
        if mode & PREFETCH:
            prefetch(buffer_of(k, after(at, n)))
        buffer = buffer_of(k, at)
        noted = False
        if buffer != 0:
            if mode & ACCESS:
                seen ^= load64(buffer)
            if mode & NUMBERED and inside == 0:
                noted = check(t, k, at, buffer) != 0
        inside = load16(load64(k + SLOTS) + at * SLOT_SIZE + 6) & _MOREFRAG
        store64(t + _INSIDE, inside)
        if noted:
            return i + 1, True
        at = after(at, n)
    store64(t + _SEEN, seen)
    return count, False


@piece
def arrived(k, batch, head, patient):
    """Sync an RX ring; return the slots that have come, -1 if it cannot be synced.

    A few packets mean that the sender is just at it: a moment later there are more, at the cost of the same sync.
    """
    ring = load64(k + RING)
    n = load32(k + NUM_SLOTS)
    if rxsync(k, batch, 0) != OK:
        return -1
    count = distance(head, load32(ring + _TAIL), n)
    if 0 < count < _FEW and patient:
        for _ in range(_PATIENCE):
            pause()
        if rxsync(k, batch, 0) != OK:
            return -1
        count = distance(head, load32(ring + _TAIL), n)
    return count


@kernel
def receive(t, batch):
    """Receive as the task at ``t`` says, until there is something that this loop cannot do itself.

    Returns DONE after ``limit`` packets, STOPPED, EMPTY when nothing has come for a while, HELD with packets to show,
    NOTED after a sequence error, or FAULT. Called again, it goes on.
    """
    mode = load64(t + _MODE)
    rings = load64(t + _RX_COUNT)
    limit = load64(t + _LIMIT)
    burst = load64(t + _BURST)
    received = load64(t + _PACKETS)
    turn = load64(t + _TURN)
    empty = 0
    attempt = 0
    while received < limit:
        if load64_acquire(t + _STOP) != 0:
            return STOPPED
        if mode & DRY:
            return EMPTY
        k = load64(load64(t + _RX) + 8 * turn)
        ring = load64(k + RING)
        n = load32(k + NUM_SLOTS)
        head = load32(ring + _HEAD)
        held = load64(t + _HELD_SLOTS)
        count = held
        if held == 0:
            count = arrived(k, batch, head, rings == 1)
            if count < 0:
                return FAULT
            if count == 0:
                turn = after(turn, rings)
                empty += 1
                if empty >= rings:
                    empty = 0
                    attempt = linger(k, t, attempt)
                    if attempt < 0:
                        store64(t + _TURN, turn)
                        return EMPTY
                continue
            store64(t + _SPACE, min(load64(t + _SPACE), count))
            count = min(count, burst, limit - received)
            if mode & HOLD:
                store64(t + _HELD_SLOTS, count)
                store64(t + _TURN, turn)
                return HELD
        store64(t + _HELD_SLOTS, 0)
        empty = 0
        attempt = 0
        noted = False
        if mode & (ACCESS | PREFETCH | NUMBERED):
            count, noted = look(k, t, head, count, mode)
        slots = load64(k + SLOTS)
        run = min(count, n - head)
        open_ended, octets = totals(slots, head, run)
        head += count
        if head >= n:
            head -= n
            more, others = totals(slots, 0, head)
            open_ended += more
            octets += others
        store32(ring + _CUR, head)
        store32(ring + _HEAD, head)
        received += count - open_ended
        store64(t + _BYTES, load64(t + _BYTES) + octets)
        store64(t + _EVENTS, load64(t + _EVENTS) + 1)
        store64(t + _PACKETS, received)
        turn = after(turn, rings)
        if noted:
            store64(t + _TURN, turn)
            return NOTED
    for i in range(rings):
        if mode & DRY == 0 and rxsync(load64(load64(t + _RX) + 8 * i), batch, 0) < 0:
            return FAULT
    return DONE

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Round trips: one side sends a numbered packet with the time and waits for it, the other sends back what comes."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns
from ptnetmap.jit.memory import copy_bytes, load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.kring import BUF_SIZE, NUM_SLOTS, RING, SLOT_SIZE, SLOTS, after, distance
from ptnetmap.netmap.sync import OK, rxsync, txsync
from ptnetmap.tools.pktgen.pacing import book, is_early
from ptnetmap.tools.pktgen.receive import buffer_of
from ptnetmap.tools.pktgen.sequence import add
from ptnetmap.tools.pktgen.task import AT, BUCKETS, DONE, EARLY, EMPTY, FAULT, FULL, STOPPED
from ptnetmap.tools.pktgen.transmit import put_each
from ptnetmap.tools.pktgen.waiting import linger

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_MOREFRAG = abi.NS_MOREFRAG

_STOP = AT["stop"]
_PACKETS = AT["packets"]
_BYTES = AT["bytes"]
_EVENTS = AT["events"]
_TX = AT["tx"]
_TX_COUNT = AT["tx_count"]
_RX = AT["rx"]
_RX_COUNT = AT["rx_count"]
_BURST = AT["burst"]
_LIMIT = AT["limit"]
_MODE = AT["mode"]
_HEADER = AT["header"]
_FRAGMENTS = AT["fragments"]
_PAYLOAD_AT = AT["payload_at"]
_SEQUENCE = AT["sequence"]
_TURN = AT["turn"]
_INSIDE = AT["inside"]
_AWAITED = AT["awaited"]
_OLDEST = AT["oldest"]
_REPLIES = AT["replies"]
_LEAST_NS = AT["least_ns"]
_TOTAL_NS = AT["total_ns"]
_BUCKETS_AT = AT["buckets"]
_STAMP_BYTES = 12


@piece
def release(k, head):
    """Set head and cur of a ring."""
    store32(load64(k + RING) + _CUR, head)
    store32(load64(k + RING) + _HEAD, head)


@piece
def record(t, rtt):
    """Count a round trip in the statistics."""
    add(t + _REPLIES, 1)
    add(t + _TOTAL_NS, rtt)
    if load64(t + _REPLIES) == 1 or rtt < load64(t + _LEAST_NS):
        store64(t + _LEAST_NS, rtt)
    bucket = 0
    while rtt > 1 and bucket < BUCKETS - 1:
        rtt >>= 1
        bucket += 1
    add(t + _BUCKETS_AT + 8 * bucket, 1)


@piece
def ask(t, k, batch):
    """Send one round's packets, or as many as there is room for. Returns their number, -1 if the ring cannot be synced."""
    ring = load64(k + RING)
    head = load32(ring + _HEAD)
    if txsync(k, batch) != OK:
        return -1
    room = distance(head, load32(ring + _TAIL), load32(k + NUM_SLOTS)) // load64(t + _FRAGMENTS)
    count = min(load64(t + _BURST), load64(t + _LIMIT) - load64(t + _PACKETS), room)
    if count == 0:
        return 0
    store64(t + _OLDEST, load64(t + _SEQUENCE))
    end, octets = put_each(k, t, head, count, load64(t + _MODE))
    if end < 0:
        return -1
    release(k, end)
    store64(t + _AWAITED, count)
    if txsync(k, batch) != OK:
        return -1
    add(t + _PACKETS, count)
    add(t + _BYTES, octets)
    add(t + _EVENTS, 1)
    book(t, count)
    return count


@piece
def take_reply(t, k, at, now):
    """If the packet in a slot is a reply that is waited for, record it."""
    buffer = buffer_of(k, at)
    stamp = load64(t + _HEADER) + load64(t + _PAYLOAD_AT)
    if buffer == 0 or load16(load64(k + SLOTS) + at * SLOT_SIZE + 4) < stamp + _STAMP_BYTES:
        return
    ahead = (load32(buffer + stamp) - load64(t + _OLDEST)) & 0xFFFFFFFF
    if ahead >= (load64(t + _SEQUENCE) - load64(t + _OLDEST)) & 0xFFFFFFFF:
        return
    record(t, now - load32(buffer + stamp + 4) * 1_000_000_000 - load32(buffer + stamp + 8))
    add(t + _AWAITED, -1)


@piece
def collect_replies(t, k, batch):
    """Look at all that an RX ring has, and give it back. Returns the number of slots, -1 if it cannot be synced."""
    ring = load64(k + RING)
    n = load32(k + NUM_SLOTS)
    if rxsync(k, batch, 0) != OK:
        return -1
    at = load32(ring + _HEAD)
    count = distance(at, load32(ring + _TAIL), n)
    now = clock_ns(CLOCK_MONOTONIC)
    for _ in range(count):
        if load64(t + _AWAITED) > 0:
            take_reply(t, k, at, now)
        at = after(at, n)
    release(k, at)
    return count


@kernel
def ping(t, batch):
    """Send bursts, each when the replies to the one before have come, and record how long each took.

    Returns DONE, STOPPED, EARLY, FULL, EMPTY (a reply has not come for a while) or FAULT. The worker that has lost
    patience sets ``awaited`` to 0 before it calls again.
    """
    rings = load64(t + _RX_COUNT)
    turn = 0
    attempt = 0
    while load64_acquire(t + _STOP) == 0:
        if load64(t + _AWAITED) <= 0:
            if load64(t + _PACKETS) >= load64(t + _LIMIT):
                return EARLY if is_early(t) else DONE
            if is_early(t):
                return EARLY
            sent = ask(t, load64(load64(t + _TX)), batch)
            if sent <= 0:
                return FULL if sent == 0 else FAULT
        found = 0
        for turn in range(rings):
            count = collect_replies(t, load64(load64(t + _RX) + 8 * turn), batch)
            if count < 0:
                return FAULT
            found += count
        attempt = 0 if found else linger(load64(load64(t + _RX)), t, attempt)
        if attempt < 0:
            return EMPTY
    return STOPPED


@piece
def turn_round(t, source, at, target, place):
    """Copy the packet in a slot to a slot of a TX ring, its two addresses exchanged; return whether that slot is good."""
    word = load32(load64(source + SLOTS) + at * SLOT_SIZE + 4)
    length = min(word & 0xFFFF, load32(target + BUF_SIZE))
    frame = buffer_of(source, at)
    copy = buffer_of(target, place)
    if copy == 0:
        return False
    if frame == 0:
        length = 0
    copy_bytes(copy, frame, length)
    header = load64(t + _HEADER)
    if load64(t + _INSIDE) == 0 and length >= header + 12:
        for i in range(0, 6, 2):
            store16(copy + header + i, load16(frame + header + 6 + i))
            store16(copy + header + 6 + i, load16(frame + header + i))
    flags = (word >> 16) & _MOREFRAG
    store64(t + _INSIDE, flags)
    store32(load64(target + SLOTS) + place * SLOT_SIZE + 4, length | (flags << 16))
    if flags == 0:
        add(t + _PACKETS, 1)
    add(t + _BYTES, length)
    return True


@piece
def bounce(t, source, target, count):
    """Send ``count`` slots of an RX ring back on a TX ring. Returns whether the TX ring's slots are good."""
    at = load32(load64(source + RING) + _HEAD)
    place = load32(load64(target + RING) + _HEAD)
    for _ in range(count):
        if load64(t + _PACKETS) >= load64(t + _LIMIT):
            break
        if not turn_round(t, source, at, target, place):
            return False
        at = after(at, load32(source + NUM_SLOTS))
        place = after(place, load32(target + NUM_SLOTS))
    release(source, at)
    release(target, place)
    add(t + _EVENTS, 1)
    return True


@kernel
def pong(t, batch):
    """Send every packet back to where it came from. Returns DONE, STOPPED, EMPTY, FULL or FAULT."""
    rings = load64(t + _RX_COUNT)
    turn = load64(t + _TURN)
    empty = 0
    attempt = 0
    while load64_acquire(t + _STOP) == 0:
        source = load64(load64(t + _RX) + 8 * turn)
        target = load64(load64(t + _TX) + 8 * (turn % load64(t + _TX_COUNT)))
        if rxsync(source, batch, 0) != OK or txsync(target, batch) != OK:
            return FAULT
        if load64(t + _PACKETS) >= load64(t + _LIMIT):
            return DONE
        ring = load64(source + RING)
        out = load64(target + RING)
        waiting = distance(load32(ring + _HEAD), load32(ring + _TAIL), load32(source + NUM_SLOTS))
        room = distance(load32(out + _HEAD), load32(out + _TAIL), load32(target + NUM_SLOTS))
        count = min(waiting, room, load64(t + _BURST))
        if count > 0:
            empty = 0
            attempt = 0
            if not bounce(t, source, target, count) or txsync(target, batch) != OK:
                return FAULT
        else:
            empty += 1
        if rings > 1 or count == 0:
            turn = after(turn, rings)
            store64(t + _TURN, turn)
        if empty >= rings:
            empty = 0
            attempt = linger(target if waiting > 0 else source, t, attempt)
            if attempt < 0:
                return FULL if waiting > 0 else EMPTY
    return STOPPED

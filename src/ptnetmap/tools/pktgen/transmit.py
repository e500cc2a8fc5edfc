# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The sender's loop: frames into TX rings in bursts, on schedule."""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import copy_bytes, copy_line, load16, load32, load64, prefetch, store32, store64
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
from ptnetmap.netmap.sync import OK, txsync, unsent
from ptnetmap.tools.pktgen.fields import next_size, stage, step
from ptnetmap.tools.pktgen.pacing import book, is_early
from ptnetmap.tools.pktgen.task import (
    AT,
    DONE,
    DRY,
    EARLY,
    FAULT,
    FULL,
    HELD,
    HOLD,
    INDIRECT,
    PREFETCH,
    REFILL,
    RUBBISH,
    STOPPED,
    UNSENT,
)
from ptnetmap.tools.pktgen.waiting import linger

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_BUF_CHANGED = abi.NS_BUF_CHANGED
_MOREFRAG = abi.NS_MOREFRAG
_INDIRECT_SLOT = abi.NS_INDIRECT

_STOP = AT["stop"]
_PACKETS = AT["packets"]
_BYTES = AT["bytes"]
_EVENTS = AT["events"]
_TX = AT["tx"]
_TX_COUNT = AT["tx_count"]
_BURST = AT["burst"]
_LIMIT = AT["limit"]
_MODE = AT["mode"]
_HEADER = AT["header"]
_SIZE = AT["size"]
_FRAGMENTS = AT["fragments"]
_FRAGMENT_SIZE = AT["fragment_size"]
_STAGING = AT["staging"]
_INDIRECT = AT["indirect"]
_STRIDE = AT["stride"]
_TURN = AT["turn"]
_PER = AT["per"]
_HELD_SLOTS = AT["held"]
_HELD_PACKETS = AT["held_packets"]
_HELD_BYTES = AT["held_bytes"]

_LINE = 64
_SMALL = 256


@piece
def take_back(k):
    """Sync a TX ring that belongs to nobody: all has been sent at once."""
    ring = load64(k + RING)
    store32(ring + _TAIL, before(load32(ring + _HEAD), load32(k + NUM_SLOTS)))
    return OK


@piece
def set_lengths(slots, start, count, length):
    """Make ``count`` slots packets of ``length`` bytes; return the flags that they had."""
    flags = 0
    for position in range(start, start + count):
        flags |= load16(slots + position * SLOT_SIZE + 6)
        store32(slots + position * SLOT_SIZE + 4, length)
    return flags


@piece
def copy_frame(destination, source, length):
    """Copy a frame between buffers, whose size is a multiple of a cache line."""
    if length > _SMALL:
        copy_bytes(destination, source, length)
        return
    for line in range((length + _LINE - 1) // _LINE):
        copy_line(destination + line * _LINE, source + line * _LINE)


@piece
def refill(k, t, start, count):
    """Copy the staged frame into the buffers of ``count`` slots; return False if one names no buffer."""
    slots = load64(k + SLOTS)
    buffers = load64(k + BUFFERS)
    buf_size = load32(k + BUF_SIZE)
    num_bufs = load32(k + NUM_BUFS)
    length = load64(t + _HEADER) + load64(t + _SIZE)
    for position in range(start, start + count):
        index = load32(slots + position * SLOT_SIZE)
        if index < 2 or index >= num_bufs:
            return False
        copy_frame(buffers + index * buf_size, load64(t + _STAGING), length)
    return True


@piece
def put_same(k, t, slots, head, count, length, n):
    """Make ``count`` slots packets of the frame that their buffers hold; return whether they name buffers.

    A reader that swaps buffers says so in the slot it gives back: such a burst is written again.
    """
    run = min(count, n - head)
    flags = set_lengths(slots, head, run, length)
    if run < count:
        flags |= set_lengths(slots, 0, count - run, length)
    if flags & _BUF_CHANGED and load64(t + _MODE) & RUBBISH == 0:
        return refill(k, t, head, run) and refill(k, t, 0, count - run)
    return True


@piece
def place_of(k, t, at, mode):
    """Address that the packet in a slot is written to, 0 if the slot names no buffer."""
    slot = load64(k + SLOTS) + at * SLOT_SIZE
    index = load32(slot)
    if index < 2 or index >= load32(k + NUM_BUFS):
        return 0
    place = load64(k + BUFFERS) + index * load32(k + BUF_SIZE)
    if mode & PREFETCH:
        following = load64(k + SLOTS) + after(at, load32(k + NUM_SLOTS)) * SLOT_SIZE
        prefetch(load64(k + BUFFERS) + load32(following) * load32(k + BUF_SIZE))
    if mode & INDIRECT:
        place = load64(t + _INDIRECT) + at * load64(t + _STRIDE)
        store64(slot + 8, place)
    return place


@piece
def put_whole(k, t, at, total, mode):
    """Put the staged packet of ``total`` bytes into a slot. Returns the next one, -1 if the slot names no buffer."""
    place = place_of(k, t, at, mode)
    if place == 0:
        return -1
    if mode & RUBBISH == 0:
        copy_frame(place, load64(t + _STAGING), total)
    flags = _INDIRECT_SLOT if mode & INDIRECT else 0
    store32(load64(k + SLOTS) + at * SLOT_SIZE + 4, total | (flags << 16))
    return after(at, load32(k + NUM_SLOTS))


@piece
def put_chain(k, t, at, total, mode):
    """As :func:`put_whole`, cut into fragments: of a given size, or so many parts that differ by a byte at most."""
    part = load64(t + _FRAGMENT_SIZE)
    fragments = load64(t + _FRAGMENTS)
    if part != 0:
        fragments = (total + part - 1) // part
    done = 0
    for i in range(fragments):
        end = min(done + part, total) if part != 0 else total * (i + 1) // fragments
        place = place_of(k, t, at, mode)
        if place == 0:
            return -1
        if mode & RUBBISH == 0:
            copy_bytes(place, load64(t + _STAGING) + done, end - done)
        flags = (_MOREFRAG if i + 1 < fragments else 0) | (_INDIRECT_SLOT if mode & INDIRECT else 0)
        store32(load64(k + SLOTS) + at * SLOT_SIZE + 4, (end - done) | (flags << 16))
        done = end
        at = after(at, load32(k + NUM_SLOTS))
    return at


@piece
def put_each(k, t, head, count, mode):
    """Put ``count`` packets, each as the fields have it then. Returns (slot after them, -1 for a bad one; bytes)."""
    at = head
    octets = 0
    whole = load64(t + _FRAGMENTS) == 1
    header = load64(t + _HEADER)
    for _ in range(count):
        size = next_size(t)
        if mode & RUBBISH == 0:
            stage(t, size)
        total = header + size
        at = put_whole(k, t, at, total, mode) if whole else put_chain(k, t, at, total, mode)
        if at < 0:
            break
        if mode & RUBBISH == 0:
            step(t)
        octets += total
    return at, octets


@piece
def all_sent(t, batch):
    """Return DONE once the rings have sent what they hold, or what keeps them from it."""
    for turn in range(load64(t + _TX_COUNT)):
        k = load64(load64(t + _TX) + 8 * turn)
        attempt = 0
        while unsent(k):
            if load64_acquire(t + _STOP) != 0:
                return STOPPED
            if txsync(k, batch) != OK:
                return FAULT
            if unsent(k):
                attempt = linger(k, t, attempt)
                if attempt < 0:
                    return UNSENT
    return DONE


@piece
def make_room(k, t, batch, head, enough, patient):
    """Return the room in a ring, -1 if it cannot be synced; if patient, wait a while for ``enough`` slots of it."""
    ring = load64(k + RING)
    n = load32(k + NUM_SLOTS)
    dry = load64(t + _MODE) & DRY
    room = -1
    attempt = 0
    while attempt >= 0:
        if (take_back(k) if dry else txsync(k, batch)) != OK:
            return -1
        now = distance(head, load32(ring + _TAIL), n)
        if now > room:
            attempt = 0
        room = now
        if room >= enough or not patient or load64_acquire(t + _STOP) != 0:
            break
        attempt = linger(k, t, attempt)
    return room


@piece
def ring_at(t, turn):
    """Return the kring of a turn, its netmap_ring and slots, their number, head, and packets per sync."""
    k = load64(load64(t + _TX) + 8 * turn)
    ring = load64(k + RING)
    n = load32(k + NUM_SLOTS)
    return (
        k,
        ring,
        load64(k + SLOTS),
        n,
        load32(ring + _HEAD),
        min(load64(t + _BURST), (n - 1) // load64(t + _FRAGMENTS)),
    )


@kernel
def transmit(t, batch):
    """Send what the task at ``t`` asks for, until there is something that this loop cannot do itself.

    ``batch`` is the address of the thread's scratch. Returns DONE when all has left, STOPPED, FULL when full rings
    have been waited for in vain, EARLY when the next burst is not due soon, HELD with a filled burst to show, UNSENT
    when all is put but not all gone, or FAULT. Called again, it goes on.
    """
    mode = load64(t + _MODE)
    dry = mode & DRY
    paced = load64(t + _PER) != 0
    length = load64(t + _HEADER) + load64(t + _SIZE)
    rings = load64(t + _TX_COUNT)
    limit = load64(t + _LIMIT)
    fragments = load64(t + _FRAGMENTS)
    sent = load64(t + _PACKETS)
    turn = load64(t + _TURN)
    k, ring, slots, n, head, most = ring_at(t, turn)
    skipped = 0
    while sent < limit:
        if load64_acquire(t + _STOP) != 0:
            return STOPPED
        if load64(t + _HELD_SLOTS) != 0:
            end = (head + load64(t + _HELD_SLOTS)) % n
            count = load64(t + _HELD_PACKETS)
            octets = load64(t + _HELD_BYTES)
            store64(t + _HELD_SLOTS, 0)
        else:
            if paced and is_early(t):
                return EARLY
            count = min(most, limit - sent)
            room = distance(head, load32(ring + _TAIL), n)
            if room < count * fragments:
                enough = max(count * fragments, n // 4) if rings == 1 else fragments
                room = make_room(k, t, batch, head, enough, rings == 1)
                if room < 0:
                    return FAULT
                if room < fragments:
                    turn = after(turn, rings)
                    store64(t + _TURN, turn)
                    k, ring, slots, n, head, most = ring_at(t, turn)
                    skipped += 1
                    if skipped >= rings:
                        return FULL
                    continue
                count = min(count, room // fragments)
            skipped = 0
            if mode & REFILL:
                end, octets = put_each(k, t, head, count, mode)
            else:
                good = put_same(k, t, slots, head, count, length, n)
                end = head + count if good else -1
                if end >= n:
                    end -= n
                octets = count * length
            if end < 0:
                return FAULT
            if mode & HOLD:
                store64(t + _HELD_SLOTS, distance(head, end, n))
                store64(t + _HELD_PACKETS, count)
                store64(t + _HELD_BYTES, octets)
                store64(t + _TURN, turn)
                return HELD
        head = end
        store32(ring + _CUR, head)
        store32(ring + _HEAD, head)
        if (take_back(k) if dry else txsync(k, batch)) != OK:
            return FAULT
        sent += count
        if paced:
            book(t, count)
        store64(t + _BYTES, load64(t + _BYTES) + octets)
        store64(t + _EVENTS, load64(t + _EVENTS) + 1)
        store64(t + _PACKETS, sent)
        if rings > 1:
            turn = after(turn, rings)
            store64(t + _TURN, turn)
            k, ring, slots, n, head, most = ring_at(t, turn)
    if paced and is_early(t):
        return EARLY
    return DONE if dry else all_sent(t, batch)

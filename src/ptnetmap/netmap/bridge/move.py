# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The bridge's inner loop: packets from RX rings into TX rings, by swapping buffers or by copying them.

Slots lie in memory that a pipe's other end can write: each word is read once where it is used, and checked.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import load32_acquire, load64_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC_COARSE, clock_ns
from ptnetmap.jit.memory import copy_bytes, load32, load64, store16, store32, store64
from ptnetmap.jit.wait import relax
from ptnetmap.netmap.bridge.waiter import AT as WAIT_AT
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    KIND,
    KIND_VALE,
    NUM_BUFS,
    NUM_SLOTS,
    RING,
    SLOT_SIZE,
    SLOTS,
    after,
    slot_is_valid,
)
from ptnetmap.netmap.packets import set_head, space
from ptnetmap.netmap.sync import OK, rxsync, txsync, unsent

_HEAD = abi.ring.fields["head"][1]
_CUR = abi.ring.fields["cur"][1]
_TAIL = abi.ring.fields["tail"][1]
_MOREFRAG = abi.NS_MOREFRAG
_BUF_CHANGED = abi.NS_BUF_CHANGED
_WAIT_RX = WAIT_AT["rx"]
_WAIT_TX = WAIT_AT["tx"]
_WAIT_RX_COUNT = WAIT_AT["rx_count"]
_WAIT_TX_COUNT = WAIT_AT["tx_count"]

link = np.dtype(
    [(name, "i8") for name in ("rx", "tx", "swap", "short", "skipping", "packets", "bytes", "empty", "bad", "too_long")]
)
"""One direction between two rings.

============== ======================================================================================
field          meaning
============== ======================================================================================
rx, tx         addresses of the krings
swap           1 if both use the same memory, and buffers are to be swapped
short          the next packet waits for room
skipping       what comes first is the rest of a chain whose beginning was dropped
packets, bytes moved so far
empty          packets without data, which are not passed on
bad            packets dropped because a slot named no buffer, or more bytes than one has
too_long       packets dropped because they cannot fit into the other ring, or one of its buffers
============== ======================================================================================
"""

_LINK = link.itemsize
_AT = offsets(link)
_RX = _AT["rx"]
_TX = _AT["tx"]
_SWAP = _AT["swap"]
_SHORT = _AT["short"]
_SKIPPING = _AT["skipping"]
_PACKETS = _AT["packets"]
_BYTES = _AT["bytes"]
_EMPTY = _AT["empty"]
_BAD = _AT["bad"]
_TOO_LONG = _AT["too_long"]

task = np.dtype([(name, "i8") for name in ("stop", "links", "count", "burst", "waiter", "failed")])
"""What to do: ``stop`` ends it; address and number of the :data:`link` entries; packets that one of them moves at a time;
where to list the rings to wait on; and the number of the link that failed."""

_TASK = offsets(task)
_STOP = _TASK["stop"]
_LINKS = _TASK["links"]
_COUNT = _TASK["count"]
_BURST = _TASK["burst"]
_WAITER = _TASK["waiter"]
_FAILED = _TASK["failed"]

STOPPED = 0
IDLE = 1
BUSY = 2
FAILED = 3


@piece
def add_to(at, amount):
    """Add to the 64-bit word at ``at``."""
    store64(at, load64(at) + amount)


@piece
def look(k, at, left):
    """Look at the packet at slot ``at``, of which ``left`` slots may be read.

    Returns (slots, or 0 if its end has not come; bytes; bytes of its longest fragment; whether all slots are usable).
    """
    n = load32(k + NUM_SLOTS)
    size = 0
    longest = 0
    good = True
    for taken in range(1, left + 1):
        word = load64(load64(k + SLOTS) + at * SLOT_SIZE)
        length = (word >> 32) & 0xFFFF
        if not slot_is_valid(k, word & 0xFFFFFFFF, length):
            good = False
        size += length
        longest = max(longest, length)
        if (word >> 48) & _MOREFRAG == 0:
            return taken, size, longest, good
        at = after(at, n)
    return 0, size, longest, good


@piece
def spoilt(k, at, count):
    """Slots of a TX ring from ``at`` on that must go out empty, because one of the next ``count`` names no buffer."""
    n = load32(k + NUM_SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    bad = 0
    for i in range(1, count + 1):
        index = load32(load64(k + SLOTS) + at * SLOT_SIZE)
        if index < 2 or index >= num_bufs:
            bad = i
        at = after(at, n)
    return bad


@piece
def empty_slots(k, at, count):
    """Make ``count`` slots from ``at`` on empty packets. Returns the index after them."""
    for _ in range(count):
        store32(load64(k + SLOTS) + at * SLOT_SIZE + 4, 0)
        at = after(at, load32(k + NUM_SLOTS))
    return at


@piece
def move_slot(rx, tx, at, to, more, swap):
    """Put the fragment in slot ``at`` of ``rx`` into slot ``to`` of ``tx``; ``more`` is NS_MOREFRAG or 0.

    What became unusable since it was looked at gives an empty fragment, and no buffer changes its place.
    """
    source = load64(rx + SLOTS) + at * SLOT_SIZE
    target = load64(tx + SLOTS) + to * SLOT_SIZE
    word = load64(source)
    index = word & 0xFFFFFFFF
    length = (word >> 32) & 0xFFFF
    free = load32(target)
    usable = index >= 2 and slot_is_valid(rx, index, length) and 2 <= free < load32(tx + NUM_BUFS)
    store64(target + 8, 0)
    if not usable or length > load32(tx + BUF_SIZE):
        store32(target + 4, more << 16)
    elif swap != 0:
        store32(target, index)
        store32(target + 4, length | ((more | _BUF_CHANGED) << 16))
        store32(source, free)
        store16(source + 6, ((word >> 48) & 0xFFFF) | _BUF_CHANGED)
    else:
        copy_bytes(
            load64(tx + BUFFERS) + free * load32(tx + BUF_SIZE),
            load64(rx + BUFFERS) + index * load32(rx + BUF_SIZE),
            length,
        )
        store32(target + 4, length | (more << 16))


@piece
def swap_singles(rx, tx, here, to, most):
    """Move up to ``most`` packets of one slot each by swapping buffers. Returns (packets, bytes).

    Stops at the first slot, on either side, that is not as most are; :func:`move` looks at that one closely.
    """
    n = load32(rx + NUM_SLOTS)
    m = load32(tx + NUM_SLOTS)
    source = load64(rx + SLOTS)
    target = load64(tx + SLOTS)
    num_bufs = min(load32(rx + NUM_BUFS), load32(tx + NUM_BUFS))
    buf_size = min(load32(rx + BUF_SIZE), load32(tx + BUF_SIZE))
    octets = 0
    for done in range(most):
        word = load64(source + here * SLOT_SIZE)
        free = load32(target + to * SLOT_SIZE)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        flags = (word >> 48) & 0xFFFF
        strange = (index - 2) | (num_bufs - 1 - index) | (free - 2) | (num_bufs - 1 - free) | (buf_size - length)
        if strange < 0 or length == 0 or flags & _MOREFRAG != 0:
            return done, octets
        store64(target + to * SLOT_SIZE, index | (length << 32) | (_BUF_CHANGED << 48))
        store64(target + to * SLOT_SIZE + 8, 0)
        store64(source + here * SLOT_SIZE, free | (length << 32) | ((flags | _BUF_CHANGED) << 48))
        octets += length
        here = after(here, n)
        to = after(to, m)
    return most, octets


@piece
def drop(at, count, size, good):
    """Count a packet that is not passed on, in the link at ``at``; ``count`` is 0 if only a part of it has come."""
    if load64(at + _SKIPPING) == 0:
        if not good:
            add_to(at + _BAD, 1)
        elif size == 0 and count != 0:
            add_to(at + _EMPTY, 1)
        else:
            add_to(at + _TOO_LONG, 1)
    store64(at + _SKIPPING, 1 if count == 0 else 0)


@piece
def move(at, limit):
    """Move up to ``limit`` packets over the link at ``at``, without a sync. Returns how many slots have been released.

    A packet is moved whole or not at all; one that fits no room now waits, and those behind it with it.
    """
    rx = load64(at + _RX)
    tx = load64(at + _TX)
    swap = load64(at + _SWAP)
    n = load32(rx + NUM_SLOTS)
    m = load32(tx + NUM_SLOTS)
    here = load32_acquire(load64(rx + RING) + _HEAD)
    to = load32_acquire(load64(tx + RING) + _HEAD)
    left = space(rx, here)
    room = space(tx, to)
    available = left
    offered = room
    packets = 0
    octets = 0
    store64(at + _SHORT, 0)
    while left > 0 and packets < limit:
        if swap != 0 and load64(at + _SKIPPING) == 0:
            some, size = swap_singles(rx, tx, here, to, min(left, room, limit - packets))
            add_to(at + _PACKETS, some)
            here = here + some if here + some < n else here + some - n
            to = to + some if to + some < m else to + some - m
            left -= some
            room -= some
            packets += some
            octets += size
            if left == 0 or packets == limit:
                break
        count, size, longest, good = look(rx, here, left)
        if count == 0 and left < n - 1 and load64(at + _SKIPPING) == 0:
            break
        fits = count < m and longest <= load32(tx + BUF_SIZE)
        if count == 0 or size == 0 or not good or not fits or load64(at + _SKIPPING) != 0:
            drop(at, count, size, good)
            taken = left if count == 0 else count
            here += taken
            here = here if here < n else here - n
            left -= taken
            packets += 1
            continue
        if count > room:
            store64(at + _SHORT, 1)
            break
        waste = spoilt(tx, to, count)
        if waste > 0:
            to = empty_slots(tx, to, waste)
            room -= waste
            continue
        for i in range(count):
            move_slot(rx, tx, here, to, _MOREFRAG if i + 1 < count else 0, swap)
            here = after(here, n)
            to = after(to, m)
        left -= count
        room -= count
        packets += 1
        octets += size
        add_to(at + _PACKETS, 1)
    add_to(at + _BYTES, octets)
    if room != offered:
        set_head(tx, to)
    if left != available:
        set_head(rx, here)
    return available - left


@piece
def serve(at, batch, burst):
    """Sync both rings of a link, and move what can be moved. Returns the slots released, -1 if a ring fails."""
    rx = load64(at + _RX)
    tx = load64(at + _TX)
    if rxsync(rx, batch, 0) != OK or txsync(tx, batch) != OK:
        return -1
    moved = move(at, burst)
    if moved > 0 and txsync(tx, batch) != OK:
        return -1
    return moved


@piece
def wait_for_more(waiter, count_at, list_at, k):
    """List a kring to wait on, and let it tell of more than it has now."""
    number = load32(waiter + count_at)
    store64(waiter + list_at + 8 * number, k)
    store32(waiter + count_at, number + 1)
    tail = load32(load64(k + RING) + _TAIL)
    if tail < load32(k + NUM_SLOTS):
        store32(load64(k + RING) + _CUR, tail)


@piece
def list_rings(t):
    """List what would let some link go on: packets, or room; and what takes packets that are held back (VALE)."""
    waiter = load64(t + _WAITER)
    store32(waiter + _WAIT_RX_COUNT, 0)
    store32(waiter + _WAIT_TX_COUNT, 0)
    for i in range(load64(t + _COUNT)):
        at = load64(t + _LINKS) + i * _LINK
        tx = load64(at + _TX)
        short = load64(at + _SHORT) != 0
        if not short:
            wait_for_more(waiter, _WAIT_RX_COUNT, _WAIT_RX, load64(at + _RX))
        if short or (load32(tx + KIND) == KIND_VALE and unsent(tx)):
            wait_for_more(waiter, _WAIT_TX_COUNT, _WAIT_TX, tx)


@kernel
def bridge(t, batch, until, linger):
    """Move packets over all links until nothing can be moved, told to stop, or CLOCK_MONOTONIC is ``until``.

    ``t`` is the address of a :data:`task`, ``batch`` of the thread's scratch. With ``linger``, spins for a while before
    it believes that nothing can be moved. Returns STOPPED, IDLE (and the rings to
    wait on are listed), BUSY, or FAILED (and ``failed`` tells which link).
    """
    attempt = 0
    while load64_acquire(t + _STOP) == 0:
        moved = 0
        for i in range(load64(t + _COUNT)):
            some = serve(load64(t + _LINKS) + i * _LINK, batch, load64(t + _BURST))
            if some < 0:
                store64(t + _FAILED, i)
                return FAILED
            moved += some
        if moved > 0:
            attempt = 0
        elif linger and relax(attempt):
            attempt += 1
        else:
            list_rings(t)
            return IDLE
        if clock_ns(CLOCK_MONOTONIC_COARSE) >= until:
            return BUSY
    return STOPPED

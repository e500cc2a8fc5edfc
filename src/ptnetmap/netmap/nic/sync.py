# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A network interface's syncs: buffers move between netmap's rings and an AF_XDP socket's, and no byte of a frame does.

The kernel is trusted, the user of the netmap ring is not: a slot is read once, checked, and what was handed to the
kernel is remembered where the user cannot write. One slot before hwcur always stays ours, as in a driver: an RX ring of n
slots has n - 1 buffers in the kernel's hands at the most, those of the slots ``[hwtail, hwcur - 1)``.
"""

from __future__ import annotations

import errno as _errno

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.xdp import XDP_PKT_CONTD
from ptnetmap.jit.atomic import load32_acquire, store32_release
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import MSG_DONTWAIT, errno, recvfrom, sendto
from ptnetmap.jit.memory import load32, load64, store32, store64
from ptnetmap.netmap.counters import (
    BAD_SLOT,
    BYTES,
    FRAGMENTS,
    PACKETS,
    RECEIVED,
    RECEIVED_BYTES,
    TOO_LONG_FOR_XDP,
    TOO_SHORT,
    TRUNCATED,
)
from ptnetmap.netmap.kring import (
    COPY_MONITORS,
    HWCUR,
    HWTAIL,
    NIC,
    NUM_BUFS,
    NUM_SLOTS,
    SLOT_SIZE,
    SLOTS,
    after,
    before,
    count,
    distance,
)
from ptnetmap.netmap.monitor import copy_to_monitors, swap_received, swap_transmitted
from ptnetmap.netmap.nic.packetsync import packet_rxsync, packet_txsync
from ptnetmap.netmap.nic.ring import (
    BUSY_POLL,
    DOWN,
    FD,
    GIVE_CONSUMER,
    GIVE_ENTRIES,
    GIVE_PRODUCER,
    GIVEN,
    HEADROOM,
    MASK,
    MOST_FRAGMENTS,
    PACKET,
    ROOM,
    SHIFT,
    TAKE_CONSUMER,
    TAKE_ENTRIES,
    TAKE_PRODUCER,
    TAKEN,
    U32,
    ZERO_COPY,
    find_held,
    has_come,
    have_all_left,
    held_at,
    hold,
    is_taken,
    wants_waking,
)

_MOREFRAG = abi.NS_MOREFRAG
_BUF_CHANGED = abi.NS_BUF_CHANGED
_DESC_SIZE = 16
_LEAST_BYTES = 14
_ENETDOWN = _errno.ENETDOWN
_LONGEST_CHAIN = abi.NETMAP_MAX_FRAGS


# -- sending ------------------------------------------------------------------------------------------------------------


@piece
def take_completed(k, x):
    """Take back the buffers of frames that have left, and let hwtail follow as far as all have."""
    n = load32(k + NUM_SLOTS)
    hwcur = load32(k + HWCUR)
    first = after(load32(k + HWTAIL), n)
    taken = load32(x + TAKEN)
    produced = load32_acquire(load64(x + TAKE_PRODUCER))
    if taken != produced:
        entries = load64(x + TAKE_ENTRIES)
        mask = load32(x + MASK)
        shift = load32(x + SHIFT)
        expected = first
        while taken != produced:
            index = load64(entries + 8 * (taken & mask)) >> shift
            taken = (taken + 1) & U32
            found = find_held(k, x, index, expected, hwcur)
            if found < 0:
                found = find_held(k, x, index, first, expected)
            if found >= 0:
                hold(x, found, 0)
                expected = after(found, n)
        store32(x + TAKEN, taken)
        store32_release(load64(x + TAKE_CONSUMER), taken)
    done = first
    while done != hwcur and held_at(x, done) == 0:
        done = after(done, n)
    if done != first:
        swap_transmitted(k, first, done)
        store32(k + HWTAIL, before(done, n))


@piece
def give_frames(k, x, head):
    """Give the kernel the whole packets in the slots ``[hwcur, head)``; hwcur is what is left.

    A packet with a slot that names no buffer, with more than a chunk's room in one, or in more buffers than the kernel
    takes, is dropped and counted. A chain that has not ended yet stays.
    """
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    entries = load64(x + GIVE_ENTRIES)
    mask = load32(x + MASK)
    shift = load32(x + SHIFT)
    headroom = load32(x + HEADROOM)
    room = load32(x + ROOM)
    most = load32(x + MOST_FRAGMENTS)
    given = load32(x + GIVEN)
    packets = 0
    octets = 0
    start = load32(k + HWCUR)
    at = start
    pieces = 0
    size = 0
    reason = 0
    while at != head:
        slot = slots + at * SLOT_SIZE
        word = load64(slot)
        index = word & 0xFFFFFFFF
        length = (word >> 32) & 0xFFFF
        flags = (word >> 48) & 0xFFFF
        if flags & _BUF_CHANGED:
            store64(slot, word & ~(_BUF_CHANGED << 48))
        more = flags & _MOREFRAG != 0
        if index < 2 or index >= num_bufs:
            reason = BAD_SLOT
            index = 0
        elif length > room:
            reason = TOO_LONG_FOR_XDP
        elif length == 0:
            reason = TOO_SHORT
        hold(x, at, index)
        if pieces < most:
            desc = entries + _DESC_SIZE * ((given + pieces) & mask)
            store64(desc, (index << shift) + headroom)
            store64(desc + 8, length | ((XDP_PKT_CONTD if more else 0) << 32))
        else:
            reason = FRAGMENTS
        pieces += 1
        size += length
        at = after(at, n)
        if more and pieces < _LONGEST_CHAIN:
            continue
        if reason == 0 and size < _LEAST_BYTES:
            reason = TOO_SHORT
        if more and reason == 0:
            reason = FRAGMENTS
        if reason == 0:
            given = (given + pieces) & U32
            octets += size
        else:
            count(k, reason, 1)
            while start != at:
                hold(x, start, 0)
                start = after(start, n)
        packets += 1
        start = at
        pieces = 0
        size = 0
        reason = 0
    count(k, PACKETS, packets)
    count(k, BYTES, octets)
    store32(k + HWCUR, start)
    store32(x + GIVEN, given)
    store32_release(load64(x + GIVE_PRODUCER), given)


@piece
def wake_to_send(k, x):
    """Let the kernel send what it was given, if it asks for that, for as long as it gets on with it.

    In copy mode a system call sends a number of frames and then says EAGAIN, as it does when the driver is full.
    """
    if load32(x + DOWN) != 0:
        return
    all_taken = is_taken(x)
    all_done = all_taken and have_all_left(k)
    if all_done or (all_taken and load32(x + ZERO_COPY) == 0):
        return
    if load32(x + BUSY_POLL) == 0 and not wants_waking(x):
        return
    while True:
        consumed = load32_acquire(load64(x + GIVE_CONSUMER))
        if sendto(load32(x + FD), 0, 0, MSG_DONTWAIT, 0, 0) < 0 and errno() == _ENETDOWN:
            store32(x + DOWN, 1)
            return
        if is_taken(x) or load32_acquire(load64(x + GIVE_CONSUMER)) == consumed:
            return


@piece
def nic_txsync(k, head, batch):
    """Send the slots ``[hwcur, head)``, and take back those whose frames have left."""
    x = load64(k + NIC)
    if load32(x + PACKET) != 0:
        packet_txsync(k, x, head, batch)
        return
    take_completed(k, x)
    hwcur = load32(k + HWCUR)
    if head != hwcur:
        give_frames(k, x, head)
        if load64(k + COPY_MONITORS) != 0:
            copy_to_monitors(k, hwcur, load32(k + HWCUR), batch, True)
    wake_to_send(k, x)
    take_completed(k, x)


# -- receiving ----------------------------------------------------------------------------------------------------------


@piece
def give_buffers(k, x, start, end):
    """Give the kernel the buffers of the slots ``[start, end)`` to receive into."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    entries = load64(x + GIVE_ENTRIES)
    mask = load32(x + MASK)
    shift = load32(x + SHIFT)
    given = load32(x + GIVEN)
    while start != end:
        index = load32(slots + start * SLOT_SIZE)
        if index < 2 or index >= num_bufs:
            count(k, BAD_SLOT, 1)
            index = 0
        else:
            store64(entries + 8 * (given & mask), index << shift)
            given = (given + 1) & U32
        hold(x, start, index)
        start = after(start, n)
    store32(x + GIVEN, given)
    store32_release(load64(x + GIVE_PRODUCER), given)


@piece
def place_buffer(k, x, position, end, index):
    """Make the buffer ``index``, which the kernel has given back, that of the slot at ``position``.

    If it was another slot's, that one gets the buffer which the kernel still has, so each stays in one slot. Returns
    whether the kernel had it at all.
    """
    if held_at(x, position) != index:
        found = find_held(k, x, index, position, end)
        if found < 0:
            return False
        other = held_at(x, position)
        hold(x, found, other)
        store32(load64(k + SLOTS) + found * SLOT_SIZE, other)
        hold(x, position, index)
    return True


@piece
def take_frames(k, x):
    """Put the frames that have come into the slots from hwtail on. Returns the new hwtail: only whole packets count."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    entries = load64(x + TAKE_ENTRIES)
    mask = load32(x + MASK)
    shift = load32(x + SHIFT)
    headroom = load32(x + HEADROOM)
    below = (1 << shift) - 1
    produced = load32_acquire(load64(x + TAKE_PRODUCER))
    taken = load32(x + TAKEN)
    end = before(load32(k + HWCUR), n)
    at = load32(k + HWTAIL)
    hwtail = at
    at_end = taken
    packets = 0
    octets = 0
    size = 0
    while taken != produced and at != end:
        desc = entries + _DESC_SIZE * (taken & mask)
        address = load64(desc)
        word = load64(desc + 8)
        length = word & 0xFFFFFFFF
        more = (word >> 32) & XDP_PKT_CONTD != 0
        taken = (taken + 1) & U32
        index = address >> shift
        if not place_buffer(k, x, at, end, index):
            count(k, BAD_SLOT, 1)
            continue
        if address & below != headroom:
            count(k, TRUNCATED, 1)
            length = 0
        slot = slots + at * SLOT_SIZE
        store64(slot, index | (length << 32) | ((_MOREFRAG if more else 0) << 48))
        store64(slot + 8, 0)
        size += length
        at = after(at, n)
        if not more:
            hwtail = at
            at_end = taken
            packets += 1
            octets += size
            size = 0
    store32(x + TAKEN, at_end)
    store32_release(load64(x + TAKE_CONSUMER), at_end)
    count(k, RECEIVED, packets)
    count(k, RECEIVED_BYTES, octets)
    return hwtail


@piece
def nic_rxsync(k, head, batch):
    """Let the kernel have the buffers of the slots ``[hwcur, head)``, and show what has come."""
    x = load64(k + NIC)
    if load32(x + PACKET) != 0:
        packet_rxsync(k, x, head, batch)
        return
    n = load32(k + NUM_SLOTS)
    hwcur = load32(k + HWCUR)
    if head != hwcur:
        swap_received(k, hwcur, head)
        count(k, PACKETS, distance(hwcur, head, n))
        give_buffers(k, x, before(hwcur, n), before(head, n))
        store32(k + HWCUR, head)
    hwtail = load32(k + HWTAIL)
    polled = load32(x + BUSY_POLL) != 0
    if polled and not has_come(k):
        recvfrom(load32(x + FD), 0, 0, MSG_DONTWAIT, 0, 0)
    reached = take_frames(k, x)
    if reached != hwtail:
        store32(k + HWTAIL, reached)
        if load64(k + COPY_MONITORS) != 0:
            copy_to_monitors(k, hwtail, reached, batch, False)
    if not polled and wants_waking(x):
        recvfrom(load32(x + FD), 0, 0, MSG_DONTWAIT, 0, 0)


@kernel
def fill(k):
    """Give the kernel the buffers of a new RX ring: of all slots but the last."""
    x = load64(k + NIC)
    give_buffers(k, x, 0, load32(k + NUM_SLOTS) - 1)
    return 0

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The kring: the runtime's own side of a ring, and the steps that every sync of every kind begins and ends with.

A netmap_ring lies in memory that its user can overwrite at any time. The kring holds what the runtime believes instead:
it is read and written by kernels only, as a flat structure at an address.

Slots move round the ring between two owners (indices are modulo ``num_slots``, one slot always stays unused)::

      hwcur        rhead = head    cur              hwtail = tail
        |  released   |  the user's slots, cur is where it waits  |   the runtime's, or the peer's

Who writes which line matters more than what a line holds: each group below is one cache line.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.atomic import add64, cas64, load32_acquire, load64_acquire, store32_release, store64_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_REALTIME, clock_ns, sched_yield
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.jit.wait import kick
from ptnetmap.netmap.counters import BAD_SLOT, REINITS, SKIPPED

KIND_NULL = 0
KIND_PIPE = 1
KIND_VALE = 2
KIND_MONITOR = 3
KIND_CSB = 4
KIND_VIRTQUEUE = 5
KIND_NIC = 6

STATE_OFF = 0
STATE_ON = 1
STATE_STOPPED = 2

ORDER_HWCUR_FIRST = 0
ORDER_HWTAIL_FIRST = 1

kring = np.dtype(
    [
        # shape: written before the kring is published
        ("ring", "u8"),
        ("slots", "u8"),
        ("buffers", "u8"),
        ("peer", "u8"),
        ("peer_slots", "u8"),
        ("ingress", "u8"),
        ("num_slots", "u4"),
        ("buf_size", "u4"),
        ("num_bufs", "u4"),
        ("kind", "u4"),
        ("direction", "u4"),
        ("indirect", "u4"),
        ("most", "u4"),
        ("room", "u4"),
        # where the other side of the synchronisation protocol reads and writes
        ("head_at", "u8"),
        ("cur_at", "u8"),
        ("tail_at", "u8"),
        ("hwcur_at", "u8"),
        ("epoch_at", "u8"),
        ("peer_tail_at", "u8"),
        ("told_at", "u8"),
        ("need_kick_at", "u8"),
        ("peer_need_kick_at", "u8"),
        ("peer_eventfd_at", "u8"),
        ("counters_at", "u8"),
        ("service", "u8"),
        ("order", "u4"),
        ("state", "u4"),
        ("copy_monitors", "u8"),
        ("swap_monitor", "u8"),
        ("nic", "u8"),
        ("_pad_place", "V48"),
        # the executor's
        ("busy", "u8"),
        ("hwcur", "u4"),
        ("hwtail", "u4"),
        ("rhead", "u4"),
        ("rcur", "u4"),
        ("rtail", "u4"),
        ("burst", "u4"),
        ("_pad_executor", "V32"),
        # the other side's: how far the ring is filled (RX) or given back (TX)
        ("peer_tail", "u4"),
        ("_pad_peer", "V60"),
        # senders to this ring
        ("lock", "u4"),
        ("lease_tail", "u4"),
        ("lease_next", "u4"),
        ("seen_hwcur", "u4"),
        ("leases", "u8"),
        ("lossless", "u4"),
        ("held", "u4"),
        ("patch", "u8"),
        ("_pad_lease", "V24"),
        # waiters
        ("need_kick", "u4"),
        ("eventfd", "i4"),
        ("one", "u8"),
        ("watched", "u4"),
        ("irqfd", "i4"),
        ("peer_eventfd", "i4"),
        ("crowded", "u4"),
        ("rested_at", "u8"),
        ("left_at", "u8"),
        ("kick_at", "u4"),
        ("_pad_wait", "V12"),
    ]
)
"""Everything the runtime knows of one ring.

=============== ==================================================================================
field           meaning
=============== ==================================================================================
ring, slots     addresses of the netmap_ring, or the virtqueue, and of its slot 0
buffers         address of buffer 0 of the port's own region
peer            the other end's kring, if this process has it (pipes), else 0
peer_slots      address of slot 0 of the other end's ring (pipes), else 0
ingress         how this ring's packets enter a switch (:mod:`~ptnetmap.netmap.view`), else 0
kind            KIND_*: which kernels serve the ring
indirect        1 if NS_INDIRECT pointers are of this process, and may be followed
room            bytes of a packet that are put into one slot: a network interface's buffers cannot be filled
most            slots that one sync takes from a TX ring, so that no ring keeps its executor from the others
head_at...      addresses of the fields shared with the user: in the netmap_ring, or in a CSB
hwcur_at        where hwcur is told, or 0: a netmap_ring has no such field
epoch_at        the runtime's epoch, see :mod:`~ptnetmap.netmap.epoch`
peer_tail_at    where the other side's index is: ``peer_tail`` below, or in memory shared with another process
told_at         where the other side is told ours: a pipe's lane, or a CSB; else 0
need_kick_at    where who waits on this ring says so: ``need_kick`` below, or in shared memory
peer_need...,   the same word of the other side (pipes, CSBs), and where its eventfd's number is
peer_eventfd_at
counters_at     the ring's :data:`~ptnetmap.netmap.counters.counters`
service         the :data:`~ptnetmap.netmap.service.service` that syncs the ring for another process, else 0
order           which of hwcur and hwtail a CSB is told first
copy_monitors   list of copy monitors' krings (a count, then addresses), or 0
swap_monitor    the zero-copy monitor's kring, or 0; several form a chain
nic             a network interface's :data:`~ptnetmap.netmap.nic.ring.xskrings`, else 0
busy            epoch in which its executor entered, 0 when nobody is inside
hwcur, hwtail   runtime's indices; rhead, rcur, rtail the last accepted ones of the user
burst           TX: packets to take at a time, fewer while a lossless destination holds them back
peer_tail       RX: end of what senders have published; TX: end of what the reader gave back
lock ... leases reservations of senders to this ring, see :mod:`~ptnetmap.netmap.lease`
lossless, held  RX: a full ring holds its senders back; some sender waits for room
patch           ingress that forwards what arrives here into another switch, else 0
need_kick,      how to wake who waits on this ring; eventfd is -1 until somebody does
eventfd, one
watched         1 if eventfd stays readable as long as the ring has something for its user
irqfd           what to poll for another process's wake-ups: an epoll descriptor, or -1
peer_eventfd    what wakes the other side, where that is another process, or -1
crowded         waits in a row in which the waiter was on its kthread's core; rested_at, when it may next leave
                it (ns); left_at, when it last left a core that somebody else kept to himself (ns)
kick_at         where in the file peer_eventfd a device's register of 32 bits is that wakes the other side; 0: it is an
                eventfd
=============== ==================================================================================
"""

_AT = offsets(kring)
RING = _AT["ring"]
SLOTS = _AT["slots"]
BUFFERS = _AT["buffers"]
PEER = _AT["peer"]
PEER_SLOTS = _AT["peer_slots"]
INGRESS = _AT["ingress"]
NUM_SLOTS = _AT["num_slots"]
BUF_SIZE = _AT["buf_size"]
NUM_BUFS = _AT["num_bufs"]
KIND = _AT["kind"]
DIRECTION = _AT["direction"]
INDIRECT = _AT["indirect"]
MOST = _AT["most"]
ROOM = _AT["room"]
HEAD_AT = _AT["head_at"]
CUR_AT = _AT["cur_at"]
TAIL_AT = _AT["tail_at"]
HWCUR_AT = _AT["hwcur_at"]
EPOCH_AT = _AT["epoch_at"]
PEER_TAIL_AT = _AT["peer_tail_at"]
TOLD_AT = _AT["told_at"]
NEED_KICK_AT = _AT["need_kick_at"]
PEER_NEED_KICK_AT = _AT["peer_need_kick_at"]
PEER_EVENTFD_AT = _AT["peer_eventfd_at"]
COUNTERS_AT = _AT["counters_at"]
SERVICE = _AT["service"]
ORDER = _AT["order"]
STATE = _AT["state"]
COPY_MONITORS = _AT["copy_monitors"]
SWAP_MONITOR = _AT["swap_monitor"]
NIC = _AT["nic"]
BUSY = _AT["busy"]
HWCUR = _AT["hwcur"]
HWTAIL = _AT["hwtail"]
RHEAD = _AT["rhead"]
RCUR = _AT["rcur"]
RTAIL = _AT["rtail"]
BURST = _AT["burst"]
PEER_TAIL = _AT["peer_tail"]
LOCK = _AT["lock"]
LEASE_TAIL = _AT["lease_tail"]
LEASE_NEXT = _AT["lease_next"]
SEEN_HWCUR = _AT["seen_hwcur"]
LEASES = _AT["leases"]
LOSSLESS = _AT["lossless"]
HELD = _AT["held"]
PATCH = _AT["patch"]
EVENTFD = _AT["eventfd"]
ONE = _AT["one"]
WATCHED = _AT["watched"]
IRQFD = _AT["irqfd"]
CROWDED = _AT["crowded"]
RESTED_AT = _AT["rested_at"]
LEFT_AT = _AT["left_at"]
KICK_AT = _AT["kick_at"]

_RING_FLAGS = abi.ring.fields["flags"][1]
_RING_TS = abi.ring.fields["ts_sec"][1]
_NR_TIMESTAMP = abi.NR_TIMESTAMP
SLOT_SIZE = abi.slot.itemsize


@piece
def distance(start, end, n):
    """Slots from ``start`` to ``end``, going forward round a ring of ``n``."""
    d = end - start
    return d if d >= 0 else d + n


@piece
def after(index, n):
    """Next index of a ring of ``n`` slots."""
    return index + 1 if index + 1 < n else 0


@piece
def before(index, n):
    """Previous index of a ring of ``n`` slots."""
    return index - 1 if index > 0 else n - 1


@piece
def count(k, reason, amount):
    """Add to one of the kring's counters; the caller is the only one that writes it now."""
    at = load64(k + COUNTERS_AT) + reason
    store64(at, load64(at) + amount)


@piece
def count_shared(k, reason, amount):
    """Add to one of the counters that several senders write."""
    if amount != 0:
        add64(load64(k + COUNTERS_AT) + reason, amount)


@piece
def enter(k):
    """Become the ring's executor, pinned to the present epoch; return False if there is one already.

    A full fence: what is published before the epoch moved on is seen by every executor that entered after it.
    """
    return cas64(k + BUSY, 0, load64_acquire(load64(k + EPOCH_AT)))


@piece
def leave(k):
    """Stop being the ring's executor."""
    store64_release(k + BUSY, 0)


@piece
def slot_is_valid(k, index, length):
    """Whether a slot's buf_idx and len can be used: index 0 with no data is an empty slot, which moves nothing."""
    if index == 0 and length == 0:
        return True
    return 2 <= index < load32(k + NUM_BUFS) and length <= load32(k + BUF_SIZE)


@piece
def reinit(k):
    """Make a ring that its user has overwritten usable again, as upstream's netmap_ring_reinit; always returns -1.

    Slots that name no buffer of the pool become empty, lengths beyond the buffer become 0. Indices are reset, to the
    runtime's, only when one is outside the ring. In-range but inconsistent ones are left to the user to repair: unlike
    upstream the kring keeps its last good ones, so that a second sync cannot get past the check with the same values.
    """
    n = load32(k + NUM_SLOTS)
    num_bufs = load32(k + NUM_BUFS)
    buf_size = load32(k + BUF_SIZE)
    count(k, REINITS, 1)
    for i in range(n):
        slot = load64(k + SLOTS) + i * SLOT_SIZE
        index = load32(slot)
        if index < 2 or index >= num_bufs:
            if index != 0:
                count(k, BAD_SLOT, 1)
            store32(slot, 0)
            store16(slot + 4, 0)
        elif load16(slot + 4) > buf_size:
            count(k, BAD_SLOT, 1)
            store16(slot + 4, 0)
    if load32(load64(k + HEAD_AT)) >= n or load32(load64(k + CUR_AT)) >= n or load32(load64(k + TAIL_AT)) >= n:
        hwcur = load32(k + HWCUR)
        store32(k + RHEAD, hwcur)
        store32(k + RCUR, hwcur)
        store32(load64(k + CUR_AT), hwcur)
        store32_release(load64(k + HEAD_AT), hwcur)
        publish(k)
    return -1


@piece
def publish(k):
    """Tell the user hwtail, and hwcur where there is a place for it."""
    hwtail = load32(k + HWTAIL)
    store32(k + RTAIL, hwtail)
    if load64(k + HWCUR_AT) == 0:
        store32_release(load64(k + TAIL_AT), hwtail)
    elif load32(k + ORDER) == ORDER_HWCUR_FIRST:
        store32_release(load64(k + HWCUR_AT), load32(k + HWCUR))
        store32_release(load64(k + TAIL_AT), hwtail)
    else:
        store32_release(load64(k + TAIL_AT), hwtail)
        store32_release(load64(k + HWCUR_AT), load32(k + HWCUR))


@piece
def prologue(k, low, high):
    """Take one snapshot of the user's head and cur and check it: ``low <= head <= cur <= high`` round the ring.

    ``low`` and ``high`` are rhead and rtail of a TX ring, hwcur and hwtail of an RX ring. Returns head, or -1 after a
    ring reinit. A tail that the user changed is put back silently.
    """
    n = load32(k + NUM_SLOTS)
    head = load32_acquire(load64(k + HEAD_AT))
    cur = load32(load64(k + CUR_AT))
    if head >= n or cur >= n:
        return reinit(k)
    room = distance(low, high, n)
    to_head = distance(low, head, n)
    to_cur = distance(low, cur, n)
    if to_head > room or to_cur > room or to_cur < to_head:
        return reinit(k)
    tail = load32(k + RTAIL)
    if load32(load64(k + TAIL_AT)) != tail:
        store32(load64(k + TAIL_AT), tail)
    store32(k + RHEAD, head)
    store32(k + RCUR, cur)
    return head


@piece
def tx_prologue(k):
    """Return the checked head of a TX ring, or -1 after a ring reinit."""
    return prologue(k, load32(k + RHEAD), load32(k + RTAIL))


@piece
def rx_prologue(k):
    """Return the checked head of an RX ring, or -1 after a ring reinit."""
    return prologue(k, load32(k + HWCUR), load32(k + HWTAIL))


@piece
def stamp(k, always):
    """Write the time of this sync to the ring's ts, if its user or the caller wants one."""
    ring = load64(k + RING)
    if always or (load32(ring + _RING_FLAGS) & _NR_TIMESTAMP) != 0:
        now = clock_ns(CLOCK_REALTIME)
        store64(ring + _RING_TS, now // 1_000_000_000)
        store64(ring + _RING_TS + 8, now % 1_000_000_000 // 1000)


@piece
def wake(k):
    """Wake who sleeps until this ring moves."""
    return kick(load64(k + NEED_KICK_AT), k + EVENTFD, load64(k + ONE))


@piece
def wake_peer(k):
    """Wake who sleeps until the other end of this ring moves."""
    return kick(load64(k + PEER_NEED_KICK_AT), load64(k + PEER_EVENTFD_AT), load64(k + ONE))


@piece
def begin(k):
    """Enter a ring for a sync. Returns 1, 0 when somebody else is inside (then a sync does nothing), -1 if it is off."""
    if not enter(k):
        count(k, SKIPPED, 1)
        return 0
    if load32(k + STATE) != STATE_ON:
        leave(k)
        return -1
    return 1


@kernel
def wait_until_left(krings, count, now):
    """Wait until no executor that entered before epoch ``now`` is inside any of the krings at these addresses."""
    for i in range(count):
        k = load64(krings + 8 * i)
        while True:
            entered = load64_acquire(k + BUSY)
            if entered == 0 or entered >= now:
                break
            sched_yield()
    return 0

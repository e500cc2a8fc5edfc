# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The near end of a CSB: syncs of a ring that a kthread of another process serves.

They copy nothing: they tell the kthread the ring's indices, read its own, and kick it if it sleeps. In a guest it is a
device's register that kicks, and the kthread leaves the wish to be interrupted as it finds it. The kring of such a
ring is this process's own; ``told_at`` is its entry in the page that we write (head, cur, appl_need_kick), and
``peer_tail_at`` the hwtail in the page that the kthread writes (hwcur, hwtail, kern_need_kick).
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.jit.atomic import fence, load32_acquire, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import (
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    MOST_CORES,
    clock_ns,
    leave_core,
    pwrite,
    sched_getcpu,
    sched_yield,
    write,
)
from ptnetmap.jit.memory import copy_bytes, load16, load16_at, load32, load64, store16, store32, store64
from ptnetmap.jit.wait import SPINS, YIELDS, relax
from ptnetmap.netmap.kring import (
    BUF_SIZE,
    BUFFERS,
    CROWDED,
    HWCUR,
    HWTAIL,
    INDIRECT,
    KICK_AT,
    KIND,
    KIND_CSB,
    LEFT_AT,
    NEED_KICK_AT,
    NUM_SLOTS,
    ONE,
    PEER_EVENTFD_AT,
    PEER_NEED_KICK_AT,
    PEER_TAIL_AT,
    RCUR,
    RESTED_AT,
    RHEAD,
    RTAIL,
    SLOT_SIZE,
    SLOTS,
    STATE,
    STATE_STOPPED,
    TOLD_AT,
    after,
    slot_is_valid,
)

_INDIRECT = abi.NS_INDIRECT
_FLAGS = abi.slot.fields["flags"][1]
_CUR = offsets(nm_csb_atok)["cur"] - offsets(nm_csb_atok)["head"]
_HWCUR = offsets(nm_csb_ktoa)["hwcur"] - offsets(nm_csb_ktoa)["hwtail"]

SERVED = 16
"""Where, in a ktoa entry of our own, the kthread tells what head it has served: after what upstream's entry has."""
CORE = 20
"""Where it tells which core it runs on: the number plus 1, or 0."""
STOPPED = 24
"""Where 1 says that the ring has stopped for good: its network interface has gone."""
REST_NS = 20_000_000
"""How long a thread that has left its kthread's core stays, should it find itself there again."""
HOGGED_NS = 300_000
"""A yield that takes so long has let somebody run who never yields."""
_SERVED = SERVED - offsets(nm_csb_ktoa)["hwtail"]
_CORE = CORE - offsets(nm_csb_ktoa)["hwtail"]
_STOPPED = STOPPED - offsets(nm_csb_ktoa)["hwtail"]
_CROWDED = 8


@piece
def publish_head(k, head):
    """Tell the kthread head and cur, cur first; kick it if it asked for that. Returns whether head is news."""
    told = load64(k + TOLD_AT)
    store32(told + _CUR, load32(k + RCUR))
    if load32(told) == head:
        return False
    store32_release(told, head)
    if load32(k + KICK_AT) != 0:
        store32(load64(k + NEED_KICK_AT), 0)  # awake: whoever comes to sleep again asks anew
    fence()
    if load32_acquire(load64(k + PEER_NEED_KICK_AT)) != 0:
        fd = load32(load64(k + PEER_EVENTFD_AT))
        if load32(k + KICK_AT) != 0:
            pwrite(fd, load64(k + ONE), 4, load32(k + KICK_AT))
        else:
            write(fd, load64(k + ONE), 8)
    return True


@piece
def learn_indices(k):
    """Take over the kthread's indices: hwtail is read first, as the kthread stores it last."""
    tail_at = load64(k + PEER_TAIL_AT)
    store32(k + HWTAIL, load32_acquire(tail_at))
    store32(k + HWCUR, load32_acquire(tail_at + _HWCUR))
    if load32(tail_at + _STOPPED) != 0:
        store32(k + STATE, STATE_STOPPED)


@piece
def csb_prologue(k):
    """Before the user's indices are checked: what may be released is what the kthread says now.

    Other processes may have the same ring bound, so what this one accepted last says nothing.
    """
    learn_indices(k)
    store32(k + RHEAD, load32(k + HWCUR))
    store32(k + RTAIL, load32(k + HWTAIL))


@piece
def flags_of(slots, start, end):
    """Return the or of the flags of the slots ``[start, end)``, without a wrap."""
    flags = 0
    for i in range(start, end):
        flags |= load16_at(slots + _FLAGS, i * SLOT_SIZE)
    return flags


@piece
def fetch_indirect(k, start, end):
    """Copy what the slots ``[start, end)`` point to into their buffers: another process cannot follow our pointers."""
    n = load32(k + NUM_SLOTS)
    slots = load64(k + SLOTS)
    flags = flags_of(slots, start, end) if end >= start else flags_of(slots, start, n) | flags_of(slots, 0, end)
    if flags & _INDIRECT == 0:
        return
    while start != end:
        slot = slots + start * SLOT_SIZE
        index = load32(slot)
        length = load16(slot + 4)
        flags = load16(slot + _FLAGS)
        if flags & _INDIRECT != 0 and index >= 2 and slot_is_valid(k, index, length):
            copy_bytes(load64(k + BUFFERS) + index * load32(k + BUF_SIZE), load64(slot + 8), length)
            store16(slot + _FLAGS, flags & ~_INDIRECT)
        start = after(start, n)


@piece
def csb_txsync(k, head):
    """Release the slots up to ``head`` to the kthread, and learn how far it is."""
    told = load32(load64(k + TOLD_AT))
    if load32(k + INDIRECT) != 0 and told != head and told < load32(k + NUM_SLOTS):
        fetch_indirect(k, told, head)
    publish_head(k, head)
    learn_indices(k)


@piece
def csb_rxsync(k, head):
    """Give the slots up to ``head`` back to the kthread, and learn what has come."""
    publish_head(k, head)
    learn_indices(k)


@piece
def csb_served(k):
    """Whether the kthread has done all that it can about what was published last."""
    tail_at = load64(k + PEER_TAIL_AT)
    head = load32(load64(k + TOLD_AT))
    return load32_acquire(tail_at + _HWCUR) == head or load32_acquire(tail_at + _SERVED) == head


@piece
def yield_core(left_at):
    """Yield; and leave a core on which that took so long that whoever runs there does not yield itself.

    A processor of a guest does not: it spins as on a core of its own. ``left_at`` is where the time of the last leave is.
    Returns whether it took so long.
    """
    since = clock_ns(CLOCK_MONOTONIC)
    sched_yield()
    now = clock_ns(CLOCK_MONOTONIC)
    if now - since <= HOGGED_NS:
        return False
    if now - load64(left_at) > REST_NS:
        store64(left_at, now)
        core = sched_getcpu()
        if core < MOST_CORES:
            leave_core(core)
    return True


@kernel
def relax_beside(k, attempt):
    """As :func:`~ptnetmap.jit.wait.relax`, for a thread that waits for ring ``k`` (0: for none).

    A thread that finds itself on its kthread's core again and again leaves it. Two cores have to carry three threads
    when two processes talk through a switch; the kthread does the most, and only then do all go fast when it has a
    core to itself. The kernel's scheduler does not know, puts a woken kthread next to who woke it, and takes a tenth of
    a second to think again.
    """
    if k == 0 or load32(k + KIND) != KIND_CSB:
        return relax(attempt)
    again = attempt < SPINS + YIELDS
    if attempt < SPINS:
        relax(attempt)
    elif again:
        yield_core(k + LEFT_AT)
    if not again:
        store32(k + CROWDED, 0)
    elif attempt == SPINS:
        core = sched_getcpu()
        if load32(load64(k + PEER_TAIL_AT) + _CORE) != core + 1:
            store32(k + CROWDED, 0)
            return again
        crowded = load32(k + CROWDED) + 1
        store32(k + CROWDED, crowded)
        if crowded >= _CROWDED and core < MOST_CORES:
            now = clock_ns(CLOCK_MONOTONIC_COARSE)
            if now >= load64(k + RESTED_AT):
                store32(k + CROWDED, 0)
                store64(k + RESTED_AT, now + REST_NS)
                leave_core(core)
    return again

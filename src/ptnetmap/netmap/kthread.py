# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The kthread's loop: it serves the rings of untrusted peers, round after round, without the GIL.

Every word that a peer writes is read once per sync and checked (see :mod:`~ptnetmap.netmap.kring`). A ring gives up its
turn after half a ring, so a round is short. A ring without news for a while is parked; a kthread without active rings
sleeps. Kicks cost the peer a system call, so none is asked for while its ring is active.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import fence, load32_acquire, store32_release
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns, epoll_wait, sched_getcpu, sched_yield, sleep_ns, write
from ptnetmap.jit.memory import load32, load64, store32, store64
from ptnetmap.jit.wait import SPINS, kick, relax
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.counters import NO_ROOM, OCCUPIED
from ptnetmap.netmap.csb import yield_core
from ptnetmap.netmap.kring import (
    COUNTERS_AT,
    DIRECTION,
    HEAD_AT,
    HWCUR,
    HWTAIL,
    KIND,
    KIND_NIC,
    KIND_PIPE,
    KIND_VIRTQUEUE,
    NEED_KICK_AT,
    NUM_SLOTS,
    ONE,
    PEER_TAIL_AT,
    RHEAD,
    STATE,
    STATE_ON,
    distance,
)
from ptnetmap.netmap.nic.news import unwatch_news, watch_news
from ptnetmap.netmap.nic.ring import is_polled, is_sent_beside, nic_has_news, tell_sending
from ptnetmap.netmap.queueserve import STUCK, ask_driver_for_kicks, queue_has_news, serve_queue
from ptnetmap.netmap.service import EVENTS, SERVICE, THREAD, activate
from ptnetmap.netmap.sync import REINIT, rxsync, txsync

_KTHREAD = OFFSET["kthread"]
_KRING = SERVICE["kring"]
_KERN_AT = SERVICE["kern_need_kick_at"]
_APPL_AT = SERVICE["appl_need_kick_at"]
_SERVED_AT = SERVICE["served_at"]
_CORE_AT = SERVICE["core_at"]
_IRQFD = SERVICE["irqfd"]
_CLEARS = SERVICE["clears"]
_LEAVING = SERVICE["leaving"]
_ACTIVE = SERVICE["active"]
_SEEN = SERVICE["seen"]
_STUCK = SERVICE["stuck"]
_DRY = SERVICE["dry"]
_SPIN = SERVICE["spin"]
_ARMED = SERVICE["armed"]
_PARKED_AT = SERVICE["parked_at"]
_KICKS = SERVICE["kicks"]
_SPURIOUS = SERVICE["spurious"]
_IRQS = SERVICE["irqs"]
_STOP = THREAD["stop"]
_REMOVALS = THREAD["removals"]
_ACKED = THREAD["acked"]
_EPOLL = THREAD["epoll"]
_FIRST_SPIN = THREAD["spin"]
_LIST = THREAD["active"]
_COUNT = THREAD["active_count"]
_EVENTS = THREAD["events"]
_ROUNDS = THREAD["rounds"]
_MOVES = THREAD["moves"]
_SLEEPS = THREAD["sleeps"]
_ASLEEP_SINCE = THREAD["asleep_since"]
_ASLEEP_NS = THREAD["asleep_ns"]
_CORE = THREAD["core"]
_ONE_AT = THREAD["one"]
_WATCHDOG_WAITS = THREAD["watchdog_waits"]
_WATCHDOG = THREAD["watchdog"]
_GUESTS = THREAD["guests"]
_LEFT_AT = THREAD["left_at"]

_EVENT_SIZE = 12
_LOOK_FOR_KICKS = 16
_LEAST_SPIN = 16
_SOON = 50_000
_LATE = 1_000_000
_NAP_NS = 200_000
_NAPS, _MOST_NAPS = 256, 4096

DRY = 0
MOVED = 1
DROPPED = 2


@piece
def has_news(s, k):
    """Whether serving a ring now may move something: a few loads."""
    kind = load32(k + KIND)
    if kind == KIND_VIRTQUEUE:
        return load32(s + _STUCK) == 0 and queue_has_news(k)
    if kind == KIND_NIC and (load32(k + STATE) != STATE_ON or nic_has_news(k)):
        return load32(k + STATE) == STATE_ON
    head = load32_acquire(load64(k + HEAD_AT))
    if head != load32(s + _SEEN):
        return True
    if load32(k + DIRECTION) == 0:
        if load32(k + HWCUR) != load32(k + RHEAD) and load32(s + _STUCK) == 0:
            return True
        return kind == KIND_PIPE and load32_acquire(load64(k + PEER_TAIL_AT)) != load32(k + HWTAIL)
    return kind != KIND_NIC and load32_acquire(load64(k + PEER_TAIL_AT)) != load32(k + HWTAIL)


@piece
def interrupt(s):
    """Wake the user if it asked for that; what it is woken for was stored before. The fence pairs with the user's."""
    fence()
    appl = load64(s + _APPL_AT)
    if load32_acquire(appl) == 0:
        return
    if load32(s + _CLEARS) != 0:
        store32(appl, 0)
    fd = load32(s + _IRQFD)
    if fd != 0xFFFFFFFF:
        store64(s + _IRQS, load64(s + _IRQS) + 1)
        write(fd, load64(load64(s + _KRING) + ONE), 8)


@piece
def tell_served(s, head):
    """Tell the user that all has been done up to ``head`` that can be."""
    if load64(s + _SERVED_AT) != 0:
        store32_release(load64(s + _SERVED_AT), head)


@piece
def tell_core(t, s):
    """Tell the user where its kthread runs."""
    if load64(s + _CORE_AT) != 0:
        store32(load64(s + _CORE_AT), load32(t + _CORE))


@piece
def find_core(t):
    """See where we run, and tell it to the users of all active rings if that is news.

    A kthread of guests does not tell: its other users had better share its core than that of a guest's processor, which
    never yields.
    """
    core = sched_getcpu() + 1 if load32(t + _GUESTS) == 0 else 0
    if core == load32(t + _CORE):
        return
    store32(t + _CORE, core)
    for i in range(load32(t + _COUNT)):
        tell_core(t, load64(load64(t + _LIST) + 8 * i))


@piece
def serve_tx(s, k, batch):
    """Sync a TX ring that has news. Returns DRY, MOVED, or DROPPED if some packet found no room."""
    counters = load64(k + COUNTERS_AT)
    no_room = load64(counters + NO_ROOM)
    hwcur = load32(k + HWCUR)
    hwtail = load32(k + HWTAIL)
    head = load32_acquire(load64(k + HEAD_AT))
    if head != load32(s + _SEEN):
        store32(s + _STUCK, 0)
    result = txsync(k, batch)
    # What the sync has taken may be newer than what was looked at here, and that is what any later head is news to.
    store32(s + _SEEN, head if result == REINIT else load32(k + RHEAD))
    moved = load32(k + HWCUR) != hwcur or load32(k + HWTAIL) != hwtail
    if moved:
        store32(s + _STUCK, 0)
    if result == REINIT:
        tell_served(s, head)
        interrupt(s)
    elif load32(k + HWCUR) == load32(k + RHEAD):
        tell_served(s, load32(k + RHEAD))
    elif not moved and load32(s + _STUCK) == 0:
        store32(s + _STUCK, 1)
        tell_served(s, load32(k + RHEAD))
        interrupt(s)
    store64(counters + OCCUPIED, distance(load32(k + HWCUR), load32(k + RHEAD), load32(k + NUM_SLOTS)))
    if not moved:
        return DRY
    interrupt(s)
    return DROPPED if load64(counters + NO_ROOM) != no_room else MOVED


@piece
def serve_rx(s, k, batch):
    """Sync an RX ring that has news. Returns DRY or MOVED."""
    hwcur = load32(k + HWCUR)
    hwtail = load32(k + HWTAIL)
    head = load32_acquire(load64(k + HEAD_AT))
    result = rxsync(k, batch, 0)
    store32(s + _SEEN, head if result == REINIT else load32(k + RHEAD))
    tell_served(s, head)
    occupied = distance(load32(k + HWCUR), load32(k + HWTAIL), load32(k + NUM_SLOTS))
    store64(load64(k + COUNTERS_AT) + OCCUPIED, occupied)
    if load32(k + HWTAIL) != hwtail:
        interrupt(s)
        return MOVED
    return MOVED if load32(k + HWCUR) != hwcur else DRY


@piece
def serve(s, k, batch):
    """Serve a ring that has news, by its kind. Returns DRY, MOVED, or DROPPED if some packet found no room."""
    if load32(k + KIND) == KIND_VIRTQUEUE:
        lost = load64(k + COUNTERS_AT) + NO_ROOM
        no_room = load64(lost)
        outcome = serve_queue(k, batch)
        store32(s + _STUCK, 1 if outcome == STUCK else 0)
        if load64(lost) != no_room:
            return DROPPED
        return MOVED if outcome == MOVED else DRY
    return serve_tx(s, k, batch) if load32(k + DIRECTION) == 0 else serve_rx(s, k, batch)


@piece
def ask_for_kicks(s, k, batch, on):
    """Ask the user and other threads to kick this ring, or not to.

    The user of an RX ring need not tell of slots it gives back unless it holds some: senders look for room themselves.
    """
    store32_release(load64(k + NEED_KICK_AT), on)
    if load32(k + KIND) == KIND_VIRTQUEUE:
        ask_driver_for_kicks(k, batch, on)
        return
    tell_sending(k, 1 - on)
    holds = load32(k + DIRECTION) == 0 or load32(k + HWCUR) != load32(k + HWTAIL)
    store32_release(load64(s + _KERN_AT), 1 if on and holds else 0)


@piece
def park(s, k, batch):
    """Stop looking at a ring, and ask for kicks; returns False if there was news in between.

    What a lossless destination holds back is tried once more: room made before kicks were asked for kicked nobody. An
    interface is looked at as long as its queue sends: to watch the socket would cost more, see :func:`watch_news`.
    """
    if is_sent_beside(k):
        unwatch_news(s)
        return False
    ask_for_kicks(s, k, batch, 1)
    store32(s + _ARMED, 1)
    fence()
    if load32(s + _STUCK) != 0 and serve(s, k, batch) != DRY:
        return False
    if not watch_news(s, k) or has_news(s, k):
        return False
    store64(s + _PARKED_AT, clock_ns(CLOCK_MONOTONIC))
    return True


@piece
def unpark(s, k, most):
    """Note a kick of a parked ring. The spin before its next parking follows from how soon the kick came."""
    store64(s + _KICKS, load64(s + _KICKS) + 1)
    if not has_news(s, k):
        store64(s + _SPURIOUS, load64(s + _SPURIOUS) + 1)
        return
    parked = clock_ns(CLOCK_MONOTONIC) - load64(s + _PARKED_AT)
    spin = load32(s + _SPIN)
    if parked < _SOON:
        store32(s + _SPIN, min(2 * spin, 4 * most))
    elif parked > _LATE:
        store32(s + _SPIN, max(spin // 2, min(_LEAST_SPIN, most)))


@piece
def drop(t, i):
    """Take the i-th service off the list of active ones."""
    n = load32(t + _COUNT) - 1
    services = load64(t + _LIST)
    store32(load64(services + 8 * i) + _ACTIVE, 0)
    store64(services + 8 * i, load64(services + 8 * n))
    store32(t + _COUNT, n)


@piece
def let_go(t):
    """Forget services that the control thread takes off, and tell it so."""
    removals = load32_acquire(t + _REMOVALS)
    if removals == load32(t + _ACKED):
        return
    i = 0
    while i < load32(t + _COUNT):
        s = load64(load64(t + _LIST) + 8 * i)
        if load32_acquire(s + _LEAVING) != 0:
            tell_sending(load64(s + _KRING), 0)
            drop(t, i)
        else:
            i += 1
    store32_release(t + _ACKED, removals)


@piece
def take_kicks(t, timeout):
    """Wait up to ``timeout`` ms for kicks (-1: for ever), and activate the rings that were kicked."""
    events = load64(t + _EVENTS)
    n = epoll_wait(load32(t + _EPOLL), events, EVENTS, timeout)
    for i in range(n):
        low = load32(events + _EVENT_SIZE * i + 4)
        high = load32(events + _EVENT_SIZE * i + 8)
        s = low | (high << 32)
        if s == 0 or load32_acquire(s + _LEAVING) != 0:
            continue
        if load32(s + _ACTIVE) == 0:
            unpark(s, load64(s + _KRING), load32(t + _FIRST_SPIN))
        activate(s)


@piece
def serve_all(t, batch):
    """Serve each active ring once; rings that become active meanwhile, too. Returns the or of what happened."""
    happened = DRY
    services = load64(t + _LIST)
    i = 0
    while i < load32(t + _COUNT):
        s = load64(services + 8 * i)
        k = load64(s + _KRING)
        outcome = DRY
        if load32(s + _ARMED) != 0:
            ask_for_kicks(s, k, batch, 0)
            store32(s + _ARMED, 0)
            tell_core(t, s)
        if has_news(s, k) or is_polled(k):
            outcome = serve(s, k, batch)
        if outcome != DRY:
            unwatch_news(s)
            store32(s + _DRY, 0)
            happened |= outcome
            i += 1
            continue
        dry = load32(s + _DRY) + 1
        store32(s + _DRY, dry)
        if dry > load32(s + _SPIN):
            store32(s + _DRY, 0)
            if park(s, k, batch):
                drop(t, i)
                continue
        i += 1
    return happened


@piece
def hears_interface(t):
    """Whether an active ring receives from a network interface."""
    for i in range(load32(t + _COUNT)):
        k = load64(load64(load64(t + _LIST) + 8 * i) + _KRING)
        if load32(k + KIND) == KIND_NIC and load32(k + DIRECTION) != 0:
            return True
    return False


@piece
def sleep(t):
    """Sleep until a kick; nothing is interrupted meanwhile, so the watchdog may sleep too."""
    since = clock_ns(CLOCK_MONOTONIC)
    store64(t + _ASLEEP_SINCE, since)
    take_kicks(t, -1)
    store64(t + _ASLEEP_NS, load64(t + _ASLEEP_NS) + clock_ns(CLOCK_MONOTONIC) - since)
    store64(t + _ASLEEP_SINCE, 0)
    kick(t + _WATCHDOG_WAITS, t + _WATCHDOG, load64(t + _ONE_AT))
    store64(t + _SLEEPS, load64(t + _SLEEPS) + 1)


@kernel
def run_kthread(t, batch):
    """Serve the rings of the kthread at ``t`` until it is told to stop. ``batch`` is the thread's scratch.

    Beside a thread that works without a pause, a yield costs a whole time slice, in which the ring of an interface
    overflows; whoever sleeps for a moment is given the core at its end. So naps take the place of yields for a while once
    one took that long. Ports of the same machine wait instead of losing packets, and lose more by the naps.
    """
    store64(batch + _KTHREAD, t)
    attempt = 0
    naps = 0
    spell = _NAPS
    while load32_acquire(t + _STOP) == 0:
        let_go(t)
        if load32(t + _COUNT) == 0:
            sleep(t)
            find_core(t)
            attempt = 0
            continue
        happened = serve_all(t, batch)
        rounds = load64(t + _ROUNDS) + 1
        store64(t + _ROUNDS, rounds)
        if happened != DRY:
            store64(t + _MOVES, load64(t + _MOVES) + 1)
            attempt = 0
            if happened & DROPPED:
                sched_yield()  # whoever could make room may be waiting for this core
        else:
            attempt += 1
            if attempt < SPINS:
                relax(attempt)
            elif naps > 0:
                naps -= 1
                sleep_ns(_NAP_NS)
            elif not yield_core(t + _LEFT_AT):
                spell = _NAPS
            elif hears_interface(t):
                naps = spell
                spell = min(2 * spell, _MOST_NAPS)
        if rounds % _LOOK_FOR_KICKS == 0 or attempt > SPINS:
            take_kicks(t, 0)
            find_core(t)
    store64(batch + _KTHREAD, 0)
    return 0

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Services: rings that a kthread syncs for somebody else, each with the CSB fields it is told and asked through.

A service takes addresses of fields, not a CSB, so that the CSB of today, of 2015 and of a process are served alike. It is
*active* while its kthread looks at it in every round, else *parked*: kicks are asked for, and nothing is spent on it.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load32, load64, store32, store64

MAX_ACTIVE = 65536
"""Rings that one kthread can serve."""

EVENTS = 64
"""Kicks that a kthread takes note of at a time."""

service = np.dtype(
    [
        ("kring", "u8"),
        ("kthread", "u8"),
        ("kern_need_kick_at", "u8"),
        ("appl_need_kick_at", "u8"),
        ("served_at", "u8"),
        ("core_at", "u8"),
        ("irqfd", "i4"),
        ("clears", "u4"),
        ("leaving", "u4"),
        ("news", "i4"),
        # the kthread's
        ("active", "u4"),
        ("seen", "u4"),
        ("stuck", "u4"),
        ("dry", "u4"),
        ("spin", "u4"),
        ("armed", "u4"),
        ("parked_at", "u8"),
        ("kicks", "u8"),
        ("spurious", "u8"),
        ("irqs", "u8"),
        ("watched", "u4"),
        ("_pad_kthread", "V4"),
    ]
)
"""One ring, as its kthread serves it: 128 bytes.

================= ================================================================================================
field             meaning
================= ================================================================================================
kring             the ring's kring; its head, cur, hwcur and hwtail lie in the CSB
kthread           the kthread that serves it
kern_need_kick_at where the user is told to kick us
appl_need_kick_at where the user asks to be interrupted
served_at         where the user is told the head up to which all has been done that can be, or 0
core_at           where the user is told the kthread's core, or 0
irqfd             eventfd that interrupts the user, or -1
clears            1 if we clear appl_need_kick before an interrupt, as the CSB of 2015 wants
leaving           1 once the control thread wants it off the kthread
news              descriptor that tells of what a network interface has done, or -1
active            1 while it is on the kthread's list
seen              the user's head as of the last sync
stuck             1 if a lossless destination keeps us from sending what is released
dry               rounds since something moved; spin, rounds after which it is parked; parked_at, when it was (ns)
armed             1 while kicks are asked for
kicks, spurious   kicks that came, and those of them that had no news
irqs              interrupts sent
watched           1 while ``news`` is in the kthread's epoll descriptor
================= ================================================================================================
"""

SERVICE = offsets(service)
KTHREAD = SERVICE["kthread"]
_ACTIVE = SERVICE["active"]
_STUCK = SERVICE["stuck"]
_DRY = SERVICE["dry"]

kthread = np.dtype(
    [
        # the control thread's
        ("stop", "u4"),
        ("removals", "u4"),
        ("epoll", "i4"),
        ("spin", "u4"),
        ("active", "u8"),
        ("events", "u8"),
        ("one", "u8"),
        ("watchdog_waits", "u4"),
        ("watchdog", "i4"),
        ("guests", "u4"),
        ("_pad_control", "V4"),
        ("left_at", "u8"),
        # the kthread's
        ("acked", "u4"),
        ("active_count", "u4"),
        ("rounds", "u8"),
        ("moves", "u8"),
        ("sleeps", "u8"),
        ("asleep_since", "u8"),
        ("asleep_ns", "u8"),
        ("core", "u4"),
        ("_pad_kthread", "V12"),
    ]
)
"""One kthread: 128 bytes.

============ =====================================================================================================
field        meaning
============ =====================================================================================================
stop         1: end
removals     counts what the control thread took off; the kthread copies it to ``acked`` once it has let go of it
epoll        the epoll descriptor of all kicks; its data is a service's address, or 0 for the doorbell
spin         rounds without news after which a ring is parked, to begin with
active       address of the list of active services, ``active_count`` of them; events, where epoll_wait writes
watchdog...  1 while the watchdog of interrupts sleeps until this kthread wakes up; its eventfd; ``one``, the address of
             what is written there
guests       rings whose CSB somebody else made: then no user is told the core, see :mod:`~ptnetmap.netmap.kthread`
left_at      when it last left a core that was not its own (ns)
rounds,      rounds made, those in which something moved, sleeps
moves, ...
asleep_since when the present sleep began (ns, monotonic), 0 while awake; asleep_ns, all sleep before it
core         the core that it runs on, plus 1
============ =====================================================================================================
"""

THREAD = offsets(kthread)
_LIST = THREAD["active"]
_COUNT = THREAD["active_count"]


@piece
def activate(s):
    """Put a service on its kthread's list; only that kthread may."""
    if load32(s + _ACTIVE) == 0:
        t = load64(s + KTHREAD)
        n = load32(t + _COUNT)
        store64(load64(t + _LIST) + 8 * n, s)
        store32(t + _COUNT, n + 1)
        store32(s + _ACTIVE, 1)
    store32(s + _DRY, 0)
    store32(s + _STUCK, 0)

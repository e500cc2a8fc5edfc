# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""How a kthread that sleeps learns what an interface has done: by its socket, in the kthread's epoll descriptor."""

from __future__ import annotations

from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, EPOLLOUT, epoll_ctl
from ptnetmap.jit.memory import load32, load64, store32
from ptnetmap.netmap.kring import DIRECTION, HWCUR, RHEAD
from ptnetmap.netmap.nic.ring import U32, have_all_left
from ptnetmap.netmap.service import KTHREAD, SERVICE, THREAD

_LEAVING = SERVICE["leaving"]
_NEWS = SERVICE["news"]
_WATCHED = SERVICE["watched"]
_EPOLL = THREAD["epoll"]
_EVENTS = THREAD["events"]


@piece
def watch_news(s, k):
    """Be woken by what the interface does for ring ``k``. Returns False if that cannot be, or there has been news.

    Only a parked ring's socket is watched: one that is costs a wake-up for each frame. A TX ring whose frames have all left
    waits for nothing; that of others may be said to have room at once, and then stays watched until something moves.
    """
    fd = load32(s + _NEWS)
    if fd == U32 or load32(s + _WATCHED) != 0:
        return True
    sends = load32(k + DIRECTION) == 0
    if sends and load32(k + HWCUR) == load32(k + RHEAD) and have_all_left(k):
        return True
    t = load64(s + KTHREAD)
    event = load64(t + _EVENTS)
    store32(event, (EPOLLOUT if sends else EPOLLIN) | EPOLLET)
    store32(event + 4, s & U32)
    store32(event + 8, s >> 32)
    if epoll_ctl(load32(t + _EPOLL), EPOLL_CTL_ADD, fd, event) < 0:
        return False
    store32(s + _WATCHED, 1)
    if load32_acquire(s + _LEAVING) != 0:  # the control thread may have taken it off just before
        unwatch_news(s)
    return True


@piece
def unwatch_news(s):
    """Be woken by the interface no longer."""
    if load32(s + _WATCHED) != 0:
        t = load64(s + KTHREAD)
        epoll_ctl(load32(t + _EPOLL), EPOLL_CTL_DEL, load32(s + _NEWS), load64(t + _EVENTS))
        store32(s + _WATCHED, 0)

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""How a thread waits for another one: spin a little, yield a little, then sleep.

A wake-up costs as much as moving thousands of packets, so sleeping is the last resort; but a thread that spins keeps
the core from the one it waits for. Measured on two cores with three busy threads, 50 pauses and then up to 100 yields
before sleeping moves several times more packets than any policy without the sleep.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import fence, load32_acquire, pause, store32_release
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import sched_yield, write
from ptnetmap.jit.memory import load32, store32

SPINS = 50
YIELDS = 100


@kernel
def relax(attempt):
    """Wait a little: the ``attempt``-th time in a row. Return whether to try again; False says it is time to sleep."""
    if attempt < SPINS:
        pause()
        return True
    if attempt < SPINS + YIELDS:
        sched_yield()
        return True
    return False


@kernel
def arm(need_kick):
    """Ask to be woken. The caller looks once more at what it waits for before it sleeps: a wake-up may have just gone.

    The fence pairs with the one in :func:`kick`: either the waker sees the flag, or the waiter sees the news.
    """
    store32_release(need_kick, 1)
    fence()


@kernel
def kick(need_kick, eventfd, one):
    """Wake whoever armed ``need_kick``; the news was stored before. ``one`` is the address of a 64-bit 1 to write.

    Costs a fence and a load when nobody sleeps. Returns whether a wake-up was sent.
    """
    fence()
    if load32_acquire(need_kick) == 0:
        return False
    store32(need_kick, 0)
    fd = load32(eventfd)
    if fd == 0xFFFFFFFF:
        return False
    write(fd, one, 8)
    return True

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A passed-through netmap ring, whichever device it came by: slots and buffers of the host, indices through the CSB.

The guest publishes ``head``, the host's kthread answers with ``hwcur`` and ``hwtail``. Each tells the other whether it
sleeps: who finds that flag set after a store kicks, or interrupts. Source: netmap-abi 5a.7, 5b.4; 5a.2 for the order of
the CSB of 2015.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.interrupts import await_interrupt, interrupt_count
from ptnetmap.guest.layout import TIMER_VECTOR, offsets
from ptnetmap.guest.port import out16, out32
from ptnetmap.guest.routine import routine
from ptnetmap.guest.timer import set_timer
from ptnetmap.jit.atomic import fence, load32_acquire, pause, store32_release
from ptnetmap.jit.memory import load32, load64, store32, store64

netmap_ring = np.dtype(
    [
        ("slots", "<u8"),
        ("buffers", "<u8"),
        ("num_slots", "<u8"),
        ("buf_size", "<u8"),
        ("head_at", "<u8"),
        ("cur_at", "<u8"),
        ("hwcur_at", "<u8"),
        ("hwtail_at", "<u8"),
        ("appl_need_kick_at", "<u8"),
        ("kern_need_kick_at", "<u8"),
        ("is_2015", "<u8"),
        ("kick_port", "<u8"),
        ("kick_value", "<u8"),
        ("vector", "<i8"),
        ("block", "<u8"),
        ("head", "<u8"),
        ("hwcur", "<u8"),
        ("hwtail", "<u8"),
        ("kicks", "<u8"),
        ("halts", "<u8"),
        ("alarm", "<i8"),
    ]
)
"""One ring of a port in use: 168 bytes.

=================== ================================================================================================
field               meaning
=================== ================================================================================================
slots, buffers      addresses of slot 0 and of buffer 0, in the memdev's memory
num_slots, buf_size slots, and bytes of a buffer
head_at ... kern_need_kick_at  addresses of the CSB's fields
is_2015             1: the CSB of 2015, with its own order, and a kick register of 2 bytes
kick_port           port of the kick register, and ``kick_value`` to write there
vector              vector of its interrupts, -1 if there are none
block               the processor that gets them
head                our own: slots from here to hwtail are the guest's
hwcur, hwtail       what the host has told last
kicks, halts        how often the host was kicked, and the processor halted
alarm               count of timer interrupts at which a timer was set that has not come yet, -1 without one
=================== ================================================================================================
"""

_SLOTS = offsets(netmap_ring)["slots"]
_NUM_SLOTS = offsets(netmap_ring)["num_slots"]
_HEAD_AT = offsets(netmap_ring)["head_at"]
_CUR_AT = offsets(netmap_ring)["cur_at"]
_HWCUR_AT = offsets(netmap_ring)["hwcur_at"]
_HWTAIL_AT = offsets(netmap_ring)["hwtail_at"]
_APPL_AT = offsets(netmap_ring)["appl_need_kick_at"]
_KERN_AT = offsets(netmap_ring)["kern_need_kick_at"]
_IS_2015 = offsets(netmap_ring)["is_2015"]
_KICK_PORT = offsets(netmap_ring)["kick_port"]
_KICK_VALUE = offsets(netmap_ring)["kick_value"]
_VECTOR = offsets(netmap_ring)["vector"]
_BLOCK = offsets(netmap_ring)["block"]
_HEAD = offsets(netmap_ring)["head"]
_HWCUR = offsets(netmap_ring)["hwcur"]
_HWTAIL = offsets(netmap_ring)["hwtail"]
_KICKS = offsets(netmap_ring)["kicks"]
_HALTS = offsets(netmap_ring)["halts"]
_ALARM = offsets(netmap_ring)["alarm"]
_BUFFERS = offsets(netmap_ring)["buffers"]
_BUF_SIZE = offsets(netmap_ring)["buf_size"]

_RING_BUF_OFS = offsets(abi.ring)["buf_ofs"]
_RING_NUM_SLOTS = offsets(abi.ring)["num_slots"]
_RING_BUF_SIZE = offsets(abi.ring)["nr_buf_size"]
_RING_SIZE = abi.ring.itemsize

PAUSES = 100
"""Looks before a guest that may share its core sleeps: it cannot yield, only halt."""
_ALARM_US = 50_000


@routine
def distance(start, end, n):
    """Return how many slots there are from ``start`` to ``end``."""
    return end - start if end >= start else end - start + n


@routine
def join_ring(r, place):
    """Fill in what the netmap_ring at ``place`` says of itself."""
    store64(r + _SLOTS, place + _RING_SIZE)
    store64(r + _BUFFERS, place + load64(place + _RING_BUF_OFS))
    store64(r + _NUM_SLOTS, load32(place + _RING_NUM_SLOTS))
    store64(r + _BUF_SIZE, load32(place + _RING_BUF_SIZE))
    store64(r + _ALARM, -1)


@routine
def begin_ring(r):
    """Begin where the CSB says the ring stands, awake."""
    store32(load64(r + _APPL_AT), 0)
    store64(r + _HEAD, load32(load64(r + _HEAD_AT)))
    store64(r + _HWCUR, load32(load64(r + _HWCUR_AT)))
    store64(r + _HWTAIL, load32(load64(r + _HWTAIL_AT)))


@routine
def available(r):
    """Return how many slots are the guest's, as far as it was told: room to send, or packets that came."""
    return distance(load64(r + _HEAD), load64(r + _HWTAIL), load64(r + _NUM_SLOTS))


@routine
def refresh(r):
    """See what the host has done; an index that no slot has is not believed."""
    n = load64(r + _NUM_SLOTS)
    if load64(r + _IS_2015) != 0:
        refresh_2015(r, n)
        return
    hwtail = load32_acquire(load64(r + _HWTAIL_AT))
    hwcur = load32_acquire(load64(r + _HWCUR_AT))
    if hwtail < n and hwcur < n:
        store64(r + _HWTAIL, hwtail)
        store64(r + _HWCUR, hwcur)


@routine
def refresh_2015(r, n):
    """The same in the order of 2015, where an old hwcur may come with a new hwtail that has wrapped past it."""
    hwcur = load32_acquire(load64(r + _HWCUR_AT))
    hwtail = load32_acquire(load64(r + _HWTAIL_AT))
    if hwcur >= n or hwtail >= n:
        return
    before = distance(load64(r + _HWCUR), load64(r + _HWTAIL), n)
    passed = distance(load64(r + _HWCUR), hwcur, n)
    if distance(load64(r + _HWTAIL), hwtail, n) > n - before + passed:
        hwtail = hwcur - 1 if hwcur > 0 else n - 1
    store64(r + _HWCUR, hwcur)
    store64(r + _HWTAIL, hwtail)


@routine
def kick_if_asked(r):
    """Kick the host if it asks for that. The fence pairs with the host's, between asking and looking once more."""
    fence()
    if load32_acquire(load64(r + _KERN_AT)) == 0:
        return
    store64(r + _KICKS, load64(r + _KICKS) + 1)
    if load64(r + _IS_2015) != 0:
        out16(load64(r + _KICK_PORT), load64(r + _KICK_VALUE))
    else:
        out32(load64(r + _KICK_PORT), load64(r + _KICK_VALUE))


@routine
def advance(r, count):
    """Release the next ``count`` slots to the host: to be sent, or to be filled again."""
    n = load64(r + _NUM_SLOTS)
    head = load64(r + _HEAD) + count
    if head >= n:
        head -= n
    store64(r + _HEAD, head)
    store32(load64(r + _CUR_AT), head)
    store32_release(load64(r + _HEAD_AT), head)
    kick_if_asked(r)


@routine
def has(r, wanted):
    """Look at what the host has done; return 1 if ``wanted`` slots are the guest's."""
    if available(r) < wanted:
        refresh(r)
    return 1 if available(r) >= wanted else 0


@routine
def halt_until_interrupt(r, boot):
    """Halt until an interrupt comes: the ring's, or after a while a timer's. A timer that is set stays set."""
    block = load64(r + _BLOCK)
    vector = load64(r + _VECTOR)
    seen = interrupt_count(block, vector)
    store32_release(load64(r + _APPL_AT), 1)
    fence()  # pairs with the host's: it sees the flag, or its index is seen here
    before = load64(r + _HWTAIL)
    refresh(r)
    if load64(r + _HWTAIL) == before:
        ticks = interrupt_count(block, TIMER_VECTOR)
        if load64(r + _ALARM) != ticks:
            store64(r + _ALARM, ticks)
            set_timer(boot, _ALARM_US)
        store64(r + _HALTS, load64(r + _HALTS) + 1)
        await_interrupt(block, vector, seen)
    store32(load64(r + _APPL_AT), 0)


@routine
def await_slots(r, boot, wanted, spins, deadline):
    """Wait until ``wanted`` slots are the guest's; return 1, or 0 once the time stamp counter is past ``deadline``.

    With ``spins`` the processor never halts: it has a core to itself.
    """
    attempt = 0
    while has(r, wanted) == 0:
        if timestamp() > deadline:
            return 0
        if attempt < PAUSES or spins != 0 or load64(r + _VECTOR) < 0:
            pause()
            attempt += 1
        else:
            halt_until_interrupt(r, boot)
            attempt = 0
    return 1


@routine
def await_taken(r, boot, deadline):
    """Wait until the host has taken all that was released; return 1, or 0 once it is past ``deadline``."""
    while load64(r + _HWCUR) != load64(r + _HEAD):
        if timestamp() > deadline:
            return 0
        pause()
        refresh(r)
    return 1

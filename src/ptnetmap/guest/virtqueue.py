# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The driver's side of a split virtqueue whose chains are one buffer each, used in the order in which they are offered.

Descriptor, buffer and place in the available ring have the same number for good, so that offering a packet is no more
than a new index. A device that returns chains in another order is found out, and counted (virtio 1.2 §2.7).
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.virtio import (
    VIRTQ_AVAIL_F_NO_INTERRUPT,
    VIRTQ_USED_F_NO_NOTIFY,
    virtq_avail,
    virtq_avail_elem,
    virtq_desc,
    virtq_used,
    virtq_used_elem,
)
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.interrupts import await_interrupt, interrupt_count
from ptnetmap.guest.layout import TIMER_VECTOR, offsets
from ptnetmap.guest.port import out16
from ptnetmap.guest.routine import routine
from ptnetmap.guest.timer import set_timer
from ptnetmap.guest.virtio_legacy import available_at, used_at
from ptnetmap.jit.atomic import fence, load32_acquire, pause, store32_release
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64

vring = np.dtype(
    [
        ("kick_port", "<u8"),
        ("kick_value", "<u8"),
        ("size", "<u8"),
        ("descriptors", "<u8"),
        ("available", "<u8"),
        ("used", "<u8"),
        ("buffers", "<u8"),
        ("stride", "<u8"),
        ("receives", "<u8"),
        ("vector", "<i8"),
        ("block", "<u8"),
        ("offered", "<u8"),
        ("done", "<u8"),
        ("taken", "<u8"),
        ("kicks", "<u8"),
        ("halts", "<u8"),
        ("alarm", "<i8"),
        ("wrong", "<u8"),
    ]
)
"""A queue in use: 144 bytes.

=========== ========================================================================================================
field       meaning
=========== ========================================================================================================
kick_port   port of the notify register, and ``kick_value`` to write there
size        entries, a power of two
descriptors addresses of the three parts
buffers     address of the first buffer, ``stride`` bytes before the next
receives    1 if the device fills them
vector      vector of its interrupts, -1 if there are none; ``block``, the processor that gets them
offered     chains that were ever offered, ``done`` that the device has returned, ``taken`` that the program has seen
kicks       how often the device was kicked, and ``halts`` the processor halted
alarm       count of timer interrupts at which a timer was set that has not come yet, -1 without one
wrong       chains that came back out of turn
=========== ========================================================================================================
"""

VRING = offsets(vring)
_KICK_PORT = VRING["kick_port"]
_KICK_VALUE = VRING["kick_value"]
_SIZE = VRING["size"]
_DESCRIPTORS = VRING["descriptors"]
_AVAILABLE = VRING["available"]
_USED = VRING["used"]
_BUFFERS = VRING["buffers"]
_STRIDE = VRING["stride"]
_RECEIVES = VRING["receives"]
_VECTOR = VRING["vector"]
_BLOCK = VRING["block"]
_OFFERED = VRING["offered"]
_DONE = VRING["done"]
_TAKEN = VRING["taken"]
_KICKS = VRING["kicks"]
_HALTS = VRING["halts"]
_ALARM = VRING["alarm"]
_WRONG = VRING["wrong"]

_DESC_SIZE = virtq_desc.itemsize
_DESC_LEN = offsets(virtq_desc)["len"]
_DESC_FLAGS = offsets(virtq_desc)["flags"]
_AVAIL_HEAD = virtq_avail.itemsize
_AVAIL_ELEM = virtq_avail_elem.itemsize
_USED_HEAD = virtq_used.itemsize
_USED_ELEM = virtq_used_elem.itemsize
_USED_LEN = offsets(virtq_used_elem)["len"]
_NO_INTERRUPT = VIRTQ_AVAIL_F_NO_INTERRUPT
_NO_NOTIFY = VIRTQ_USED_F_NO_NOTIFY
_ALARM_US = 50_000


@routine
def join_queue(v, queue, size, length, flags):
    """Tie a buffer of ``length`` bytes to each descriptor of the queue at ``queue``; buffers and stride are known.

    ``flags`` are the descriptors'. Nothing is offered yet.
    """
    store64(v + _SIZE, size)
    store64(v + _DESCRIPTORS, queue)
    store64(v + _AVAILABLE, queue + available_at(size))
    store64(v + _USED, queue + used_at(size))
    store64(v + _ALARM, -1)
    for i in range(size):
        descriptor = queue + i * _DESC_SIZE
        store64(descriptor, load64(v + _BUFFERS) + i * load64(v + _STRIDE))
        store32(descriptor + _DESC_LEN, length)
        store32(descriptor + _DESC_FLAGS, flags)
        store16(load64(v + _AVAILABLE) + _AVAIL_HEAD + _AVAIL_ELEM * i, i)
    store32_release(load64(v + _AVAILABLE), _NO_INTERRUPT)


@routine
def place_of(v, count):
    """Return the number of the descriptor, and buffer, of the ``count``-th chain."""
    return count & (load64(v + _SIZE) - 1)


@routine
def set_length(v, place, length):
    """Say how many bytes of a buffer there are, unless the descriptor says so already: a store would cost the line."""
    at = load64(v + _DESCRIPTORS) + place * _DESC_SIZE + _DESC_LEN
    if load32(at) != length:
        store32(at, length)


@routine
def refresh(v):
    """See what the device has returned; more than was offered is not believed."""
    more = ((load32_acquire(load64(v + _USED)) >> 16) - load64(v + _DONE)) & 0xFFFF
    if more <= load64(v + _OFFERED) - load64(v + _DONE):
        store64(v + _DONE, load64(v + _DONE) + more)


@routine
def ready(v):
    """Return how many chains the program may have, as far as is known: free ones to send, or filled ones."""
    if load64(v + _RECEIVES) != 0:
        return load64(v + _DONE) - load64(v + _TAKEN)
    return load64(v + _SIZE) - (load64(v + _OFFERED) - load64(v + _DONE))


@routine
def take_length(v):
    """Take the next returned chain; return the bytes that the device says are in it."""
    taken = load64(v + _TAKEN)
    element = load64(v + _USED) + _USED_HEAD + _USED_ELEM * place_of(v, taken)
    if load32(element) != place_of(v, taken):
        store64(v + _WRONG, load64(v + _WRONG) + 1)
    store64(v + _TAKEN, taken + 1)
    return load32(element + _USED_LEN)


@routine
def offer(v, count):
    """Offer the next ``count`` chains, and kick the device if it wants that.

    The fence pairs with the device's, between asking for kicks and looking once more.
    """
    offered = load64(v + _OFFERED) + count
    store64(v + _OFFERED, offered)
    store32_release(load64(v + _AVAILABLE), _NO_INTERRUPT | ((offered & 0xFFFF) << 16))
    fence()
    if load16(load64(v + _USED)) & _NO_NOTIFY == 0:
        store64(v + _KICKS, load64(v + _KICKS) + 1)
        out16(load64(v + _KICK_PORT), load64(v + _KICK_VALUE))


@routine
def halt_until_used(v, boot):
    """Halt until an interrupt comes: the queue's, or after a while a timer's. A timer that is set stays set."""
    block = load64(v + _BLOCK)
    seen = interrupt_count(block, load64(v + _VECTOR))
    index = (load64(v + _OFFERED) & 0xFFFF) << 16
    store32_release(load64(v + _AVAILABLE), index)
    fence()  # pairs with the device's: it sees the flag, or its index is seen here
    before = load64(v + _DONE)
    refresh(v)
    if load64(v + _DONE) == before:
        ticks = interrupt_count(block, TIMER_VECTOR)
        if load64(v + _ALARM) != ticks:
            store64(v + _ALARM, ticks)
            set_timer(boot, _ALARM_US)
        store64(v + _HALTS, load64(v + _HALTS) + 1)
        await_interrupt(block, load64(v + _VECTOR), seen)
    store32_release(load64(v + _AVAILABLE), _NO_INTERRUPT | index)


@routine
def await_ready(v, boot, wanted, spin, deadline):
    """Wait until the program may have ``wanted`` chains; return 1, or 0 once the time is past ``deadline``.

    The processor halts once it has looked for ``spin`` cycles: a guest cannot yield its core.
    """
    began = timestamp()
    while ready(v) < wanted:
        refresh(v)
        if ready(v) >= wanted:
            return 1
        now = timestamp()
        if now > deadline:
            return 0
        if now - began < spin or load64(v + _VECTOR) < 0:
            pause()
        else:
            halt_until_used(v, boot)
            began = timestamp()
    return 1

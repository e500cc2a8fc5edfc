# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The bare loops that bound every other rate: packets between two threads, with nothing of netmap around them.

Two arrays of 1024 slots of 16 bytes. The sender writes a packet's slot in the *near* array, copies it to the *far*
one, and publishes an index once per batch; the receiver reads the slot, copies it back, and publishes its own. No
validation, no flags, no system calls. That is ``R_zc``; ``R_c60``, ``R_c256`` and ``R_c1514`` also copy the frame, in
whole cache lines, between buffers 2 KiB apart.

What was measured to matter, and is therefore done: each side keeps its copy of the other's index and looks again only
when it must; a sender without room waits for a quarter of the ring; a receiver that finds little gives the sender
time to write more, instead of fighting over the cache line; the frame is copied by the receiver, which has less to do.
Fetching lines ahead did not help.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.atomic import load64_acquire, pause, store64_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, clock_ns, sched_yield
from ptnetmap.jit.memory import copy_line, load64, store64
from ptnetmap.jit.wait import relax

SLOTS = 1024
SLOT = 16
LINE = 64
BUFFER = 2048

ring = np.dtype(
    [
        ("head", "i8"),
        ("total", "i8"),
        ("_sender", "i8", 6),
        ("tail", "i8"),
        ("first", "i8"),
        ("last", "i8"),
        ("bytes", "i8"),
        ("_receiver", "i8", 4),
        ("stop", "i8"),
        ("_controller", "i8", 7),
        ("near", "u8", (SLOTS, 2)),
        ("far", "u8", (SLOTS, 2)),
    ]
)
"""What the two threads share; each writes its own cache line.

====== ===== ====== =============================================================================
offset size  field  meaning
====== ===== ====== =============================================================================
0      8     head   packets published by the sender
8      8     total  packets there will ever be, -1 while unknown; valid once head reaches it
64     8     tail   packets given back by the receiver
72     8     first  when the receiver had its first packet, nanoseconds of CLOCK_MONOTONIC
80     8     last   when it was done with its last
88     8     bytes  sum of the lengths in the slots it read
128    8     stop   not 0: both give up soon, packets on their way or not
192    16384 near   the sender's slots: buffer number (32 bits), length (16), flags (16), pointer (64)
16576  16384 far    the receiver's slots
====== ===== ====== =============================================================================
"""

_HEAD = offsets(ring)["head"]
_TOTAL = offsets(ring)["total"]
_TAIL = offsets(ring)["tail"]
_FIRST = offsets(ring)["first"]
_LAST = offsets(ring)["last"]
_BYTES = offsets(ring)["bytes"]
_STOP = offsets(ring)["stop"]
_NEAR = offsets(ring)["near"]
_FAR = offsets(ring)["far"]

_ENOUGH_ROOM = SLOTS // 4
_FEW = 64
_PATIENCE = 32
_CHECK_EVERY = 1024

FOREVER = 1 << 62


@piece
def _breathe(attempt):
    if not relax(attempt):
        sched_yield()


@piece
def _write(near, far, start, count, length):
    """Fill ``count`` slots from position ``start`` in both arrays; the copy comes from registers, not from memory."""
    if count == 1:  # without the preparations of the loops below, which compilers turn into vectors
        store64(near + start * SLOT, start | (length << 32))
        store64(near + start * SLOT + 8, 0)
        store64(far + start * SLOT, start | (length << 32))
        store64(far + start * SLOT + 8, 0)
        return
    for position in range(start, start + count):
        store64(near + position * SLOT, position | (length << 32))
        store64(near + position * SLOT + 8, 0)
    for position in range(start, start + count):
        store64(far + position * SLOT, position | (length << 32))
        store64(far + position * SLOT + 8, 0)


@piece
def _read_one(near, far, position):
    word = load64(far + position * SLOT)
    store64(near + position * SLOT, word)
    store64(near + position * SLOT + 8, load64(far + position * SLOT + 8))
    return (word >> 32) & 0xFFFF


@piece
def _read(near, far, start, count):
    """Sum the lengths of ``count`` slots and copy them back, four to a cache line."""
    if count == 1:
        return _read_one(near, far, start)
    total, position, end = 0, start, start + count
    while position + 4 <= end:
        slot = far + position * SLOT
        total += ((load64(slot) >> 32) & 0xFFFF) + ((load64(slot + SLOT) >> 32) & 0xFFFF)
        total += ((load64(slot + 2 * SLOT) >> 32) & 0xFFFF) + ((load64(slot + 3 * SLOT) >> 32) & 0xFFFF)
        copy_line(near + position * SLOT, slot)
        position += 4
    while position < end:
        total += _read_one(near, far, position)
        position += 1
    return total


@piece
def _copy(source, destination, start, count, lines):
    """Copy the frames of ``count`` positions, ``lines`` cache lines each."""
    if lines == 1:  # a loop of its own, without the inner one
        for position in range(start, start + count):
            copy_line(destination + position * BUFFER, source + position * BUFFER)
    else:
        for position in range(start, start + count):
            for offset in range(position * BUFFER, position * BUFFER + lines * LINE, LINE):
                copy_line(destination + offset, source + offset)


@kernel
def send(shared, batch, length, packets, deadline):
    """Send packets of ``length`` bytes, publishing every ``batch``, and return how many were sent.

    ``shared`` is the address of a :data:`ring`. Ends after ``packets`` (at least 1), or within 1024 packets of the
    ``deadline``, in nanoseconds of CLOCK_MONOTONIC, or of ``stop``.
    """
    near, far = shared + _NEAR, shared + _FAR
    head, tail, check = 0, 0, 0
    while True:
        count = min(batch, packets - head)
        if SLOTS - (head - tail) < count:
            enough = max(count, _ENOUGH_ROOM)
            tail = load64_acquire(shared + _TAIL)
            attempt = 0
            while SLOTS - (head - tail) < enough:
                if load64_acquire(shared + _STOP):
                    return head
                _breathe(attempt)
                attempt += 1
                tail = load64_acquire(shared + _TAIL)
        start = head & (SLOTS - 1)
        run = min(count, SLOTS - start)
        _write(near, far, start, run, length)
        if run < count:
            _write(near, far, 0, count - run, length)
        head += count
        over = head == packets
        if head >= check:
            check = head + _CHECK_EVERY
            over |= load64_acquire(shared + _STOP) != 0 or clock_ns(CLOCK_MONOTONIC_COARSE) >= deadline
        if over:
            store64(shared + _TOTAL, head)  # before head: whoever sees the last packet knows that it is
        store64_release(shared + _HEAD, head)
        if over:
            return head


@kernel
def receive(shared, most, source, destination, lines):
    """Receive until the sender is done, giving back at most ``most`` slots at a time; return how many there were.

    With ``lines`` not 0, copies that many cache lines of each frame from the buffers at ``source`` to those at
    ``destination``. Leaves first, last and bytes in the :data:`ring` at ``shared``.
    """
    near, far = shared + _NEAR, shared + _FAR
    tail, total = 0, 0
    while True:
        head = load64_acquire(shared + _HEAD)
        attempt = 0
        while head == tail:
            if load64_acquire(shared + _STOP):
                return tail
            _breathe(attempt)
            attempt += 1
            head = load64_acquire(shared + _HEAD)
        if tail == 0:
            store64(shared + _FIRST, clock_ns(CLOCK_MONOTONIC))
        if head - tail < _FEW and head != load64(shared + _TOTAL):
            for _ in range(_PATIENCE):
                pause()
            head = load64_acquire(shared + _HEAD)
        while tail != head:
            start = tail & (SLOTS - 1)
            run = min(head - tail, most, SLOTS - start)
            total += _read(near, far, start, run)
            if lines:
                _copy(source, destination, start, run, lines)
            tail += run
            store64_release(shared + _TAIL, tail)
        if tail == load64(shared + _TOTAL):
            store64(shared + _LAST, clock_ns(CLOCK_MONOTONIC))
            store64(shared + _BYTES, total)
            return tail

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The split layout: a descriptor table, a ring that the driver writes, and one that the device writes (virtio 1.2 §2.7).

A *cursor* counts chains from the oldest one that has not been returned.
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import fence, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store16, store64
from ptnetmap.netmap.breakqueue import break_queue
from ptnetmap.netmap.chain import load16_acquire
from ptnetmap.netmap.dirtylog import log_write
from ptnetmap.netmap.queuestate import STATE_RUNNING, virtqueue

_AT = offsets(virtqueue)
_AVAIL = _AT["avail"]
_USED = _AT["used"]
_SIZE = _AT["size"]
_STATE = _AT["state"]
_LAST_AVAIL = _AT["last_avail"]
_USED_IDX = _AT["used_idx"]
_USED_FLAGS = _AT["used_flags"]
_EVENT_IDX = _AT["event_idx"]
_SIGNALLED = _AT["signalled"]
_BAD_INDEX = _AT["bad_index"]

_AVAIL_FLAGS = offsets(abi.virtq_avail)["flags"]
_AVAIL_IDX = offsets(abi.virtq_avail)["idx"]
_AVAIL_ENTRIES = abi.virtq_avail.itemsize
_NO_INTERRUPT = abi.VIRTQ_AVAIL_F_NO_INTERRUPT
_USED_ENTRIES = abi.virtq_used.itemsize
_USED_ENTRY_BYTES = abi.virtq_used_elem.itemsize
_NO_NOTIFY = abi.VIRTQ_USED_F_NO_NOTIFY


@piece
def split_available(queue):
    """Chains that the driver offers. An index more than the whole queue ahead breaks the queue."""
    ahead = (load16_acquire(load64(queue + _AVAIL) + _AVAIL_IDX) - load16(queue + _LAST_AVAIL)) & 0xFFFF
    if ahead > load32(queue + _SIZE):
        break_queue(queue)
        return 0
    return ahead


@piece
def split_head(queue, cursor):
    """Return the first descriptor of a chain."""
    entry = (load16(queue + _LAST_AVAIL) + cursor) & (load32(queue + _SIZE) - 1)
    return load16_acquire(load64(queue + _AVAIL) + _AVAIL_ENTRIES + entry * 2)


@piece
def split_use(queue, cursor, head, length):
    """Write a chain's used element, which the driver cannot know before :func:`split_finish`."""
    entry = (load16(queue + _USED_IDX) + cursor) & (load32(queue + _SIZE) - 1)
    element = load64(queue + _USED) + _USED_ENTRIES + entry * _USED_ENTRY_BYTES
    store64(element, head | (length << 32))
    log_write(queue, element, _USED_ENTRY_BYTES)


@piece
def split_finish(queue, cursor):
    """Return all chains before the cursor, whose used elements are written.

    The used ring's first word is aligned, and only the device writes it. The release makes the driver see the elements,
    and the bytes in their buffers, before the index that covers them.
    """
    store16(queue + _LAST_AVAIL, load16(queue + _LAST_AVAIL) + cursor)
    store16(queue + _USED_IDX, load16(queue + _USED_IDX) + cursor)
    split_publish(queue)


@piece
def split_publish(queue):
    """Let the driver see the used ring's flags and index."""
    word = load16(queue + _USED_FLAGS) | (load16(queue + _USED_IDX) << 16)
    store32_release(load64(queue + _USED), word)
    log_write(queue, load64(queue + _USED), _USED_ENTRIES)


@piece
def split_wants_interrupt(queue):
    """Whether the driver wants to be told of what was used since this was last asked (virtio 1.2 §2.7.7)."""
    avail = load64(queue + _AVAIL)
    if load32(queue + _EVENT_IDX) == 0:
        return load16(avail + _AVAIL_FLAGS) & _NO_INTERRUPT == 0
    used = load16(queue + _USED_IDX)
    before = load16(queue + _SIGNALLED)
    store16(queue + _SIGNALLED, used)
    event = load16(avail + _AVAIL_ENTRIES + 2 * load32(queue + _SIZE))
    return (used - event - 1) & 0xFFFF < (used - before) & 0xFFFF


@piece
def split_suppress_kicks(queue, on):
    """Tell the driver that kicks are not needed, or that they are (virtio 1.2 §2.7.10).

    With the event index, an element that has passed is never kicked for, so that suppressing takes nothing; and asking
    is for the first element that is not there yet, again if others came before the driver could know. A device that has
    too few chains waits for that one.
    """
    if load32(queue + _EVENT_IDX) == 0:
        store16(queue + _USED_FLAGS, _NO_NOTIFY if on else 0)
        split_publish(queue)
        return
    if on:
        return
    event = load64(queue + _USED) + _USED_ENTRIES + load32(queue + _SIZE) * _USED_ENTRY_BYTES
    asked = -1
    available = split_available(queue)
    # At most once for each entry: no more of them can be available.
    while available > asked and load32(queue + _STATE) == STATE_RUNNING:
        asked = available
        store16(event, load16(queue + _LAST_AVAIL) + asked)
        fence()
        log_write(queue, event, 2)
        available = split_available(queue)

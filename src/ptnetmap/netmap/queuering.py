# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What the two layouts of a virtqueue have in common (virtio 1.2 §2.7, §2.8): chains, and word of them both ways.

This is the device's side. The driver owns the memory: it may write anything anywhere at any time. So each word of it
is read once into private memory, checked there, and used from there; nothing that the driver wrote is followed without
being translated through the queue's own table of guest memory (:mod:`~ptnetmap.netmap.chain`). What a driver does wrong
costs that driver a chain, or its queue.

Whoever calls serialises the users of one queue. Chains leave a queue in the order in which the driver offered them:
whatever was taken but not returned is simply still there, because the position in the ring moves only when chains are
returned. ``last_avail`` and ``used_idx`` therefore always move together. A cursor is a place in the ring, relative to
the oldest chain that has not been returned.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import fence
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import load32, load64, store64
from ptnetmap.netmap.chain import walk, walk_one
from ptnetmap.netmap.packedqueue import (
    packed_available,
    packed_finish,
    packed_one,
    packed_ready,
    packed_suppress_kicks,
    packed_use,
    packed_walk,
    packed_wants_interrupt,
    packed_word,
)
from ptnetmap.netmap.queuestate import STATE_RUNNING, virtqueue
from ptnetmap.netmap.splitqueue import (
    split_available,
    split_finish,
    split_head,
    split_suppress_kicks,
    split_use,
    split_wants_interrupt,
)

_AT = offsets(virtqueue)
_STATE = _AT["state"]
_PACKED = _AT["packed"]


@piece
def count_event(counter, n):
    """Add to a counter of the queue's."""
    store64(counter, load64(counter) + n)


@kernel
def queue_available(queue):
    """Chains that the driver offers; 0 if the queue does not run. Of a packed ring, 1 if there is any.

    An index that is more than the whole queue ahead breaks a split queue: no entry can be told from an old one then.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _PACKED) != 0:
        return packed_available(queue, 1)
    return split_available(queue)


@kernel
def queue_room(queue, needed):
    """Chains that the driver offers, counted up to ``needed``; of a packed ring, those of one descriptor each."""
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _PACKED) != 0:
        return packed_available(queue, needed)
    return min(split_available(queue), needed)


@piece
def begin_batch(queue, wanted):
    """Chains that the driver offers, as :func:`queue_available`, when ``wanted`` are about to be taken."""
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _PACKED) != 0:
        return packed_ready(queue, wanted)
    return split_available(queue)


@piece
def is_offered(queue, cursor, available):
    """Whether there is a chain at a cursor; ``available`` is what :func:`queue_available` said."""
    if load32(queue + _PACKED) != 0:
        at, _ = packed_word(queue, cursor)
        return at != 0
    return cursor < available


@piece
def one_descriptor(queue, cursor, direction):
    """Return (host address, bytes, id) of a chain that is one plain descriptor, which most are; an address 0 for others."""
    if load32(queue + _PACKED) != 0:
        return packed_one(queue, cursor, direction)
    head = split_head(queue, cursor)
    host, length = walk_one(queue, head, direction)
    return host, length, head


@piece
def walk_chain(queue, cursor, direction, addresses, lengths):
    """Check the chain at a cursor. Returns (reason, descriptors, bytes, id, places in the ring); see :func:`walk`."""
    if load32(queue + _PACKED) != 0:
        return packed_walk(queue, cursor, direction, addresses, lengths)
    head = split_head(queue, cursor)
    reason, count, octets = walk(queue, head, direction, addresses, lengths)
    return reason, count, octets, head, 1


@piece
def use_chain(queue, cursor, number, length):
    """Write a used element. The driver does not see it before :func:`finish_chains`."""
    if load32(queue + _PACKED) != 0:
        packed_use(queue, cursor, number, length)
    else:
        split_use(queue, cursor, number, length)


@piece
def finish_chains(queue, cursor):
    """Return everything before the cursor to the driver, at once."""
    if load32(queue + _PACKED) != 0:
        packed_finish(queue, cursor)
    else:
        split_finish(queue, cursor)


@kernel
def queue_wants_interrupt(queue):
    """Whether the driver wants to be told of the used elements that were published before this call.

    The fence pairs with the driver's, between allowing interrupts and looking at the used index once more: either it
    sees the new index, or its wish is seen here. With the event index, the wish is for a certain element to be used, and
    elements are asked about once (virtio 1.2 §2.7.7).
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return False
    fence()
    if load32(queue + _PACKED) != 0:
        return packed_wants_interrupt(queue)
    return split_wants_interrupt(queue)


@kernel
def queue_suppress_kicks(queue, on):
    """Tell the driver that kicks are not needed (``on``), or that they are. Returns the chains that no kick announces.

    That is 0 when suppressing. When kicks are wanted again, chains that came before the driver could know have to be
    served without one: the fence makes sure that either they are seen here, or the driver sees the wish and kicks.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _PACKED) != 0:
        packed_suppress_kicks(queue, on)
    else:
        split_suppress_kicks(queue, on)
    if on:
        return 0
    fence()
    return queue_available(queue)

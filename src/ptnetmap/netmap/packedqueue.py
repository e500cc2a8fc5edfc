# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The packed layout: one ring of descriptors that both sides write, told apart by wrap counters (virtio 1.2 §2.8).

A *cursor* counts descriptors from the oldest one that has not been returned. What is used overwrites what was available,
so nothing is written before it is certain; and the first used descriptor is made visible last, so that the driver,
which looks there first, sees all of them at once.
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import load32_acquire, load64_acquire, pause, store32_release, store64_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import copy_bytes, load16, load32, load64, store16, store32, store64
from ptnetmap.netmap.batch import MAX_FRAGMENTS
from ptnetmap.netmap.breakqueue import break_queue
from ptnetmap.netmap.chain import BAD_ADDRESS, BAD_CHAIN, GOOD, TOO_LONG, translate
from ptnetmap.netmap.dirtylog import log_write
from ptnetmap.netmap.queuestate import virtqueue

_AT = offsets(virtqueue)
_DESC = _AT["desc"]
_AVAIL = _AT["avail"]
_USED = _AT["used"]
_SIZE = _AT["size"]
_STATE = _AT["state"]
_LAST_AVAIL = _AT["last_avail"]
_AVAIL_WRAP = _AT["avail_wrap"]
_USED_IDX = _AT["used_idx"]
_USED_WRAP = _AT["used_wrap"]
_SIGNALLED = _AT["signalled"]
_BAD_INDEX = _AT["bad_index"]
_SNAPSHOT = _AT["snapshot"]
_EMPTY_LOOKS = _AT["empty_looks"]
_FIRST_WORD = _AT["first_word"]
_USED_CURSOR = _AT["used_cursor"]
_USED_ANY = _AT["used_any"]

_BYTES = abi.pvirtq_desc.itemsize
_SECOND = offsets(abi.pvirtq_desc)["len"]  # len, id and flags make one 64-bit word
_NEXT = abi.VIRTQ_DESC_F_NEXT
_WRITE = abi.VIRTQ_DESC_F_WRITE
_INDIRECT = abi.VIRTQ_DESC_F_INDIRECT
_IS_AVAIL = abi.VIRTQ_PACKED_AVAIL
_IS_USED = abi.VIRTQ_PACKED_USED
_BOTH = _IS_AVAIL | _IS_USED
_KIND = _NEXT | _WRITE | _INDIRECT
_DISABLE = abi.VIRTQ_PACKED_EVENT_DISABLE
_DESC_EVENT = abi.VIRTQ_PACKED_EVENT_DESC
_SOME = 32
_PATIENCE = 64
_SELDOM = 64


@piece
def packed_word(queue, cursor):
    """Load the len, id and flags of an available descriptor, once. Returns (address of the descriptor, word); (0, 0) if none.

    There is none further than once round the ring, whatever the flags say: a driver can change them while a batch is
    being served, and even without being quick, through buffers that are the ring. The flags' acquire orders the load of
    the address after them.
    """
    size = load32(queue + _SIZE)
    if cursor >= size:
        return 0, 0
    place = load16(queue + _LAST_AVAIL) + cursor
    wrap = load16(queue + _AVAIL_WRAP)
    if place >= size:
        place -= size
        wrap ^= 1
    at = load64(queue + _DESC) + place * _BYTES
    word = load64_acquire(at + _SECOND)
    flags = (word >> 48) & _BOTH
    if flags != (_IS_AVAIL if wrap else _IS_USED):
        return 0, 0
    return at, word


@piece
def packed_ready(queue, wanted):
    """Whether the driver offers anything. If packets come in a row, a few of them are let become more.

    A split queue's driver publishes many at once; here each descriptor is visible by itself, and whoever takes them one
    by one fights with the driver for their cache line. So the wait looks at a line further on.
    """
    at, _ = packed_word(queue, 0)
    if at == 0:
        store32(queue + _EMPTY_LOOKS, min(load32(queue + _EMPTY_LOOKS) + 1, _SELDOM))
        return 0
    looks = load32(queue + _EMPTY_LOOKS)
    store32(queue + _EMPTY_LOOKS, 0)
    last = min(min(wanted, _SOME), load32(queue + _SIZE)) - 1
    tries = 0
    while last > 0 and looks < _SELDOM and tries < _PATIENCE:
        at, _ = packed_word(queue, last)
        if at != 0:
            break
        pause()
        tries += 1
    return 1


@piece
def packed_available(queue, most):
    """Descriptors that the driver offers, at least; counts no further than ``most``."""
    limit = min(most, load32(queue + _SIZE))
    count = 0
    while count < limit:
        at, _ = packed_word(queue, count)
        if at == 0:
            return count
        count += 1
    return count


@piece
def packed_one(queue, cursor, direction):
    """Return (host address, bytes, id) of a chain that is one plain descriptor; (0, 0, 0) for any other, or none."""
    at, word = packed_word(queue, cursor)
    if at == 0 or (word >> 48) & _KIND != direction or word & 0xFFFFFFFF == 0:
        return 0, 0, 0
    length = word & 0xFFFFFFFF
    return translate(queue, load64_acquire(at), length), length, (word >> 32) & 0xFFFF


@piece
def packed_walk(queue, cursor, direction, addresses, lengths):
    """Check the chain at a cursor. Returns (reason, descriptors of it that can be used, bytes, id, descriptors in the ring).

    A chain that breaks a rule is followed to its end all the same, to know where the next one begins; one without an end
    breaks the queue, and then 0 descriptors are in the ring.
    """
    reason = GOOD
    count = 0
    octets = 0
    steps = 0
    while True:
        at, word = packed_word(queue, cursor + steps)
        if at == 0:
            break_queue(queue)
            return BAD_CHAIN, 0, 0, 0, 0
        steps += 1
        flags = (word >> 48) & 0xFFFF
        length = word & 0xFFFFFFFF
        host = 0
        if length > 0:
            host = translate(queue, load64_acquire(at), length)
        if flags & _INDIRECT:
            # A table is the whole chain (§2.8.8).
            if steps > 1 or flags & _NEXT or length == 0 or length % _BYTES:
                reason = BAD_CHAIN
            elif host == 0:
                reason = BAD_ADDRESS
            else:
                reason, count, octets = _walk_table(queue, host, length // _BYTES, direction, addresses, lengths)
        elif length == 0 or flags & _WRITE != direction:
            reason = BAD_CHAIN
        elif host == 0:
            reason = BAD_ADDRESS
        elif count == MAX_FRAGMENTS:
            reason = TOO_LONG
        else:
            store64(addresses + count * 8, host)
            store32(lengths + count * 4, length)
            count += 1
            octets += length
        if flags & _NEXT == 0:
            return reason, count, octets, (word >> 32) & 0xFFFF, steps


@piece
def _walk_table(queue, table, entries, direction, addresses, lengths):
    """Check an indirect table: its descriptors follow one another, and only their address, length and direction count."""
    snapshot = queue + _SNAPSHOT
    octets = 0
    for i in range(entries):
        if i == MAX_FRAGMENTS:
            return TOO_LONG, 0, 0
        # A table may have any alignment; atomic loads from the copy keep the compiler from reading it a second time.
        copy_bytes(snapshot, table + i * _BYTES, _BYTES)
        address = load64_acquire(snapshot)
        word = load64_acquire(snapshot + _SECOND)
        length = word & 0xFFFFFFFF
        if length == 0 or (word >> 48) & (_WRITE | _INDIRECT) != direction:
            return BAD_CHAIN, 0, 0
        host = translate(queue, address, length)
        if host == 0:
            return BAD_ADDRESS, 0, 0
        store64(addresses + i * 8, host)
        store32(lengths + i * 4, length)
        octets += length
    return GOOD, entries, octets


@piece
def packed_use(queue, cursor, number, length):
    """Write the used descriptor of the chain ``number``, at a cursor; the first one waits for :func:`packed_finish`."""
    place = load16(queue + _USED_IDX) + cursor
    wrap = load16(queue + _USED_WRAP)
    if place >= load32(queue + _SIZE):
        place -= load32(queue + _SIZE)
        wrap ^= 1
    flags = (_BOTH if wrap else 0) | (_WRITE if length > 0 else 0)
    word = length | (number << 32) | (flags << 48)
    if load32(queue + _USED_ANY) == 0:
        store32(queue + _USED_ANY, 1)
        store32(queue + _USED_CURSOR, place)
        store64(queue + _FIRST_WORD, word)
        return
    at = load64(queue + _DESC) + place * _BYTES
    store64_release(at + _SECOND, word)
    log_write(queue, at, _BYTES)


@piece
def packed_finish(queue, cursor):
    """Return all descriptors before the cursor to the driver."""
    if load32(queue + _USED_ANY) != 0:
        store32(queue + _USED_ANY, 0)
        at = load64(queue + _DESC) + load32(queue + _USED_CURSOR) * _BYTES
        store64_release(at + _SECOND, load64(queue + _FIRST_WORD))
        log_write(queue, at, _BYTES)
    size = load32(queue + _SIZE)
    place = load16(queue + _LAST_AVAIL) + cursor
    if place >= size:
        place -= size
        store16(queue + _AVAIL_WRAP, load16(queue + _AVAIL_WRAP) ^ 1)
    store16(queue + _LAST_AVAIL, place)
    place = load16(queue + _USED_IDX) + cursor
    if place >= size:
        place -= size
        store16(queue + _USED_WRAP, load16(queue + _USED_WRAP) ^ 1)
    store16(queue + _USED_IDX, place)


@piece
def packed_wants_interrupt(queue):
    """Whether the driver wants to be told of what was used since this was last asked (virtio 1.2 §2.8.10)."""
    word = load32_acquire(load64(queue + _AVAIL))
    flags = (word >> 16) & 3
    now = load16(queue + _USED_IDX)
    before = load16(queue + _SIGNALLED)
    store16(queue + _SIGNALLED, now)
    if flags != _DESC_EVENT:
        return flags != _DISABLE
    size = load32(queue + _SIZE)
    event = word & 0x7FFF
    if now <= before:
        before -= size
    if (word >> 15) & 1 != load16(queue + _USED_WRAP):
        event -= size
    return (now - event - 1) & 0xFFFF < (now - before) & 0xFFFF


@piece
def packed_suppress_kicks(queue, on):
    """Tell the driver that kicks are not needed, or that they are (virtio 1.2 §2.8.10)."""
    store32_release(load64(queue + _USED), _DISABLE << 16 if on else 0)
    log_write(queue, load64(queue + _USED), 4)

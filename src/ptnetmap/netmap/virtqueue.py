# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The split virtqueue, as one more kind of ring (virtio 1.2 §2.7): its kernels.

This is the device's side. The driver owns the memory: it may write anything anywhere at any time. So each word of it
is read once into private memory, checked there, and used from there; nothing that the driver wrote is followed without
being translated through the queue's own table of guest memory. What a driver does wrong costs that driver a chain, or
its queue.

Whoever calls serialises the users of one queue. Chains leave a queue in the order in which the driver offered them:
whatever was taken but not returned is simply still there, because the position in the available ring moves only when
chains are returned. ``last_avail`` and ``used_idx`` therefore always move together.
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import fence, load32_acquire, load64_acquire, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import copy_bytes, fill_bytes, load16, load32, load64, store8, store16, store32, store64
from ptnetmap.netmap.batch import BATCH_PACKETS, MAX_FRAGMENTS, OFFSET
from ptnetmap.netmap.queuestate import (
    COUNTERS,
    MAX_REGIONS,
    MAX_SIZE,
    STATE_BROKEN,
    STATE_RUNNING,
    STATE_STOPPED,
    Region,
    memory_region,
    start_virtqueue,
    stop_virtqueue,
    virtqueue,
)

__all__ = [
    "COUNTERS",
    "MAX_REGIONS",
    "MAX_SIZE",
    "STATE_BROKEN",
    "STATE_RUNNING",
    "STATE_STOPPED",
    "Region",
    "collect_virtqueue",
    "complete_virtqueue",
    "deliver_virtqueue",
    "memory_region",
    "queue_available",
    "queue_suppress_kicks",
    "queue_wants_interrupt",
    "start_virtqueue",
    "stop_virtqueue",
    "virtqueue",
]

_AT = offsets(virtqueue)
_DESC = _AT["desc"]
_AVAIL = _AT["avail"]
_USED = _AT["used"]
_SIZE = _AT["size"]
_STATE = _AT["state"]
_LAST_AVAIL = _AT["last_avail"]
_USED_IDX = _AT["used_idx"]
_USED_FLAGS = _AT["used_flags"]
_HEADER = _AT["header"]
_MERGEABLE = _AT["mergeable"]
_COLLECTED = _AT["collected"]
_REGIONS = _AT["regions"]
_MEMORY = _AT["memory"]
_PACKETS = _AT["packets"]
_BYTES = _AT["bytes"]
_BAD_CHAIN = _AT["bad_chain"]
_BAD_ADDRESS = _AT["bad_address"]
_TOO_LONG = _AT["too_long"]
_NO_BUFFER = _AT["no_buffer"]
_BAD_INDEX = _AT["bad_index"]
_SNAPSHOT = _AT["snapshot"]
_CHAIN_ADDRESS = _AT["chain_address"]
_CHAIN_LENGTH = _AT["chain_length"]

_GOOD = 0  # in place of a reason; a reason is the offset of its counter

_REGION_BYTES = memory_region.itemsize
_REGION_SIZE = offsets(memory_region)["size"]
_REGION_HOST = offsets(memory_region)["host"]

_ADDRESS = OFFSET["address"]
_LENGTH = OFFSET["length"]
_FLAGS = OFFSET["flags"]
_FRAGMENTS = OFFSET["fragments"]
_SLOT = OFFSET["slot"]
_FIRST = OFFSET["first"]

_DESC_BYTES = abi.virtq_desc.itemsize
_DESC_SECOND = offsets(abi.virtq_desc)["len"]  # len, flags and next make one 64-bit word
_NEXT = abi.VIRTQ_DESC_F_NEXT
_WRITE = abi.VIRTQ_DESC_F_WRITE
_INDIRECT = abi.VIRTQ_DESC_F_INDIRECT
_AVAIL_FLAGS = offsets(abi.virtq_avail)["flags"]
_AVAIL_IDX = offsets(abi.virtq_avail)["idx"]
_AVAIL_ENTRIES = abi.virtq_avail.itemsize
_NO_INTERRUPT = abi.VIRTQ_AVAIL_F_NO_INTERRUPT
_USED_ENTRIES = abi.virtq_used.itemsize
_USED_ENTRY_BYTES = abi.virtq_used_elem.itemsize
_USED_LEN = offsets(abi.virtq_used_elem)["len"]
_NO_NOTIFY = abi.VIRTQ_USED_F_NO_NOTIFY
_NUM_BUFFERS = offsets(abi.virtio_net_hdr_mrg_rxbuf)["num_buffers"]
_LONG_HEADER = abi.virtio_net_hdr_mrg_rxbuf.itemsize


@piece
def _count(counter, n):
    store64(counter, load64(counter) + n)


@piece
def _load16_acquire(address):
    """Load one of the driver's 16-bit words, once, through the aligned 32-bit word around it.

    For an index or an entry of an available ring that word never reaches outside the ring.
    """
    return (load32_acquire(address & ~3) >> ((address & 2) << 3)) & 0xFFFF


@piece
def _translate(queue, address, length):
    """Host address of ``length`` bytes (positive) at a guest address; 0 if no single region has them all."""
    if address < 0:  # 2**63 and above: no guest has memory there, and sums below cannot overflow
        return 0
    for number in range(load32(queue + _REGIONS)):
        region = queue + _MEMORY + number * _REGION_BYTES
        offset = address - load64(region)
        if offset >= 0 and offset <= load64(region + _REGION_SIZE) - length:
            return load64(region + _REGION_HOST) + offset
    return 0


@kernel
def queue_available(queue):
    """Chains that the driver offers; 0 if the queue does not run.

    An index that is more than the whole queue ahead breaks the queue: no entry can be told from an old one then.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    ahead = (_load16_acquire(load64(queue + _AVAIL) + _AVAIL_IDX) - load16(queue + _LAST_AVAIL)) & 0xFFFF
    if ahead > load32(queue + _SIZE):
        store32(queue + _STATE, STATE_BROKEN)
        _count(queue + _BAD_INDEX, 1)
        return 0
    return ahead


@piece
def _head(queue, ahead):
    """Return the chain that the driver put ``ahead`` entries after ``last_avail``."""
    entry = (load16(queue + _LAST_AVAIL) + ahead) & (load32(queue + _SIZE) - 1)
    return _load16_acquire(load64(queue + _AVAIL) + _AVAIL_ENTRIES + entry * 2)


@piece
def _walk(queue, head, direction, addresses, lengths):
    """Check the chain ``head`` and write its host addresses (u64) and lengths (u32) to two arrays.

    Every descriptor has to have the ``direction`` _WRITE or 0. Returns (reason, descriptors, bytes); the reason is
    _GOOD or what is wrong with the chain, and then the rest means nothing.
    """
    table = load64(queue + _DESC)
    entries = load32(queue + _SIZE)
    snapshot = queue + _SNAPSHOT
    nested = False
    position = head
    walked = 0  # descriptors of this table
    count = 0
    octets = 0
    while True:
        if position >= entries or walked == entries:
            return _BAD_CHAIN, 0, 0
        # An indirect table may have any alignment. Atomic loads from the copy keep the compiler from reading the
        # driver's memory a second time.
        copy_bytes(snapshot, table + position * _DESC_BYTES, _DESC_BYTES)
        address = load64_acquire(snapshot)
        rest = load64_acquire(snapshot + _DESC_SECOND)
        length = rest & 0xFFFFFFFF
        flags = (rest >> 32) & 0xFFFF
        if length == 0:
            return _BAD_CHAIN, 0, 0
        host = _translate(queue, address, length)
        if flags & _INDIRECT:
            # The last of a chain at most, of whole descriptors, and never twice (§2.7.5.3.1); its _WRITE is ignored.
            if nested or flags & _NEXT or length % _DESC_BYTES:
                return _BAD_CHAIN, 0, 0
            if host == 0:
                return _BAD_ADDRESS, 0, 0
            nested = True
            table = host
            entries = length // _DESC_BYTES
            position = 0
            walked = 0
            continue
        if flags & _WRITE != direction:
            return _BAD_CHAIN, 0, 0
        if host == 0:
            return _BAD_ADDRESS, 0, 0
        if count == MAX_FRAGMENTS:
            return _TOO_LONG, 0, 0
        store64(addresses + count * 8, host)
        store32(lengths + count * 4, length)
        count += 1
        walked += 1
        octets += length
        if flags & _NEXT == 0:
            return _GOOD, count, octets
        position = (rest >> 48) & 0xFFFF


@piece
def _use(queue, ahead, head, length):
    """Write the used element ``ahead`` places after the last one. The driver cannot know it before _publish."""
    entry = (load16(queue + _USED_IDX) + ahead) & (load32(queue + _SIZE) - 1)
    element = load64(queue + _USED) + _USED_ENTRIES + entry * _USED_ENTRY_BYTES
    store32(element, head)
    store32(element + _USED_LEN, length)


@piece
def _advance(queue, chains):
    """Move past the next ``chains`` of the available ring, whose used elements are written."""
    store16(queue + _LAST_AVAIL, load16(queue + _LAST_AVAIL) + chains)
    store16(queue + _USED_IDX, load16(queue + _USED_IDX) + chains)


@piece
def _publish(queue):
    """Let the driver see flags and elements: the used ring's first word is aligned, and only the device writes it.

    The release makes it see the elements, and the bytes in their buffers, before the index that covers them.
    """
    word = load16(queue + _USED_FLAGS) | (load16(queue + _USED_IDX) << 16)
    store32_release(load64(queue + _USED), word)


@kernel
def collect_virtqueue(queue, batch, limit):
    """Put the packets that the driver sends into ``batch``, as host addresses. Returns (records, packets).

    Stops at the first packet boundary at or after ``limit`` records. ``slot`` of a packet's first record is the number
    of its chain. The chains stay in the queue until :func:`complete_virtqueue`; those it does not cover are collected
    again, and checked again, next time. A chain that breaks a rule is returned with length 0 when it is the oldest
    one, and until then ends the batch before it, so that what is collected is always one run of the available ring.
    """
    available = queue_available(queue)
    limit = min(limit, BATCH_PACKETS)
    records = 0
    packets = 0
    refused = 0
    while packets < available - refused and records < limit:
        head = _head(queue, packets)
        reason, fragments, _ = _walk(queue, head, 0, batch + _ADDRESS + records * 8, batch + _LENGTH + records * 4)
        if reason != _GOOD:
            if packets > 0:
                break
            _use(queue, 0, head, 0)
            _advance(queue, 1)
            _count(queue + reason, 1)
            refused += 1
            continue
        store16(batch + _FIRST + packets * 2, records)
        store16(batch + _FRAGMENTS + records * 2, fragments)
        store16(batch + _SLOT + records * 2, head)
        fill_bytes(batch + _FLAGS + records * 2, 0, fragments * 2)
        records += fragments
        packets += 1
    if refused > 0:
        _publish(queue)
    store32(queue + _COLLECTED, packets)
    return records, packets


@kernel
def complete_virtqueue(queue, batch, packets):
    """Return the chains of the first ``packets`` collected packets to the driver. Returns how many.

    ``batch`` is as the last collect left it. The packets' memory is the driver's again when this returns. A batch is
    completed once: the packets it did not cover come with the next collect.
    """
    packets = min(packets, load32(queue + _COLLECTED))
    store32(queue + _COLLECTED, 0)
    if packets <= 0:
        return 0
    octets = 0
    for packet in range(packets):
        record = load16(batch + _FIRST + packet * 2)
        for fragment in range(record, record + load16(batch + _FRAGMENTS + record * 2)):
            octets += load32(batch + _LENGTH + fragment * 4)
        _use(queue, packet, load16(batch + _SLOT + record * 2), 0)
    _advance(queue, packets)
    _publish(queue)
    _count(queue + _PACKETS, packets)
    _count(queue + _BYTES, octets)
    return packets


@piece
def _reserve(queue, available, octets):
    """Take the chains that a packet of ``octets`` bytes needs, and write their used elements.

    Returns (reason, chains, descriptors). Reasons other than _GOOD: _NO_BUFFER when more chains have to come first;
    else what is wrong, with as many chains to be given back unused.
    """
    limit = MAX_FRAGMENTS if load32(queue + _MERGEABLE) else 1
    chains = 0
    descriptors = 0
    room = 0
    while chains == 0 or room < octets:
        if chains == limit or descriptors >= MAX_FRAGMENTS:
            return _TOO_LONG, chains, 0
        if chains == available:
            # A driver that has put its whole queue up cannot add the rest.
            reason = _TOO_LONG if available == load32(queue + _SIZE) else _NO_BUFFER
            return reason, chains, 0
        head = _head(queue, chains)
        reason, count, capacity = _walk(
            queue, head, _WRITE, queue + _CHAIN_ADDRESS + descriptors * 8, queue + _CHAIN_LENGTH + descriptors * 4
        )
        _use(queue, chains, head, min(capacity, octets - room))
        chains += 1
        if reason != _GOOD:
            return reason, chains, 0
        descriptors += count
        room += capacity
    return _GOOD, chains, descriptors


@piece
def _give_back_unused(queue, chains):
    """Say of the next ``chains`` used elements, written by _reserve, that nothing is in their buffers."""
    for ahead in range(chains):
        entry = (load16(queue + _USED_IDX) + ahead) & (load32(queue + _SIZE) - 1)
        store32(load64(queue + _USED) + _USED_ENTRIES + entry * _USED_ENTRY_BYTES + _USED_LEN, 0)


@piece
def _scatter(queue, batch, record, octets):
    """Copy a packet of ``octets`` bytes that starts at ``record`` into the reserved chains, across all boundaries."""
    target = 0
    source = 0
    left = 0
    destination = 0
    room = 0
    while octets > 0:
        if left == 0:
            source = load64(batch + _ADDRESS + record * 8)
            left = load32(batch + _LENGTH + record * 4)
            record += 1
        if room == 0:
            destination = load64(queue + _CHAIN_ADDRESS + target * 8)
            room = load32(queue + _CHAIN_LENGTH + target * 4)
            target += 1
        n = min(left, room)
        copy_bytes(destination, source, n)
        source += n
        left -= n
        destination += n
        room -= n
        octets -= n


@piece
def _store_in_chain(queue, offset, value):
    """Store one byte at ``offset`` of the reserved chains, which may be cut anywhere."""
    target = 0
    while offset >= load32(queue + _CHAIN_LENGTH + target * 4):
        offset -= load32(queue + _CHAIN_LENGTH + target * 4)
        target += 1
    store8(load64(queue + _CHAIN_ADDRESS + target * 8) + offset, value)


@kernel
def deliver_virtqueue(queue, batch, packets_to_deliver, count):
    """Copy packets into the buffers that the driver offers. Returns how many of ``count`` are done with.

    ``packets_to_deliver`` is the address of ``count`` packet numbers (u16) of ``batch``. Done with are packets that
    were delivered, and packets dropped because they do not fit (``too_long``), whose chains go back with length 0.
    Fewer than ``count`` means that the driver offers too few chains: the rest can be tried again. A chain that breaks
    a rule goes back with length 0, together with those already taken for the same packet, which then tries the next
    ones. The driver sees all of it at once at the end, so the chains of a mergeable packet never come apart. With a
    12-byte header, ``num_buffers`` is set (virtio 1.2 §5.1.6.4.1).
    """
    offered = queue_available(queue)
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    available = offered
    done = 0
    packets = 0
    total = 0
    while done < count:
        record = load16(batch + _FIRST + load16(packets_to_deliver + done * 2) * 2)
        octets = 0
        for fragment in range(record, record + load16(batch + _FRAGMENTS + record * 2)):
            octets += load32(batch + _LENGTH + fragment * 4)
        reason, chains, _ = _reserve(queue, available, octets)
        if reason == _NO_BUFFER:
            _count(queue + _NO_BUFFER, 1)
            break
        if reason == _GOOD:
            _scatter(queue, batch, record, octets)
            if load16(queue + _HEADER) == _LONG_HEADER and octets >= _LONG_HEADER:
                _store_in_chain(queue, _NUM_BUFFERS, chains)
                _store_in_chain(queue, _NUM_BUFFERS + 1, chains >> 8)
            packets += 1
            total += octets
            done += 1
        else:
            _give_back_unused(queue, chains)
            _count(queue + reason, 1)
            if reason == _TOO_LONG:
                done += 1
        _advance(queue, chains)
        available -= chains
    if available != offered:
        _publish(queue)
        _count(queue + _PACKETS, packets)
        _count(queue + _BYTES, total)
    return done


@kernel
def queue_wants_interrupt(queue):
    """Whether the driver wants to be told of the used elements that were published before this call.

    The fence pairs with the driver's, between allowing interrupts and looking at the used index once more: either it
    sees the new index, or its wish is seen here.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return False
    fence()
    return load16(load64(queue + _AVAIL) + _AVAIL_FLAGS) & _NO_INTERRUPT == 0


@kernel
def queue_suppress_kicks(queue, on):
    """Tell the driver that kicks are not needed (``on``), or that they are. Returns the chains that no kick announces.

    That is 0 when suppressing. When kicks are wanted again, chains that came before the driver could know have to be
    served without one: the fence makes sure that either they are seen here, or the driver sees the wish and kicks.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    store16(queue + _USED_FLAGS, _NO_NOTIFY if on else 0)
    _publish(queue)
    if on:
        return 0
    fence()
    return queue_available(queue)

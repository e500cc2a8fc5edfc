# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The split virtqueue, as one more kind of ring (virtio 1.2 §2.7): its kernels.

This is the device's side. The driver owns the memory: it may write anything anywhere at any time. So each word of it
is read once into private memory, checked there, and used from there; nothing that the driver wrote is followed without
being translated through the queue's own table of guest memory (:mod:`~ptnetmap.netmap.chain`). What a driver does wrong
costs that driver a chain, or its queue.

Whoever calls serialises the users of one queue. Chains leave a queue in the order in which the driver offered them:
whatever was taken but not returned is simply still there, because the position in the available ring moves only when
chains are returned. ``last_avail`` and ``used_idx`` therefore always move together.
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import fence, store32_release
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import fill_bytes, load16, load32, load64, prefetch, store16, store32, store64
from ptnetmap.netmap.batch import BATCH_PACKETS, CONVERTED_BYTES, MAX_FRAGMENTS, MAX_SEGMENTS, OFFSET
from ptnetmap.netmap.chain import GOOD, TOO_LONG, load16_acquire, walk, walk_one
from ptnetmap.netmap.collect import VNETS
from ptnetmap.netmap.convert import make_linear
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.offload import convert, output_stride
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
from ptnetmap.netmap.vnet import HEADER, lift_header, read_header, wanted

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
_ACCEPTS = _AT["accepts"]
_EVENT_IDX = _AT["event_idx"]
_SIGNALLED = _AT["signalled"]
_COLLECTED = _AT["collected"]
_PACKETS = _AT["packets"]
_BYTES = _AT["bytes"]
_NO_BUFFER = _AT["no_buffer"]
_BAD_INDEX = _AT["bad_index"]
_BAD_HEADER = _AT["bad_header"]
_VNET = _AT["vnet"]
_FRAME_ADDRESS = _AT["frame_address"]
_FRAME_LENGTH = _AT["frame_length"]
_CHAIN_ADDRESS = _AT["chain_address"]
_CHAIN_LENGTH = _AT["chain_length"]

_ADDRESS = OFFSET["address"]
_LENGTH = OFFSET["length"]
_FLAGS = OFFSET["flags"]
_FRAGMENTS = OFFSET["fragments"]
_SLOT = OFFSET["slot"]
_FIRST = OFFSET["first"]
_LINEAR = OFFSET["linear"]
_CONVERTED = OFFSET["converted"]
_CONVERTED_LENGTH = OFFSET["converted_length"]

_WRITE = abi.VIRTQ_DESC_F_WRITE
_DESC_BYTES = abi.virtq_desc.itemsize
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
_AHEAD = 4


@piece
def _count(counter, n):
    store64(counter, load64(counter) + n)


@kernel
def queue_available(queue):
    """Chains that the driver offers; 0 if the queue does not run.

    An index that is more than the whole queue ahead breaks the queue: no entry can be told from an old one then.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    ahead = (load16_acquire(load64(queue + _AVAIL) + _AVAIL_IDX) - load16(queue + _LAST_AVAIL)) & 0xFFFF
    if ahead > load32(queue + _SIZE):
        store32(queue + _STATE, STATE_BROKEN)
        _count(queue + _BAD_INDEX, 1)
        return 0
    return ahead


@piece
def _head(queue, ahead):
    """Return the chain that the driver put ``ahead`` entries after ``last_avail``."""
    entry = (load16(queue + _LAST_AVAIL) + ahead) & (load32(queue + _SIZE) - 1)
    return load16_acquire(load64(queue + _AVAIL) + _AVAIL_ENTRIES + entry * 2)


@piece
def _use(queue, ahead, head, length):
    """Write the used element ``ahead`` places after the last one. The driver cannot know it before _publish."""
    entry = (load16(queue + _USED_IDX) + ahead) & (load32(queue + _SIZE) - 1)
    element = load64(queue + _USED) + _USED_ENTRIES + entry * _USED_ENTRY_BYTES
    store64(element, head | (length << 32))


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

    Their headers go to the batch's ``vnet``, and its ``vnets`` says whether they matter. Stops at the first packet
    boundary at or after ``limit`` records. ``slot`` of a packet's first record is the number of its chain. The chains
    stay in the queue until :func:`complete_virtqueue`; those it does not cover are collected again, and checked again,
    next time. A chain that breaks a rule is returned with length 0 when it is the oldest one, and until then ends the
    batch before it, so that what is collected is always one run of the available ring.
    """
    store32(batch + VNETS, 0)
    available = queue_available(queue)
    limit = min(limit, BATCH_PACKETS)
    header = load16(queue + _HEADER)
    records = 0
    packets = 0
    refused = 0
    while packets < available - refused and records < limit:
        head = _head(queue, packets)
        address, octets = walk_one(queue, head, 0)
        fragments = 1
        if address != 0:
            store64(batch + _ADDRESS + records * 8, address)
            store32(batch + _LENGTH + records * 4, octets)
        else:
            reason, fragments, octets = walk(
                queue, head, 0, batch + _ADDRESS + records * 8, batch + _LENGTH + records * 4
            )
            if reason != GOOD:
                if packets > 0:
                    break
                _use(queue, 0, head, 0)
                _advance(queue, 1)
                _count(queue + reason, 1)
                refused += 1
                continue
        end = records + fragments
        fill_bytes(batch + _FLAGS + records * 2, 0, fragments * 2)
        if header != 0:
            records, fragments = lift_header(batch, packets, records, fragments, octets, header)
        store16(batch + _FIRST + packets * 2, records)
        store16(batch + _FRAGMENTS + records * 2, fragments)
        store16(batch + _SLOT + records * 2, head)
        records = end
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
def _reserve(queue, taken, available, octets):
    """Take the chains that a packet of ``octets`` bytes needs, after ``taken`` others, and write their used elements.

    Returns (reason, chains, descriptors). Reasons other than GOOD: _NO_BUFFER when more chains have to come first;
    else what is wrong, with as many chains to be given back unused.
    """
    limit = MAX_FRAGMENTS if load32(queue + _MERGEABLE) else 1
    chains = 0
    descriptors = 0
    room = 0
    while chains == 0 or room < octets:
        if chains == limit or descriptors >= MAX_FRAGMENTS:
            return TOO_LONG, chains, 0
        if chains == available:
            # A driver that has put its whole queue up cannot add the rest.
            reason = TOO_LONG if available == load32(queue + _SIZE) else _NO_BUFFER
            return reason, chains, 0
        head = _head(queue, taken + chains)
        reason, count, capacity = walk(
            queue, head, _WRITE, queue + _CHAIN_ADDRESS + descriptors * 8, queue + _CHAIN_LENGTH + descriptors * 4
        )
        _use(queue, taken + chains, head, min(capacity, octets - room))
        chains += 1
        if reason != GOOD:
            return reason, chains, 0
        descriptors += count
        room += capacity
    return GOOD, chains, descriptors


@piece
def _give_back_unused(queue, taken, chains):
    """Say of ``chains`` used elements, written by _reserve, that nothing is in their buffers."""
    for ahead in range(taken, taken + chains):
        entry = (load16(queue + _USED_IDX) + ahead) & (load32(queue + _SIZE) - 1)
        store32(load64(queue + _USED) + _USED_ENTRIES + entry * _USED_ENTRY_BYTES + _USED_LEN, 0)


@piece
def _scatter(queue, header, addresses, lengths, skip, octets):
    """Copy a header, and a packet without its first ``skip`` bytes, to the reserved chains, across all boundaries.

    The header is the first ``header`` bytes at the queue's ``vnet``; ``octets`` are those of both.
    """
    target = 0
    source = queue + _VNET
    left = header
    piece_number = 0
    destination = 0
    room = 0
    while octets > 0:
        while left == 0:
            source = load64(addresses + piece_number * 8) + skip
            left = load32(lengths + piece_number * 4) - skip
            skip = 0
            piece_number += 1
            if left < 0:
                skip = -left
                left = 0
        if room == 0:
            destination = load64(queue + _CHAIN_ADDRESS + target * 8)
            room = load32(queue + _CHAIN_LENGTH + target * 4)
            target += 1
        n = min(left, room)
        copy_frame(destination, source, n)
        source += n
        left -= n
        destination += n
        room -= n
        octets -= n


@piece
def _put(queue, taken, available, addresses, lengths, fragments, skip):
    """Copy the header at ``vnet`` and one packet to the next chains. Returns (reason, chains, bytes); see _reserve."""
    header = load16(queue + _HEADER)
    if fragments == 1 and available > 0:
        # The usual packet in the usual chain.
        head = _head(queue, taken)
        host, room = walk_one(queue, head, _WRITE)
        octets = load32(lengths) - skip
        if host != 0 and room >= header + octets and octets >= 0:
            if header != 0:
                store64(host, load64(queue + _VNET))
                if header == _LONG_HEADER:
                    store32(host + 8, load16(queue + _VNET + 8) | (1 << 16))
                else:
                    store16(host + 8, load16(queue + _VNET + 8))
            copy_frame(host + header, load64(addresses) + skip, octets)
            _use(queue, taken, head, header + octets)
            return GOOD, 1, header + octets
    octets = header - skip
    for fragment in range(fragments):
        octets += load32(lengths + 4 * fragment)
    reason, chains, _ = _reserve(queue, taken, available, max(octets, header))
    if reason == GOOD:
        store16(queue + _VNET + _NUM_BUFFERS, chains)
        _scatter(queue, header, addresses, lengths, skip, max(octets, header))
    elif reason != _NO_BUFFER:
        _give_back_unused(queue, taken, chains)
    return reason, chains, octets


@piece
def _put_finished(queue, taken, available, batch, packet, skip, mfs):
    """Finish a packet's offloads, and put the frames that it becomes. Returns (reason, chains, bytes)."""
    length = make_linear(batch, packet)
    frames = -1
    converted = load64(batch + _CONVERTED)
    lengths = batch + _CONVERTED_LENGTH
    if length >= 0:
        source_header = HEADER if load32(batch + VNETS) != 0 else skip
        frames = convert(
            load64(batch + _LINEAR), length, source_header, 0, mfs, converted, CONVERTED_BYTES, lengths, MAX_SEGMENTS
        )
    if frames < 0:
        return _BAD_HEADER, 0, 0
    store64(queue + _VNET, 0)
    store64(queue + _VNET + 8, 0)
    chains = 0
    octets = 0
    for i in range(frames):
        store64(queue + _FRAME_ADDRESS, converted + i * output_stride(mfs, 0))
        store32(queue + _FRAME_LENGTH, load32(lengths + 4 * i))
        reason, more, n = _put(
            queue, taken + chains, available - chains, queue + _FRAME_ADDRESS, queue + _FRAME_LENGTH, 1, 0
        )
        if reason == _NO_BUFFER:
            return reason, chains, octets
        chains += more
        if reason != GOOD:
            return reason, chains, octets
        octets += n
    return GOOD, chains, octets


@kernel
def deliver_virtqueue(queue, batch, order, count, inline, mfs):
    """Copy packets into the buffers that the driver offers. Returns (packets done with, delivered, bytes delivered).

    ``order`` is the address of ``count`` packet numbers (u16) of ``batch``, or 0 for the batch as it is. The packets'
    headers are in the batch's ``vnet`` if ``vnets`` says so, else their first ``inline`` bytes. What the driver does not
    accept is finished here, in frames of at most ``mfs`` bytes. Done with are packets that were delivered, and packets
    dropped because they do not fit (``too_long``) or their header lies (``bad_header``). Fewer than ``count`` means that
    the driver offers too few chains: the rest can be tried again. A chain that breaks a rule goes back with length 0,
    together with those already taken for the same packet, which then tries the next ones. The driver sees all of it at
    once at the end, so the chains of a mergeable packet never come apart. With a 12-byte header, ``num_buffers`` is set
    (virtio 1.2 §5.1.6.4.1).
    """
    available = queue_available(queue)
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0, 0, 0
    plain = inline == 0 and load32(batch + VNETS) == 0
    if plain:
        store64(queue + _VNET, 0)
        store64(queue + _VNET + 8, 0)
    taken = 0
    done = 0
    packets = 0
    total = 0
    while done < count:
        packet = done
        if order != 0:
            packet = load16(order + done * 2)
        record = load16(batch + _FIRST + packet * 2)
        addresses = batch + _ADDRESS + 8 * record
        prefetch(load64(addresses + 8 * _AHEAD))
        wants = 0
        if not plain:
            read_header(batch, packet, record, inline, queue + _VNET)
            wants = wanted(queue + _VNET)
        if wants & ~load32(queue + _ACCEPTS) != 0:
            reason, chains, octets = _put_finished(queue, taken, available - taken, batch, packet, inline, mfs)
        else:
            fragments = load16(batch + _FRAGMENTS + record * 2)
            reason, chains, octets = _put(
                queue, taken, available - taken, addresses, batch + _LENGTH + 4 * record, fragments, inline
            )
        if reason == _NO_BUFFER:
            _count(queue + _NO_BUFFER, 1)
            taken += chains if wants & ~load32(queue + _ACCEPTS) != 0 else 0
            break
        if reason == GOOD:
            packets += 1
            total += octets
            done += 1
        else:
            _count(queue + reason, 1)
            if reason in (TOO_LONG, _BAD_HEADER):
                done += 1
        taken += chains
    if taken > 0:
        _advance(queue, taken)
        _publish(queue)
        _count(queue + _PACKETS, packets)
        _count(queue + _BYTES, total)
    return done, packets, total


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
    avail = load64(queue + _AVAIL)
    if load32(queue + _EVENT_IDX) == 0:
        return load16(avail + _AVAIL_FLAGS) & _NO_INTERRUPT == 0
    used = load16(queue + _USED_IDX)
    before = load16(queue + _SIGNALLED)
    store16(queue + _SIGNALLED, used)
    event = load16(avail + _AVAIL_ENTRIES + 2 * load32(queue + _SIZE))
    return (used - event - 1) & 0xFFFF < (used - before) & 0xFFFF


@kernel
def queue_suppress_kicks(queue, on):
    """Tell the driver that kicks are not needed (``on``), or that they are. Returns the chains that no kick announces.

    That is 0 when suppressing. When kicks are wanted again, chains that came before the driver could know have to be
    served without one: the fence makes sure that either they are seen here, or the driver sees the wish and kicks. With
    the event index, an element that has passed is never kicked for, so that suppressing takes nothing.
    """
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _EVENT_IDX) == 0:
        store16(queue + _USED_FLAGS, _NO_NOTIFY if on else 0)
        _publish(queue)
    elif not on:
        last = load16(queue + _LAST_AVAIL)
        store16(load64(queue + _USED) + _USED_ENTRIES + load32(queue + _SIZE) * _USED_ENTRY_BYTES, last)
    if on:
        return 0
    fence()
    return queue_available(queue)

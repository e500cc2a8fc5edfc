# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The virtqueue, split or packed, as one more kind of ring (virtio 1.2 §2.7, §2.8): its kernels.

This is the device's side. The driver owns the memory: it may write anything anywhere at any time. So each word of it
is read once into private memory, checked there, and used from there; nothing that the driver wrote is followed without
being translated through the queue's own table of guest memory (:mod:`~ptnetmap.netmap.chain`). What a driver does wrong
costs that driver a chain, or its queue.

Whoever calls serialises the users of one queue. Chains leave a queue in the order in which the driver offered them:
whatever was taken but not returned is simply still there, because the position in the ring moves only when chains are
returned. ``last_avail`` and ``used_idx`` therefore always move together.
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import fence
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import fill_bytes, load16, load32, load64, prefetch, store16, store32, store64
from ptnetmap.netmap.batch import BATCH_PACKETS, CONVERTED_BYTES, MAX_FRAGMENTS, MAX_SEGMENTS, OFFSET
from ptnetmap.netmap.chain import GOOD, TOO_LONG, walk, walk_one
from ptnetmap.netmap.collect import VNETS
from ptnetmap.netmap.convert import make_linear
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.offload import convert, output_stride
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
from ptnetmap.netmap.splitqueue import (
    split_available,
    split_finish,
    split_head,
    split_suppress_kicks,
    split_use,
    split_wants_interrupt,
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
    "queue_room",
    "queue_suppress_kicks",
    "queue_wants_interrupt",
    "start_virtqueue",
    "stop_virtqueue",
    "virtqueue",
]

_AT = offsets(virtqueue)
_SIZE = _AT["size"]
_STATE = _AT["state"]
_HEADER = _AT["header"]
_MERGEABLE = _AT["mergeable"]
_ACCEPTS = _AT["accepts"]
_PACKED = _AT["packed"]
_IN_ORDER = _AT["in_order"]
_COLLECTED = _AT["collected"]
_PACKETS = _AT["packets"]
_BYTES = _AT["bytes"]
_NO_BUFFER = _AT["no_buffer"]
_BAD_HEADER = _AT["bad_header"]
_VNET = _AT["vnet"]
_FRAME_ADDRESS = _AT["frame_address"]
_FRAME_LENGTH = _AT["frame_length"]
_CHAIN_ADDRESS = _AT["chain_address"]
_CHAIN_LENGTH = _AT["chain_length"]
_CHAIN_CURSOR = _AT["chain_cursor"]
_CHAIN_ID = _AT["chain_id"]
_CHAIN_USED = _AT["chain_used"]

_ADDRESS = OFFSET["address"]
_LENGTH = OFFSET["length"]
_FLAGS = OFFSET["flags"]
_FRAGMENTS = OFFSET["fragments"]
_SLOT = OFFSET["slot"]
_CHAIN = OFFSET["chain"]
_FIRST = OFFSET["first"]
_LINEAR = OFFSET["linear"]
_CONVERTED = OFFSET["converted"]
_CONVERTED_LENGTH = OFFSET["converted_length"]

_WRITE = abi.VIRTQ_DESC_F_WRITE
_NUM_BUFFERS = offsets(abi.virtio_net_hdr_mrg_rxbuf)["num_buffers"]
_LONG_HEADER = abi.virtio_net_hdr_mrg_rxbuf.itemsize
_AHEAD = 4


@piece
def _count(counter, n):
    store64(counter, load64(counter) + n)


# The two layouts. A cursor is a place in the ring, relative to the oldest chain that has not been returned.


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
def _begin(queue, wanted):
    """Chains that the driver offers, as :func:`queue_available`, when ``wanted`` are about to be taken."""
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0
    if load32(queue + _PACKED) != 0:
        return packed_ready(queue, wanted)
    return split_available(queue)


@piece
def _is_offered(queue, cursor, available):
    """Whether there is a chain at a cursor; ``available`` is what :func:`queue_available` said."""
    if load32(queue + _PACKED) != 0:
        at, _ = packed_word(queue, cursor)
        return at != 0
    return cursor < available


@piece
def _one(queue, cursor, direction):
    """Return (host address, bytes, id) of a chain that is one plain descriptor, which most are; an address 0 for others."""
    if load32(queue + _PACKED) != 0:
        return packed_one(queue, cursor, direction)
    head = split_head(queue, cursor)
    host, length = walk_one(queue, head, direction)
    return host, length, head


@piece
def _walk(queue, cursor, direction, addresses, lengths):
    """Check the chain at a cursor. Returns (reason, descriptors, bytes, id, places in the ring); see :func:`walk`."""
    if load32(queue + _PACKED) != 0:
        return packed_walk(queue, cursor, direction, addresses, lengths)
    head = split_head(queue, cursor)
    reason, count, octets = walk(queue, head, direction, addresses, lengths)
    return reason, count, octets, head, 1


@piece
def _use(queue, cursor, number, length):
    """Write a used element. The driver does not see it before _finish."""
    if load32(queue + _PACKED) != 0:
        packed_use(queue, cursor, number, length)
    else:
        split_use(queue, cursor, number, length)


@piece
def _finish(queue, cursor):
    """Return everything before the cursor to the driver, at once."""
    if load32(queue + _PACKED) != 0:
        packed_finish(queue, cursor)
    else:
        split_finish(queue, cursor)


@kernel
def collect_virtqueue(queue, batch, limit):
    """Put the packets that the driver sends into ``batch``, as host addresses. Returns (records, packets).

    Their headers go to the batch's ``vnet``, and its ``vnets`` says whether they matter. Stops at the first packet
    boundary at or after ``limit`` records. ``slot`` of a packet's first record is the number of its chain. The chains
    stay in the queue until :func:`complete_virtqueue`; those it does not cover are collected again, and checked again,
    next time. A chain that breaks a rule is returned with length 0 when it is the oldest one, and until then ends the
    batch before it, so that what is collected is always one run of the ring.
    """
    store32(batch + VNETS, 0)
    limit = min(limit, BATCH_PACKETS)
    available = _begin(queue, limit)
    header = load16(queue + _HEADER)
    records = 0
    packets = 0
    cursor = 0
    while records < limit and available > 0 and _is_offered(queue, cursor, available):
        address, octets, number = _one(queue, cursor, 0)
        fragments = 1
        steps = 1
        if address != 0:
            store64(batch + _ADDRESS + records * 8, address)
            store32(batch + _LENGTH + records * 4, octets)
        else:
            reason, fragments, octets, number, steps = _walk(
                queue, cursor, 0, batch + _ADDRESS + records * 8, batch + _LENGTH + records * 4
            )
            if steps == 0:
                break
            if reason != GOOD:
                if packets > 0:
                    break
                _use(queue, 0, number, 0)
                _finish(queue, steps)
                _count(queue + reason, 1)
                available -= 1
                continue
        end = records + fragments
        fill_bytes(batch + _FLAGS + records * 2, 0, fragments * 2)
        if header != 0:
            records, fragments = lift_header(batch, packets, records, fragments, octets, header)
        store16(batch + _FIRST + packets * 2, records)
        store16(batch + _FRAGMENTS + records * 2, fragments)
        store16(batch + _SLOT + records * 2, number)
        store16(batch + _CHAIN + packets * 2, steps)
        records = end
        packets += 1
        cursor += steps
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
    cursor = 0
    # One used descriptor of a packed ring stands for all before it, if the driver relies on their order (§2.8.9).
    at_once = load32(queue + _PACKED) != 0 and load32(queue + _IN_ORDER) != 0
    number = 0
    for packet in range(packets):
        record = load16(batch + _FIRST + packet * 2)
        for fragment in range(record, record + load16(batch + _FRAGMENTS + record * 2)):
            octets += load32(batch + _LENGTH + fragment * 4)
        number = load16(batch + _SLOT + record * 2)
        if not at_once:
            _use(queue, cursor, number, 0)
        cursor += load16(batch + _CHAIN + packet * 2)
    if at_once:
        _use(queue, 0, number, 0)
    _finish(queue, cursor)
    _count(queue + _PACKETS, packets)
    _count(queue + _BYTES, octets)
    return packets


@piece
def _reserve(queue, cursor, available, octets):
    """Take the chains that a packet of ``octets`` bytes needs, from a cursor on. Nothing is written to the driver's memory.

    Returns (reason, chains, places in the ring). Reasons other than GOOD: _NO_BUFFER when more chains have to come first;
    else what is wrong, with as many chains to be given back unused.
    """
    limit = MAX_FRAGMENTS if load32(queue + _MERGEABLE) else 1
    chains = 0
    places = 0
    descriptors = 0
    room = 0
    while chains == 0 or room < octets:
        if chains == limit or descriptors >= MAX_FRAGMENTS:
            return TOO_LONG, chains, places
        if not _is_offered(queue, cursor + places, available) or places == load32(queue + _SIZE):
            # A driver that has put its whole queue up cannot add the rest.
            return (TOO_LONG if places == load32(queue + _SIZE) else _NO_BUFFER), chains, places
        reason, count, capacity, number, steps = _walk(
            queue,
            cursor + places,
            _WRITE,
            queue + _CHAIN_ADDRESS + descriptors * 8,
            queue + _CHAIN_LENGTH + descriptors * 4,
        )
        if steps == 0:
            return _NO_BUFFER, 0, 0
        store16(queue + _CHAIN_CURSOR + 2 * chains, cursor + places)
        store16(queue + _CHAIN_ID + 2 * chains, number)
        store32(queue + _CHAIN_USED + 4 * chains, min(capacity, octets - room))
        chains += 1
        places += steps
        if reason != GOOD:
            return reason, chains, places
        descriptors += count
        room += capacity
    return GOOD, chains, places


@piece
def _use_reserved(queue, chains, filled):
    """Write the used elements of what _reserve took, ``filled`` or with nothing in them."""
    for i in range(chains):
        length = load32(queue + _CHAIN_USED + 4 * i) if filled else 0
        _use(queue, load16(queue + _CHAIN_CURSOR + 2 * i), load16(queue + _CHAIN_ID + 2 * i), length)


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
def _put(queue, cursor, available, addresses, lengths, fragments, skip):
    """Copy the header at ``vnet`` and one packet to the next chains. Returns (reason, places in the ring, bytes)."""
    header = load16(queue + _HEADER)
    if fragments == 1 and _is_offered(queue, cursor, available):
        # The usual packet in the usual chain.
        host, room, number = _one(queue, cursor, _WRITE)
        octets = load32(lengths) - skip
        if host != 0 and room >= header + octets and octets >= 0:
            if header != 0:
                store64(host, load64(queue + _VNET))
                if header == _LONG_HEADER:
                    store32(host + 8, load16(queue + _VNET + 8) | (1 << 16))
                else:
                    store16(host + 8, load16(queue + _VNET + 8))
            copy_frame(host + header, load64(addresses) + skip, octets)
            _use(queue, cursor, number, header + octets)
            return GOOD, 1, header + octets
    octets = header - skip
    for fragment in range(fragments):
        octets += load32(lengths + 4 * fragment)
    octets = max(octets, header)
    reason, chains, places = _reserve(queue, cursor, available, octets)
    if reason == _NO_BUFFER:
        return reason, 0, 0
    if reason == GOOD:
        store16(queue + _VNET + _NUM_BUFFERS, chains)
        _scatter(queue, header, addresses, lengths, skip, octets)
    _use_reserved(queue, chains, reason == GOOD)
    return reason, places, octets


@piece
def _put_finished(queue, cursor, available, batch, packet, skip, mfs):
    """Finish a packet's offloads, and put the frames that it becomes. Returns (reason, places in the ring, bytes)."""
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
    places = 0
    octets = 0
    for i in range(frames):
        store64(queue + _FRAME_ADDRESS, converted + i * output_stride(mfs, 0))
        store32(queue + _FRAME_LENGTH, load32(lengths + 4 * i))
        reason, more, n = _put(queue, cursor + places, available, queue + _FRAME_ADDRESS, queue + _FRAME_LENGTH, 1, 0)
        places += more
        if reason != GOOD:
            return reason, places, octets
        octets += n
    return GOOD, places, octets


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
    available = _begin(queue, count)
    if load32(queue + _STATE) != STATE_RUNNING:
        return 0, 0, 0
    plain = inline == 0 and load32(batch + VNETS) == 0
    if plain:
        store64(queue + _VNET, 0)
        store64(queue + _VNET + 8, 0)
    cursor = 0
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
            reason, places, octets = _put_finished(queue, cursor, available, batch, packet, inline, mfs)
        else:
            fragments = load16(batch + _FRAGMENTS + record * 2)
            lengths = batch + _LENGTH + 4 * record
            reason, places, octets = _put(queue, cursor, available, addresses, lengths, fragments, inline)
        cursor += places
        if reason == _NO_BUFFER:
            _count(queue + _NO_BUFFER, 1)
            break
        if reason == GOOD:
            packets += 1
            total += octets
            done += 1
        else:
            _count(queue + reason, 1)
            if reason in (TOO_LONG, _BAD_HEADER):
                done += 1
    if cursor > 0:
        _finish(queue, cursor)
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

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Packets for a driver, into the buffers of a virtqueue: whole where it takes them so, else finished on the way."""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import load16, load32, load64, prefetch, store16, store32, store64
from ptnetmap.netmap.batch import CONVERTED_BYTES, MAX_FRAGMENTS, MAX_SEGMENTS, OFFSET
from ptnetmap.netmap.chain import GOOD, TOO_LONG
from ptnetmap.netmap.collect import VNETS
from ptnetmap.netmap.convert import make_linear
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.dirtylog import log_write
from ptnetmap.netmap.offload import convert, output_stride
from ptnetmap.netmap.queuering import (
    begin_batch,
    count_event,
    finish_chains,
    is_offered,
    one_descriptor,
    use_chain,
    walk_chain,
)
from ptnetmap.netmap.queuestate import STATE_RUNNING, virtqueue
from ptnetmap.netmap.vnet import HEADER, read_header, wanted

_AT = offsets(virtqueue)
_SIZE = _AT["size"]
_STATE = _AT["state"]
_HEADER = _AT["header"]
_MERGEABLE = _AT["mergeable"]
_ACCEPTS = _AT["accepts"]
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
_FRAGMENTS = OFFSET["fragments"]
_FIRST = OFFSET["first"]
_LINEAR = OFFSET["linear"]
_CONVERTED = OFFSET["converted"]
_CONVERTED_LENGTH = OFFSET["converted_length"]
_WRITE = abi.VIRTQ_DESC_F_WRITE
_NUM_BUFFERS = offsets(abi.virtio_net_hdr_mrg_rxbuf)["num_buffers"]
_LONG_HEADER = abi.virtio_net_hdr_mrg_rxbuf.itemsize
_AHEAD = 4


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
        if not is_offered(queue, cursor + places, available) or places == load32(queue + _SIZE):
            # A driver that has put its whole queue up cannot add the rest.
            return (TOO_LONG if places == load32(queue + _SIZE) else _NO_BUFFER), chains, places
        reason, count, capacity, number, steps = walk_chain(
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
        use_chain(queue, load16(queue + _CHAIN_CURSOR + 2 * i), load16(queue + _CHAIN_ID + 2 * i), length)


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
        log_write(queue, destination, n)
        source += n
        left -= n
        destination += n
        room -= n
        octets -= n


@piece
def _put(queue, cursor, available, addresses, lengths, fragments, skip):
    """Copy the header at ``vnet`` and one packet to the next chains. Returns (reason, places in the ring, bytes)."""
    header = load16(queue + _HEADER)
    if fragments == 1 and is_offered(queue, cursor, available):
        # The usual packet in the usual chain.
        host, room, number = one_descriptor(queue, cursor, _WRITE)
        octets = load32(lengths) - skip
        if host != 0 and room >= header + octets and octets >= 0:
            if header != 0:
                store64(host, load64(queue + _VNET))
                if header == _LONG_HEADER:
                    store32(host + 8, load16(queue + _VNET + 8) | (1 << 16))
                else:
                    store16(host + 8, load16(queue + _VNET + 8))
            copy_frame(host + header, load64(addresses) + skip, octets)
            log_write(queue, host, header + octets)
            use_chain(queue, cursor, number, header + octets)
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
    available = begin_batch(queue, count)
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
            count_event(queue + _NO_BUFFER, 1)
            break
        if reason == GOOD:
            packets += 1
            total += octets
            done += 1
        else:
            count_event(queue + reason, 1)
            if reason in (TOO_LONG, _BAD_HEADER):
                done += 1
    if cursor > 0:
        finish_chains(queue, cursor)
        count_event(queue + _PACKETS, packets)
        count_event(queue + _BYTES, total)
    return done, packets, total

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Deliver to a port whose virtio-net header differs from the source's: the slow path of forwarding.

A virtqueue's packets have their headers in the batch (:mod:`~ptnetmap.netmap.vnet`), others before their first byte.

Each packet is made linear, its header translated or its offloads finished (:mod:`ptnetmap.netmap.offload`), and the
frames that result are copied to the destination's slots.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.virtio import virtio_net_hdr_mrg_rxbuf
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import copy_bytes, load16, load32, load64, store32, store64
from ptnetmap.netmap.batch import CONVERTED_BYTES, LINEAR_BYTES, MAX_SEGMENTS, OFFSET
from ptnetmap.netmap.collect import ADDRESS, FIRST, FRAGMENTS_OF, LENGTH, VNET, VNET_SIZE, VNETS
from ptnetmap.netmap.kring import BUF_SIZE, BUFFERS, NUM_BUFS, NUM_SLOTS, SLOT_SIZE, SLOTS
from ptnetmap.netmap.offload import convert, frames_bound, output_stride, segment_size

_LINEAR = OFFSET["linear"]
_CONVERTED = OFFSET["converted"]
_CONVERTED_LENGTH = OFFSET["converted_length"]
_MOREFRAG = abi.NS_MOREFRAG
_HEADER = virtio_net_hdr_mrg_rxbuf.itemsize


@piece
def header_length(batch, header):
    """Bytes of the header that :func:`make_linear` puts before packets whose ingress says ``header``."""
    return _HEADER if load32(batch + VNETS) != 0 else header


@piece
def packet_length(batch, packet):
    """Bytes of all fragments of a packet."""
    record = load16(batch + FIRST + 2 * packet)
    octets = 0
    for i in range(load16(batch + FRAGMENTS_OF + 2 * record)):
        octets += load32(batch + LENGTH + 4 * (record + i))
    return octets


@piece
def packet_slots(batch, packet, source_header, destination_header, mfs, ring):
    """Bound for the slots that a converted packet takes; never more than an empty ring has."""
    buf_size = load32(ring + BUF_SIZE)
    length = packet_length(batch, packet)
    if load32(batch + VNETS) != 0:
        gso_size = segment_size(batch + VNET + VNET_SIZE * packet, _HEADER, _HEADER, destination_header)
    else:
        record = load16(batch + FIRST + 2 * packet)
        first = load64(batch + ADDRESS + 8 * record)
        gso_size = segment_size(first, load32(batch + LENGTH + 4 * record), source_header, destination_header)
    if gso_size == 0:
        slots = (length + destination_header + buf_size - 1) // buf_size
    else:
        slots = frames_bound(length, mfs, gso_size) * ((mfs + buf_size - 1) // buf_size)
    return min(slots, load32(ring + NUM_SLOTS) - 1)


@piece
def make_linear(batch, packet):
    """Copy a packet's header, if the batch has it, and its fragments end to end. Returns the length, -1 without room."""
    record = load16(batch + FIRST + 2 * packet)
    linear = load64(batch + _LINEAR)
    octets = header_length(batch, 0)
    if octets > 0:
        copy_bytes(linear, batch + VNET + VNET_SIZE * packet, octets)
    for i in range(load16(batch + FRAGMENTS_OF + 2 * record)):
        length = load32(batch + LENGTH + 4 * (record + i))
        if octets + length > LINEAR_BYTES:
            return -1
        copy_bytes(linear + octets, load64(batch + ADDRESS + 8 * (record + i)), length)
        octets += length
    return octets


@piece
def put_frame(ring, at, frame, length):
    """Copy a linear frame into the slots from ``at`` on. Returns the slots used, and how many were unusable."""
    n = load32(ring + NUM_SLOTS)
    buf_size = load32(ring + BUF_SIZE)
    num_bufs = load32(ring + NUM_BUFS)
    fragments = (length + buf_size - 1) // buf_size
    truncated = 0
    for i in range(fragments):
        slot = load64(ring + SLOTS) + at * SLOT_SIZE
        index = load32(slot)
        size = min(buf_size, length - i * buf_size)
        if index < 2 or index >= num_bufs:
            size = 0
            truncated += 1
        else:
            copy_bytes(load64(ring + BUFFERS) + index * buf_size, frame + i * buf_size, size)
        flags = (fragments << 8) | (_MOREFRAG if i + 1 < fragments else 0)
        store32(slot + 4, size | (flags << 16))
        at += 1
        if at == n:
            at = 0
    return fragments, truncated


@piece
def deliver_converted(ring, batch, order, packets, start, granted, source_header, destination_header, mfs, bad_headers):
    """As deliver_slots, for packets whose virtio-net header has to change. A malformed one is dropped and counted.

    ``bad_headers`` is the address of the source's counter. Returns (slots used, packets dealt with, bytes, unusable
    slots, packets dropped): a dropped packet is dealt with.
    """
    n = load32(ring + NUM_SLOTS)
    buf_size = load32(ring + BUF_SIZE)
    converted = load64(batch + _CONVERTED)
    lengths = batch + _CONVERTED_LENGTH
    stride = output_stride(mfs, destination_header)
    used = 0
    octets = 0
    truncated = 0
    dropped = 0
    done = 0
    while done < packets:
        length = make_linear(batch, load16(order + 2 * done))
        if destination_header != 0:
            stride = output_stride(length, destination_header)
        frames = -1
        if length >= 0:
            frames = convert(
                load64(batch + _LINEAR),
                length,
                source_header,
                destination_header,
                mfs,
                converted,
                CONVERTED_BYTES,
                lengths,
                MAX_SEGMENTS,
            )
        if frames < 0:
            store64(bad_headers, load64(bad_headers) + 1)
            dropped += 1
            done += 1
            continue
        slots = 0
        for i in range(frames):
            slots += (load32(lengths + 4 * i) + buf_size - 1) // buf_size
        if used + slots > granted:
            break
        for i in range(frames):
            size = load32(lengths + 4 * i)
            taken, unusable = put_frame(ring, (start + used) % n, converted + i * stride, size)
            used += taken
            truncated += unusable
            octets += size
        done += 1
    return used, done, octets, truncated, dropped

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The virtio-net header of a packet in a virtqueue: taken off on the way in, and put before it on the way out.

A driver's header is copied once, into the batch, checked there, and used from there; its packets then look like those
of any other ring. Most headers say nothing, and most packets lie in one piece: for such a batch ``vnets`` stays 0, and
nobody looks at headers again (virtio 1.2 §5.1.6.2).
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import copy_bytes, load8, load16, load32, load64, store8, store16, store32, store64
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.collect import DROPPED, VNET, VNET_SIZE, VNETS
from ptnetmap.netmap.counters import BAD_HEADER
from ptnetmap.netmap.queuestate import (
    ACCEPT_CSUM,
    ACCEPT_ECN,
    ACCEPT_TSO4,
    ACCEPT_TSO6,
    ACCEPT_UFO,
    ACCEPT_USO,
)

HEADER = abi.virtio_net_hdr_mrg_rxbuf.itemsize
"""Bytes of a header in ``vnet``, whatever the driver's own has."""
IMPOSSIBLE = 1 << 16
"""What nobody accepts."""

_ADDRESS = OFFSET["address"]
_LENGTH = OFFSET["length"]
_FLAGS = OFFSET["flags"]
_BLANK = OFFSET["blank"]
_SHORT = abi.virtio_net_hdr.itemsize
_GSO_TYPE = offsets(abi.virtio_net_hdr)["gso_type"]
_GSO_SIZE = offsets(abi.virtio_net_hdr)["gso_size"]
_CSUM_START = offsets(abi.virtio_net_hdr)["csum_start"]
_CSUM_OFFSET = offsets(abi.virtio_net_hdr)["csum_offset"]
_NEEDS_CSUM = abi.VIRTIO_NET_HDR_F_NEEDS_CSUM
_ECN = abi.VIRTIO_NET_HDR_GSO_ECN
_TCPV4 = abi.VIRTIO_NET_HDR_GSO_TCPV4
_TCPV6 = abi.VIRTIO_NET_HDR_GSO_TCPV6
_UFO = abi.VIRTIO_NET_HDR_GSO_UDP
_USO = abi.VIRTIO_NET_HDR_GSO_UDP_L4
_USUAL = 2048


@piece
def lift_header(batch, packet, record, fragments, octets, size):
    """Move the header of ``size`` bytes, 10 or 12, from a packet's fragments to ``vnet``, and check it.

    ``octets`` is the packet's length with it. Returns (first record, fragments) of the frame that is left. A packet
    without a whole header, or with one that lies, becomes one empty record marked DROPPED.
    """
    vnet = batch + VNET + VNET_SIZE * packet
    store64(vnet, 0)
    store64(vnet + 8, 0)
    if octets <= size:
        return _refuse(batch, record)
    missing = size
    while missing > 0:
        address = load64(batch + _ADDRESS + 8 * record)
        length = load32(batch + _LENGTH + 4 * record)
        n = min(length, missing)
        copy_bytes(vnet + size - missing, address, n)
        missing -= n
        if n < length:
            store64(batch + _ADDRESS + 8 * record, address + n)
            store32(batch + _LENGTH + 4 * record, length - n)
        else:
            record += 1
            fragments -= 1
    store32(vnet + 8, load16(vnet + 8))  # num_buffers means nothing here
    # An atomic load: the compiler must not look at the driver's memory again.
    word = load64_acquire(vnet)
    store64(vnet, word & ~0xFF | (word & _NEEDS_CSUM))
    if word & (0xFF00 | _NEEDS_CSUM) != 0:
        store32(batch + VNETS, 1)
        if not is_sound(vnet, octets - size):
            return _refuse(batch, record)
    elif fragments > 1 or load32(batch + _LENGTH + 4 * record) > _USUAL:
        store32(batch + VNETS, 1)
    return record, fragments


@piece
def _refuse(batch, record):
    store64(batch + _ADDRESS + 8 * record, batch + _BLANK)
    store32(batch + _LENGTH + 4 * record, 0)
    store16(batch + _FLAGS + 2 * record, DROPPED | BAD_HEADER)
    return record, 1


@piece
def is_sound(vnet, octets):
    """Whether a header can be true of a frame of ``octets`` bytes: its checksum is inside, and segments have a size."""
    if load8(vnet) & _NEEDS_CSUM and load16(vnet + _CSUM_START) + load16(vnet + _CSUM_OFFSET) + 2 > octets:
        return False
    return load8(vnet + _GSO_TYPE) & ~_ECN == 0 or load16(vnet + _GSO_SIZE) != 0


@piece
def wanted(vnet):
    """What a receiver has to accept (ACCEPT_*) to get a packet with this header as it is; 0 for a finished one."""
    wants = ACCEPT_CSUM if load8(vnet) & _NEEDS_CSUM else 0
    gso_type = load8(vnet + _GSO_TYPE)
    if gso_type & _ECN:
        wants |= ACCEPT_ECN
    kind = gso_type & ~_ECN
    if kind == _TCPV4:
        wants |= ACCEPT_TSO4
    elif kind == _TCPV6:
        wants |= ACCEPT_TSO6
    elif kind == _UFO:
        wants |= ACCEPT_UFO
    elif kind == _USO:
        wants |= ACCEPT_USO
    elif kind != 0:
        wants |= IMPOSSIBLE
    return wants


@piece
def read_header(batch, packet, record, size, vnet):
    """Copy a packet's header to the 16 bytes at ``vnet``: from the batch's, or its first ``size`` bytes; else zeros."""
    store64(vnet, 0)
    store64(vnet + 8, 0)
    if load32(batch + VNETS) != 0:
        copy_bytes(vnet, batch + VNET + VNET_SIZE * packet, _SHORT)
    elif size >= _SHORT and load32(batch + _LENGTH + 4 * record) >= _SHORT:
        copy_bytes(vnet, load64(batch + _ADDRESS + 8 * record), _SHORT)
        store8(vnet, load64_acquire(vnet) & _NEEDS_CSUM)

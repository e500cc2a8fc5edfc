# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Descriptor chains of a split virtqueue: from what the driver wrote to addresses and lengths that can be used.

Each word of the driver's is read once, into a register or the queue's private snapshot, and nothing is followed that has
not been translated through the queue's own table of guest memory (virtio 1.2 §2.7.5).
"""

from __future__ import annotations

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.atomic import load32_acquire, load64_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import copy_bytes, load32, load64, store32, store64
from ptnetmap.netmap.batch import MAX_FRAGMENTS
from ptnetmap.netmap.queuestate import memory_region, virtqueue

_AT = offsets(virtqueue)
_DESC = _AT["desc"]
_SIZE = _AT["size"]
_REGIONS = _AT["regions"]
_MEMORY = _AT["memory"]
_SNAPSHOT = _AT["snapshot"]
BAD_CHAIN = _AT["bad_chain"]
BAD_ADDRESS = _AT["bad_address"]
TOO_LONG = _AT["too_long"]

GOOD = 0
"""In place of a reason; a reason is the offset of its counter in the queue's state."""

_REGION_BYTES = memory_region.itemsize
_REGION_SIZE = offsets(memory_region)["size"]
_REGION_HOST = offsets(memory_region)["host"]
_DESC_BYTES = abi.virtq_desc.itemsize
_DESC_SECOND = offsets(abi.virtq_desc)["len"]  # len, flags and next make one 64-bit word
_NEXT = abi.VIRTQ_DESC_F_NEXT
_WRITE = abi.VIRTQ_DESC_F_WRITE
_INDIRECT = abi.VIRTQ_DESC_F_INDIRECT


@piece
def load16_acquire(address):
    """Load one of the driver's 16-bit words, once, through the aligned 32-bit word around it.

    For an index or an entry of an available ring that word never reaches outside the ring.
    """
    return (load32_acquire(address & ~3) >> ((address & 2) << 3)) & 0xFFFF


@piece
def translate(queue, address, length):
    """Host address of ``length`` bytes (positive) at a guest address; 0 if no single region has them all."""
    if address < 0:  # 2**63 and above: no guest has memory there, and sums below cannot overflow
        return 0
    for number in range(load32(queue + _REGIONS)):
        region = queue + _MEMORY + number * _REGION_BYTES
        offset = address - load64(region)
        if offset >= 0 and offset <= load64(region + _REGION_SIZE) - length:
            return load64(region + _REGION_HOST) + offset
    return 0


@piece
def walk_one(queue, head, direction):
    """Return (host address, bytes) of a chain that is one plain descriptor, which most are; (0, 0) for any other."""
    if head >= load32(queue + _SIZE):
        return 0, 0
    place = load64(queue + _DESC) + head * _DESC_BYTES
    address = load64_acquire(place)
    rest = load64_acquire(place + _DESC_SECOND)
    length = rest & 0xFFFFFFFF
    if (rest >> 32) & 0xFFFF != direction or length == 0:
        return 0, 0
    return translate(queue, address, length), length


@piece
def walk(queue, head, direction, addresses, lengths):
    """Check the chain ``head`` and write its host addresses (u64) and lengths (u32) to two arrays.

    Every descriptor has to have the ``direction`` _WRITE or 0. Returns (reason, descriptors, bytes); the reason is
    GOOD or what is wrong with the chain, and then the rest means nothing.
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
            return BAD_CHAIN, 0, 0
        # An indirect table may have any alignment. Atomic loads from the copy keep the compiler from reading the
        # driver's memory a second time.
        copy_bytes(snapshot, table + position * _DESC_BYTES, _DESC_BYTES)
        address = load64_acquire(snapshot)
        rest = load64_acquire(snapshot + _DESC_SECOND)
        length = rest & 0xFFFFFFFF
        flags = (rest >> 32) & 0xFFFF
        if length == 0:
            return BAD_CHAIN, 0, 0
        host = translate(queue, address, length)
        if flags & _INDIRECT:
            # The last of a chain at most, of whole descriptors, and never twice (§2.7.5.3.1); its _WRITE is ignored.
            if nested or flags & _NEXT or length % _DESC_BYTES:
                return BAD_CHAIN, 0, 0
            if host == 0:
                return BAD_ADDRESS, 0, 0
            nested = True
            table = host
            entries = length // _DESC_BYTES
            position = 0
            walked = 0
            continue
        if flags & _WRITE != direction:
            return BAD_CHAIN, 0, 0
        if host == 0:
            return BAD_ADDRESS, 0, 0
        if count == MAX_FRAGMENTS:
            return TOO_LONG, 0, 0
        store64(addresses + count * 8, host)
        store32(lengths + count * 4, length)
        count += 1
        walked += 1
        octets += length
        if flags & _NEXT == 0:
            return GOOD, count, octets
        position = (rest >> 48) & 0xFFFF

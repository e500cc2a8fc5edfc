# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Packets that a driver sends, out of a virtqueue: collected where they lie, and completed once they are elsewhere."""

from __future__ import annotations

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.memory import fill_bytes, load16, load32, store16, store32, store64
from ptnetmap.netmap.batch import BATCH_PACKETS, OFFSET
from ptnetmap.netmap.chain import GOOD
from ptnetmap.netmap.collect import VNETS
from ptnetmap.netmap.queuering import (
    begin_batch,
    count_event,
    finish_chains,
    is_offered,
    one_descriptor,
    use_chain,
    walk_chain,
)
from ptnetmap.netmap.queuestate import virtqueue
from ptnetmap.netmap.vnet import lift_header

_AT = offsets(virtqueue)
_HEADER = _AT["header"]
_PACKED = _AT["packed"]
_IN_ORDER = _AT["in_order"]
_COLLECTED = _AT["collected"]
_PACKETS = _AT["packets"]
_BYTES = _AT["bytes"]
_ADDRESS = OFFSET["address"]
_LENGTH = OFFSET["length"]
_FLAGS = OFFSET["flags"]
_FRAGMENTS = OFFSET["fragments"]
_SLOT = OFFSET["slot"]
_CHAIN = OFFSET["chain"]
_FIRST = OFFSET["first"]


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
    available = begin_batch(queue, limit)
    header = load16(queue + _HEADER)
    records = 0
    packets = 0
    cursor = 0
    while records < limit and available > 0 and is_offered(queue, cursor, available):
        address, octets, number = one_descriptor(queue, cursor, 0)
        fragments = 1
        steps = 1
        if address != 0:
            store64(batch + _ADDRESS + records * 8, address)
            store32(batch + _LENGTH + records * 4, octets)
        else:
            reason, fragments, octets, number, steps = walk_chain(
                queue, cursor, 0, batch + _ADDRESS + records * 8, batch + _LENGTH + records * 4
            )
            if steps == 0:
                break
            if reason != GOOD:
                if packets > 0:
                    break
                use_chain(queue, 0, number, 0)
                finish_chains(queue, steps)
                count_event(queue + reason, 1)
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
            use_chain(queue, cursor, number, 0)
        cursor += load16(batch + _CHAIN + packet * 2)
    if at_once:
        use_chain(queue, 0, number, 0)
    finish_chains(queue, cursor)
    count_event(queue + _PACKETS, packets)
    count_event(queue + _BYTES, octets)
    return packets

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The loops of the guest's pkt-gen: sending and receiving on one ring each, as fast as they can, or the sender at a rate."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.guest.console import end_line, put_number, put_text
from ptnetmap.guest.cpu import divide, timestamp
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.netmapport import RING
from ptnetmap.guest.netmapring import advance, available, await_slots, await_taken, has
from ptnetmap.guest.pace import most_due, nap
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.atomic import pause
from ptnetmap.jit.memory import load16, load32, load64, store16_be, store32, store32_be, store64

transfer = np.dtype(
    [
        ("packets", "<u8"),
        ("bytes", "<u8"),
        ("first", "<u8"),
        ("last", "<u8"),
        ("wrong", "<u8"),
        ("next_report", "<u8"),
        ("reported", "<u8"),
    ]
)
"""What a run has done so far: 56 bytes.

=========== ========================================================================================================
field       meaning
=========== ========================================================================================================
packets     packets sent or received, ``bytes`` the sum of their lengths
first       time stamp counter at the first of them, ``last`` at the last
wrong       numbered packets that came out of turn
next_report when the next line is due, 0 for never; ``reported`` packets at the last one
=========== ========================================================================================================
"""

PACKETS = offsets(transfer)["packets"]
BYTES = offsets(transfer)["bytes"]
FIRST = offsets(transfer)["first"]
LAST = offsets(transfer)["last"]
WRONG = offsets(transfer)["wrong"]
NEXT_REPORT = offsets(transfer)["next_report"]
REPORTED = offsets(transfer)["reported"]

_RING_SLOTS = RING["slots"]
_RING_BUFFERS = RING["buffers"]
_RING_BUF_SIZE = RING["buf_size"]
_RING_NUM_SLOTS = RING["num_slots"]
_RING_HEAD = RING["head"]
_TSC_KHZ = offsets(boot_info)["tsc_khz"]

_SLOT_SIZE = abi.slot.itemsize
_LEN = offsets(abi.slot)["len"]

ETHERTYPE = 0x88B5
"""For experiments of one's own (IEEE 802)."""
NUMBER_AT = 16
"""Where a numbered frame has its number, 8 bytes."""
HEADER = 14
_FEW = 64
_LITTLE = 32
_FILLER = 0x5555555555555555

_RATE = Text("pkt-gen: ")
_PACKETS_IN = Text(" packets in one second")


@routine
def buffer_of(r, position):
    """Return the address of the buffer in a slot."""
    index = load32(load64(r + _RING_SLOTS) + position * _SLOT_SIZE)
    return load64(r + _RING_BUFFERS) + index * load64(r + _RING_BUF_SIZE)


@routine
def write_frame(address, destination, source, length):
    """Write a frame of ``length`` bytes; addresses are numbers of 48 bits. Up to 7 bytes behind it may change."""
    for at in range(0, length, 8):
        store64(address + at, _FILLER)
    store32_be(address, destination >> 16)
    store16_be(address + 4, destination & 0xFFFF)
    store16_be(address + 6, source >> 32)
    store32_be(address + 8, source & 0xFFFFFFFF)
    store16_be(address + 12, ETHERTYPE)


@routine
def fill_ring(r, destination, source, length):
    """Write the frame into the buffer of each slot."""
    for position in range(load64(r + _RING_NUM_SLOTS)):
        write_frame(buffer_of(r, position), destination, source, length)


@routine
def set_lengths(slots, start, count, length):
    """Give a row of slots a length, and no flags."""
    for position in range(start, start + count):
        store32(slots + position * _SLOT_SIZE + _LEN, length)


@routine
def write_numbered(r, start, count, number, destination, source, length):
    """Write frames anew into a row of slots, numbered from ``number`` on."""
    for i in range(count):
        address = buffer_of(r, start + i)
        write_frame(address, destination, source, length)
        store64(address + NUMBER_AT, number + i)


@routine
def sum_lengths(slots, start, count):
    """Return the bytes in a row of slots."""
    octets = 0
    for position in range(start, start + count):
        octets += load16(slots + position * _SLOT_SIZE + _LEN)
    return octets


@routine
def count_wrong(r, start, count, number):
    """Return how many in a row of slots do not have the number that they should, from ``number`` on."""
    wrong = 0
    for i in range(count):
        if load64(buffer_of(r, start + i) + NUMBER_AT) != number + i:
            wrong += 1
    return wrong


@routine
def report(boot, run, now):
    """Say once a second how many packets there were in it."""
    if load64(run + NEXT_REPORT) == 0 or now < load64(run + NEXT_REPORT):
        return
    put_text(boot, _RATE)
    put_number(boot, load64(run + PACKETS) - load64(run + REPORTED))
    put_text(boot, _PACKETS_IN)
    end_line(boot)
    store64(run + REPORTED, load64(run + PACKETS))
    store64(run + NEXT_REPORT, load64(run + NEXT_REPORT) + load64(boot + _TSC_KHZ) * 1000)


@routine
def send(block, boot, r, run, packets, deadline, patience, batch, rate, length, destination, source, numbered, spin):
    """Send frames of ``length`` bytes, ``batch`` at a time, until there were ``packets``, or the ``deadline`` is over.

    With a ``rate``, no more of them per second. Then wait for up to ``patience`` cycles until the host has taken all.
    Frames are in the buffers already, unless they are ``numbered``.
    """
    slots = load64(r + _RING_SLOTS)
    n = load64(r + _RING_NUM_SLOTS)
    sent = 0
    now = timestamp()
    store64(run + FIRST, now)
    while sent < packets and now < deadline:
        wanted = most_due(boot, rate, sent, min(batch, packets - sent), now - load64(run + FIRST))
        if wanted <= 0:
            nap(block, boot)
            now = timestamp()
            report(boot, run, now)
            continue
        if has(r, wanted) == 0 and await_slots(r, boot, max(wanted, n >> 2), spin, deadline) == 0:
            break
        head = load64(r + _RING_HEAD)
        row = min(wanted, n - head)
        if numbered != 0:
            write_numbered(r, head, row, sent, destination, source, length)
            write_numbered(r, 0, wanted - row, sent + row, destination, source, length)
        set_lengths(slots, head, row, length)
        set_lengths(slots, 0, wanted - row, length)
        advance(r, wanted)
        sent += wanted
        store64(run + PACKETS, sent)
        now = timestamp()
        report(boot, run, now)
    await_taken(r, boot, timestamp() + patience)
    store64(run + LAST, timestamp())
    store64(run + BYTES, sent * length)


@routine
def receive(boot, r, run, packets, deadline, patience, batch, numbered, spin):
    """Receive until there were ``packets``, or none came for ``patience`` cycles after one, or the ``deadline`` is over.

    At most ``batch`` are given back at a time. A few that came are let become more.
    """
    slots = load64(r + _RING_SLOTS)
    n = load64(r + _RING_NUM_SLOTS)
    received = 0
    octets = 0
    until = deadline
    while received < packets:
        if await_slots(r, boot, 1, spin, until) == 0:
            break
        now = timestamp()
        if received == 0:
            store64(run + FIRST, now)
        count = available(r)
        if count < _FEW:
            for _ in range(_LITTLE):
                pause()
            has(r, _FEW)
            count = available(r)
        count = min(count, batch, packets - received)
        head = load64(r + _RING_HEAD)
        row = min(count, n - head)
        octets += sum_lengths(slots, head, row) + sum_lengths(slots, 0, count - row)
        if numbered != 0:
            wrong = count_wrong(r, head, row, received) + count_wrong(r, 0, count - row, received + row)
            store64(run + WRONG, load64(run + WRONG) + wrong)
        advance(r, count)
        received += count
        store64(run + LAST, now)
        store64(run + PACKETS, received)
        until = min(deadline, now + patience)
        report(boot, run, now)
    store64(run + BYTES, octets)


@routine
def nanoseconds(boot, cycles):
    """Return how long so many cycles of the time stamp counter are."""
    return divide(cycles * 1000, divide(load64(boot + _TSC_KHZ), 1000))

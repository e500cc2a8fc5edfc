# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Round trips: one packet that goes to and fro between the guest and somebody else."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.guest.cpu import divide, timestamp
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.netmapport import RING, rx_ring, tx_ring
from ptnetmap.guest.netmapring import advance, await_slots
from ptnetmap.guest.routine import routine
from ptnetmap.guest.timer import sleep
from ptnetmap.guest.traffic import buffer_of, set_lengths
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64

SAMPLES = 1 << 14
"""Round trips of which the times are kept; later ones take the place of the first."""

trips = np.dtype([("trips", "<u8"), ("median", "<u8"), ("p99", "<u8"), ("samples", "<u8", (SAMPLES,))])
"""What came out: round trips made, and their median and 99th percentile in cycles; then the times of single ones."""

TRIPS = offsets(trips)["trips"]
MEDIAN = offsets(trips)["median"]
P99 = offsets(trips)["p99"]
_SAMPLES_AT = offsets(trips)["samples"]
_SIZE = trips.itemsize

PING_LENGTH = 60
"""Bytes of a packet that is to be answered."""
LAST_LENGTH = 64
"""Bytes of the one that is not: all is over."""

_SLOTS = RING["slots"]
_HEAD = RING["head"]
_SLOT_SIZE = abi.slot.itemsize
_LEN = offsets(abi.slot)["len"]
_ADDRESS = 6
_BIGGEST_GAP = 3280  # (3^8 - 1) / 2, the largest of Knuth's sequence that pays here


@routine
def ping_figures():
    """Return the bytes of :data:`trips`."""
    return _SIZE


@routine
def sort(numbers, count):
    """Sort ``count`` unsigned words of 64 bits, by Shell's method with gaps 1, 4, 13, ..."""
    gap = _BIGGEST_GAP
    while gap > 0:
        for i in range(gap, count):
            value = load64(numbers + 8 * i)
            at = i
            while at >= gap and load64(numbers + 8 * (at - gap)) > value:
                store64(numbers + 8 * at, load64(numbers + 8 * (at - gap)))
                at -= gap
            store64(numbers + 8 * at, value)
        gap = divide(gap - 1, 3)


@routine
def post(r, length):
    """Send the packet in the next buffer."""
    set_lengths(load64(r + _SLOTS), load64(r + _HEAD), 1, length)
    advance(r, 1)


@routine
def ping(block, boot, port, figures, most, deadline, idle, spins):
    """Make up to ``most`` round trips until the ``deadline``, ``idle`` microseconds apart; then tell that all is over."""
    tx = tx_ring(port, 0)
    rx = rx_ring(port, 0)
    made = 0
    while made < most and timestamp() < deadline:
        if idle > 0:
            sleep(block, boot, idle)
        start = timestamp()
        if await_slots(tx, boot, 1, spins, deadline) == 0:
            break
        post(tx, PING_LENGTH)
        if await_slots(rx, boot, 1, spins, deadline) == 0:
            break
        store64(figures + _SAMPLES_AT + 8 * (made & (SAMPLES - 1)), timestamp() - start)
        advance(rx, 1)
        made += 1
    post(tx, LAST_LENGTH)
    kept = min(made, SAMPLES)
    sort(figures + _SAMPLES_AT, kept)
    store64(figures + TRIPS, made)
    if kept > 0:
        store64(figures + MEDIAN, load64(figures + _SAMPLES_AT + 8 * (kept >> 1)))
        store64(figures + P99, load64(figures + _SAMPLES_AT + 8 * divide(kept * 99, 100)))


@routine
def turn_round(source, target):
    """Copy a frame's first bytes, with its addresses exchanged."""
    for at in range(0, PING_LENGTH, 4):
        store32(target + at, load32(source + at))
    for at in range(0, _ADDRESS, 2):
        one = load16(source + at)
        other = load16(source + _ADDRESS + at)
        store16(target + at, other)
        store16(target + _ADDRESS + at, one)


@routine
def pong(boot, port, most, deadline, patience, spins):
    """Answer packets until the last one comes, there were ``most``, or none comes for ``patience`` cycles; count them."""
    tx = tx_ring(port, 0)
    rx = rx_ring(port, 0)
    made = 0
    while made < most:
        if await_slots(rx, boot, 1, spins, min(deadline, timestamp() + patience)) == 0:
            return made
        head = load64(rx + _HEAD)
        length = load16(load64(rx + _SLOTS) + head * _SLOT_SIZE + _LEN)
        if length == LAST_LENGTH:
            advance(rx, 1)
            return made
        if await_slots(tx, boot, 1, spins, deadline) == 0:
            return made
        turn_round(buffer_of(rx, head), buffer_of(tx, load64(tx + _HEAD)))
        advance(rx, 1)
        post(tx, PING_LENGTH)
        made += 1
    return made

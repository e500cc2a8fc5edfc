# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What a receiver of numbered packets checks: each stream's numbers go up by one."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load16_be, load32_be, load64, store64
from ptnetmap.netmap.kring import SLOT_SIZE, SLOTS
from ptnetmap.tools.pktgen.task import AT, DISORDER, GAP

flow = np.dtype([("known", "i8"), ("name", "i8"), ("expected", "i8")])
"""What is known of a stream: whether there is one here, its name, and the number that its next packet has."""

FLOWS = 1024

_FLOW_SIZE = flow.itemsize
_KNOWN = offsets(flow)["known"]
_NAME = offsets(flow)["name"]
_EXPECTED = offsets(flow)["expected"]

_HEADER = AT["header"]
_FLOWS = AT["flows"]
_GAPS = AT["gaps"]
_MISSING = AT["missing"]
_DISORDERS = AT["disorders"]
_NOTES_LEFT = AT["notes_left"]
_NOTE = AT["note"]
_NOTE_FLOW = AT["note_flow"]
_NOTE_EXPECTED = AT["note_expected"]
_NOTE_GOT = AT["note_got"]

_HALF = 1 << 31
_ETHERTYPE_AT = 12
_IPV6 = 0x86DD
_PAYLOAD = 42
_PAYLOAD_IPV6 = 62


@piece
def add(at, amount):
    """Add to a word that nobody else writes."""
    store64(at, load64(at) + amount)


@piece
def follow(t, name, sequence):
    """Compare a stream's number with the expected one. Returns GAP, DISORDER, or 0 if it is right.

    Numbers are 32 bits and wrap. What comes late was counted as missing when it was passed over, and is taken off again.
    """
    f = load64(t + _FLOWS) + ((name ^ (name >> 10) ^ (name >> 20)) % FLOWS) * _FLOW_SIZE
    expected = load64(f + _EXPECTED)
    if load64(f + _KNOWN) == 0 or load64(f + _NAME) != name:
        store64(f + _KNOWN, 1)
        store64(f + _NAME, name)
        expected = sequence
    ahead = (sequence - expected) & 0xFFFFFFFF
    if ahead < _HALF:
        store64(f + _EXPECTED, (sequence + 1) & 0xFFFFFFFF)
    if ahead == 0:
        return 0
    store64(t + _NOTE_FLOW, name)
    store64(t + _NOTE_EXPECTED, expected)
    store64(t + _NOTE_GOT, sequence)
    if ahead < _HALF:
        add(t + _GAPS, 1)
        add(t + _MISSING, ahead)
        return GAP
    add(t + _DISORDERS, 1)
    if load64(t + _MISSING) > 0:
        add(t + _MISSING, -1)
    return DISORDER


@piece
def check(t, k, position, buffer):
    """Check the number of a packet; return what to note of it, 0 for nothing (more)."""
    length = load16(load64(k + SLOTS) + position * SLOT_SIZE + 4) - load64(t + _HEADER)
    frame = buffer + load64(t + _HEADER)
    if length < _PAYLOAD + 8:
        return 0
    payload = _PAYLOAD_IPV6 if load16_be(frame + _ETHERTYPE_AT) == _IPV6 else _PAYLOAD
    if length < payload + 8:
        return 0
    found = follow(t, load32_be(frame + payload + 4), load32_be(frame + payload))
    if found == 0 or load64(t + _NOTES_LEFT) <= 0:
        return 0
    add(t + _NOTES_LEFT, -1)
    store64(t + _NOTE, found)
    return found

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The learning bridge: VALE's default lookup, written as any lookup function.

A table of 1024 entries remembers on which port a source address was last seen. There are no collision chains: an
address that hashes to a used entry takes it. The hash is the Jenkins mix over the six bytes, as in FreeBSD's bridge.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from ptnetmap.jit.callback import Callback
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC_COARSE, clock_ns
from ptnetmap.jit.memory import load32, load64, prefetch
from ptnetmap.netmap.lookup import entry_signature
from ptnetmap.netmap.view import BROADCAST, DROP

ENTRIES = 1024
AGEING = 0
ENTRY = 8
STAMP = ENTRY + ENTRIES
TABLE_WORDS = STAMP + ENTRIES
"""The table is int64 words: ageing time in seconds (0 = never), then entries ``mac | (port + 1) << 48`` (0 = unused),
then the second in which each entry was last refreshed."""

DEFAULT_AGEING = 300

_MAC = 0xFFFFFFFFFFFF
_U32 = 0xFFFFFFFF
_MULTICAST = 1
_MIN_FRAME = 14
_AHEAD = 8


def learning_table(ageing=DEFAULT_AGEING):
    """Return an empty table whose entries are forgotten after ``ageing`` seconds without a frame from them."""
    table = np.zeros(TABLE_WORDS, np.int64)
    table[AGEING] = ageing
    return table


@piece
def mac_hash(mac):
    """Entry number of a 48-bit address given as a little-endian word."""
    a = 0x9E3779B9
    b = 0x9E3779B9 + (mac >> 32)
    a = (a + (mac & _U32)) & _U32
    c = 0
    a = ((a - b - c) & _U32) ^ (c >> 13)
    b = ((b - c - a) & _U32) ^ ((a << 8) & _U32)
    c = ((c - a - b) & _U32) ^ (b >> 13)
    a = ((a - b - c) & _U32) ^ (c >> 12)
    b = ((b - c - a) & _U32) ^ ((a << 16) & _U32)
    c = ((c - a - b) & _U32) ^ (b >> 5)
    a = ((a - b - c) & _U32) ^ (c >> 3)
    b = ((b - c - a) & _U32) ^ ((a << 10) & _U32)
    c = ((c - a - b) & _U32) ^ (b >> 15)
    return c & (ENTRIES - 1)


def learning(packets, lengths, source, table, ports, rings):
    """Learn each frame's source, send it where its destination was last seen, else everywhere.

    A run of frames between the same two addresses costs one table access a batch, and one comparison a frame.
    """
    now = clock_ns(CLOCK_MONOTONIC_COARSE) // 1_000_000_000
    ageing = table[AGEING]
    last_head = 0
    last_rest = -1
    last_source = -1
    last_destination = -1
    last_port = DROP
    n = len(packets)
    for i in range(n):
        prefetch(packets[min(i + _AHEAD, n - 1)])
        if lengths[i] < _MIN_FRAME:
            ports[i] = DROP
            continue
        packet = packets[i]
        head = load64(packet)
        rest = load32(packet + 8)
        if head == last_head and rest == last_rest:
            ports[i] = last_port
            continue
        last_head = head
        last_rest = rest
        destination = head & _MAC
        origin = load64(packet + 6) & _MAC
        if origin != last_source and origin & _MULTICAST == 0:
            last_source = origin
            entry = mac_hash(origin)
            word = origin | ((source + 1) << 48)
            if table[ENTRY + entry] != word:
                table[ENTRY + entry] = word
                last_destination = -1
            if table[STAMP + entry] != now:
                table[STAMP + entry] = now
        if destination != last_destination:
            last_destination = destination
            last_port = BROADCAST
            if destination & _MULTICAST == 0:
                entry = mac_hash(destination)
                word = table[ENTRY + entry]
                fresh = ageing == 0 or now - table[STAMP + entry] <= ageing
                if word & _MAC == destination and word != 0 and fresh:
                    last_port = (word >> 48) - 1
        ports[i] = last_port


_learning = piece(learning)


def _entry(table, table_length, packets, lengths, count, source, ports, rings):
    _learning(
        carray(packets, (count,)),
        carray(lengths, (count,)),
        source,
        carray(table, (table_length,)),
        carray(ports, (count,)),
        carray(rings, (count,)),
    )


learning_entry = Callback(_entry, entry_signature(np.int64), cached=True)
"""The learning lookup's compiled entry, for :class:`~ptnetmap.netmap.lookup.Lookup`."""


def forget_port(table, port):
    """Remove a port's entries from a table; senders must have left the view that had the port."""
    entries = table[ENTRY : ENTRY + ENTRIES]
    entries[(entries >> 48) == port + 1] = 0


def learned(table):
    """Return what the table knows: ``{mac string: port number}``, without what has aged."""
    now = clock_ns(CLOCK_MONOTONIC_COARSE) // 1_000_000_000
    ageing = table[AGEING]
    known = {}
    for entry in np.flatnonzero(table[ENTRY : ENTRY + ENTRIES]):
        if ageing and now - table[STAMP + entry] > ageing:
            continue
        word = int(table[ENTRY + entry])
        known[(word & _MAC).to_bytes(6, "little").hex(":")] = (word >> 48) - 1
    return known

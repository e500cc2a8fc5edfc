# SPDX-License-Identifier: BSD-2-Clause
"""Lanes: what the two ends of a pipe tell each other, one lane per direction.

The ends may be two processes, so a lane is all that they share besides rings and buffers: an index each, and a word each
to ask for a wake-up. There is no lock in it that a dead process could hold, and everything that a kring of either end
knows follows from the two indices. Whoever reads one checks it: the other end may be hostile.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ptnetmap.jit.block import Block, offsets
from ptnetmap.netmap.counters import counters

lane = np.dtype(
    [
        ("published", "u4"),
        ("_sender", "V60"),
        ("returned", "u4"),
        ("_reader", "V60"),
        ("tx_need_kick", "u4"),
        ("_sender_waits", "V60"),
        ("rx_need_kick", "u4"),
        ("_reader_waits", "V60"),
        ("tx_counters", counters),
        ("rx_counters", counters),
    ]
)
"""One direction of a pipe: 640 bytes, a cache line or more per field.

====== ============ ======= ====================================================================================
offset field        writer  meaning
====== ============ ======= ====================================================================================
0      published    sender  index after the last slot that the reader may have: its ``hwtail``
64     returned     reader  index before the first slot that the reader still has: the sender's ``hwtail``
128    tx_need_kick both    not 0: the sender sleeps until there is space; who wakes it clears it first
192    rx_need_kick both    not 0: the reader sleeps until there are packets
256    tx_counters  sender  :data:`~ptnetmap.netmap.counters.counters` of its ring
448    rx_counters  reader  those of its ring
====== ============ ======= ====================================================================================
"""

LANE = offsets(lane)


class LaneMemory(Protocol):
    """Memory for lanes: a :class:`~ptnetmap.jit.block.Block`, or the like of one in a shared memfd."""

    address: int
    items: npt.NDArray[np.void]


def private_lanes(count: int) -> LaneMemory:
    """Return memory for the lanes of a pipe whose ends are both in this process."""
    return Block(lane, count)

# SPDX-License-Identifier: BSD-2-Clause
"""Counters of all rings of a daemon, in one memory that others may read while the data path writes it."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ptnetmap.jit.block import Block
from ptnetmap.netmap.counters import counters
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import SharedBlock

PLACES = 16384


class Place:
    """One ring's counters: ``address`` and ``items`` as a Block has them, ``number`` in the arena (-1: outside)."""

    def __init__(self, number: int, address: int, items: Any) -> None:
        self.number = number
        self.address = address
        self.items = items


class CounterArena:
    """Room for the counters of :data:`PLACES` rings; further ones have private counters, which ``top`` cannot see.

    ``memory.fd`` is for readers: nobody else can write to it.
    """

    def __init__(self) -> None:
        self.memory = SharedBlock("netmap-counters", counters, PLACES, read_only=True)
        self._free: list[int] = []
        self._next = 0

    def take(self) -> Place:
        """Return zeroed counters; their place is free again when nobody holds them."""
        if self._free:
            number = self._free.pop()
        elif self._next < PLACES:
            number = self._next
            self._next += 1
        else:
            outside = Block(counters)
            return Place(-1, outside.address, outside.items)  # the array keeps the memory
        items = self.memory.items[number : number + 1]
        items[:] = np.zeros((), counters)
        place = Place(number, self.memory.address + number * counters.itemsize, items)
        weakref.finalize(place, self._free.append, number).atexit = False
        return place

    def place_of(self, ring: RingState) -> int:
        """Return the number of a ring's counters here, -1 if they are elsewhere."""
        number, rest = divmod(ring.block["counters_at"] - self.memory.address, counters.itemsize)
        return number if 0 <= number < PLACES and not rest else -1

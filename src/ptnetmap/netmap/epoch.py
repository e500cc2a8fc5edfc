# SPDX-License-Identifier: BSD-2-Clause
"""Epochs: how the control thread knows that nobody uses what it has replaced.

Executors take no lock to read a switch or a list of monitors. Each writes the present epoch into its kring's ``busy``
word while it is inside a sync, and 0 when it leaves. The control thread first publishes the new state, then advances
the epoch, then waits until every kring is free or was entered after that. A sync is short, so the wait is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ptnetmap.jit.block import Block
from ptnetmap.netmap.counters import counters
from ptnetmap.netmap.kring import kring, wait_until_left

_ROOM = 64


def private_counters() -> Any:
    """Return memory for the counters of one ring, which only this process sees."""
    return Block(counters)


class Epoch:
    """The runtime's clock of changes, and the krings that are bound to it.

    ``new_counters`` makes the memory for a ring's counters: an object with ``address`` and ``items``.
    """

    def __init__(self, new_counters: Callable[[], Any] = private_counters) -> None:
        self.new_counters = new_counters
        self._lock = threading.Lock()
        self._now = Block(np.uint64)
        self._now.items[0] = 1
        self._krings: list[Block] = []
        self._places: dict[int, int] = {}
        self._addresses = np.zeros(_ROOM, np.int64)
        self.address = self._now.address

    def register(self, block: Block) -> None:
        """Let :meth:`synchronize` wait for this kring's executors."""
        if block.items.dtype != kring:
            raise TypeError("not a kring")
        with self._lock:
            place = self._places.setdefault(block.address, len(self._krings))
            if place == len(self._krings):
                self._krings.append(block)
                if place == len(self._addresses):
                    self._addresses = np.concatenate((self._addresses, np.zeros_like(self._addresses)))
                self._addresses[place] = block.address

    def unregister(self, block: Block) -> None:
        """Forget a kring; its ring is off and no executor can enter any more."""
        with self._lock:
            place = self._places.pop(block.address, None)
            if place is None:
                return
            last = self._krings.pop()
            if last is not block:  # takes its place
                self._krings[place] = last
                self._places[last.address] = place
                self._addresses[place] = last.address

    def synchronize(self) -> None:
        """Return once every executor that was inside a sync when this was called has left."""
        with self._lock:
            self._now.items[0] += np.uint64(1)
            now = int(self._now.items[0])
            waited_for = self._krings.copy()
            addresses = self._addresses[: len(waited_for)].copy()
        # Releasing the lock is a full fence: what was published, and the new epoch, are out before `busy` is read.
        wait_until_left(addresses.ctypes.data, len(addresses), now)
        del waited_for

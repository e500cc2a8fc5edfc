# SPDX-License-Identifier: BSD-2-Clause
"""The port called ``null``: rings in this process's own memory that nobody is at the other end of.

What is sent there is gone at once, so that the rate is that of making packets; nothing ever comes from it.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.block import Block
from ptnetmap.netmap.kring import kring

SLOTS = 1024
BUFFER = 2048


class _Ring:
    """A ring with buffers of its own; what pkt-gen uses of :class:`ptnetmap.netmap.ring.Ring`."""

    def __init__(self, direction: int, slots: int) -> None:
        self.num_slots = slots
        self.nr_buf_size = BUFFER
        self.ringid = 0
        self.flags = 0
        self._memory = Block(np.uint8, abi.ring.itemsize + slots * abi.slot.itemsize)
        self._buffers = Block(np.uint8, (slots + 2) * BUFFER)
        self._header = self._memory.items[: abi.ring.itemsize].view(abi.ring)
        self.slots: Any = self._memory.items[abi.ring.itemsize :].view(abi.slot)
        self.slots["buf_idx"] = np.arange(2, slots + 2)
        self._header["num_slots"] = slots
        self._header["tail"] = slots - 1 if direction == abi.TX else 0
        self.kring = Block(kring)
        self.kring["ring"] = self._memory.address
        self.kring["slots"] = self._memory.address + abi.ring.itemsize
        self.kring["buffers"] = self._buffers.address
        self.kring["num_slots"] = slots
        self.kring["buf_size"] = BUFFER
        self.kring["num_bufs"] = slots + 2
        self.kring["direction"] = direction

    def __getattr__(self, name: str) -> int:
        if name not in ("head", "cur", "tail"):
            raise AttributeError(name)
        return int(self._header[name][0])

    def space(self) -> int:
        """Slots that are the user's."""
        return int(self.tail - self.head) % self.num_slots

    def buffer(self, index: int) -> Any:
        """Return the buffer of a slot."""
        start = int(self.slots["buf_idx"][index]) * BUFFER
        return self._buffers.items[start : start + BUFFER]


class NullPort:
    """A port without I/O, with as many rings of each direction as there are threads; used like a Port."""

    def __init__(self, rings: int = 1, slots: int = SLOTS) -> None:
        self.name = "null"
        self.memsize = 0
        self.region_fd = -1
        self.tx_rings = [_Ring(abi.TX, slots) for _ in range(rings)]
        self.rx_rings = [_Ring(abi.RX, slots) for _ in range(rings)]
        self.tx_krings = [ring.kring.address for ring in self.tx_rings]
        self.rx_krings = [ring.kring.address for ring in self.rx_rings]
        self.in_use: AbstractContextManager[None] = nullcontext()

    def poll(self, events: int, timeout: float) -> int:
        """Wait in vain."""
        time.sleep(timeout)
        return 0

    def txsync(self) -> None:
        """Do nothing."""

    def rxsync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the memory goes with the object."""

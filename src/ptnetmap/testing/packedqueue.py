# SPDX-License-Identifier: BSD-2-Clause
"""A driver for one packed virtqueue, with the interface of :class:`~ptnetmap.testing.virtqueue.MockDriver`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptnetmap.abi import virtio as abi
from ptnetmap.testing.virtqueue import MockDriver, Used, _Chain

_WRAPPED = 1 << 15


class PackedDriver(MockDriver):
    """The driver's side of a packed ring of ``size`` descriptors; ``in_order`` as VIRTIO_F_IN_ORDER.

    ``ring`` (of ``pvirtq_desc``), ``wishes`` (the driver's event suppression) and ``device_wishes`` are the parts as
    arrays. Source: virtio 1.2 §2.8.
    """

    def __init__(self, size: int = 256, *, memory: int = 1 << 20, in_order: bool = False) -> None:
        super().__init__(size, memory=memory)
        self.in_order = in_order
        self.ring = self._view(self.desc, abi.pvirtq_desc, size)
        self.wishes = self._view(self.avail, abi.pvirtq_event_suppress, 1)
        self.device_wishes = self._view(self.used, abi.pvirtq_event_suppress, 1)
        self.used_head["idx"] = 0
        self._place, self._wrap = 0, 1
        self._used_place, self._used_wrap = 0, 1
        self._room = size
        self._numbers = list(range(size))
        self._order: list[int] = []

    def start(self, queue: np.void, **options: Any) -> None:
        """Start the device's side in ``queue``; ``options`` as for start_virtqueue."""
        super().start(
            queue,
            **{"packed": True, "in_order": self.in_order, "last_avail": _WRAPPED, "used_idx": _WRAPPED, **options},
        )

    def add(self, buffers: Sequence[tuple[int, int, int]], *, indirect: bool = False) -> int:
        """Offer a chain of (guest address, length, flags); return its number. Raises ValueError without room."""
        needed = 1 if indirect else len(buffers)
        if not buffers or needed > self._room:
            raise ValueError(f"a chain of {needed} descriptors: {self._room} of {self.size} are free; reap() first")
        number = self._numbers.pop(0)
        tables = []
        entries = list(buffers)
        if indirect:
            size = len(buffers) * abi.pvirtq_desc.itemsize
            tables.append(self.allocate(size))
            table = self._view(tables[0], abi.pvirtq_desc, len(buffers))
            for i, (address, length, flags) in enumerate(buffers):
                table[i] = (address, length, 0, flags)
            entries = [(tables[0], size, abi.VIRTQ_DESC_F_INDIRECT)]
        first, first_flags = self._place, 0
        for i, (address, length, flags) in enumerate(entries):
            more = abi.VIRTQ_DESC_F_NEXT if i + 1 < len(entries) else 0
            mark = abi.VIRTQ_PACKED_AVAIL if self._wrap else abi.VIRTQ_PACKED_USED
            word = flags | more | mark
            # The first one's flags come last: before, the device must not see any of the chain.
            old = int(self.ring["flags"][self._place])
            self.ring[self._place] = (address, length, number, old if i == 0 else word)
            if i == 0:
                first_flags = word
            self._place += 1
            if self._place == self.size:
                self._place, self._wrap = 0, self._wrap ^ 1
        self.ring["flags"][first] = first_flags
        self._room -= needed
        self._chains[number] = _Chain([0] * needed, list(buffers), tables)
        self._order.append(number)
        return number

    def _is_used(self) -> bool:
        flags = int(self.ring["flags"][self._used_place])
        both = abi.VIRTQ_PACKED_AVAIL | abi.VIRTQ_PACKED_USED
        return flags & both == (both if self._used_wrap else 0)

    def poll(self) -> int:
        """Return whether a used element waits to be reaped, as a number."""
        return int(self._is_used())

    def reap(self) -> list[Used]:
        """Take all used elements, oldest first, and free what their chains occupied."""
        out = []
        while self._room < self.size and self._is_used():
            element = self.ring[self._used_place]
            number, length = int(element["id"]), int(element["len"])
            if number not in self._chains:
                out.append(Used(number, length, b""))
                break
            stands_for = self._order[: self._order.index(number) + 1] if self.in_order else [number]
            for each in stands_for:
                out.append(self._reap_one(each, length if each == number else 0))
        return out

    def _reap_one(self, number: int, length: int) -> Used:
        chain = self._chains.pop(number)
        self._order.remove(number)
        writable = [b for b in chain.buffers if b[2] & abi.VIRTQ_DESC_F_WRITE and self._holds(b[0], b[1])]
        data = b"".join(self.read(address, size) for address, size, _ in writable)[:length]
        self._used_place += len(chain.descriptors)
        if self._used_place >= self.size:
            self._used_place, self._used_wrap = self._used_place - self.size, self._used_wrap ^ 1
        self._room += len(chain.descriptors)
        self._numbers.append(number)
        self._release(_Chain([], chain.buffers, chain.tables))
        return Used(number, length, data)

    @property
    def wants_kicks(self) -> bool:
        """Whether the device asks to be kicked."""
        return int(self.device_wishes["flags"][0]) != abi.VIRTQ_PACKED_EVENT_DISABLE

    def want_interrupts(self, on: bool) -> None:
        """Tell the device whether to send interrupts."""
        self.wishes["flags"] = abi.VIRTQ_PACKED_EVENT_ENABLE if on else abi.VIRTQ_PACKED_EVENT_DISABLE

    def want_interrupt_at(self, place: int, wrap: int) -> None:
        """Tell the device to interrupt when the descriptor at ``place`` has been used."""
        self.wishes[0] = (place | wrap << 15, abi.VIRTQ_PACKED_EVENT_DESC)

    @property
    def used_position(self) -> tuple[int, int]:
        """Place and wrap counter of the next used descriptor."""
        return self._used_place, self._used_wrap

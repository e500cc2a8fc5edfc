# SPDX-License-Identifier: BSD-2-Clause
"""A driver for one split virtqueue, in memory of its own: what a guest would do, and what a hostile one could.

::

    driver = MockDriver(size=8)
    queue = Block(virtqueue)
    driver.start(queue.items[0])
    driver.send([b"header", b"frame"])        # a chain that the device reads
    ...                                       # let the device work
    assert [used.length for used in driver.reap()] == [0]
    assert driver.intact()

Kicks and interrupts are the caller's business. Source: virtio 1.2 §2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import virtio as abi
from ptnetmap.jit.block import Block
from ptnetmap.netmap.queuestate import Region, start_virtqueue

GUARD = 4096
"""Bytes around the guest's memory that nobody may touch, on either side."""

_CANARY = 0xA5
_GRAIN = 64


class Used(NamedTuple):
    """A chain that the device returned."""

    head: int
    """First descriptor of the chain."""
    length: int
    """Bytes that the device says it wrote."""
    data: bytes
    """That many bytes of the chain's device-writable buffers, or all of them if the device claims more."""


class _Chain(NamedTuple):
    descriptors: list[int]
    buffers: list[tuple[int, int, int]]  # address, length, flags
    tables: list[int]  # addresses of indirect tables


class MockDriver:
    """The driver's side of a queue of ``size`` entries in ``memory`` bytes at the guest address ``gpa``.

    ``index`` is where both ring indices start, so that a test can be close to their wrap. ``desc``, ``avail`` and
    ``used`` are the guest addresses of the three parts; the rest of the memory holds buffers. ``regions`` describes
    the memory to the device. With ``event_idx`` (VIRTIO_F_EVENT_IDX) the two sides tell each other by index what
    they want to hear of: ``used_event`` and ``avail_event`` are these words.

    For whoever wants to break the rules: ``descriptors`` (of ``virtq_desc``), ``avail_head`` (of ``virtq_avail``),
    ``avail_entries``, ``used_head`` and ``used_entries`` are the parts as arrays, and :meth:`read` and :meth:`write`
    reach any guest address of the memory.
    """

    def __init__(
        self, size: int = 256, *, gpa: int = 0x1000_0000, memory: int = 1 << 20, index: int = 0, event_idx: bool = False
    ) -> None:
        self.size = size
        self.event_idx = event_idx
        self.gpa = gpa
        self.memory = memory
        self._block = Block(np.uint8, memory + 2 * GUARD + GUARD)
        # The memory starts on a page, as a guest's does.
        self._start = GUARD + -(self._block.address + GUARD) % GUARD
        self._bytes: npt.NDArray[np.uint8] = self._block.items
        self._bytes[: self._start] = _CANARY
        self._bytes[self._start + memory :] = _CANARY
        self.regions = [Region(gpa, memory, self._block.address + self._start)]

        self.desc = gpa
        self.avail = gpa + size * abi.virtq_desc.itemsize
        self.used = self.avail + abi.virtq_avail_size(size) + 3 & ~3
        self._next = self.used + abi.virtq_used_size(size) + _GRAIN - 1 & ~(_GRAIN - 1)
        self._free_buffers: dict[int, list[int]] = {}
        self._allocated: dict[int, int] = {}
        self.descriptors = self._view(self.desc, abi.virtq_desc, size)
        self.avail_head = self._view(self.avail, abi.virtq_avail, 1)
        self.avail_entries = self._view(self.avail + abi.virtq_avail.itemsize, abi.virtq_avail_elem, size)
        self.used_head = self._view(self.used, abi.virtq_used, 1)
        self.used_entries = self._view(self.used + abi.virtq_used.itemsize, abi.virtq_used_elem, size)
        self.used_event = self._view(self.avail + abi.virtq_avail_size(size) - 2, np.uint16, 1)
        self.avail_event = self._view(self.used + abi.virtq_used_size(size) - 2, np.uint16, 1)

        self._start_index = index
        self._reaped = index
        self._kicked = index
        self.avail_head["idx"] = index
        self.used_head["idx"] = index
        self._free = list(range(size))
        self._chains: dict[int, _Chain] = {}

    def start(self, queue: np.void, **options: Any) -> None:
        """Start the device's side in ``queue``, with this driver's geometry; ``options`` as for start_virtqueue."""
        geometry: dict[str, Any] = {
            "size": self.size,
            "desc": self.desc,
            "avail": self.avail,
            "used": self.used,
            "regions": self.regions,
            "last_avail": self._start_index,
            "used_idx": self._start_index,
            "event_idx": self.event_idx,
        }
        start_virtqueue(queue, **(geometry | options))

    def send(self, pieces: Sequence[bytes], *, indirect: bool = False) -> int:
        """Offer ``pieces``, one device-readable buffer each, as one chain. Returns its first descriptor."""
        buffers = []
        for piece in pieces:
            address = self.allocate(len(piece))
            self.write(address, piece)
            buffers.append((address, len(piece), 0))
        return self.add(buffers, indirect=indirect)

    def post(self, lengths: Sequence[int], *, indirect: bool = False) -> int:
        """Offer device-writable buffers of these ``lengths`` as one chain. Returns its first descriptor."""
        buffers = [(self.allocate(length), length, abi.VIRTQ_DESC_F_WRITE) for length in lengths]
        return self.add(buffers, indirect=indirect)

    def add(self, buffers: Sequence[tuple[int, int, int]], *, indirect: bool = False) -> int:
        """Offer a chain of (guest address, length, flags), whatever they say. Returns its first descriptor.

        VIRTQ_DESC_F_NEXT is added where the chain goes on. With ``indirect`` the chain is one descriptor for a table.
        Raises ValueError if the queue has too few free descriptors.
        """
        needed = 1 if indirect else len(buffers)
        if not buffers or needed > len(self._free):
            raise ValueError(
                f"a chain of {needed} descriptors: {len(self._free)} of {self.size} are free; reap() first"
            )
        taken = [self._free.pop(0) for _ in range(needed)]
        tables = []
        if indirect:
            length = len(buffers) * abi.virtq_desc.itemsize
            tables.append(self.allocate(length))
            self._link(self._view(tables[0], abi.virtq_desc, len(buffers)), list(range(len(buffers))), buffers)
            self.descriptors[taken[0]] = (tables[0], length, abi.VIRTQ_DESC_F_INDIRECT, 0)
        else:
            self._link(self.descriptors, taken, buffers)
        self._chains[taken[0]] = _Chain(taken, list(buffers), tables)
        self.offer(taken[0])
        return taken[0]

    def offer(self, head: int) -> None:
        """Put ``head``, any 16-bit number, into the available ring, and move its index."""
        index = int(self.avail_head["idx"][0])
        self.avail_entries[index % self.size] = head
        self.avail_head["idx"] = (index + 1) & 0xFFFF

    def poll(self) -> int:
        """Return how many used elements wait to be reaped."""
        return (int(self.used_head["idx"][0]) - self._reaped) & 0xFFFF

    def reap(self) -> list[Used]:
        """Take all used elements, oldest first, and free what their chains occupied.

        A number that is not that of an offered chain frees nothing and has no data.
        """
        out = []
        for _ in range(self.poll()):
            element = self.used_entries[self._reaped % self.size]
            self._reaped = (self._reaped + 1) & 0xFFFF
            head, length = int(element["id"]), int(element["len"])
            data = b""
            chain = self._chains.pop(head, None)
            if chain is not None:
                writable = [b for b in chain.buffers if b[2] & abi.VIRTQ_DESC_F_WRITE and self._holds(b[0], b[1])]
                data = b"".join(self.read(address, size) for address, size, _ in writable)[:length]
                self._release(chain)
            out.append(Used(head, length, data))
        return out

    @property
    def outstanding(self) -> int:
        """Chains that were offered with :meth:`add`, :meth:`send` or :meth:`post` and not reaped."""
        return len(self._chains)

    @property
    def wants_kicks(self) -> bool:
        """Whether the device asks to be kicked."""
        return not int(self.used_head["flags"][0]) & abi.VIRTQ_USED_F_NO_NOTIFY

    def kicks(self) -> int:
        """Return 1 if what was offered since this was last asked has to be kicked for, else 0 (virtio 1.2 §2.7.13.4)."""
        new, old = int(self.avail_head["idx"][0]), self._kicked
        self._kicked = new
        if new == old:
            return 0
        if not self.event_idx:
            return int(self.wants_kicks)
        return int((new - int(self.avail_event[0]) - 1) & 0xFFFF < (new - old) & 0xFFFF)

    def want_interrupts(self, on: bool) -> None:
        """Tell the device whether to send interrupts."""
        self.avail_head["flags"] = 0 if on else abi.VIRTQ_AVAIL_F_NO_INTERRUPT

    def want_interrupt_after(self, elements: int) -> None:
        """With the event index: want an interrupt for the used element after the next ``elements`` to be reaped."""
        self.used_event[0] = (self._reaped + elements) & 0xFFFF

    def allocate(self, length: int) -> int:
        """Return the guest address of ``length`` fresh bytes, aligned to 64; raises MemoryError when none are left."""
        size = max(_GRAIN, 1 << (length - 1).bit_length())
        recycled = self._free_buffers.get(size)
        if recycled:
            address = recycled.pop()
        else:
            address = self._next
            if address + size > self.gpa + self.memory:
                raise MemoryError(
                    f"{length:,} bytes: the driver's {self.memory:,} bytes are full; use a larger memory="
                )
            self._next += size
        self._allocated[address] = size
        return address

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes at a guest address."""
        return self._view(address, np.uint8, length).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` at a guest address."""
        self._view(address, np.uint8, len(data))[:] = np.frombuffer(data, np.uint8)

    def intact(self) -> bool:
        """Whether nobody has written outside the guest's memory, as far as the guards reach."""
        before, after = self._bytes[: self._start], self._bytes[self._start + self.memory :]
        return bool((before == _CANARY).all() and (after == _CANARY).all())

    def _holds(self, address: int, length: int) -> bool:
        return self.gpa <= address and address + length <= self.gpa + self.memory

    def _view(self, address: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        layout = np.dtype(dtype)
        length = layout.itemsize * count
        if not self._holds(address, length):
            raise ValueError(f"{length:,} bytes at {address:#x} are not the guest's: {self.memory:,} at {self.gpa:#x}")
        start = self._start + address - self.gpa
        return self._bytes[start : start + length].view(layout)

    @staticmethod
    def _link(table: npt.NDArray[Any], places: list[int], buffers: Sequence[tuple[int, int, int]]) -> None:
        for number, (place, (address, length, flags)) in enumerate(zip(places, buffers, strict=True)):
            last = number == len(places) - 1
            following = 0 if last else places[number + 1]
            table[place] = (address, length, flags if last else flags | abi.VIRTQ_DESC_F_NEXT, following)

    def _release(self, chain: _Chain) -> None:
        self._free.extend(chain.descriptors)
        for address in [*(buffer[0] for buffer in chain.buffers), *chain.tables]:
            size = self._allocated.pop(address, 0)
            if size:
                self._free_buffers.setdefault(size, []).append(address)

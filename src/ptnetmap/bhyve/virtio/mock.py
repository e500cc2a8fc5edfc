# SPDX-License-Identifier: BSD-2-Clause
"""A driver for any virtio device, without a guest: it behaves, and misbehaves on request.

::

    driver = MockDriver(device, memory)
    driver.start()                                    # reset, features, queues, DRIVER_OK
    driver.queues[0].post([64])                       # a chain of one buffer that the device fills
    driver.kick(0)
    [used] = driver.queues[0].reap()
    assert used.data

It finds the registers as a driver does, through configuration space, and uses the device's BARs directly; the machine's
lock is held for that. Source: virtio 1.2 §2.7, §3.1, §4.1.5.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import pci, virtio
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.host import Memory
from ptnetmap.bhyve.pci.device import PciDevice

_COMMON = {name: (field[1], field[0].itemsize) for name, field in (abi.virtio_pci_common_cfg.fields or {}).items()}
_CAP = abi.virtio_pci_cap
_PAGE = 4096
_GRAIN = 64
_WRITE = virtio.VIRTQ_DESC_F_WRITE


class Buffer(NamedTuple):
    """A descriptor to be: whatever its fields say."""

    address: int
    length: int
    flags: int = 0


class Used(NamedTuple):
    """A chain that the device returned."""

    head: int
    """First descriptor of the chain."""
    length: int
    """Bytes that the device says it wrote."""
    data: bytes
    """That many bytes of the chain's device-writable buffers, or all of them if the device claims more."""


class MockQueue:
    """The driver's side of a queue of ``size`` entries, in ``memory`` from the guest address ``gpa`` on.

    The parts lie as in a legacy queue, which suits modern devices too; ``desc``, ``avail`` and ``used`` are their guest
    addresses. For whoever wants to break the rules: ``descriptors`` (of ``virtq_desc``), ``avail_head``,
    ``avail_entries``, ``used_event``, ``used_head``, ``used_entries`` and ``avail_event`` are the parts as arrays.
    """

    def __init__(self, memory: Memory, gpa: int, size: int, *, limit: int) -> None:
        self.memory = memory
        self.size = size
        self.desc = gpa
        self.avail = gpa + size * virtio.virtq_desc.itemsize
        self.used = -(-(self.avail + virtio.virtq_avail_size(size)) // _PAGE) * _PAGE
        end = self.used + virtio.virtq_used_size(size)
        self.descriptors = self.view(self.desc, virtio.virtq_desc, size)
        self.avail_head = self.view(self.avail, virtio.virtq_avail, 1)
        self.avail_entries = self.view(self.avail + 4, np.dtype("<u2"), size)
        self.used_event = self.view(self.avail + 4 + 2 * size, np.dtype("<u2"), 1)
        self.used_head = self.view(self.used, virtio.virtq_used, 1)
        self.used_entries = self.view(self.used + 4, virtio.virtq_used_elem, size)
        self.avail_event = self.view(self.used + 4 + 8 * size, np.dtype("<u2"), 1)
        self._start = -(-end // _PAGE) * _PAGE
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Forget all chains, and zero the rings, as before a start."""
        self.memory.view(self.desc, self._start - self.desc)[:] = bytes(self._start - self.desc)
        self._next = self._start
        self._free = list(range(self.size))
        self._chains: dict[int, tuple[list[int], list[Buffer]]] = {}
        self._reaped = 0

    def view(self, gpa: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        """Return guest memory as an array."""
        return np.frombuffer(self.memory.view(gpa, dtype.itemsize * count), dtype)

    def allocate(self, length: int) -> int:
        """Return the guest address of ``length`` fresh bytes, aligned to 64; raises MemoryError when none are left.

        They are free again when :meth:`reap` has taken the last chain.
        """
        address = self._next
        self._next += max(_GRAIN, -(-length // _GRAIN) * _GRAIN)
        if self._next > self._limit:
            raise MemoryError(f"{length:,} bytes: this queue's memory ends at {self._limit:#x}")
        return address

    def chain(self, readable: Sequence[bytes] = (), writable: Sequence[int] = ()) -> list[Buffer]:
        """Return buffers with the bytes ``readable`` in them, and then some of the lengths ``writable``."""
        out = []
        for piece in readable:
            address = self.allocate(len(piece))
            self.memory.write(address, piece)
            out.append(Buffer(address, len(piece)))
        out.extend(Buffer(self.allocate(length), length, _WRITE) for length in writable)
        return out

    def send(self, readable: Sequence[bytes], writable: Sequence[int] = (), *, indirect: bool = False) -> int:
        """Offer a chain of buffers to read and buffers to write. Returns its first descriptor."""
        return self.add(self.chain(readable, writable), indirect=indirect)

    def post(self, writable: Sequence[int], *, indirect: bool = False) -> int:
        """Offer a chain of buffers of these lengths for the device to write. Returns its first descriptor."""
        return self.add(self.chain((), writable), indirect=indirect)

    def add(self, buffers: Sequence[Buffer], *, indirect: bool = False) -> int:
        """Offer a chain of any buffers; flags to continue are added. Returns its first descriptor.

        With ``indirect`` the chain is one descriptor for a table. Raises ValueError if too few descriptors are free.
        """
        needed = 1 if indirect else len(buffers)
        if not buffers or needed > len(self._free):
            raise ValueError(f"a chain of {needed} descriptors: {len(self._free)} are free; reap() first")
        taken = [self._free.pop(0) for _ in range(needed)]
        if indirect:
            length = len(buffers) * virtio.virtq_desc.itemsize
            table = self.allocate(length)
            _link(self.view(table, virtio.virtq_desc, len(buffers)), list(range(len(buffers))), buffers)
            self.descriptors[taken[0]] = (table, length, virtio.VIRTQ_DESC_F_INDIRECT, 0)
        else:
            _link(self.descriptors, taken, buffers)
        self._chains[taken[0]] = taken, list(buffers)
        self.offer(taken[0])
        return taken[0]

    def offer(self, head: int) -> None:
        """Put ``head``, any 16-bit number, into the available ring, and move its index."""
        index = int(self.avail_head["idx"][0])
        self.avail_entries[index % self.size] = head
        self.avail_head["idx"] = (index + 1) & 0xFFFF

    def reap(self) -> list[Used]:
        """Take all used elements, oldest first, and free what their chains occupied."""
        out = []
        while self._reaped != int(self.used_head["idx"][0]):
            element = self.used_entries[self._reaped % self.size]
            self._reaped = (self._reaped + 1) & 0xFFFF
            head, length = int(element["id"]), int(element["len"])
            taken, buffers = self._chains.pop(head, ([], []))
            self._free.extend(taken)
            written = (self.memory.read(b.address, b.length) for b in buffers if b.flags & _WRITE)
            out.append(Used(head, length, b"".join(written)[:length]))
        if out and not self._chains:
            self._next = self._start
        return out


class MockDriver:
    """A driver for ``device``, with its queues in ``memory``, each in ``span`` bytes from ``base`` on.

    ``legacy`` chooses the registers; ``msix`` whether to use MSI-X, with vector 0 for changes of the configuration and
    ``i + 1`` for queue ``i``, whose messages have ``0x40`` plus the vector as data.
    """

    def __init__(
        self,
        device: PciDevice,
        memory: Memory,
        *,
        legacy: bool = False,
        msix: bool = True,
        base: int = 0x10000,
        span: int = 0x40000,
    ) -> None:
        self.device = device
        self.memory = memory
        self.legacy = legacy
        self.msix = msix
        self.features = 0
        self.queues: list[MockQueue] = []
        self._base = base
        self._span = span
        self._places: dict[int, tuple[int, int]] = {}
        self._multiplier = 0
        self._find()

    # --- registers -------------------------------------------------------------------------------------------------

    def config(self, offset: int, size: int) -> int:
        """Read configuration space."""
        with self.device.host.lock:
            return self.device.config_read(offset, size)

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read a BAR."""
        with self.device.host.lock:
            return self.device.bar_read(bar, offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write a BAR."""
        with self.device.host.lock:
            self.device.bar_write(bar, offset, size, value)

    def read(self, name: str) -> int:
        """Read a field of the common configuration."""
        bar, base = self._places[abi.VIRTIO_PCI_CAP_COMMON_CFG]
        offset, size = _COMMON[name]
        return self.bar_read(bar, base + offset, size)

    def write(self, name: str, value: int) -> None:
        """Write a field of the common configuration, 64-bit ones in halves."""
        bar, base = self._places[abi.VIRTIO_PCI_CAP_COMMON_CFG]
        offset, size = _COMMON[name]
        for start in range(0, size, 4):
            width = min(size, 4)
            self.bar_write(bar, base + offset + start, width, value >> 8 * start & (1 << 8 * width) - 1)

    def read_config(self, offset: int, size: int) -> bytes:
        """Return bytes of the device's own configuration."""
        bar, base = 0, abi.legacy_config(self.msix)
        if not self.legacy:
            bar, base = self._places[abi.VIRTIO_PCI_CAP_DEVICE_CFG]
        return bytes(self.bar_read(bar, base + offset + i, 1) for i in range(size))

    @property
    def status(self) -> int:
        """The device's status; setting it adds bits, or resets with 0."""
        return self.bar_read(0, abi.VIRTIO_PCI_STATUS, 1) if self.legacy else self.read("device_status")

    @status.setter
    def status(self, value: int) -> None:
        if self.legacy:
            self.bar_write(0, abi.VIRTIO_PCI_STATUS, 1, value)
        else:
            self.write("device_status", value)

    @property
    def needs_reset(self) -> bool:
        """Whether the device waits to be reset."""
        return bool(self.status & abi.VIRTIO_STATUS_NEEDS_RESET)

    def isr(self) -> int:
        """Read the interrupt status, which clears it."""
        bar, offset = (0, abi.VIRTIO_PCI_ISR) if self.legacy else self._places[abi.VIRTIO_PCI_CAP_ISR_CFG]
        return self.bar_read(bar, offset, 1)

    # --- initialisation --------------------------------------------------------------------------------------------

    def offered(self) -> int:
        """Return the features that the device offers."""
        if self.legacy:
            return self.bar_read(0, abi.VIRTIO_PCI_HOST_FEATURES, 4)
        out = 0
        for half in range(2):
            self.write("device_feature_select", half)
            out |= self.read("device_feature") << 32 * half
        return out

    def start(self, features: int = (1 << 64) - 1, *, size: int | None = None) -> None:
        """Reset the device, take those of ``features`` that it offers, set up all queues, and say DRIVER_OK.

        ``size`` limits the entries of a queue, which only modern devices let a driver choose.
        """
        self.status = 0
        self.status = abi.VIRTIO_STATUS_ACKNOWLEDGE
        self.status = abi.VIRTIO_STATUS_ACKNOWLEDGE | abi.VIRTIO_STATUS_DRIVER
        self.accept(self.offered() & features)
        if self.msix:
            self._enable_msix()
        self.set_up_queues(size)
        self.status = self.status | abi.VIRTIO_STATUS_DRIVER_OK

    def accept(self, features: int) -> bool:
        """Ask for ``features``, and return whether the device agrees."""
        self.features = features
        if self.legacy:
            self.bar_write(0, abi.VIRTIO_PCI_GUEST_FEATURES, 4, features)
            return self.bar_read(0, abi.VIRTIO_PCI_GUEST_FEATURES, 4) == features
        for half in range(2):
            self.write("driver_feature_select", half)
            self.write("driver_feature", features >> 32 * half & 0xFFFFFFFF)
        self.status = self.status | abi.VIRTIO_STATUS_FEATURES_OK
        return bool(self.status & abi.VIRTIO_STATUS_FEATURES_OK)

    def kick(self, index: int) -> None:
        """Notify the device of a queue, as a driver would by itself."""
        if self.legacy:
            self.bar_write(0, abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, index)
        else:
            bar, base = self._places[abi.VIRTIO_PCI_CAP_NOTIFY_CFG]
            self.write("queue_select", index)
            self.bar_write(bar, base + self.read("queue_notify_off") * self._multiplier, 2, index)

    def set_up_queues(self, size: int | None = None) -> None:
        """Place all queues, empty, those of an earlier start where they were; ``size`` as in :meth:`start`."""
        index = 0
        while most := self._select(index):
            if index == len(self.queues):
                gpa = self._base + index * self._span
                entries = most if self.legacy or size is None else min(most, size)
                self.queues.append(MockQueue(self.memory, gpa, entries, limit=gpa + self._span))
            queue = self.queues[index]
            queue.clear()
            self.place(queue, vector=index + 1)
            index += 1

    def place(self, queue: MockQueue, vector: int) -> None:
        """Tell the device where the selected queue is."""
        if self.legacy:
            if self.msix:
                self.bar_write(0, abi.VIRTIO_MSI_CONFIG_VECTOR, 2, 0)
                self.bar_write(0, abi.VIRTIO_MSI_QUEUE_VECTOR, 2, vector)
            page = queue.desc >> abi.VIRTIO_PCI_QUEUE_ADDR_SHIFT
            self.bar_write(0, abi.VIRTIO_PCI_QUEUE_PFN, 4, page)
            return
        if self.msix:
            self.write("config_msix_vector", 0)
            self.write("queue_msix_vector", vector)
        self.write("queue_size", queue.size)
        self.write("queue_desc", queue.desc)
        self.write("queue_driver", queue.avail)
        self.write("queue_device", queue.used)
        self.write("queue_enable", 1)

    def _find(self) -> None:
        """Read the capabilities."""
        offset = self.config(pci.PCIR_CAP_PTR, 1)
        while offset:
            if self.config(offset, 1) == pci.PCIY_VENDOR:
                raw = bytes(self.config(offset + i, 1) for i in range(_CAP.itemsize))
                cap = np.frombuffer(raw, _CAP)[0]
                self._places.setdefault(int(cap["cfg_type"]), (int(cap["bar"]), int(cap["offset"])))
                if cap["cfg_type"] == abi.VIRTIO_PCI_CAP_NOTIFY_CFG:
                    self._multiplier = self.config(offset + _CAP.itemsize, 4)
            offset = self.config(offset + 1, 1)

    def _select(self, index: int) -> int:
        """Select a queue, and return its entries; 0 if there is none."""
        if self.legacy:
            self.bar_write(0, abi.VIRTIO_PCI_QUEUE_SEL, 2, index)
            return self.bar_read(0, abi.VIRTIO_PCI_QUEUE_NUM, 2)
        self.write("queue_select", index)
        return self.read("queue_size")

    def _enable_msix(self) -> None:
        msix = self.device.msix
        if msix is None:
            self.msix = False
            return
        with self.device.host.lock:
            for n in range(len(msix.vectors)):
                entry = struct.pack("<QII", pci.MSI_INTEL_ADDR_BASE, 0x40 + n, 0)
                msix.write(n * len(entry), len(entry), int.from_bytes(entry, "little"))
            self.device.config_write(msix.capability.offset + 2, 2, pci.PCIM_MSIXCTRL_MSIX_ENABLE)


def _link(table: npt.NDArray[Any], places: list[int], buffers: Sequence[Buffer]) -> None:
    for number, (place, (address, length, flags)) in enumerate(zip(places, buffers, strict=True)):
        last = number == len(places) - 1
        following = 0 if last else places[number + 1]
        table[place] = (address, length, flags if last else flags | virtio.VIRTQ_DESC_F_NEXT, following)

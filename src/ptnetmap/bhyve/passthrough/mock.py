# SPDX-License-Identifier: BSD-2-Clause
"""Drivers of passed-through ports, without a guest: they behave, and misbehave on request.

::

    guest = MockPtnet(bus, Function(0, 4, 0))
    assert guest.create(0x10000) == 0                 # the CSB goes there, in guest memory
    guest.tx[0].send([frame])
    guest.rx[0].receive()

Registers and rings are found as a driver finds them: through configuration space, the memdev's registers and its BAR.
Source: netmap-abi 5a.7, 5b.2, 5b.4.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import pci, ptnet
from ptnetmap.abi import virtio_pci as abi_pci
from ptnetmap.abi.netmap.csb import NETMAP_VIRT_CSB_SIZE, csb_2015, nm_csb_atok, nm_csb_ktoa
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.pci.memory import BarMemory
from ptnetmap.bhyve.virtio.mock import MockDriver

ENTRY = nm_csb_atok.itemsize
MESSAGE = pci.MSI_INTEL_ADDR_BASE
"""Where messages go; the data is the vector's number plus :data:`FIRST_DATA`."""
FIRST_DATA = 0x40


class Registers:
    """The I/O BAR 0 of the function at ``place``, and its MSI-X table in BAR ``table``."""

    def __init__(self, bus: PciBus, place: Function, table: int = ptnet.PTNETMAP_MSIX_PCI_BAR) -> None:
        self.bus = bus
        self.host: Host = bus.host
        self.place = place
        self._table = table

    def bar(self, number: int) -> int:
        """Return where a BAR is now."""
        value = self.bus.read_config(self.place, pci.PCIR_BARS + 4 * number, 4)
        if value & pci.PCIM_BAR_IO_SPACE:
            return value & ~0x3
        if value & pci.PCIM_BAR_MEM_64:
            value |= self.bus.read_config(self.place, pci.PCIR_BARS + 4 * number + 4, 4) << 32
        return value & ~0xF

    def read(self, offset: int, size: int = 4) -> int:
        """Read a register."""
        return self.host.ports.read(self.bar(0) + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a register."""
        with self.host.lock:
            self.host.ports.write(self.bar(0) + offset, size, value)

    def enable_msix(self, vectors: int) -> None:
        """Give each vector a message, unmask it, and enable MSI-X."""
        capability = self.bus.read_config(self.place, pci.PCIR_CAP_PTR, 1)
        while self.bus.read_config(self.place, capability, 1) != pci.PCIY_MSIX:
            capability = self.bus.read_config(self.place, capability + 1, 1)
        for i in range(vectors):
            entry = struct.pack("<QII", MESSAGE, FIRST_DATA + i, 0)
            for at in range(0, len(entry), 4):
                word = int.from_bytes(entry[at : at + 4], "little")
                self.host.mmio.write(self.bar(self._table) + len(entry) * i + at, 4, word)
        self.bus.write_config(self.place, capability + 2, 2, pci.PCIM_MSIXCTRL_MSIX_ENABLE)


class MockMemory:
    """The region that the memdev with memory id ``mem_id`` shows. Raises LookupError, as a driver would say."""

    def __init__(self, bus: PciBus, mem_id: int) -> None:
        seen = []
        for place in sorted(bus.devices):
            identity = bus.read_config(place, pci.PCIR_VENDOR, 4)
            if identity != ptnet.PTNETMAP_PCI_DEVICE_ID << 16 | ptnet.PTNETMAP_PCI_VENDOR_ID:
                continue
            registers = Registers(bus, place)
            seen.append(registers.read(ptnet.PTNET_MDEV_IO_MEMID))
            if seen[-1] == mem_id:
                break
        else:
            raise LookupError(f"no memdev shows memory {mem_id}, only {seen}")
        self.registers = registers
        size = registers.read(ptnet.PTNET_MDEV_IO_MEMSIZE_LO) | registers.read(ptnet.PTNET_MDEV_IO_MEMSIZE_HI) << 32
        memory: BarMemory = bus.devices[place].memories[ptnet.PTNETMAP_MEM_PCI_BAR]
        assert memory.gpa in (None, registers.bar(ptnet.PTNETMAP_MEM_PCI_BAR))
        raw: Any = (ctypes.c_uint8 * size).from_address(memory.address)
        raw._owner = memory
        self.bytes = np.frombuffer(memoryview(raw).cast("B"), np.uint8)

    def view(self, offset: int, layout: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """Return ``count`` items at ``offset``."""
        return self.bytes[offset : offset + np.dtype(layout).itemsize * count].view(layout)


class MockRing:
    """The user's side of one ring: ``told`` and ``known`` are the CSB's fields that it writes, and those that it reads.

    Both map the names of today's CSB to arrays of one word.
    """

    def __init__(
        self,
        registers: Registers,
        memory: MockMemory,
        offset: int,
        kick: tuple[int, int, int],
        told: dict[str, npt.NDArray[Any]],
        known: dict[str, npt.NDArray[Any]],
    ) -> None:
        self._registers = registers
        self._kick = kick
        self.told, self.known = told, known
        self.header = memory.view(offset, abi.ring, 1)[0]
        self.n = int(self.header["num_slots"])
        self.slots = memory.view(offset + abi.ring.itemsize, abi.slot, self.n)
        self._buffers = offset + int(self.header["buf_ofs"])
        self._memory = memory
        self.kicks = 0

    def buffer(self, index: int) -> npt.NDArray[np.uint8]:
        """Return a buffer's bytes."""
        size = int(self.header["nr_buf_size"])
        return self._memory.view(self._buffers + int(index) * size, np.uint8, size)

    def get(self, name: str) -> int:
        """Return a field of the CSB."""
        return int((self.told | self.known)[name][0])

    def publish(self, head: int) -> None:
        """Release slots up to ``head``: cur first."""
        self.told["cur"][0] = head
        self.told["head"][0] = head

    def kick(self, *, always: bool = False) -> None:
        """Kick, if that is asked for."""
        if always or self.get("kern_need_kick"):
            self.kicks += 1
            self._registers.write(*self._kick)

    def space(self) -> int:
        """Slots that are the user's."""
        return (self.get("hwtail") - self.get("head")) % self.n

    def send(self, frames: Iterable[bytes]) -> int:
        """Send as many frames as there is room for; return how many."""
        head, sent = self.get("head"), 0
        for frame in frames:
            if head == self.get("hwtail"):
                break
            slot = self.slots[head]
            self.buffer(slot["buf_idx"])[: len(frame)] = np.frombuffer(frame, np.uint8)
            slot["len"], slot["flags"] = len(frame), 0
            head = (head + 1) % self.n
            sent += 1
        self.publish(head)
        self.kick()
        return sent

    def receive(self) -> list[bytes]:
        """Take what has come, and give the slots back."""
        head, frames = self.get("head"), []
        tail = self.get("hwtail")
        while head != tail:
            slot = self.slots[head]
            frames.append(bytes(self.buffer(slot["buf_idx"])[: int(slot["len"])]))
            head = (head + 1) % self.n
        if frames:
            self.publish(head)
            self.kick()
        return frames


class MockPtnet(Registers):
    """A driver of the ptnet device at ``place``; ``tx`` and ``rx`` are its rings once :meth:`create` went well."""

    def __init__(self, bus: PciBus, place: Function) -> None:
        super().__init__(bus, place)
        self.tx_count = self.read(ptnet.PTNET_IO_NUM_TX_RINGS)
        self.rx_count = self.read(ptnet.PTNET_IO_NUM_RX_RINGS)
        self.tx: list[MockRing] = []
        self.rx: list[MockRing] = []

    def set_csb(self, atok: int, ktoa: int) -> None:
        """Tell where the two arrays are, in guest memory."""
        for address, high, low in (
            (atok, ptnet.PTNET_IO_CSB_GH_BAH, ptnet.PTNET_IO_CSB_GH_BAL),
            (ktoa, ptnet.PTNET_IO_CSB_HG_BAH, ptnet.PTNET_IO_CSB_HG_BAL),
        ):
            self.write(high, address >> 32)
            self.write(low, address & 0xFFFFFFFF)

    def command(self, command: int) -> int:
        """Give a command, and return what it came to."""
        self.write(ptnet.PTNET_IO_PTCTL, command)
        return self.read(ptnet.PTNET_IO_PTCTL)

    def create(self, csb: int, *, header: int = 0) -> int:
        """Do what a driver does to start: two pages of CSB from the address ``csb`` on. Returns 0 or an errno."""
        self.enable_msix(self.tx_count + self.rx_count)
        self.set_csb(csb, csb + 4096)
        count = self.tx_count + self.rx_count
        atok = np.frombuffer(self.host.memory.view(csb, count * ENTRY), nm_csb_atok)
        ktoa = np.frombuffer(self.host.memory.view(csb + 4096, count * ENTRY), nm_csb_ktoa)
        ktoa["kern_need_kick"] = 1
        atok["appl_need_kick"] = [0] * self.tx_count + [1] * self.rx_count
        if header:
            self.write(ptnet.PTNET_IO_PTFEAT, ptnet.PTNETMAP_F_VNET_HDR)
            self.write(ptnet.PTNET_IO_VNET_HDR_LEN, header)
        result = self.command(ptnet.PTNETMAP_PTCTL_CREATE)
        if result == 0:
            self.find_rings(atok, ktoa)
        return result

    def find_rings(self, atok: npt.NDArray[Any], ktoa: npt.NDArray[Any]) -> None:
        """Find the rings in the memdev's memory."""
        memory = MockMemory(self.bus, self.read(ptnet.PTNET_IO_HOSTMEMID))
        nifp = self.read(ptnet.PTNET_IO_NIFP_OFS)
        rings = []
        for i, offset in enumerate(ring_offsets(memory, nifp, self.tx_count, self.rx_count)):
            told = {name: atok[name][i : i + 1] for name in ("head", "cur", "appl_need_kick", "sync_flags")}
            known = {name: ktoa[name][i : i + 1] for name in ("hwcur", "hwtail", "kern_need_kick")}
            rings.append(MockRing(self, memory, nifp + offset, (ptnet.kick_register(i), 1, 4), told, known))
        self.tx, self.rx = rings[: self.tx_count], rings[self.tx_count :]

    def delete(self) -> int:
        """Stop; returns 0 or an errno."""
        return self.command(ptnet.PTNETMAP_PTCTL_DELETE)


class MockVirtioNet(Registers):
    """A driver of 2015 of the virtio-net device at ``place``; ``tx`` and ``rx`` are its rings after :meth:`create`.

    ``queues`` is the driver of its queues, which lie from the guest address ``base`` on. Registers are written byte by
    byte unless ``whole``.
    """

    def __init__(
        self, bus: PciBus, place: Function, *, whole: bool = False, msix: bool = True, base: int = 0x400000
    ) -> None:
        super().__init__(bus, place, table=1)
        self.queues = MockDriver(bus.devices[place], bus.host.memory, legacy=True, msix=msix, base=base)
        self.whole = whole
        self._base = ptnet.PTNETMAP_VIRTIO_IO_BASE_MSIX if msix else ptnet.PTNETMAP_VIRTIO_IO_BASE
        self.tx: list[MockRing] = []
        self.rx: list[MockRing] = []

    def get(self, register: int) -> int:
        """Read a register of 2015."""
        if self.whole:
            return self.read(self._base + register)
        return sum(self.read(self._base + register + i, 1) << 8 * i for i in range(4))

    def set(self, register: int, value: int) -> None:
        """Write a register of 2015: the byte at its own offset last."""
        if self.whole:
            self.write(self._base + register, value)
            return
        for i in reversed(range(4)):
            self.write(self._base + register + i, value >> 8 * i & 0xFF, 1)

    def command(self, command: int) -> int:
        """Give a command, and return the status."""
        self.set(ptnet.PTNETMAP_VIRTIO_IO_PTCTL, command)
        return self.get(ptnet.PTNETMAP_VIRTIO_IO_PTSTS)

    def set_csb(self, address: int) -> None:
        """Tell where the CSB is, 0 for nowhere."""
        self.set(ptnet.PTNETMAP_VIRTIO_IO_CSBBAH, address >> 32)
        self.set(ptnet.PTNETMAP_VIRTIO_IO_CSBBAL, address & 0xFFFFFFFF)

    def attach(self, csb: int) -> bool:
        """Negotiate, and give the device a page of CSB; return whether the device passes a port through."""
        self.queues.start()
        if not self.queues.features >> ptnet.VIRTIO_NET_F_PTNETMAP & 1:
            return False
        self.set(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT, ptnet.PTNETMAP_F_BASE)
        self.host.memory.write(csb, bytes(NETMAP_VIRT_CSB_SIZE))
        self.csb = np.frombuffer(self.host.memory.view(csb, csb_2015.itemsize), csb_2015)
        self.csb["guest_csb_on"] = 1
        self.set_csb(csb)
        return bool(self.get(ptnet.PTNETMAP_VIRTIO_IO_PTFEAT) & ptnet.PTNETMAP_F_BASE)

    def create(self, csb: int) -> int:
        """Do what a driver of 2015 does to start (netmap-abi 5a.7). Returns 0 or an errno."""
        if not self.attach(csb):
            return errno.ENODEV
        if result := self.command(ptnet.PTNETMAP_PTCTL_CONFIG):
            return result
        memory = MockMemory(self.bus, self.command(ptnet.PTNETMAP_PTCTL_HOSTMEMID))
        self.queues.queues[abi_pci.VIRTIO_NET_QUEUE_TX].send([bytes(64)])
        if result := self.command(ptnet.PTNETMAP_PTCTL_REGIF):
            return result
        nifp = int(self.csb["nifp_offset"][0])
        first_tx, first_rx = ring_offsets(memory, nifp, 1, 1)
        for way, offset, queue, found in (
            ("tx", first_tx, abi_pci.VIRTIO_NET_QUEUE_TX, self.tx),
            ("rx", first_rx, abi_pci.VIRTIO_NET_QUEUE_RX, self.rx),
        ):
            block = self.csb[f"{way}_ring"]
            told = {name: block[name] for name in ("head", "cur", "sync_flags")}
            told["appl_need_kick"] = self.csb[f"guest_need_{way}kick"]
            known = {name: block[name] for name in ("hwcur", "hwtail")}
            known["kern_need_kick"] = self.csb[f"host_need_{way}kick"]
            kick = (abi_pci.VIRTIO_PCI_QUEUE_NOTIFY, queue, 2)
            found[:] = [MockRing(self, memory, nifp + offset, kick, told, known)]
        return 0

    def delete(self) -> int:
        """Stop; returns 0 or an errno."""
        return self.command(ptnet.PTNETMAP_PTCTL_UNREGIF)


def ring_offsets(memory: MockMemory, nifp: int, tx: int, rx: int) -> list[int]:
    """Return where rings are, from the netmap_if on: TX rings first, without those of the host."""
    interface = memory.view(nifp, abi.netmap_if, 1)[0]
    shape = int(interface["ni_tx_rings"]), int(interface["ni_host_tx_rings"]), int(interface["ni_version"])
    places = [abi.ring_offset_index(abi.TX, i, *shape) for i in range(tx)]
    places += [abi.ring_offset_index(abi.RX, i, *shape) for i in range(rx)]
    offsets = memory.view(nifp + abi.netmap_if.itemsize, abi.ring_ofs, max(places) + 1)
    return [int(offsets[place]) for place in places]

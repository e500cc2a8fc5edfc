# SPDX-License-Identifier: BSD-2-Clause
"""Driver of ptnet and ptnetmap-memdev in a Linux guest, from user space (netmap-abi 5b.1, 5b.2)."""

from __future__ import annotations

import errno
import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import ptnet
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.errors import MemoryPoolError, PortError
from ptnetmap.jit.block import view
from ptnetmap.netmap.foreignring import MappedAllocator
from ptnetmap.netmap.geometry import Geometry, Pool
from ptnetmap.netmap.linuxguest.csbpages import PAGE, CsbPages
from ptnetmap.netmap.linuxguest.guardian import Guardian
from ptnetmap.netmap.linuxguest.names import memdevs, ptnets
from ptnetmap.netmap.linuxguest.pci import SYSFS, PciFunction, Registers, check_lockdown
from ptnetmap.netmap.linuxguest.uio import UioInterrupts
from ptnetmap.netmap.linuxguest.vfio import VfioInterrupts
from ptnetmap.netmap.region import Region

MAX_RINGS = PAGE // nm_csb_atok.itemsize
"""Rings of both directions that a page of CSB has entries for."""


class Machine:
    """What this driver asks the guest for: functions, their registers, pinned pages. Tests have another one."""

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self.sysfs = sysfs

    def ptnets(self) -> list[PciFunction]:
        """Return the ptnet devices, by address."""
        return ptnets(self.sysfs)

    def memdevs(self) -> list[PciFunction]:
        """Return the memdevs, by address."""
        return memdevs(self.sysfs)

    def registers(self, function: PciFunction) -> Registers:
        """Open a function's registers."""
        return Registers(function.open_bar(ptnet.PTNETMAP_IO_PCI_BAR))

    def interrupts(self, function: PciFunction, count: int) -> VfioInterrupts | UioInterrupts | None:
        """Take the interrupts of ``count`` rings, by the driver that is bound; None where there are none."""
        if function.driver == "vfio-pci":
            function.master()
            return VfioInterrupts(function, count)
        return UioInterrupts(function, count) if function.driver == "uio_pci_generic" else None

    def pages(self) -> Any:
        """Allocate the CSB's two pages."""
        return CsbPages()

    def guard(self, registers: Registers, fds: list[int]) -> Any:
        """Have somebody stop the device should this process end."""
        return Guardian(registers.fd, ptnet.PTNET_IO_PTCTL, ptnet.PTNETMAP_PTCTL_DELETE, fds)


class PtnetDevice:
    """A ptnet, running: ``rings`` are (direction, index, slots, offset of the netmap_ring), TX rings first.

    ``allocator`` is the region that its memdev shows, ``nifp_offset`` where in it the netmap_if is, ``mac`` the device's
    address as 12 digits. Raises PortError, with what is missing and what to do; nothing is left running then.
    """

    def __init__(self, function: PciFunction, machine: Machine) -> None:
        check_lockdown(machine.sysfs)
        self.function = function
        self._stack = ExitStack()
        try:
            self._open(machine)
            self._start(machine)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, machine: Machine) -> None:
        function = self.function
        function.check_free()
        self.interrupts: VfioInterrupts | UioInterrupts | None = None
        self._enable(function)
        function.bar(ptnet.PTNETMAP_IO_PCI_BAR, io=True)
        self.registers = machine.registers(function)
        self._stack.callback(self.registers.close)
        self._claim()
        read = self.registers.read
        self.tx_rings, self.rx_rings = read(ptnet.PTNET_IO_NUM_TX_RINGS), read(ptnet.PTNET_IO_NUM_RX_RINGS)
        self.tx_slots, self.rx_slots = read(ptnet.PTNET_IO_NUM_TX_SLOTS), read(ptnet.PTNET_IO_NUM_RX_SLOTS)
        if not 0 < self.tx_rings + self.rx_rings <= MAX_RINGS:
            raise self._refusal(
                errno.EINVAL,
                f"it says that it has {self.tx_rings} TX and {self.rx_rings} RX rings",
                "see the host's log",
            )
        low, high = read(ptnet.PTNET_IO_MAC_LO), read(ptnet.PTNET_IO_MAC_HI)
        self.mac = f"{high & 0xFFFF:04x}{low:08x}"
        self.nifp_offset = read(ptnet.PTNET_IO_NIFP_OFS)
        self.allocator = self._find_memory(machine, read(ptnet.PTNET_IO_HOSTMEMID))
        self.rings = list(self._find_rings())
        self._negotiate()
        self.interrupts = machine.interrupts(function, len(self.rings))
        if self.interrupts is not None:
            self._stack.callback(self.interrupts.close)

    def _enable(self, function: PciFunction) -> None:
        if function.enable():
            self._stack.callback(function.disable)

    def _claim(self) -> None:
        """Be the only one: the lock goes with this process and its guardian."""
        if self.registers.fd < 0:
            return
        try:
            fcntl.flock(self.registers.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(errno.EBUSY, "another program has it open", "end that one first") from None

    def _refusal(self, number: int, what: str, remedy: str) -> PortError:
        return PortError(number, f"netmap: cannot use the ptnet at {self.function.address}: {what}\n        {remedy}")

    # --- memory

    def _find_memory(self, machine: Machine, mem_id: int) -> MappedAllocator:
        found = []
        for memdev in machine.memdevs():
            memdev.check_free()
            self._enable(memdev)
            registers = machine.registers(memdev)
            try:
                found.append(registers.read(ptnet.PTNET_MDEV_IO_MEMID))
                if found[-1] == mem_id:
                    return MappedAllocator(mem_id, *self._map(memdev, registers))
            finally:
                registers.close()
        seen = f"the memdevs show {', '.join(map(str, found))}" if found else "there is no ptnetmap-memdev"
        raise self._refusal(
            errno.ENODEV,
            f"its rings are in memory {mem_id}, and {seen}",
            "give the machine a memdev for each memory: bhyve -s 3,ptnetmap-memdev",
        )

    def _map(self, memdev: PciFunction, registers: Registers) -> tuple[Geometry, Region]:
        read = registers.read
        size = read(ptnet.PTNET_MDEV_IO_MEMSIZE_LO) | read(ptnet.PTNET_MDEV_IO_MEMSIZE_HI) << 32
        pools, offsets = [], []
        for name, at in (
            ("if", ptnet.PTNET_MDEV_IO_IF_POOL_OFS),
            ("ring", ptnet.PTNET_MDEV_IO_RING_POOL_OFS),
            ("buf", ptnet.PTNET_MDEV_IO_BUF_POOL_OFS),
        ):
            offsets.append(read(at))
            try:
                pools.append(Pool(name, read(at + 8), read(at + 4)))
            except MemoryPoolError as error:
                raise self._refusal(errno.EINVAL, "its memdev describes no netmap memory", str(error)) from error
        first, second, third = pools
        shift = offsets[2] - first.size - second.size
        geometry = Geometry(first, second, third, max(shift, 0))
        have = memdev.bar(ptnet.PTNETMAP_MEM_PCI_BAR, io=False)
        if offsets != [0, first.size, geometry.buf_offset] or geometry.total > size or size > have:
            raise self._refusal(
                errno.EINVAL,
                f"its memdev describes {geometry.total:,} bytes of pools in {size:,} bytes of memory, of which {have:,} are"
                " there",
                "use a hypervisor whose netmap has the usual pools, one behind the other",
            )
        fd = memdev.open_bar(ptnet.PTNETMAP_MEM_PCI_BAR)
        try:
            return geometry, Region(geometry, fd=fd)
        except OSError as error:
            raise self._refusal(
                error.errno or errno.EIO, f"its memory cannot be mapped: {error.strerror}", "see dmesg"
            ) from error

    def _find_rings(self) -> Any:
        region, total = self.allocator.region, self.allocator.geometry.total
        offset = self.nifp_offset
        if offset % 4 or offset + abi.netmap_if.itemsize > total:
            raise self._refusal(
                errno.EINVAL, f"its netmap_if is at {offset:#x}, outside of its memory", "see the host's log"
            )
        interface = region.view(offset, abi.netmap_if, 1)[0]
        shape = int(interface["ni_tx_rings"]), int(interface["ni_host_tx_rings"]), int(interface["ni_version"])
        for direction, count, slots in (
            (abi.TX, self.tx_rings, self.tx_slots),
            (abi.RX, self.rx_rings, self.rx_slots),
        ):
            for index in range(count):
                at = offset + abi.netmap_if.itemsize
                at += abi.ring_ofs.itemsize * abi.ring_offset_index(direction, index, *shape)
                if at + abi.ring_ofs.itemsize > total:
                    raise self._refusal(errno.EINVAL, f"it says nothing of ring {index}", "see the host's log")
                place = offset + int(region.view(at, abi.ring_ofs, 1)[0])
                if (
                    slots < 2
                    or not 0 <= place <= total - abi.ring_size(slots)
                    or region.view(place, abi.ring, 1)["num_slots"][0] != slots
                ):
                    raise self._refusal(
                        errno.EINVAL, f"there is no ring {index} where it should be", "see the host's log"
                    )
                yield direction, index, slots, place

    # --- running

    def _negotiate(self) -> None:
        """Have frames without virtio-net headers, whatever the user before had."""
        self.registers.write(ptnet.PTNET_IO_PTFEAT, ptnet.PTNETMAP_F_VNET_HDR)
        self.has_headers = bool(self.registers.read(ptnet.PTNET_IO_PTFEAT) & ptnet.PTNETMAP_F_VNET_HDR)
        self.header = 0
        if self.has_headers:
            self.set_header(0)

    def set_header(self, length: int) -> None:
        """Let each frame begin with a virtio-net header of so many bytes. Raises PortError (EINVAL)."""
        if self.has_headers:
            self.registers.write(ptnet.PTNET_IO_VNET_HDR_LEN, length)
            self.header = self.registers.read(ptnet.PTNET_IO_VNET_HDR_LEN)
        if self.header != length:
            raise self._refusal(
                errno.EINVAL,
                f"it takes no virtio-net header of {length} bytes",
                "use 0, 10 or 12 on a port of a switch",
            )

    def _start(self, machine: Machine) -> None:
        """Give it the CSB, and let the host serve the rings from now on."""
        pages = machine.pages()
        self._pages = pages
        self._stack.callback(pages.close)
        first, second = pages.places
        for place, high, low in (
            (first, ptnet.PTNET_IO_CSB_GH_BAH, ptnet.PTNET_IO_CSB_GH_BAL),
            (second, ptnet.PTNET_IO_CSB_HG_BAH, ptnet.PTNET_IO_CSB_HG_BAL),
        ):
            self.registers.write(high, place >> 32)
            self.registers.write(low, place)
        count = len(self.rings)
        view(pages.address + PAGE, nm_csb_ktoa, count, pages)["kern_need_kick"] = 1
        fds = [*pages.fds, *(self.interrupts.fds if self.interrupts else [])]
        guardian = machine.guard(self.registers, fds)
        self._stack.callback(guardian.dismiss)
        self.registers.write(ptnet.PTNET_IO_PTCTL, ptnet.PTNETMAP_PTCTL_CREATE)
        result = self.registers.read(ptnet.PTNET_IO_PTCTL)
        if result:
            raise self._refusal(result, f"the host answers {errno.errorcode.get(result, result)}", "see the host's log")
        self._stack.callback(self.registers.write, ptnet.PTNET_IO_PTCTL, ptnet.PTNETMAP_PTCTL_DELETE)
        view(pages.address, nm_csb_atok, count, pages)["appl_need_kick"] = 0

    def csb(self, ring: int) -> tuple[int, int, object]:
        """Return where a ring's entries of the CSB are, atok and ktoa, and what keeps them there."""
        at = self._pages.address + ring * nm_csb_atok.itemsize
        return at, at + PAGE, self._pages

    def kick(self, ring: int) -> tuple[int, int]:
        """Return a new descriptor of a file, and where in it 32 bits are to be written to wake a ring's kthread."""
        return self.registers.kick(ptnet.kick_register(ring))

    def close(self) -> None:
        """Stop the device and give everything back. Harmless when repeated."""
        self._stack.close()

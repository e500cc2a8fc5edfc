# SPDX-License-Identifier: BSD-2-Clause
"""PCI functions of this machine, as sysfs shows them: who they are, who drives them, their registers and memory.

Source: Linux's Documentation/PCI/sysfs-pci.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptnetmap.abi import pci
from ptnetmap.errors import PortError

SYSFS = Path("/sys")
HARMLESS = frozenset({"", "vfio-pci", "uio_pci_generic", "pci-stub"})
"""Drivers that leave a device to programs; "" is none."""

_IO, _MEMORY = 0x100, 0x200  # IORESOURCE_IO, IORESOURCE_MEM
_WORD = 4


class Registers:
    """An I/O BAR's registers of 32 bits, through an open file of sysfs, which belongs to this."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int) -> int:
        """Return a register."""
        return int.from_bytes(os.pread(self.fd, _WORD, offset), "little")

    def write(self, offset: int, value: int) -> None:
        """Set a register."""
        os.pwrite(self.fd, (value & 0xFFFFFFFF).to_bytes(_WORD, "little"), offset)

    def kick(self, offset: int) -> tuple[int, int]:
        """Return a new descriptor of a file, and where in it a write of 32 bits sets a register."""
        return os.dup(self.fd), offset

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, order=True)
class PciFunction:
    """A function at ``address`` ("0000:00:04.0"); ``path`` is its directory in sysfs."""

    address: str
    path: Path

    def _number(self, name: str) -> int:
        return int((self.path / name).read_text(), 0)

    @property
    def identity(self) -> tuple[int, int, int]:
        """Vendor, device, and the two bytes of the class."""
        return self._number("vendor"), self._number("device"), self._number("class") >> 8

    @property
    def driver(self) -> str:
        """Name of the kernel driver that is bound, "" if none is."""
        link = self.path / "driver"
        return link.readlink().name if link.is_symlink() else ""

    def check_free(self) -> None:
        """Raise PortError (EBUSY) if a driver of the kernel has the function."""
        if self.driver not in HARMLESS:
            raise PortError(
                errno.EBUSY,
                f"netmap: cannot use the device at {self.address}: the kernel's driver {self.driver} has it\n"
                f"        take it away: echo {self.address} > /sys/bus/pci/drivers/{self.driver}/unbind",
            )

    def enable(self) -> bool:
        """Have the kernel switch the BARs on; return whether they were off."""
        if self.driver or self._number("enable"):
            return False
        with _explained(self, "enable it"):
            (self.path / "enable").write_text("1")
        return True

    def disable(self) -> None:
        """Take :meth:`enable` back."""
        (self.path / "enable").write_text("0")

    def bar(self, number: int, *, io: bool) -> int:
        """Return the bytes of a BAR. Raises PortError (ENXIO) if it is not there, or of the other kind."""
        start, end, flags = (
            int(word, 16) for word in (self.path / "resource").read_text().splitlines()[number].split()
        )
        if not flags & (_IO if io else _MEMORY):
            raise PortError(
                errno.ENXIO,
                f"netmap: cannot use the device at {self.address}: its BAR {number} is no {'I/O' if io else 'memory'} BAR\n"
                "        the kernel found no room for it: see dmesg, and start the machine with less in it",
            )
        return end - start + 1

    def open_bar(self, number: int) -> int:
        """Open a BAR's file. Raises PortError, with what forbids it."""
        with _explained(self, f"open its BAR {number}"):
            return os.open(self.path / f"resource{number}", os.O_RDWR | os.O_CLOEXEC | os.O_SYNC)

    def master(self) -> None:
        """Let it be a bus master, as whoever sends messages has to be (PCI 3.0 §6.8.3)."""
        with _explained(self, "write its configuration"):
            fd = os.open(self.path / "config", os.O_RDWR | os.O_CLOEXEC)
            try:
                command = int.from_bytes(os.pread(fd, 2, pci.PCIR_COMMAND), "little") | pci.PCIM_CMD_BUSMASTEREN
                os.pwrite(fd, command.to_bytes(2, "little"), pci.PCIR_COMMAND)
            finally:
                os.close(fd)


@contextlib.contextmanager
def _explained(function: PciFunction, what: str) -> Iterator[None]:
    """Turn what the kernel refuses into a PortError that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = "see dmesg"
        if error.errno in (errno.EPERM, errno.EACCES):
            remedy = "be root: devices are for those with CAP_SYS_ADMIN"
        elif error.errno == errno.ENOENT:
            remedy = "use a machine whose kernel shows BARs in sysfs, I/O ports too (x86)"
        raise PortError(
            error.errno or errno.EIO,
            f"netmap: cannot use the device at {function.address}: cannot {what}: {error.strerror}\n        {remedy}",
        ) from error


def find(vendor: int, device: int, class_code: int, sysfs: Path = SYSFS) -> list[PciFunction]:
    """Return the functions with these ids, by address. Others than a class's may have the same: QEMU's ports of 1b36."""
    found = []
    for path in (sysfs / "bus/pci/devices").glob("*"):
        function = PciFunction(path.name, path)
        try:
            if function.identity == (vendor, device, class_code):
                found.append(function)
        except (OSError, ValueError):  # unplugged at this moment
            continue
    return sorted(found)


def check_lockdown(sysfs: Path = SYSFS) -> None:
    """Raise PortError (EPERM) if the kernel lets nobody at the registers of devices (kernel_lockdown(7))."""
    try:
        mode = (sysfs / "kernel/security/lockdown").read_text()
    except OSError:
        return
    chosen = mode.partition("[")[2].partition("]")[0]
    if chosen not in ("", "none"):
        raise PortError(
            errno.EPERM,
            f"netmap: cannot use devices of this machine: the kernel is locked down ({chosen})\n"
            "        switch secure boot off in the guest, or lockdown= on its kernel's command line",
        )

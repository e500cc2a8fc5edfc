# SPDX-License-Identifier: BSD-2-Clause
"""Base address registers: what kinds there are, and the windows of addresses that they get from the firmware."""

from __future__ import annotations

import enum
from bisect import insort
from dataclasses import dataclass

from ptnetmap.abi import pci


class BarKind(enum.Enum):
    """What a BAR asks for (PCI 3.0 §6.2.5.1)."""

    IO = "I/O ports"
    """16 bits of address; the upper half of the register reads 0."""
    MEM32 = "32-bit memory"
    MEM64 = "64-bit memory"
    """Prefetchable; takes two registers."""

    @property
    def flags(self) -> int:
        """The register's read-only low bits."""
        return _FLAGS[self]

    @property
    def address_bits(self) -> int:
        """Bits of its addresses."""
        return _BITS[self]


_FLAGS = {
    BarKind.IO: pci.PCIM_BAR_IO_SPACE,
    BarKind.MEM32: 0,
    BarKind.MEM64: pci.PCIM_BAR_MEM_64 | pci.PCIM_BAR_MEM_PREFETCH,
}
_BITS = {BarKind.IO: 16, BarKind.MEM32: 32, BarKind.MEM64: 64}
_SMALLEST = {BarKind.IO: 4, BarKind.MEM32: 16, BarKind.MEM64: 16}
_LARGEST = {BarKind.IO: 1 << 15, BarKind.MEM32: 1 << 31, BarKind.MEM64: 1 << 62}


@dataclass(frozen=True)
class Bar:
    """Register ``number`` (0-5) asks for ``size`` bytes, which is rounded up to a power of two.

    The least is what the register can express: 4 ports, 16 bytes of memory. Raises ValueError for what no BAR can be.
    """

    number: int
    kind: BarKind
    size: int

    def __post_init__(self) -> None:
        last = self.number + (self.kind is BarKind.MEM64)
        if not 0 <= self.number <= last <= pci.PCIR_MAX_BAR_0 or not 0 < self.size <= _LARGEST[self.kind]:
            raise ValueError(f"BAR {self.number} cannot be {self.size:,} bytes of {self.kind.value}")
        object.__setattr__(self, "size", max(1 << (self.size - 1).bit_length(), _SMALLEST[self.kind]))

    @property
    def offset(self) -> int:
        """Where the register is in configuration space."""
        return pci.PCIR_BARS + 4 * self.number

    @property
    def width(self) -> int:
        """Bytes of the register: 4 or 8."""
        return 8 if self.kind is BarKind.MEM64 else 4

    @property
    def mask(self) -> int:
        """The register's bits that can be written: those of the address above the size (PCI 3.0 §6.2.5.1)."""
        return ((1 << self.kind.address_bits) - 1) & -self.size

    @property
    def enable(self) -> int:
        """The command bit that makes it decoded."""
        return pci.PCIM_CMD_PORTEN if self.kind is BarKind.IO else pci.PCIM_CMD_MEMEN


class Window:
    """Addresses ``[start, end)`` that are handed out first-fit."""

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self._taken: list[tuple[int, int]] = []

    def allocate(self, size: int) -> int | None:
        """Return the lowest free address for ``size`` bytes, a power of two and aligned to itself, or None."""
        address = self._find(size)
        if address is not None:
            insort(self._taken, (address, address + size))
        return address

    def _find(self, size: int) -> int | None:
        address = -(-self.start // size) * size
        for start, end in self._taken:
            if address + size <= start:
                break
            address = max(address, -(-end // size) * size)
        return address if address + size <= self.end else None

    def clear(self) -> None:
        """Take everything back."""
        self._taken.clear()

    @property
    def largest(self) -> int:
        """The most bytes that :meth:`allocate` would give, 0 if none."""
        size = 1 << self.end.bit_length()
        while size and self._find(size) is None:
            size >>= 1
        return size


IO_WINDOW = (0x2000, 0x10000)
"""Ports for I/O BARs (netmap-abi 5a.11)."""
MEM32_WINDOW = (0xC0000000, 0xE0000000)
"""Addresses for memory BARs below 4 GB: from the end of low memory to the ECAM (netmap-abi 5a.11)."""
MEM64_WINDOW = (0xD000000000, 0xFD00000000)
"""Addresses for 64-bit memory BARs (netmap-abi 5a.11), where the processor's addresses reach that far."""
MEM64_THRESHOLD = 32 << 20
"""A 64-bit BAR up to this size is put below 4 GB while there is room, where every driver can reach it."""


def mem64_window(memory_end: int, address_bits: int) -> tuple[int, int]:
    """Return addresses for 64-bit BARs above ``memory_end``, on a processor with ``address_bits`` physical bits.

    It is :data:`MEM64_WINDOW` where that is possible, else the upper half of what can be addressed above memory: a
    desktop processor with 39 bits ends at 0x8000000000. Aligned to 4 GB; empty if there is no room at all.
    """
    start, end = MEM64_WINDOW
    limit = 1 << address_bits
    if memory_end <= start and end <= limit:
        return start, end
    start = max(-(-memory_end >> 32) << 32, limit >> 1)
    return (start, limit) if start < limit else (limit, limit)


class Windows:
    """The firmware's stock of addresses, one window for each kind of BAR."""

    def __init__(self, mem64: tuple[int, int] = MEM64_WINDOW) -> None:
        self.io = Window(*IO_WINDOW)
        self.mem32 = Window(*MEM32_WINDOW)
        self.mem64 = Window(*mem64)

    def order(self, bar: Bar) -> tuple[Window, ...]:
        """Return the windows that a BAR may lie in, the preferred one first."""
        if bar.kind is BarKind.IO:
            return (self.io,)
        if bar.kind is BarKind.MEM32:
            return (self.mem32,)
        return (self.mem32, self.mem64) if bar.size <= MEM64_THRESHOLD else (self.mem64, self.mem32)

    def allocate(self, bar: Bar) -> int | None:
        """Return an address for ``bar``, or None where no window has room."""
        for window in self.order(bar):
            address = window.allocate(bar.size)
            if address is not None:
                return address
        return None

    def clear(self) -> None:
        """Take everything back."""
        for window in (self.io, self.mem32, self.mem64):
            window.clear()

# SPDX-License-Identifier: BSD-2-Clause
"""Where a loader puts things in guest memory, and what it tells the guest of that memory.

====================== ================================================================================================
address                what
====================== ================================================================================================
0x00500                global descriptor table
0x01000 - 0x07000      page tables: the first 4 GiB, mapped to themselves
0x07000                Linux's boot parameters, or PVH's start information, memory map and module list
0x08ff0                stack, downwards, for entry points that expect one
0x20000 - 0x9fc00      command line
0xf0000 - 0x100000     MP table, ACPI tables
0x100000 ...           kernel, where it prefers; the initrd as high as it may
====================== ================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ptnetmap.abi.boot import E820_RAM, E820_RESERVED

GDT = 0x500
"""The descriptor table of the start."""
PAGE_TABLES = 0x1000
"""Six pages: top level, pointers, four directories."""
PARAMETERS = 0x7000
"""One page: Linux's boot parameters, or PVH's start information and what it points to."""
STACK = 0x8FF0
"""Top of a small stack."""
CMDLINE = 0x20000
"""The command line."""
EBDA = 0x9FC00
"""End of the memory below the BIOS's, as on most PCs."""
VGA = 0xA0000
"""End of conventional memory."""
BIOS = 0xF0000
"""Where firmware tables are looked for."""
MP_TABLE = 0xF0000
"""Where bhyve has its MP table."""
ACPI_TABLES = 0xF2400
"""Where bhyve has its ACPI tables."""
HIGH_MEMORY = 0x100000
"""End of the firmware tables, and first address for kernels."""
HIGH_BASE = 4 << 30
"""Where RAM continues beyond that."""
ECAM = 0xE0000000
"""Memory-mapped configuration space of PCI."""
ECAM_SIZE = 256 << 20
"""256 buses of 1 MiB."""
IOAPIC = 0xFEC00000
"""Registers of the I/O APIC."""
LAPIC = 0xFEE00000
"""Registers of every processor's local APIC."""
SMALLEST = 8 << 20
"""Less guest memory than this holds no kernel."""


class Memory(Protocol):
    """What a loader asks of guest memory; as new it must be all zero."""

    @property
    def low_size(self) -> int:
        """Bytes from address 0 on."""

    @property
    def high_size(self) -> int:
        """Bytes from 4 GiB on."""

    def view(self, gpa: int, length: int) -> memoryview:
        """Return a range, to be written in place; raises GuestError (EFAULT)."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Store ``data``; raises GuestError (EFAULT)."""


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` bytes of physical addresses from ``addr``, with an ``E820_*`` type."""

    addr: int
    size: int
    type: int


def memory_map(low_size: int, high_size: int) -> list[Range]:
    """Return what the guest is told of its addresses, for memories of these sizes in bytes (netmap-abi 7.5).

    The window of configuration space is reserved here too: Linux does not use it otherwise.
    """
    ranges = [
        Range(0, EBDA, E820_RAM),
        Range(EBDA, VGA - EBDA, E820_RESERVED),
        Range(BIOS, HIGH_MEMORY - BIOS, E820_RESERVED),
        Range(HIGH_MEMORY, low_size - HIGH_MEMORY, E820_RAM),
        Range(ECAM, ECAM_SIZE, E820_RESERVED),
    ]
    if high_size:
        ranges.append(Range(HIGH_BASE, high_size, E820_RAM))
    return ranges

# SPDX-License-Identifier: BSD-2-Clause
"""The two ways to a configuration register: ports 0xcf8 and 0xcfc, and the memory-mapped ECAM.

Both turn an access into a configuration cycle of the bus (PCI 3.0 §3.2.2.3.2; PCI Express base 3.0 §7.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.function import Function

ECAM_BASE = 0xE0000000
"""Where configuration space is mapped: 1 MiB a bus, 4 KiB a function (netmap-abi 7.5)."""
ECAM_SIZE = 256 << 20
"""Bytes of it: 256 buses."""


class ConfigCycles(Protocol):
    """What carries out configuration cycles: the bus."""

    def read_config(self, function: Function, offset: int, size: int) -> int:
        """Return ``size`` bytes of a function's configuration space."""

    def write_config(self, function: Function, offset: int, size: int, value: int) -> None:
        """Write ``size`` bytes of a function's configuration space."""


class AddressRegister:
    """Port 0xcf8: which register the data ports mean."""

    value = 0

    def read(self, offset: int, size: int) -> int:
        """Return the register."""
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        """Set the bits that it keeps."""
        self.value = value & pci.CONF1_MASK


class Conf1:
    """Ports 0xcfc-0xcff: the register that the address register selects."""

    def __init__(self, bus: ConfigCycles) -> None:
        self._bus = bus
        self.address_register = AddressRegister()

    def _target(self, offset: int) -> tuple[Function, int] | None:
        value = self.address_register.value
        if not value & pci.CONF1_ENABLE:
            return None
        return Function(value >> 16 & 0xFF, value >> 11 & 0x1F, value >> 8 & 7), value & 0xFC | offset

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the selected register; ones while none is."""
        target = self._target(offset)
        return (1 << 8 * size) - 1 if target is None else self._bus.read_config(*target, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write them."""
        target = self._target(offset)
        if target is not None:
            self._bus.write_config(*target, size, value)


class Ecam:
    """The configuration space of every function, in memory."""

    def __init__(self, bus: ConfigCycles) -> None:
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the function that the address names."""
        function = Function(offset >> 20, offset >> 15 & 0x1F, offset >> 12 & 7)
        return self._bus.read_config(function, offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write them."""
        function = Function(offset >> 20, offset >> 15 & 0x1F, offset >> 12 & 7)
        self._bus.write_config(function, offset & 0xFFF, size, value)


class Silent:
    """Ports that are decoded and do nothing."""

    def read(self, offset: int, size: int) -> int:
        """Return ones."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Do nothing."""


def aligned(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut an access into aligned ones of 1, 2 and 4 bytes, as the bus would carry them."""
    end = offset + size
    while offset < end:
        width = 4
        while offset % width or offset + width > end:
            width //= 2
        yield offset, width
        offset += width

# SPDX-License-Identifier: BSD-2-Clause
"""Configuration space: 256 bytes, of which the guest can change what a mask allows.

Pure: a write changes the bytes and returns what it meant. Header type 0 (PCI 3.0 §6.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.bar import Bar


@dataclass(frozen=True)
class Capability:
    """A capability at ``offset``, ``size`` bytes with its id and link (PCI 3.0 §6.7)."""

    id: int
    offset: int
    size: int


@dataclass(frozen=True)
class BarsChanged:
    """A write changed the address in some BARs: their ``numbers``."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class CommandChanged:
    """A write changed the command register from ``old`` to ``new``."""

    old: int
    new: int


@dataclass(frozen=True)
class CapabilityWritten:
    """A write touched a capability, changing it or not: ``size`` bytes from ``offset`` within it."""

    capability: Capability
    offset: int
    size: int


Effect: TypeAlias = BarsChanged | CommandChanged | CapabilityWritten

_COMMAND = (
    pci.PCIM_CMD_PORTEN
    | pci.PCIM_CMD_MEMEN
    | pci.PCIM_CMD_BUSMASTEREN
    | pci.PCIM_CMD_PERRESPEN
    | pci.PCIM_CMD_SERRESPEN
    | pci.PCIM_CMD_INTxDIS
)


class ConfigSpace:
    """A function's registers, with the standard ones writable as PCI 3.0 §6.2 has them.

    The device model presets bytes, allows writes, adds BARs and capabilities; then the guest reads and writes.
    Accesses are ``size`` bytes (1-8) at any ``offset``; bytes past the end read as ones and take no writes.
    """

    def __init__(self) -> None:
        size = pci.PCI_CONFIG_SIZE
        self._now = bytearray(size)
        self._initial = bytearray(size)
        self._writable = bytearray(size)
        self._clearable = bytearray(size)
        self._owner: list[Capability | None] = [None] * size
        self.bars: list[Bar] = []
        self.capabilities: list[Capability] = []
        self.allow(pci.PCIR_COMMAND, 2, _COMMAND)
        self.allow(pci.PCIR_STATUS, 2, pci.PCIM_STATUS_ERRORS, clear=True)
        for offset in (pci.PCIR_CACHELNSZ, pci.PCIR_LATTIMER, pci.PCIR_INTLINE):
            self.allow(offset, 1, 0xFF)

    # --- description -----------------------------------------------------------------------------------------------

    def preset(self, offset: int, size: int, value: int) -> None:
        """Set ``size`` bytes, now and after every reset; raises ValueError outside of the space."""
        data = self._field(offset, size, value)
        self._now[offset : offset + size] = data
        self._initial[offset : offset + size] = data

    def store(self, offset: int, size: int, value: int) -> None:
        """Set ``size`` bytes until the guest or a reset changes them, whatever the masks are."""
        self._now[offset : offset + size] = self._field(offset, size, value)

    def allow(self, offset: int, size: int, mask: int, *, clear: bool = False) -> None:
        """Let the guest write the bits of ``mask``, and no others of these bytes; with ``clear``, ones clear them."""
        data = self._field(offset, size, mask)
        wanted, other = (self._clearable, self._writable) if clear else (self._writable, self._clearable)
        wanted[offset : offset + size] = data
        for i, bits in enumerate(data, offset):
            other[i] &= ~bits & 0xFF

    def add_bar(self, bar: Bar) -> None:
        """Add a base address register; raises ValueError if another one has it."""
        registers = set(range(bar.offset, bar.offset + bar.width))
        for other in self.bars:
            if registers & set(range(other.offset, other.offset + other.width)):
                raise ValueError(f"BAR {bar.number} overlaps BAR {other.number}")
        self.bars.append(bar)
        self.bars.sort(key=lambda one: one.number)
        self.preset(bar.offset, bar.width, bar.kind.flags)
        self.allow(bar.offset, bar.width, bar.mask)

    def add_capability(self, id: int, body: bytes, writable: bytes = b"", at: int | None = None) -> Capability:
        """Append a capability; ``body`` and its mask ``writable`` begin after id and link.

        It gets the lowest free place, a multiple of 4, or the offset ``at``; other registers of the device that were
        allowed or preset there are not known to be taken. Raises ValueError when it does not fit.
        """
        size = 2 + len(body)
        places = range(pci.PCI_HEADER_SIZE, pci.PCI_CONFIG_SIZE - size + 1, 4) if at is None else (at,)
        for offset in places:
            if pci.PCI_HEADER_SIZE <= offset <= pci.PCI_CONFIG_SIZE - size and not any(
                self._owner[offset : offset + size]
            ):
                break
        else:
            raise ValueError(f"no room for {size} bytes of capability {id:#x}")
        capability = Capability(id, offset, size)
        self.preset(offset, size, int.from_bytes(bytes([id, 0]) + body, "little"))
        if writable:
            self.allow(offset + 2, len(writable), int.from_bytes(writable, "little"))
        link = self.capabilities[-1].offset + 1 if self.capabilities else pci.PCIR_CAP_PTR
        self.preset(link, 1, offset)
        self.capabilities.append(capability)
        self._owner[offset : offset + size] = [capability] * size
        status = self._initial[pci.PCIR_STATUS] | pci.PCIM_STATUS_CAPPRESENT
        self.preset(pci.PCIR_STATUS, 1, status)
        return capability

    def _field(self, offset: int, size: int, value: int) -> bytes:
        if offset < 0 or size <= 0 or offset + size > pci.PCI_CONFIG_SIZE:
            raise ValueError(f"{size} bytes at {offset:#x} are not in configuration space")
        return value.to_bytes(size, "little")

    # --- state -----------------------------------------------------------------------------------------------------

    @property
    def command(self) -> int:
        """The command register, ``PCIM_CMD_*``."""
        return self.read(pci.PCIR_COMMAND, 2)

    def set_status(self, bits: int, on: bool) -> None:
        """Set or clear ``bits`` of the status register."""
        status = self.read(pci.PCIR_STATUS, 2) & ~bits | (bits if on else 0)
        self.store(pci.PCIR_STATUS, 2, status)

    def address(self, bar: Bar) -> int:
        """Return the address that is in a BAR."""
        return self.read(bar.offset, bar.width) & bar.mask

    def assign(self, bar: Bar, address: int) -> None:
        """Put an address in a BAR, as the firmware does; raises ValueError for one that the register cannot hold."""
        if address & ~bar.mask:
            raise ValueError(f"BAR {bar.number} cannot hold {address:#x}")
        self.store(bar.offset, bar.width, address | bar.kind.flags)

    def decoded(self, bar: Bar) -> int | None:
        """Return where a BAR is decoded, None if the command register does not enable it."""
        return self.address(bar) if self.command & bar.enable else None

    def reset(self) -> None:
        """Return to the preset bytes."""
        self._now[:] = self._initial

    # --- the guest -------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes."""
        return int.from_bytes(self._now[offset : offset + size].ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> list[Effect]:
        """Change what may be changed of ``size`` bytes, and return what that meant."""
        old_command = self.command
        old_addresses = [self.address(bar) for bar in self.bars]
        end = min(offset + size, pci.PCI_CONFIG_SIZE)
        for i in range(offset, end):
            byte = value >> 8 * (i - offset) & 0xFF
            mask = self._writable[i]
            self._now[i] = (self._now[i] & ~mask | byte & mask) & ~(byte & self._clearable[i])
        effects: list[Effect] = []
        moved = tuple(bar.number for bar, old in zip(self.bars, old_addresses, strict=True) if self.address(bar) != old)
        if moved:
            effects.append(BarsChanged(moved))
        if self.command != old_command:
            effects.append(CommandChanged(old_command, self.command))
        for capability in self.capabilities:
            first, last = max(offset, capability.offset), min(end, capability.offset + capability.size)
            if first < last:
                effects.append(CapabilityWritten(capability, first - capability.offset, last - first))
        return effects

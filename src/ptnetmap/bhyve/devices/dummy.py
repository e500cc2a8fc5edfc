# SPDX-License-Identifier: BSD-2-Clause
"""dummy: a device to try a PCI bus with; three BARs that remember what was written, and interrupts on demand."""

from __future__ import annotations

from collections.abc import Mapping

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.function import Function

VENDOR, DEVICE = 0x10DD, 0x0001
PORTS = 8
"""Bytes of BAR 0."""
MEMORY = 4096
"""Bytes of BAR 1, and of BAR 2."""
MESSAGES = 4
"""MSI messages."""
INTERRUPT_OFFSET = 4
"""Where a write of 4 bytes to BAR 0 sends the message of that number, modulo those allowed."""
INTERRUPT_ALL = 0xABCDEF
"""What, written anywhere in BAR 0, sends all messages."""


@register
class Dummy(PciDevice):
    """The device."""

    name = "dummy"

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        self.identify(vendor_id=VENDOR, device_id=DEVICE, class_code=pci.PCIC_NETWORK << 16)
        self._messages = self.add_msi(MESSAGES)
        self.add_bar(0, BarKind.IO, PORTS)
        self.add_bar(1, BarKind.MEM32, MEMORY)
        self.add_bar(2, BarKind.MEM32, MEMORY)
        self._contents = {number: bytearray(bar.size) for number, bar in self.bars.items()}

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Return what was written."""
        return int.from_bytes(self._contents[bar][offset : offset + size], "little")

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Remember it; in BAR 0, send messages if that is what it means."""
        self._contents[bar][offset : offset + size] = value.to_bytes(size, "little")
        if bar or not self._messages.enabled:
            return
        if offset == INTERRUPT_OFFSET and size == 4:
            self.interrupt(value % self._messages.allowed)
        if value == INTERRUPT_ALL:
            for vector in range(self._messages.allowed):
                self.interrupt(vector)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        for contents in self._contents.values():
            contents[:] = bytes(len(contents))

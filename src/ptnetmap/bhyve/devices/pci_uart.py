# SPDX-License-Identifier: BSD-2-Clause
"""uart: a serial port on the PCI bus."""

from __future__ import annotations

from collections.abc import Mapping

from ptnetmap.abi import pci
from ptnetmap.bhyve.devices import uart
from ptnetmap.bhyve.devices.serial import SerialPort
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.function import Function

VENDOR, DEVICE = 0x131F, 0x2000
"""What bhyve's says it is: a CyberSerial by SIIG, one port in BAR 0, which guests know."""


@register
class PciUart(PciDevice):
    """A 16550A in BAR 0, with an interrupt pin. Option ``path``: what it is connected to, as in ``-l com1,path``."""

    name = "uart"

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        self.identify(vendor_id=VENDOR, device_id=DEVICE, class_code=pci.PCIC_SIMPLECOMM << 16)
        self.add_bar(0, BarKind.IO, uart.PORTS)
        self.use_intx()
        self.serial = SerialPort(host, f"uart {function}", self._drive)
        if options.get("path"):
            self.serial.connect(options["path"])

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """Return ``text`` as the path; it may have commas and equals signs of its own."""
        return {"path": text} if text else {}

    def _drive(self, level: bool) -> None:
        if level:
            self.interrupt()
        else:
            self.deassert()

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Return registers."""
        return self.serial.read(offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write registers."""
        self.serial.write(offset, size, value)

    def reset(self) -> None:
        """Return to the state after power-on."""
        super().reset()
        self.serial.reset()

    def close(self) -> None:
        """Deliver what the guest has sent, and let the console go."""
        super().close()
        self.serial.close()

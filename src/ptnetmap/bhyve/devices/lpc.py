# SPDX-License-Identifier: BSD-2-Clause
"""lpc: the bridge to the serial ports at a PC's fixed places, and the PIRQ routing registers.

The ports are configured by ``-l``, not by ``-s``: their keys are ``lpc.com1.path`` and so on. All four exist, as in
bhyve; one that is configured to nothing sends to nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ptnetmap.abi import pci
from ptnetmap.bhyve.devices import uart
from ptnetmap.bhyve.devices.serial import SerialPort
from ptnetmap.bhyve.host import Host, Line
from ptnetmap.bhyve.iospace import Region
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

COM_PORTS: Mapping[str, tuple[int, int]] = {
    "com1": (0x3F8, 4),
    "com2": (0x2F8, 3),
    "com3": (0x3E8, 4),
    "com4": (0x2E8, 3),
}
"""First port and IRQ of each serial port."""

VENDOR, DEVICE = 0x8086, 0x7000
"""What bhyve's bridge says it is: the ISA bridge of Intel's PIIX3."""

PIRQ_A, PIRQ_E = 0x60, 0x68
"""Configuration registers of wires A-D and E-H, a byte each."""


class SharedIrq:
    """An ISA interrupt that several devices raise: it is high while any of them wants it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._wanting: set[str] = set()

    def set(self, name: str, level: bool) -> None:
        """Say what the device ``name`` wants."""
        before = bool(self._wanting)
        (self._wanting.add if level else self._wanting.discard)(name)
        if bool(self._wanting) != before:
            self._line.set(not before)

    def close(self) -> None:
        """Let go of it."""
        self._line.close()


@register
class Lpc(PciDevice):
    """The bridge, of which a machine has one, on bus 0; ``serial_ports`` are those behind it, by name."""

    name = "lpc"

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        if function.bus:
            raise ConfigError("LPC bridge can be present only on bus 0.\n        write -s SLOT,lpc without a bus")
        self.identify(vendor_id=VENDOR, device_id=DEVICE, class_code=pci.PCIC_BRIDGE << 16 | pci.PCIS_BRIDGE_ISA << 8)
        self.serial_ports: dict[str, SerialPort] = {}
        self._regions: list[Region] = []
        self._irqs: dict[int, SharedIrq] = {}
        try:
            for name, (port, irq) in COM_PORTS.items():
                self._add_serial_port(name, port, irq)
        except BaseException:
            self.close()
            raise

    def _add_serial_port(self, name: str, port: int, irq: int) -> None:
        if irq not in self._irqs:
            self._irqs[irq] = SharedIrq(self.host.interrupts.line(irq))
        serial = SerialPort(self.host, name, partial(self._irqs[irq].set, name))
        try:
            self._regions.append(self.host.ports.add(port, uart.PORTS, serial))
        except ValueError:
            raise ConfigError(
                "Only one LPC bridge is allowed.\n        leave out one of -s SLOT,lpc: all serial ports are on the other"
            ) from None
        self.serial_ports[name] = serial
        backend = self.host.options.get(f"lpc.{name}.path")
        if backend:
            serial.connect(backend)

    def config_read(self, offset: int, size: int) -> int:
        """Return registers, those of the interrupt wires from where these are."""
        value = super().config_read(offset, size)
        for i in range(size):
            wire = _wire(offset + i)
            if wire is not None and self.bus is not None:
                value = value & ~(0xFF << 8 * i) | self.bus.intx.read(wire) << 8 * i
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Write registers, those of the interrupt wires to where these are."""
        for i in range(size):
            wire = _wire(offset + i)
            if wire is not None and self.bus is not None:
                self.bus.intx.write(wire, value >> 8 * i & 0xFF)
        super().config_write(offset, size, value)

    def reset(self) -> None:
        """Return to the state after power-on, the serial ports too."""
        super().reset()
        for serial in self.serial_ports.values():
            serial.reset()

    def close(self) -> None:
        """Deliver what the guest has sent, and give everything back. Harmless when repeated."""
        super().close()
        while self._regions:
            self.host.ports.remove(self._regions.pop())
        for serial in self.serial_ports.values():
            serial.close()
        while self._irqs:
            self._irqs.popitem()[1].close()


def _wire(offset: int) -> int | None:
    """Return the wire whose PIRQ register is at ``offset``, 0-7, or None."""
    for first, start in ((0, PIRQ_A), (4, PIRQ_E)):
        if start <= offset < start + 4:
            return first + offset - start
    return None

# SPDX-License-Identifier: BSD-2-Clause
"""What firmware tables say of a machine: processors, interrupt routes, windows, ports."""

from __future__ import annotations

from dataclasses import dataclass

from ptnetmap.bhyve.pci import intx
from ptnetmap.bhyve.pci.bar import MEM32_WINDOW, MEM64_WINDOW
from ptnetmap.errors import ConfigError

_MOST_CPUS = 1024


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A 16550 on the LPC bus: ``unit`` from 1 (COM1), first of 8 ``port`` s, ISA's ``irq``."""

    unit: int
    port: int
    irq: int


COM = {
    "com1": SerialPort(1, 0x3F8, 4),
    "com2": SerialPort(2, 0x2F8, 3),
    "com3": SerialPort(3, 0x3E8, 4),
    "com4": SerialPort(4, 0x2E8, 3),
}
"""bhyve's serial ports, by the name that ``-l`` has for them."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A machine, as its firmware tables describe it.

    ``cpus`` processors have the APIC ids from 0 on. ``lpc`` is slot and function of the LPC bridge, or None;
    ``serial`` the ports behind it. ``routes`` say where the pins of bus 0 go, ``mem32`` and ``mem64`` are first and
    last-plus-one address of the windows for PCI's memory (``mem64`` may be empty). ``timer_gsi`` is where ISA's
    interrupt 0 arrives (2, on nearly all PCs), ``sci`` is ACPI's interrupt. ``pm_timer`` is the port of ACPI's timer,
    or None; ``smi_command`` the port that switches ACPI on, or 0: it is always on. ``last_bus`` is the last PCI bus that
    has devices: a guest looks for more of them on each bus that it is told of, with an exit or two for every slot. Raises
    ConfigError for more processors than tables can hold.
    """

    cpus: int = 1
    lpc: tuple[int, int] | None = None
    serial: tuple[SerialPort, ...] = ()
    routes: tuple[intx.Route, ...] = intx.routes()
    mem32: tuple[int, int] = MEM32_WINDOW
    mem64: tuple[int, int] = MEM64_WINDOW
    timer_gsi: int = 2
    sci: int = 9
    pm_timer: int | None = None
    smi_command: int = 0
    last_bus: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.cpus <= _MOST_CPUS:
            raise ConfigError(f"bhyve: cannot describe {self.cpus} processors\n        give 1 to {_MOST_CPUS:,} (-c)")

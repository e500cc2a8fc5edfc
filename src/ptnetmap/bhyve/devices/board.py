# SPDX-License-Identifier: BSD-2-Clause
"""What every machine has without being asked: clock, power management, keyboard controller, and the POST code port.

Interrupt controllers, the interval timer, its gate and speaker (port 0x61) and the edge/level registers (0x4d0) are in
the kernel's part of the machine.
"""

from __future__ import annotations

from functools import partial

from ptnetmap.bhyve.devices.clock import Clock
from ptnetmap.bhyve.devices.i8042 import COMMAND_PORT, DATA_PORT, CommandPort, DataPort, KeyboardController
from ptnetmap.bhyve.devices.pm import PowerManagement
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.iospace import Handler, Region

POST_PORT = 0x80
"""Where firmware says how far it is, and where systems write to let some time pass."""


class PostCode:
    """The port that shows how far firmware is: ``code`` is the last one."""

    def __init__(self) -> None:
        self.code = 0

    def read(self, offset: int, size: int) -> int:
        """Return the last code."""
        return self.code

    def write(self, offset: int, size: int, value: int) -> None:
        """Show a code."""
        self.code = value & 0xFF


class Board:
    """All of that in ``host``; with ``acpi_always_on`` a guest cannot and need not switch ACPI on."""

    def __init__(self, host: Host, *, acpi_always_on: bool = False) -> None:
        self._host = host
        self._regions: list[Region] = []
        self.post = PostCode()
        self.keyboard = KeyboardController(partial(host.suspend, "reset"))
        self.clock = Clock(host)
        try:
            self.pm = PowerManagement(host, always_on=acpi_always_on)
        except BaseException:
            self.clock.close()
            raise
        places: tuple[tuple[int, Handler], ...] = (
            (POST_PORT, self.post),
            (DATA_PORT, DataPort(self.keyboard)),
            (COMMAND_PORT, CommandPort(self.keyboard)),
        )
        try:
            for port, handler in places:
                self._regions.append(host.ports.add(port, 1, handler))
        except BaseException:
            self.close()
            raise

    def reset(self) -> None:
        """Do what the machine's reset does to them."""
        for part in (self.clock, self.pm, self.keyboard):
            part.reset()

    def close(self) -> None:
        """Give back ports and lines. Harmless when repeated."""
        while self._regions:
            self._host.ports.remove(self._regions.pop())
        self.pm.close()
        self.clock.close()

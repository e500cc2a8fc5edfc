# SPDX-License-Identifier: BSD-2-Clause
"""A serial port of the machine: a UART between the guest's accesses, a console and an interrupt."""

from __future__ import annotations

import signal
from collections.abc import Callable

from ptnetmap.bhyve.devices.console import Console, parse_backend
from ptnetmap.bhyve.devices.uart import Uart
from ptnetmap.bhyve.host import Host


class SerialPort:
    """A 16550A called ``name``; ``interrupt`` is called with the level of its interrupt whenever that changes.

    It answers accesses as a region of ports does, and takes the console's input; both with the machine's lock held.
    Until it is connected, what it sends is gone.
    """

    def __init__(self, host: Host, name: str, interrupt: Callable[[bool], None]) -> None:
        self.name = name
        self._host = host
        self._interrupt = interrupt
        self._level = False
        self.uart = Uart()
        self.console: Console | None = None

    def connect(self, backend: str) -> None:
        """Connect it to what ``backend`` says, as ``-l name,backend``, for good; raises ConfigError."""
        other_end = parse_backend(self.name, backend, self._command)
        self.console = Console(other_end, self, self._host.lock, self._host.loop)
        self.settle()

    # --- the guest -------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` registers from ``offset``, each a byte."""
        value = 0
        for i in range(size):
            value |= self.uart.read(offset + i) << 8 * i
        self._pump()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Write ``size`` registers from ``offset``, each a byte."""
        for i in range(size):
            self.uart.write(offset + i, value >> 8 * i & 0xFF)
        self._pump()

    # --- the console -----------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that the UART can receive."""
        return self.uart.room

    def receive(self, data: bytes) -> None:
        """Receive bytes, no more than there is :attr:`room` for."""
        self.uart.receive(data)
        self.settle()

    def settle(self) -> None:
        """Follow the console's readiness, and the UART's interrupt."""
        if self.console is not None:
            self.uart.ready = self.console.is_ready
        level = self.uart.interrupt
        if level != self._level:
            self._level = level
            self._interrupt(level)

    def reset(self) -> None:
        """Return to the state after power-on; what the guest has sent is still delivered."""
        self.uart.reset()
        self.settle()

    def close(self) -> None:
        """Deliver what the guest has sent, and let the console go. Harmless when repeated."""
        if self.console is not None:
            self.console.close()

    def _pump(self) -> None:
        output = self.uart.take_output()
        returned = self.uart.take_returned()
        if self.console is not None:
            self.console.put_back(returned)
            if output:
                self.console.write(output)
            if self.uart.room:
                self.console.deliver()
        self.settle()

    def _command(self, command: str) -> None:
        if command == "button":
            signal.raise_signal(signal.SIGTERM)  # which is what the power button is wired to
        else:
            self._host.suspend(command)

# SPDX-License-Identifier: BSD-2-Clause
"""A machine's life, from its configuration to an exit code: signals, ``bhyvectl``, and the end of the guest."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

from ptnetmap.bhyve.config import Config
from ptnetmap.bhyve.control.server import ControlServer
from ptnetmap.bhyve.machine import Machine
from ptnetmap.bhyve.status import ERROR, SUSPENDED

_SAID = {
    "reset": "the guest was reset",
    "poweroff": "the guest powered off",
    "halt": "the guest halted",
    "triplefault": "the guest ended by a triple fault",
}


def run(config: Config) -> int:
    """Run the machine of a configuration until its guest ends; return the exit code.

    Raises ConfigError, HypervisorError, GuestError and ControlError for a machine that cannot be started.
    """
    return asyncio.run(_run(config))


async def _run(config: Config) -> int:
    loop = asyncio.get_running_loop()
    session = _Session()
    server = ControlServer(config["name"], session.actions)
    server.claim()
    try:
        with Machine(config, loop) as machine:
            session.machine = machine
            for number, handler in ((signal.SIGTERM, session.press_power_button), (signal.SIGINT, session.interrupt)):
                loop.add_signal_handler(number, handler)
            await server.start()
            machine.start()
            await machine.ended.wait()
            if config.boolean("destroy_on_poweroff") and machine.how == "poweroff":
                await server.close()
            # The threads of processors may be waiting for the lock, so it is not held here.
            await loop.run_in_executor(None, machine.processors.stop)
            how, error = machine.how, machine.error
    finally:
        await server.close()
    if error is not None:
        print(f"bhyve: {error}", file=sys.stderr)
        return ERROR
    assert how is not None
    if how == "triplefault":
        print(f"bhyve: {_SAID[how]}", file=sys.stderr)
    return SUSPENDED[how]


class _Session:
    """What signals and ``bhyvectl`` may ask of the machine."""

    def __init__(self) -> None:
        self.machine: Machine | None = None

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The commands of the control socket."""
        return {
            "get-stats": self._stats,
            "force-reset": lambda: self._suspend("reset"),
            "force-poweroff": lambda: self._suspend("poweroff"),
            "power-button": self._power_button,
            "inject-nmi": self._inject_nmi,
            "destroy": lambda: self._suspend("poweroff"),
        }

    def press_power_button(self) -> None:
        """Ask the guest to shut down; one that does not listen is powered off."""
        machine = self.machine
        if machine is None:
            return
        with machine.lock:
            heard = machine.board.pm.press_power_button()
        if not heard:
            machine.suspend("poweroff")

    def _power_button(self) -> bool:
        """Press the power button; return whether the guest listens to it. One that does not goes on."""
        machine = self.machine
        if machine is None:
            return False
        with machine.lock:
            return machine.board.pm.press_power_button()

    def interrupt(self) -> None:
        """End the guest at once."""
        self._suspend("poweroff")

    def _suspend(self, how: str) -> None:
        if self.machine is not None:
            self.machine.suspend(how)

    def _inject_nmi(self) -> None:
        if self.machine is not None:
            self.machine.processors.inject_nmi()

    def _stats(self) -> dict[str, dict[str, int]]:
        return self.machine.stats() if self.machine is not None else {}

# SPDX-License-Identifier: BSD-2-Clause
"""A keyboard controller without a keyboard: it answers for itself, and resets the machine.

Systems look for it, and many reset through it. Its commands are those that a probe uses; what is sent to the keyboard
or the mouse is lost, as with nothing plugged in. Interrupts (IRQ 1 and 12) never come: there is nothing to tell.

Source: IBM Personal System/2 hardware interface technical reference, keyboard and auxiliary device controller.
"""

from __future__ import annotations

from collections.abc import Callable

DATA_PORT, COMMAND_PORT = 0x60, 0x64

STATUS_OUTPUT, STATUS_SYSTEM, STATUS_COMMAND, STATUS_UNLOCKED = 0x01, 0x04, 0x08, 0x10
READ_RAM, WRITE_RAM = 0x20, 0x60
DISABLE_AUX, ENABLE_AUX, TEST_AUX = 0xA7, 0xA8, 0xA9
SELF_TEST, TEST_KEYBOARD, DISABLE_KEYBOARD, ENABLE_KEYBOARD = 0xAA, 0xAB, 0xAD, 0xAE
READ_INPUTS, READ_OUTPUTS, WRITE_OUTPUTS = 0xC0, 0xD0, 0xD1
PULSE_OUTPUTS = 0xF0
SELF_TEST_PASSED, CLOCK_STUCK_LOW = 0x55, 0x01
CTR_SYSTEM, CTR_KEYBOARD_OFF, CTR_AUX_OFF = 0x04, 0x10, 0x20
OUTPUT_NO_RESET, OUTPUT_A20 = 0x01, 0x02

_RAM_SIZE = 32
_OFF = CTR_KEYBOARD_OFF | CTR_AUX_OFF
_ANSWERS = {
    SELF_TEST: SELF_TEST_PASSED,
    TEST_AUX: CLOCK_STUCK_LOW,
    TEST_KEYBOARD: CLOCK_STUCK_LOW,
    READ_INPUTS: 0,
    READ_OUTPUTS: OUTPUT_NO_RESET | OUTPUT_A20,
}
# Bits of the command byte that commands set, and clear; the self test leaves the interfaces switched off.
_SWITCHES = {
    DISABLE_KEYBOARD: (CTR_KEYBOARD_OFF, 0),
    ENABLE_KEYBOARD: (0, CTR_KEYBOARD_OFF),
    DISABLE_AUX: (CTR_AUX_OFF, 0),
    ENABLE_AUX: (0, CTR_AUX_OFF),
    SELF_TEST: (CTR_SYSTEM | _OFF, 0),
}


class KeyboardController:
    """The controller as a pure state machine; ``reset`` is called when a guest pulls the processor's reset line."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._pull_reset = reset
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on and the firmware's test."""
        self._ram = bytearray(_RAM_SIZE)
        self._ram[0] = CTR_SYSTEM | _OFF
        self._answer: int | None = None
        self._last = 0
        self._expects: int | None = None  # the command whose data byte comes next
        self._was_command = False

    def read_data(self) -> int:
        """Return the answer to a command; what was read last if there is none."""
        if self._answer is not None:
            self._last, self._answer = self._answer, None
        return self._last

    def read_status(self) -> int:
        """Return the status."""
        status = STATUS_UNLOCKED | self._ram[0] & STATUS_SYSTEM
        status |= STATUS_COMMAND if self._was_command else 0
        return status | (STATUS_OUTPUT if self._answer is not None else 0)

    def write_data(self, value: int) -> None:
        """Take a byte: the one that a command expects, else one for the keyboard."""
        self._was_command = False
        command, self._expects = self._expects, None
        if command == WRITE_OUTPUTS:
            if not value & OUTPUT_NO_RESET:
                self._pull_reset()
        elif command is not None:
            self._ram[command - WRITE_RAM] = value

    def write_command(self, command: int) -> None:
        """Take a command."""
        self._was_command = True
        self._expects = None
        if command in _SWITCHES:
            on, off = _SWITCHES[command]
            self._ram[0] = self._ram[0] & ~off | on
        if command in _ANSWERS:
            self._answer = _ANSWERS[command]
        elif READ_RAM <= command < READ_RAM + _RAM_SIZE:
            self._answer = self._ram[command - READ_RAM]
        elif WRITE_RAM <= command < WRITE_RAM + _RAM_SIZE or command == WRITE_OUTPUTS:
            self._expects = command
        elif command >= PULSE_OUTPUTS and not command & OUTPUT_NO_RESET:
            self._pull_reset()


class DataPort:
    """The controller's data at its port, one byte."""

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        """Return the answer."""
        return self._controller.read_data()

    def write(self, offset: int, size: int, value: int) -> None:
        """Take data."""
        self._controller.write_data(value)


class CommandPort:
    """The controller's status and commands at their port, one byte."""

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        """Return the status."""
        return self._controller.read_status()

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a command."""
        self._controller.write_command(value)

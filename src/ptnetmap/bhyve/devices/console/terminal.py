# SPDX-License-Identifier: BSD-2-Clause
"""Our own terminal as the guest's: raw while the guest has it, as it was afterwards, and a way out.

In raw mode every key goes to the guest, Ctrl-C too. Ctrl-] is ours, as in telnet and virsh; the key after it says what
to do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import termios
import threading
import tty
from types import FrameType
from typing import Any

ESCAPE = 0x1D
"""Ctrl-]."""

COMMANDS = {ord("x"): "poweroff", ord("r"): "reset", ord("p"): "button", ord("?"): "help"}
"""What the key after Ctrl-] means; Ctrl-] itself is sent to the guest, and others with the Ctrl-] before them."""

HELP = (
    "\r\nCtrl-] x  end the virtual machine at once\r\nCtrl-] r  reset it\r\n"
    "Ctrl-] p  press its power button\r\nCtrl-] Ctrl-]  send Ctrl-] to the guest\r\n"
)

_FATAL = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT)


class EscapeFilter:
    """Finds commands among keys. Pure."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, keys: bytes) -> tuple[bytes, list[str]]:
        """Return what is for the guest, and the commands, of further ``keys``."""
        through = bytearray()
        commands = []
        for key in keys:
            if not self._escaped:
                if key == ESCAPE:
                    self._escaped = True
                else:
                    through.append(key)
                continue
            self._escaped = False
            if key in COMMANDS:
                commands.append(COMMANDS[key])
            elif key == ESCAPE:
                through.append(ESCAPE)
            else:
                through += bytes([ESCAPE, key])
        return bytes(through), commands


class RawMode:
    """The terminal ``fd`` in raw mode from here to :meth:`restore`, the end of the process, or a fatal signal.

    A terminal that we are only in the background of is left alone until SIGCONT finds us in the foreground.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        atexit.register(self.restore)
        if threading.current_thread() is threading.main_thread():
            for number in _FATAL:
                # Somebody who handles the signal also ends the run in good order, and restores.
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._handlers[number] = signal.signal(number, self._die)
            self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._continue)
        self._enter()

    def restore(self) -> None:
        """Make it what it was. Harmless when repeated."""
        atexit.unregister(self.restore)
        before, self._before = self._before, None
        if before is not None:
            self._set(before)
        while self._handlers:
            number, handler = self._handlers.popitem()
            if signal.getsignal(number) in (self._die, self._continue):
                signal.signal(number, handler)

    def _enter(self) -> None:
        with contextlib.suppress(OSError):  # not the terminal of our session: there is no background
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return
        with contextlib.suppress(termios.error):
            if self._before is None:
                self._before = termios.tcgetattr(self._fd)
            tty.setraw(self._fd, termios.TCSANOW)

    def _set(self, attributes: list[Any]) -> None:
        # In the background, setting attributes would stop us: SIGTTOU. Blocked, it is allowed.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            with contextlib.suppress(OSError, termios.error):  # the terminal is gone
                termios.tcsetattr(self._fd, termios.TCSANOW, attributes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _die(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number, signal.SIG_DFL)
        self.restore()
        signal.signal(number, handler)
        signal.raise_signal(number)

    def _continue(self, number: int, frame: FrameType | None) -> None:
        self._enter()

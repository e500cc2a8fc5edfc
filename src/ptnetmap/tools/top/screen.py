# SPDX-License-Identifier: BSD-2-Clause
"""The terminal while ``top`` has it: its other screen, keys one by one, and everything as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import time
import tty
from types import FrameType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.control import Control
from rich.screen import Screen as Filled

RESIZED = "resized"
"""What :meth:`Screen.key` returns when the window has another size, or the program goes on after Ctrl-Z."""

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)


class Screen:
    """A context manager for the main thread. ``keyboard`` is the terminal's descriptor, None without one to read from.

    SIGTERM and SIGHUP become SystemExit (128 + number), Ctrl-C stays KeyboardInterrupt, Ctrl-Z gives the terminal back
    for as long as the program is stopped.
    """

    def __init__(self, console: Console, keyboard: int | None) -> None:
        self._console = console
        self._keyboard = keyboard
        self._mode: list[Any] | None = None
        self._typed: list[str] = []
        self._signals: dict[signal.Signals, Any] = {}
        self._woken = -1
        self._waker = -1
        self._waker_before = -1

    def __enter__(self) -> Self:
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._waker_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        handlers = {
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
            signal.SIGTSTP: self._suspend,
            signal.SIGWINCH: lambda number, frame: None,  # the wake-up is enough
        }
        self._signals = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._waker_before)
        os.close(self._woken)
        os.close(self._waker)

    def show(self, content: RenderableType) -> None:
        """Show ``content`` from the upper left corner on, and nothing else."""
        self._console.control(Control.home())
        self._console.print(Filled(content, application_mode=True), end="")

    def key(self, deadline: float) -> str:
        """Wait for a key until ``deadline`` (of the monotonic clock); return it, RESIZED, or "" when it is time.

        Keys that send a sequence, such as arrows, are none. A terminal that is gone answers "q".
        """
        while True:
            if self._typed:
                return self._typed.pop(0)
            files = [self._woken] if self._keyboard is None else [self._woken, self._keyboard]
            ready, _, _ = select.select(files, [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return ""
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 256)
                return RESIZED
            self._typed += self._read()

    def _read(self) -> str:
        assert self._keyboard is not None
        try:
            data = os.read(self._keyboard, 64)
        except OSError:
            data = b""
        return _SEQUENCE.sub("", data.decode(errors="replace")) if data else "q"

    def _take(self) -> None:
        if self._keyboard is not None:
            self._mode = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _give_back(self) -> None:
        with contextlib.suppress(OSError, termios.error):
            self._console.set_alt_screen(False)
            self._console.show_cursor(True)
        if self._keyboard is not None and self._mode is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._mode)

    def _end(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

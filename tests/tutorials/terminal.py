# SPDX-License-Identifier: BSD-2-Clause
"""A terminal with a shell in it, as somebody has who follows a tutorial."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.tutorials.session import INTERRUPT, is_open, is_whole, matches, plain

PROMPT = "\x1e"
"""What the shell shows when it is through: a character that nothing else shows."""
_SIZE = struct.pack("HHHH", 40, 120, 0, 0)
_SECONDS_TO_END = 30


class UnexpectedError(AssertionError):
    """A terminal does not show what it should."""


class Terminal:
    """A shell in ``directory``; ``script`` is a file of its own for what is typed at its prompt."""

    def __init__(self, directory: Path, script: Path, environment: dict[str, str]) -> None:
        self._script = script
        self._shown = ""
        self._open = False  # anything may come before what is expected next
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        mode = termios.tcgetattr(slave)
        mode[3] &= ~termios.ECHO  # what is typed is no output
        termios.tcsetattr(slave, termios.TCSANOW, mode)

        def enter() -> None:
            os.login_tty(slave)
            for number in (signal.SIGINT, signal.SIGQUIT):  # whoever runs the tests may ignore them
                signal.signal(number, signal.SIG_DFL)

        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=directory,
            env={**environment, "PS1": PROMPT, "PS2": "", "TERM": "xterm"},
            preexec_fn=enter,
        )
        os.close(slave)

    def type(self, text: str, seconds: float) -> None:
        """Type lines at the shell's prompt, which may take some seconds to come.

        They are typed as a whole: later lines are not for a program that the first one starts.
        """
        deadline = time.monotonic() + seconds
        while not self._at_prompt():
            if not self._read(deadline):
                raise UnexpectedError(f"there is no prompt; the terminal shows\n{plain(self._shown)}")
        self._script.write_text(text)
        self._shown = self._shown.removesuffix(PROMPT)
        os.write(self._master, f". {self._script}\n".encode())

    def type_inside(self, text: str) -> None:
        """Type lines, or the key ^C, for the program that runs there."""
        os.write(self._master, b"\x03" if text.strip() == INTERRUPT else text.encode())

    def expect(self, expected: str, seconds: float, *, ends: bool = False) -> None:
        """Wait until exactly what is expected has been shown since the last time; ``ends`` if the shell is through then.

        Raises UnexpectedError if that is not to come any more, or does not come in time.
        """
        wanted = f"...\n{expected}" if self._open else expected
        deadline = time.monotonic() + seconds
        while True:
            through = self._at_prompt()
            # What ends in the middle of a line may be half of it, and only what stands for nothing else is there as a whole.
            whole = through or self._shown.endswith("\n") or is_whole(wanted)
            if whole and (through or not ends) and matches(wanted, plain(self._shown.removesuffix(PROMPT))):
                break
            if through:
                raise UnexpectedError(self._difference(wanted, "is through, and"))
            if not self._read(deadline):
                raise UnexpectedError(self._difference(wanted, f"after {seconds:g} seconds"))
        self._open = is_open(expected)
        self._shown = PROMPT if through else ""

    def finish(self) -> None:
        """See that the shell has nothing to do, and that nothing was shown that nobody looked at."""
        self.expect("...\n" if self._open else "", _SECONDS_TO_END, ends=True)

    def _difference(self, wanted: str, when: str) -> str:
        return f"{when} the terminal shows\n{plain(self._shown.removesuffix(PROMPT))}\nand not\n{wanted}"

    def _at_prompt(self) -> bool:
        return self._shown.endswith(PROMPT)

    def _read(self, deadline: float) -> bool:
        """Take what is written; False if nothing is until the deadline, or nobody is left to write."""
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
            return False
        try:
            self._shown += os.read(self._master, 1 << 16).decode(errors="replace")
        except OSError:  # the shell has gone
            return False
        return True

    def close(self) -> None:
        """End whatever runs in it."""
        for process in _of_session(self._shell.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)


def _of_session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(directory.name)) == leader:
                found.append(int(directory.name))
    return found

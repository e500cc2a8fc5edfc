# SPDX-License-Identifier: BSD-2-Clause
"""A program that is told what to do at its prompt, over a terminal of its own."""

from __future__ import annotations

import errno
import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from ptnetmap.errors import PtnetmapError

_CHUNK = 1 << 16
_TOLD = 600


class Prompt:
    """A running program; ``close()``, or the end of ``with``, kills it.

    It has a terminal, because to a pipe it would write nothing before its buffer is full. Programs that end when their
    terminal does, such as testpmd, also go when this process is killed. Waits for the first ``prompt``, ``timeout``
    seconds at most, as for each later one.

    Raises PtnetmapError with what the program printed: ENOENT if it cannot be started, ECHILD if it has ended,
    ETIMEDOUT if it does not come back to its prompt.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], prompt: str, timeout: float) -> None:
        self._name = command[0]
        self._prompt = prompt
        self._timeout = timeout
        self._terminal, theirs = pty.openpty()
        try:
            self._process = subprocess.Popen(
                command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
            )
        except OSError as error:
            os.close(self._terminal)
            raise PtnetmapError(
                errno.ENOENT, f"cannot start {self._name}: {error.strerror}\n        install it, or leave it out"
            ) from None
        finally:
            os.close(theirs)
        try:
            self._until_prompt()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Prompt:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._process.pid

    def ask(self, line: str) -> str:
        """Type ``line`` and return what the program prints until its next prompt, without carriage returns."""
        os.write(self._terminal, f"{line}\n".encode())
        return self._until_prompt()

    def close(self) -> None:
        """Kill the program and wait until it is gone."""
        if self._terminal >= 0:
            self._process.kill()
            self._process.wait()
            os.close(self._terminal)
            self._terminal = -1

    def _until_prompt(self) -> str:
        deadline = time.monotonic() + self._timeout
        waiting = select.poll()
        waiting.register(self._terminal, select.POLLIN)
        printed = b""
        while not printed.endswith(self._prompt.encode()):
            left = deadline - time.monotonic()
            if left <= 0:
                self._fail(errno.ETIMEDOUT, f"did not come back to its prompt within {self._timeout:g} s", printed)
            if not waiting.poll(left * 1000):
                continue
            try:
                chunk = os.read(self._terminal, _CHUNK)
            except OSError:  # EIO: the terminal's other end is closed
                chunk = b""
            if not chunk:
                self._fail(errno.ECHILD, "has ended", printed)
            printed += chunk
        return _text(printed).removesuffix(self._prompt)

    def _fail(self, number: int, what: str, printed: bytes) -> None:
        last = _text(printed).strip()[-_TOLD:].replace("\n", "\n        ")
        raise PtnetmapError(number, f"{self._name} {what}; the last it printed:\n        {last}")


def _text(printed: bytes) -> str:
    return printed.decode(errors="replace").replace("\r", "")

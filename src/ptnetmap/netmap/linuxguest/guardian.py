# SPDX-License-Identifier: BSD-2-Clause
"""A small process that stops a device when the one that uses it ends, however that happens.

The host writes to the CSB's pages until it is told to stop. Were their owner killed, the kernel would give the pages to
somebody else. So the guardian holds them (as open files), waits for the end of a pipe that only the owner has, and gives
the device the command to stop. This file is the program: it imports nothing of ours, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence


class Guardian:
    """The process: at the end of ours it writes ``value``, 32 bits, at ``offset`` of the file ``registers``.

    It keeps ``fds`` open until then. It has started when this returns; :meth:`dismiss` ends it without that write.
    """

    def __init__(self, registers: int, offset: int, value: int, fds: Sequence[int]) -> None:
        ours, theirs = os.pipe(), os.pipe()
        kept = (registers, ours[0], theirs[1], *fds)
        words = [str(word) for word in (registers, offset, value, ours[0], theirs[1])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *words],
                pass_fds=kept,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(ours[0])
            os.close(theirs[1])
            self._pipe = ours[1]
        started = os.read(theirs[0], 1)
        os.close(theirs[0])
        if not started:
            self.dismiss()
            raise OSError(0, "the process that is to guard the device has ended at once")

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def dismiss(self) -> None:
        """End it: the device has been stopped. Harmless when repeated."""
        if self._pipe >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, b".")
            os.close(self._pipe)
            self._pipe = -1
            self._process.wait()


def watch(registers: int, offset: int, value: int, pipe: int, started: int) -> None:
    """Be the guardian."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.write(started, b".")
    os.close(started)
    if not os.read(pipe, 1):
        os.pwrite(registers, value.to_bytes(4, "little"), offset)


if __name__ == "__main__":
    watch(*map(int, sys.argv[1:]))

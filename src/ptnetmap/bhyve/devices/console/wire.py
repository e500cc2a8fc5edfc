# SPDX-License-Identifier: BSD-2-Clause
"""Reading and writing without ever waiting, descriptors that others share included.

A descriptor that we inherited must not be made non-blocking: that would change it for the shell, and for everybody else
who has it. Terminals and pipes are opened once more instead, which makes a description of our own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat

READ_SIZE = 4096
"""Bytes that :meth:`End.read` returns at most."""


class End:
    """One direction of a line, over the descriptor ``fd``, which it owns.

    ``cautious`` is for a blocking one: it asks before each step, and takes steps that cannot block then.
    """

    def __init__(self, fd: int, *, cautious: bool = False) -> None:
        self.fd = fd
        mode = os.fstat(fd).st_mode
        self._socket = socket.socket(fileno=os.dup(fd)) if stat.S_ISSOCK(mode) else None
        # A pipe that is ready takes this much at once, a terminal a byte.
        self._step = 0 if not cautious else select.PIPE_BUF if stat.S_ISFIFO(mode) else 1

    def read(self) -> bytes | None:
        """Return what there is, b"" at the end, None if there is nothing now; raises OSError."""
        with contextlib.suppress(BlockingIOError):
            if self._socket is not None:
                return self._socket.recv(READ_SIZE, socket.MSG_DONTWAIT)
            if not self._step or self._is_ready(select.POLLIN):
                return os.read(self.fd, READ_SIZE)
        return None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write as much as goes now, and return how many bytes that was; raises OSError."""
        written = 0
        with contextlib.suppress(BlockingIOError):
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            while written < len(data):
                if self._step and not self._is_ready(select.POLLOUT):
                    break
                written += os.write(self.fd, data[written : written + self._step] if self._step else data[written:])
        return written

    def wait(self, seconds: float) -> bool:
        """Wait until it takes bytes again; return whether it does, or has failed. For the end of a run only."""
        return self._is_ready(select.POLLOUT, seconds)

    def close(self) -> None:
        """Close the descriptor."""
        if self._socket is not None:
            self._socket.close()
        os.close(self.fd)

    def _is_ready(self, event: int, seconds: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.fd, event)
        return bool(poll.poll(seconds * 1000))


def inherited(fd: int) -> End:
    """Return an end over a descriptor that we share with others, and leave theirs as it is; raises OSError."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        with contextlib.suppress(OSError):  # a terminal that belongs to somebody else, as after su
            return End(os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
        return End(os.dup(fd), cautious=True)
    return End(os.dup(fd))


class Wire:
    """A line: ``input`` and ``output``, either of which may be missing."""

    def __init__(self, input: End | None, output: End | None) -> None:
        self.input = input
        self.output = output

    def close(self) -> None:
        """Close both ends."""
        for end in {self.input, self.output} - {None}:
            assert end is not None
            end.close()

# SPDX-License-Identifier: BSD-2-Clause
"""bhyvectl's side: ask a machine, list machines, and end one that may not answer any more."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ptnetmap.bhyve.control import lines, place
from ptnetmap.bhyve.control.error import ControlError

PATIENCE = 10.0
"""Seconds to wait for an answer, unless told otherwise, and for a killed process to be gone."""

_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


class Connection:
    """A connection to the machine ``name``; ``patience`` seconds at most for each answer. ``with`` closes it.

    Raises ControlError: ENOENT if no such machine runs, ECONNREFUSED if it does not listen (yet). What a dead machine
    left is removed on the way.
    """

    def __init__(self, name: str, *, patience: float = PATIENCE, directory: Path | None = None) -> None:
        self.name = name
        self._patience = patience
        self._stream = lines.Lines(lines.MAX_ANSWER)
        path = place.socket_path(name, directory)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(patience)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise self._unreachable(error, directory) from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The machine's process, as the kernel knows it; 0 if it is not visible from here."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(credentials)[0])

    def request(self, command: str, **arguments: str | int | bool | None) -> Any:
        """Ask, and return the result. Raises ControlError: the machine's, ETIMEDOUT, or ECONNRESET if it went away."""
        deadline = time.monotonic() + self._patience
        try:
            self._socket.settimeout(self._patience)
            self._socket.sendall(lines.encode_request(lines.Request(command, arguments)))
            while True:
                # A deadline for the whole answer, not for each piece of it.
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "it went away")
                for line in self._stream.feed(data):
                    return lines.decode_answer(line)
        except TimeoutError as error:
            raise ControlError(
                errno.ETIMEDOUT,
                f"the virtual machine {self.name} does not answer\n"
                f"        wait, or end it: bhyvectl --vm={self.name} --destroy",
            ) from error
        except ControlError:
            raise
        except OSError as error:
            raise ControlError(
                error.errno or errno.EIO, f"the virtual machine {self.name} ended before it answered"
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _unreachable(self, error: OSError, directory: Path | None) -> ControlError:
        place.sweep(self.name, directory)
        if place.is_held(self.name, directory):
            return ControlError(
                errno.ECONNREFUSED,
                f"the virtual machine {self.name} does not listen: {error.strerror or 'no answer'}\n"
                f"        it may be starting; try again, or end it: bhyvectl --vm={self.name} --destroy",
            )
        return _absent(self.name)


def describe(name: str, *, patience: float = 2.0, directory: Path | None = None) -> dict[str, Any] | None:
    """Return a running machine's ``info``, with ``answers``: false and no more than a name and process if it hangs.

    None if it does not run; what it left is removed.
    """
    try:
        with Connection(name, patience=patience, directory=directory) as connection:
            info = connection.request("info")
            return {**info, "answers": True} if isinstance(info, dict) else None
    except ControlError:
        if not place.is_held(name, directory):
            return None
        return {"name": name, "pid": place.holder(name, directory), "answers": False}


def listing(*, patience: float = 2.0, directory: Path | None = None) -> list[dict[str, Any]]:
    """Return :func:`describe` of each machine that runs, by name."""
    found = (describe(name, patience=patience, directory=directory) for name in place.names(directory))
    return [info for info in found if info is not None]


def destroy(name: str, *, patience: float = PATIENCE, directory: Path | None = None) -> None:
    """End the machine ``name`` and its process, by force if it does not within ``patience`` seconds; remove its files.

    Harmless for one that died and left files. Raises ControlError: ENOENT if there is nothing, ETIMEDOUT if the process
    survives even SIGKILL, and EPERM if it is somebody else's.
    """
    seen = False
    while not place.sweep(name, directory):
        if place.is_held(name, directory):
            _end(name, patience, directory)
            seen = True
        elif name not in place.names(directory):
            if seen:
                return
            raise _absent(name)


def _end(name: str, patience: float, directory: Path | None) -> None:
    """End the process that holds the name, unless it is gone before anything was done."""
    with contextlib.ExitStack() as stack:
        connection: Connection | None = None
        with contextlib.suppress(ControlError):
            connection = stack.enter_context(Connection(name, patience=patience, directory=directory))
        pid = (connection.pid if connection is not None else 0) or place.holder(name, directory) or 0
        process = _open(pid)
        if process is not None:
            stack.callback(os.close, process)
        # A process that was opened cannot be mistaken for a later one of its number, if it is still the holder.
        if not place.is_held(name, directory):
            return
        if process is None or pid == os.getpid():
            raise ControlError(
                errno.ESRCH,
                f"the virtual machine {name} has no process that can be ended from here\n"
                "        end its bhyve yourself, where it runs",
            )
        if connection is not None and _agrees(connection) and _ends(process, patience):
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
            except PermissionError as error:
                raise ControlError(
                    errno.EPERM, f"you may not end process {pid} of the virtual machine {name}\n        ask its owner"
                ) from error
        if not _ends(process, PATIENCE):
            raise ControlError(errno.ETIMEDOUT, f"process {pid} of the virtual machine {name} cannot be ended")


def _agrees(connection: Connection) -> bool:
    """Whether a machine that is asked to end says that it will, or goes without a word."""
    try:
        connection.request("destroy")
    except ControlError as error:
        return error.errno in (errno.ECONNRESET, errno.EPIPE)
    return True


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _ends(process: int, seconds: float) -> bool:
    """Whether the process of a pidfd ends in time."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _absent(name: str) -> ControlError:
    return ControlError(
        errno.ENOENT, f"no virtual machine {name} is running\n        bhyvectl --list shows those that are"
    )

# SPDX-License-Identifier: BSD-2-Clause
"""Connects our terminal with a machine's com1, until a key lets go of it, or the machine ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys
import time
from pathlib import Path

from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.bhyve.devices.console.terminal import RawMode
from ptnetmap.vm import run, store

DETACH = b"\x1d"
"""Ctrl-]."""

_CHUNK = 65536
_INTERVAL = 0.05


def attach(name: str) -> bool:
    """Attach standard input and output; return whether the user detached, rather than the machine ended.

    The end of an input that is no terminal ends nothing: output goes on until the machine ends. Raises ControlError:
    ENOENT if it does not run, EBUSY if somebody else is attached.
    """
    store.load(name)
    with contextlib.ExitStack() as stack:
        if not store.is_running(name):
            raise _absent(name)
        stack.callback(os.close, _claim(name))
        if os.isatty(0):
            print(f"attached to com1 of {name}; Ctrl-] detaches", file=sys.stderr)
            stack.callback(RawMode(0).restore)
        line = _connect(name)
        if line is None:
            raise _absent(name)
        while line is not None:
            with line:
                if carry(line, 0, 1):
                    return True
            # A guest that reboots gets a new bhyve, and a new socket.
            line = _connect(name)
    return False


def _connect(name: str) -> socket.socket | None:
    """Connect to com1 as soon as it is there; None if the machine ends, or has ended, before."""
    while store.is_running(name):
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(str(run.console_path(name)))
        except OSError as error:
            line.close()
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                raise ControlError(
                    error.errno or errno.EIO, f"cannot reach com1 of {name}: {error.strerror}\n        try again"
                ) from error
            time.sleep(_INTERVAL)
        else:
            return line
    return None


def carry(line: socket.socket, source: int, sink: int) -> bool:
    """Move bytes both ways until the detach key (True) or the end of the line (False)."""
    sources: list[int | socket.socket] = [line, source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if line in ready:
            try:
                data = line.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                return False
            while data:
                data = data[os.write(sink, data) :]
        if source in ready:
            data = os.read(source, 4096)
            if not data:
                sources.remove(source)
                continue
            typed, key, _ = data.partition(DETACH)
            with contextlib.suppress(ConnectionError):
                line.sendall(typed)
            if key:
                return True


def _claim(name: str) -> int:
    """Lock com1: its socket serves one at a time, and would let a second one wait without a word."""
    path: Path = store.place(name) / "console"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise ControlError(
            errno.EBUSY, f"somebody is attached to com1 of {name} already\n        detach there first, with Ctrl-]"
        ) from error
    return fd


def _absent(name: str) -> ControlError:
    ended = store.ended(name)
    return ControlError(
        errno.ENOENT,
        f"the virtual machine {name} is not running{f' ({ended})' if ended else ''}\n"
        f"        start it: ptnetmap vm start {name}",
    )

# SPDX-License-Identifier: BSD-2-Clause
"""Connecting to netmapd, and starting it where that is the user's business."""

from __future__ import annotations

import errno
import grp
import socket as _socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.locks import start_lock
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.daemon.place import SYSTEM, Place, check_socket, describe, find, prepare
from ptnetmap.netmap.daemon.spawn import NETMAPD
from ptnetmap.netmap.daemon.spawn import start as start_daemon

_AGAIN = 0.01
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


def dial(
    socket: str | None = None, start: bool = True, timeout: float = 30, *, program: Sequence[str] = NETMAPD
) -> _socket.socket:
    """Connect to netmapd, and return a blocking SOCK_SEQPACKET socket that is closed on exec.

    ``socket`` is a path, or None for the usual place (:func:`ptnetmap.netmap.daemon.place.find`). If nobody listens, and
    ``start``, and the place is the user's own, a daemon is started there (by ``program``); of any number of processes
    that dial at once one does it, and all connect. A daemon that another process starts is waited for in any case.

    ``timeout``, in seconds, bounds waiting for a daemon that shows no sign of life. One that compiles its kernels does:
    after a second a line on stderr tells about it.

    Raises DaemonError: EACCES without permission, ENOENT if nobody listens and none was to be started, ETIMEDOUT,
    ENOTSOCK, EPROTOTYPE, EINVAL, ENAMETOOLONG for a socket that cannot be netmapd's, the daemon's own if it failed.
    """
    place = find(socket)
    connection = _connect(place.path, timeout)
    if connection is not None:
        return connection
    check_socket(place.path)
    may_start = start and place.may_start
    if may_start:
        prepare(place.path)
    lock = start_lock(place.path)
    if not may_start and not (place.may_start and lock.file.exists()):
        raise _nobody(place, start)
    with Patience(timeout) as patience, lock:
        lock.acquire(patience)
        connection = _connect(place.path, timeout)
        if connection is None and may_start:
            start_daemon(place.path, lock, patience, program)
            # The lock is still held: the daemon cannot leave before this.
            connection = _connect(place.path, timeout)
    if connection is None:
        raise _nobody(place, start)
    return connection


def _connect(path: Path, timeout: float) -> _socket.socket | None:
    """Connect; None if nobody listens at ``path``."""
    deadline = time.monotonic() + timeout
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(str(path))
            except BlockingIOError:  # the backlog is full: netmapd is alive but busy
                if time.monotonic() >= deadline:
                    raise DaemonError(
                        errno.ETIMEDOUT,
                        f"netmap: netmapd at {describe(path)} has not accepted a connection for {timeout:g} s\n"
                        "        it hangs, or is flooded: see its log, or end it",
                    ) from None
                time.sleep(_AGAIN)
                continue
            break
        connection.setblocking(True)
    except DaemonError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        if error.errno in _NOBODY:
            return None
        raise _unreachable(path, error) from error
    return connection


def _unreachable(path: Path, error: OSError) -> DaemonError:
    code = error.errno or errno.EIO
    if code == errno.EACCES:
        return DaemonError(code, f"netmap: cannot reach netmapd at {describe(path)}: permission denied{_remedy(path)}")
    fault = "something listens there that is not netmapd" if code == errno.EPROTOTYPE else error.strerror
    return DaemonError(
        code, f"netmap: cannot reach netmapd at {describe(path)}: {fault}\n        set NETMAP_SOCKET to another path"
    )


def _remedy(path: Path) -> str:
    """Who may connect, and how to become one of them."""
    own = "set NETMAP_SOCKET to a path of your own"
    try:
        found = path.stat()
    except OSError:
        return f"; you may not look into {path.parent}\n        {own}"
    mode = stat.S_IMODE(found.st_mode)
    if not mode & stat.S_IWGRP:
        return f"; it is for uid {found.st_uid} alone (mode {mode:04o})\n        {own}"
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return (
        f"; it is for group {group} (mode {mode:04o})\n"
        f"        join the group (sudo usermod -aG {group} $USER, then log in again), or {own}"
    )


def _nobody(place: Place, start: bool) -> DaemonError:
    where = f"netmap: no netmapd listens at {describe(place.path)}"
    if place.path == SYSTEM:
        remedy = "start it (sudo systemctl start netmapd.socket), or set NETMAP_SOCKET to a path of your own"
    elif place.may_start:
        if start:
            where += ": it was started and has gone again"
        remedy = f"start it: netmapd --socket {place.path}"
    elif place.path.parent.is_dir():
        where += f", and you may not start one: {place.path.parent} is not yours to write to"
        remedy = "have it started there, or set NETMAP_SOCKET to a path of your own"
    else:
        where += f", and none can be started: there is no directory {place.path.parent}"
        remedy = f"create it (mkdir {place.path.parent}), or set NETMAP_SOCKET to another path"
    return DaemonError(errno.ENOENT, f"{where}\n        {remedy}")

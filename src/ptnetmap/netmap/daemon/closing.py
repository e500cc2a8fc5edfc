# SPDX-License-Identifier: BSD-2-Clause
"""Closing what clients have sent, without waiting for it.

The last close of a descriptor may take as long as its maker likes: a TCP socket that lingers, a file of a file system
that its user runs. Both come over a Unix socket like any other descriptor, and go when it is closed, received or not.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import socket
import termios
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from ptnetmap.errors import PortError

_F_GET_SEALS = 1034
EVENTFD = "anon_inode:[eventfd]"


def kind_of(fd: int) -> str:
    """What a descriptor is of: a path, or a name that no path can be, such as :data:`EVENTFD`."""
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def check_eventfd(fd: int) -> None:
    """Raise PortError (EINVAL) for a descriptor that is no eventfd."""
    kind = kind_of(fd)
    if kind != EVENTFD:
        raise PortError(errno.EINVAL, f"netmap: {kind} is no eventfd\n        pass one from eventfd(2)")


def close_received(fds: Iterable[int]) -> None:
    """Close descriptors that came from a client; those that might keep us, in a thread of their own."""
    strange = []
    for fd in fds:
        if _closes_at_once(fd):
            os.close(fd)
        else:
            strange.append(fd)
    if strange:
        _elsewhere(lambda: _close_all(strange))


def close_connection(connection: socket.socket) -> None:
    """End a connection; messages that have not been read go with it, and the descriptors in them."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # from here on nothing more can come
    unread = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, unread)
    if unread[0]:
        _elsewhere(connection.close)
    else:
        connection.close()


def _closes_at_once(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, _F_GET_SEALS)  # a memfd, or a file in a tmpfs
    except OSError:
        try:
            return kind_of(fd) == EVENTFD
        except OSError:
            return False
    return True


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _elsewhere(action: Callable[[], object]) -> None:
    threading.Thread(target=action, name="netmapd-closing", daemon=True).start()

# SPDX-License-Identifier: BSD-2-Clause
"""The listening socket: made here or handed over by systemd, and given up without losing a client."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket as _socket
import stat
from pathlib import Path

from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.locks import start_lock
from ptnetmap.netmap.daemon.place import check_socket, describe

OWN_MODE = 0o600
GROUP_MODE = 0o660

_FIRST_PASSED = 3  # SD_LISTEN_FDS_START


class Listener:
    """A SOCK_SEQPACKET socket at ``path``; ``socket`` is not blocking, and listens after :meth:`listen`.

    ``activated``: it is systemd's, which goes on listening when this process ends, and removes the path itself.
    """

    def __init__(self, socket: _socket.socket, path: Path, *, mode: int = 0, gid: int = -1, activated: bool) -> None:
        self.socket = socket
        self.path = path
        self.activated = activated
        self._mode = mode
        self._gid = gid
        self._identity: tuple[int, int] | None = None
        socket.setblocking(False)
        if not activated:
            self._bind(socket)

    def listen(self) -> None:
        """Let clients in. Before, they are refused, and wait for whoever starts this daemon."""
        if not self.activated:
            self.socket.listen(_socket.SOMAXCONN)

    def is_reachable(self) -> bool:
        """Whether the path still leads to this socket: others may have removed or replaced it."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def leave(self) -> list[_socket.socket] | None:
        """Stop listening, unless somebody comes at this moment: then return the connections that are to be served.

        None: nobody did, and nobody can reach this daemon any more; it may exit. A list, perhaps empty (a client is
        about to connect): go on serving. ``socket`` is the same object with the same number, but another open file:
        take it out of selectors before, and put it back after.

        Whoever is refused meanwhile waits for the start lock, and then finds the new socket, or starts a new daemon.
        """
        if self.activated:
            return None  # whoever comes now waits in systemd's socket, and makes it start the next one
        lock = start_lock(self.path)
        if self.is_reachable() and not lock.try_acquire():
            return []
        with lock:
            self._unlink()
            # From here on connect() is refused, while accept() still gives those who came before.
            with contextlib.suppress(OSError):
                self.socket.shutdown(_socket.SHUT_RD)
            late = self._backlog()
            if late:
                self._replace()
            return late or None

    def close(self) -> None:
        """Stop listening; remove the path if it is still this socket's."""
        self._unlink()
        self.socket.close()

    def _bind(self, socket: _socket.socket) -> None:
        """Bind to the path. Its mode and group are set before anybody is let in."""
        try:
            socket.bind(str(self.path))
            found = self.path.lstat()
            self._identity = (found.st_dev, found.st_ino)
            self.path.chmod(self._mode)
        except OSError as error:
            raise DaemonError(
                error.errno or errno.EIO,
                f"netmap: netmapd cannot listen at {describe(self.path)}: {error.strerror}\n"
                "        choose a path in a directory that you may write to (--socket, or NETMAP_SOCKET)",
            ) from error
        if self._gid >= 0:
            try:
                os.chown(self.path, -1, self._gid)
            except OSError as error:
                self._unlink()
                raise DaemonError(
                    error.errno or errno.EIO,
                    f"netmap: cannot give {self.path} to group {self._gid}: {error.strerror}\n"
                    "        name a group that you are in, or start netmapd as root",
                ) from error

    def _unlink(self) -> None:
        if self.is_reachable():
            self.path.unlink()
            self._identity = None

    def _backlog(self) -> list[_socket.socket]:
        came = []
        while True:
            try:
                came.append(self.socket.accept()[0])
            except BlockingIOError:
                return came
            except OSError as error:
                if error.errno == errno.EINVAL:  # shut down and empty
                    return came
                raise

    def _replace(self) -> None:
        """Listen again: a socket that was shut down cannot."""
        with _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET) as fresh:
            fresh.setblocking(False)
            self._bind(fresh)
            fresh.listen(_socket.SOMAXCONN)
            os.dup2(fresh.fileno(), self.socket.fileno(), inheritable=False)


def adopt() -> Listener | None:
    """The socket that systemd listens on for this process, if there is one (sd_listen_fds); forgets the environment.

    Raises DaemonError (EPROTOTYPE) if it is not exactly one listening SOCK_SEQPACKET socket with a path.
    """
    given = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdigit():
        return None
    count = int(given["LISTEN_FDS"])
    if count == 1:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(_FIRST_PASSED).st_mode):
                socket = _socket.socket(fileno=_FIRST_PASSED)
                if _is_ours(socket):
                    socket.set_inheritable(False)
                    return Listener(socket, Path(os.fsdecode(socket.getsockname())), activated=True)
                socket.detach()
    raise DaemonError(
        errno.EPROTOTYPE,
        f"netmap: systemd passed {count} sockets, and netmapd needs one that is a listening SOCK_SEQPACKET Unix socket\n"
        "        write ListenSequentialPacket=/run/netmap/socket, and no other Listen line, in netmapd.socket",
    )


def _is_ours(socket: _socket.socket) -> bool:
    return (
        socket.family == _socket.AF_UNIX
        and socket.type == _socket.SOCK_SEQPACKET
        and socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN) == 1
        and bool(socket.getsockname())
    )


def bind(path: Path, mode: int | None = None, group: str | None = None) -> Listener:
    """Bind a new socket to ``path``, in place of a stale one; the caller holds the path's life lock.

    ``group`` (a name or a number) owns the socket; ``mode`` is 0600 unless given, or 0660 with a group. Raises DaemonError:
    EADDRINUSE if something listens there, ENOTSOCK if something else is there, EINVAL for an unknown group.
    """
    gid = -1 if group is None else _gid(group)
    if mode is None:
        mode = OWN_MODE if group is None else GROUP_MODE
    check_socket(path)
    if listens(path):
        raise DaemonError(
            errno.EADDRINUSE,
            f"netmap: something listens at {describe(path)}, and no netmapd of this version holds its lock\n"
            "        end it, or choose another path (--socket, or NETMAP_SOCKET)",
        )
    with contextlib.suppress(OSError):
        path.unlink()
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        return Listener(socket, path, mode=mode, gid=gid, activated=False)
    except DaemonError:
        socket.close()
        raise


def listens(path: Path) -> bool:
    """Whether any process listens at ``path``, netmapd or not."""
    with _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            # A full backlog, or a socket of another type: somebody is there.
            return error.errno in (errno.EAGAIN, errno.EPROTOTYPE)
    return True


def notify(state: str) -> None:
    """Tell systemd, if it wants to know (sd_notify): ``READY=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM) as messenger:
        messenger.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def _gid(group: str) -> int:
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise DaemonError(
            errno.EINVAL, f"netmap: there is no group {group}\n        create it (groupadd --system {group})"
        ) from None

# SPDX-License-Identifier: BSD-2-Clause
"""Messages over a Unix stream socket, one at a time, each with its file descriptors."""

from __future__ import annotations

import array
import errno
import os
import select
import socket as _socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import message
from ptnetmap.netmap.vhost.message import HEADER_SIZE, MAX_FDS, Header

_FD_SIZE = array.array("i").itemsize
_FD_SPACE = _socket.CMSG_SPACE(MAX_FDS * _FD_SIZE)


class Message(NamedTuple):
    """A whole message; its descriptors are whoever's has it."""

    request: int
    flags: int
    payload: bytes
    fds: list[int]


class Channel:
    """One end of a connection. It owns the socket, a Unix stream one, blocking or not: nothing here blocks unless told so.

    After a PeerError it can only be closed, which closes what came of its message, too.
    """

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self._data = bytearray()
        self._header: Header | None = None
        self._fds: list[int] = []

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close the socket, and descriptors of a message that has not arrived as a whole."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self.socket.close()

    def receive(self) -> Message | None:
        """Return the next message; None if it has not arrived as a whole yet.

        Raises PeerError: ECONNRESET if the other side has gone, EPROTO or EMSGSIZE for what is no message, EMFILE if it
        came with more descriptors than it may, or than this process can have.
        """
        try:
            while (missing := self._missing()) > 0:
                self._read(missing)
        except (BlockingIOError, InterruptedError):
            return None
        except PeerError:
            raise
        except OSError as error:
            raise _gone(f"cannot read from its socket: {error.strerror}", error.errno) from error
        assert self._header is not None
        whole = Message(self._header.request, self._header.flags, bytes(self._data[HEADER_SIZE:]), self._fds)
        self._data.clear()
        self._header = None
        self._fds = []
        return whole

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message at once, and close the descriptors that go with it.

        Raises PeerError: ECONNRESET if the other side has gone, EAGAIN if it has not read so many messages that no more
        fit.
        """
        try:
            self._send(message, fds)
        except BlockingIOError as error:
            raise PeerError(
                errno.EAGAIN,
                "vhost-user: cannot send a message: the other side does not read what it is sent\n"
                "        it must read replies before it sends so many requests",
            ) from error
        finally:
            for fd in fds:
                os.close(fd)

    def send_waiting(self, message: bytes, fds: Sequence[int] = (), timeout: float | None = None) -> None:
        """Send a message, and keep its descriptors; wait so many seconds for room, None: for ever.

        Raises PeerError: ECONNRESET if the other side has gone, ETIMEDOUT.
        """
        while True:
            try:
                self._send(message, fds)
            except BlockingIOError:
                self.wait(select.POLLOUT, timeout)
            else:
                return

    def wait(self, events: int, timeout: float | None) -> None:
        """Wait for POLLIN or POLLOUT, so many seconds, None: for ever. Raises PeerError (ETIMEDOUT)."""
        poll = select.poll()
        poll.register(self.socket, events)
        if not poll.poll(None if timeout is None else max(0, timeout) * 1000):
            raise PeerError(
                errno.ETIMEDOUT,
                f"vhost-user: the other side does nothing for {timeout} s\n        look at what it does, or end it",
            )

    def _missing(self) -> int:
        """Bytes that are missing of the header, then of the payload."""
        if self._header is None:
            if len(self._data) < HEADER_SIZE:
                return HEADER_SIZE - len(self._data)
            self._header = message.decode_header(self._data)
        return HEADER_SIZE + self._header.size - len(self._data)

    def _read(self, size: int) -> None:
        """Read up to ``size`` bytes, none of the next message: so its descriptors stay with it."""
        data, ancillary, flags, _ = self.socket.recvmsg(
            size, _FD_SPACE, _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
        )
        self._fds += _descriptors(ancillary)
        if flags & _socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise PeerError(
                errno.EMFILE,
                "vhost-user: cannot read a message: not all of its file descriptors could be received\n"
                f"        send {MAX_FDS} at the most; or this process has too many open files",
            )
        if not data:
            raise _gone("it has closed the connection" + (", in the middle of a message" if self._data else ""))
        self._data += data

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([data], rights, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _gone(f"cannot write to its socket: {error.strerror}", error.errno) from error
        if sent < len(data):  # such short messages fit, or do not
            raise _gone("only a part of a message could be sent")


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(fds)


def _gone(found: str, code: int | None = errno.ECONNRESET) -> PeerError:
    # A pipe that broke is a connection that ended, for whoever looks at the number.
    number = errno.ECONNRESET if code in (None, errno.EPIPE) else code
    return PeerError(
        number or errno.ECONNRESET, f"vhost-user: the other side has gone: {found}\n        connect to it again"
    )

# SPDX-License-Identifier: BSD-2-Clause
"""The socket of a front end: messages with descriptors, of which a stream knows no boundaries."""

from __future__ import annotations

import array
import errno
import os
import socket as _socket

from ptnetmap.errors import PeerError
from ptnetmap.netmap.daemon.closing import close_received
from ptnetmap.vhost import message
from ptnetmap.vhost.message import Header

_SPACE = _socket.CMSG_SPACE(message.MAX_FDS * array.array("i").itemsize)
_PATIENCE = 5.0
"""Seconds that a front end may take for the rest of a message, or to read an answer."""


class Channel:
    """Messages of one front end, over a connected stream socket, which is the channel's."""

    def __init__(self, peer: _socket.socket) -> None:
        self._socket = peer
        peer.settimeout(_PATIENCE)

    def fileno(self) -> int:
        """The socket: readable when a message comes, or the end."""
        return self._socket.fileno()

    def receive(self) -> tuple[Header, bytes, list[int]] | None:
        """Return the next message and its descriptors, which are the caller's to close; None at the end.

        Waits for it. Raises PeerError for what is no message, one that stops half-way, or too many descriptors.
        """
        fds: list[int] = []
        try:
            head = self._read(message.HEADER_SIZE, fds)
            if head is None:
                return None
            header = message.parse_header(head)
            payload = self._read(header.size, fds) if header.size else b""
            if payload is None:
                raise PeerError(
                    errno.EPROTO,
                    f"vhost-user: {message.name(header.request)} stops half-way\n        the front end has gone",
                )
        except BaseException:
            close_received(fds)
            raise
        return header, payload, fds

    def _read(self, size: int, fds: list[int]) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                piece, ancillary, flags, _ = self._socket.recvmsg(size - len(data), _SPACE, _socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                raise PeerError(
                    errno.ETIMEDOUT, "vhost-user: a message stops half-way\n        the front end has to send the rest"
                ) from None
            except OSError:
                piece, ancillary, flags = b"", [], 0
            for level, kind, body in ancillary:
                if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                    received = array.array("i")
                    received.frombytes(body[: len(body) - len(body) % received.itemsize])
                    fds.extend(received)
            if flags & _socket.MSG_CTRUNC:
                raise PeerError(
                    errno.EMFILE,
                    f"vhost-user: more than {message.MAX_FDS} descriptors with a message\n        send fewer",
                )
            if not piece:
                return None
            data += piece
        return data

    def send(self, data: bytes, fd: int = -1) -> None:
        """Send an answer, with a descriptor if there is one. Raises PeerError if the front end does not take it."""
        try:
            _socket.send_fds(self._socket, [data], [fd] if fd >= 0 else [])
        except OSError as error:
            raise PeerError(
                error.errno or errno.EPIPE,
                f"vhost-user: the front end takes no answer: {os.strerror(error.errno or 0)}",
            ) from None

    def close(self) -> None:
        """End the connection. Harmless when repeated."""
        self._socket.close()

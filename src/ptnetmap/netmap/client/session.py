# SPDX-License-Identifier: BSD-2-Clause
"""Sessions: connections to netmapd, and requests on them."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket as _socket
import threading
from collections.abc import Sequence
from typing import Self

from ptnetmap import __version__
from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.client.dial import dial
from ptnetmap.netmap.client.error import DaemonGoneError
from ptnetmap.netmap.daemon.place import find
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.codec import Body, Values
from ptnetmap.netmap.wire.error import malformed
from ptnetmap.netmap.wire.frame import MAX_FDS, MAX_FRAME, Frame
from ptnetmap.netmap.wire.hello import Hello, greeted, hello_frame
from ptnetmap.netmap.wire.request import Answer, Request, decode_answer

OPENING = 60.0
"""Seconds that netmapd may take to open a device's port: it may have kernels to load and memory to make."""
PATIENCE = 10.0
"""Seconds that it may take for an answer about an open one: a processor of the guest waits for it."""
_GOODBYE = 5.0
_FD_SPACE = _socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class Session:
    """A connection to netmapd, on which one port may be bound. A context manager; made by :func:`connect`.

    ``address`` is the socket's path, ``daemon`` who is at the other end, ``loss`` what netmapd did once the connection is
    lost, in words that follow its name. Requests may come from any thread.
    """

    def __init__(self, connection: _socket.socket, address: str) -> None:
        self._socket = connection
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._owed = 0
        self.address = address
        self.loss = "has gone"
        mine = Hello(__version__)
        with self._lock:
            answer, _ = self._exchange(frames.encode(hello_frame(mine)), ())
        self.daemon = greeted(answer, mine, address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket, -1 once closed: it tells by POLLRDHUP that netmapd has gone."""
        return self._socket.fileno()

    @property
    def gone(self) -> bool:
        """Whether netmapd has ended the connection, or this side has."""
        fd = self.fileno()
        if fd < 0:
            return True
        peek = _socket.socket(fileno=os.dup(fd))  # one without the timeout, which would wait for something to come
        try:
            return not peek.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            peek.close()

    def limit(self, seconds: float) -> None:
        """Take netmapd for gone when an answer takes longer than this; the connection is of no use then.

        Should netmapd come to that request after all, it finds the connection ended, and undoes what was done on it.
        """
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """End the connection; when this returns, what was bound on it has gone."""
        if self._pid != os.getpid():  # a forked process lets go; the binding stays its parent's
            self._socket.close()
            return
        with contextlib.suppress(OSError):  # closed before, or netmapd has gone
            self._socket.shutdown(_socket.SHUT_WR)
            self._socket.settimeout(_GOODBYE)
            while self._socket.recv(1):
                pass
        self._socket.close()

    def request(self, reqtype: int, name: str, body: Values | None = None) -> Body:
        """Make a NIOCCTRL request; return the fields of its answer's body, and ``nr_name`` of its header.

        Raises PortError with upstream's errno if it fails, DaemonGoneError if netmapd has gone.
        """
        return self.ask(Request(reqtype, name, dict(body) if body is not None else None))[0].fields

    def ask(self, request: Request, fds: Sequence[int] = ()) -> tuple[Answer, list[int]]:
        """Make a request that comes with descriptors, or is answered with some, which are the caller's then."""
        data = frames.encode(Frame(abi.NIOCCTRL, request.argument))
        with self._lock:
            answer, received = self._exchange(data, fds)
        try:
            frame = frames.decode(answer)
            frames.raise_for_error(frame)
            return decode_answer(request, frame.argument), received
        except Exception:
            for fd in received:
                os.close(fd)
            raise

    def _exchange(self, data: bytes, fds: Sequence[int]) -> tuple[bytes, list[int]]:
        while self._owed:  # a request was interrupted before its answer came: this is that answer
            for fd in self._receive()[1]:
                os.close(fd)
        try:
            _socket.send_fds(self._socket, [data], list(fds), _socket.MSG_NOSIGNAL)
        except OSError as error:
            self._hang_up(error)
            raise DaemonGoneError(self.address, error.strerror or "", self.loss) from error
        self._owed += 1
        return self._receive()

    def _receive(self) -> tuple[bytes, list[int]]:
        received = array.array("i")
        try:
            answer, ancillary, flags, _ = self._socket.recvmsg(MAX_FRAME + 1, _FD_SPACE, _socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            self._hang_up(error)
            raise DaemonGoneError(self.address, error.strerror or "", self.loss) from error
        self._owed -= 1
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
        if not answer:
            raise DaemonGoneError(self.address)
        if flags & _socket.MSG_CTRUNC:
            for fd in received:
                os.close(fd)
            raise malformed("file descriptors that netmapd sent did not arrive", "raise the limit: ulimit -n")
        return answer, list(received)

    def _hang_up(self, error: OSError) -> None:
        if isinstance(error, TimeoutError):
            self.loss = f"has not answered for {self._socket.gettimeout():g} s"
            with contextlib.suppress(OSError):
                self._socket.shutdown(_socket.SHUT_RDWR)


def connect(socket: str | None = None, *, start: bool = True) -> Session:
    """Connect to netmapd, at ``socket`` or where it usually is, and start it if need be and ``start``.

    Raises DaemonError, ProtocolMismatchError for another version, DaemonGoneError if it goes at this moment, twice.
    """
    address = str(find(socket).path)
    for attempt in range(2):
        connection = dial(socket, start)
        try:
            return Session(connection, address)
        except DaemonGoneError:
            # It was leaving as we came: a new one takes its place.
            connection.close()
            if attempt:
                raise
        except Exception:
            connection.close()
            raise
    raise DaemonGoneError(address, os.strerror(errno.ECONNRESET))

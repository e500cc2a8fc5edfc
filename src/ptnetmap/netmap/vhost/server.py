# SPDX-License-Identifier: BSD-2-Clause
"""Serving a vhost-user socket: front ends come, one at a time, and may go and come back."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket as _socket
import time
from collections.abc import Callable
from pathlib import Path

from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap.vhost.channel import Channel
from ptnetmap.netmap.vhost.connection import Connection
from ptnetmap.netmap.vhost.portdevice import PROTOCOL_FEATURES, PortDevice
from ptnetmap.netmap.vhost.ports import Ports
from ptnetmap.netmap.wire.extension import MAX_MEMORY

RETRY_S = 0.5
"""Seconds between two attempts to connect to a front end that listens."""


def listen(path: Path) -> _socket.socket:
    """Return a listening socket at ``path``, in place of one that nobody listens at any more.

    Raises PortError: EADDRINUSE if somebody does, EEXIST for what is no socket, and others.
    """
    if path.exists() and not path.is_socket():
        raise PortError(errno.EEXIST, f"vhost-user: {path} is there, and is no socket\n        choose another path")
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        with _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            raise PortError(
                errno.EADDRINUSE, f"vhost-user: somebody listens at {path}\n        choose another path, or end it"
            )
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
    except PortError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise PortError(
            error.errno or errno.EIO,
            f"vhost-user: cannot listen at {path}: {error.strerror}\n        choose a path in a directory you may write to",
        ) from None
    return listener


class Server:
    """Serves the front ends of the port of ``ports``. ``tell`` is called with what happens, a sentence each time.

    ``stop`` is a descriptor that becomes readable when it is time to end.
    """

    def __init__(self, ports: Ports, pairs: int, stop: int, tell: Callable[[str], None]) -> None:
        self._ports = ports
        self._pairs = pairs
        self._stop = stop
        self._tell = tell

    def serve_at(self, listener: _socket.socket) -> None:
        """Serve whoever connects to ``listener``, one front end at a time, until told to stop.

        Raises PortError if netmapd goes.
        """
        while self._wait(listener.fileno()):
            peer, _ = listener.accept()
            self._serve(peer)

    def connect_to(self, path: Path) -> None:
        """Serve the front end that listens at ``path``, again and again, until told to stop.

        Raises PortError if netmapd goes.
        """
        waiting = False
        while True:
            peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                peer.connect(str(path))
            except OSError as error:
                peer.close()
                if not waiting:
                    self._tell(f"waits for a front end at {path}: {os.strerror(error.errno or 0)}")
                    waiting = True
                if not self._wait(-1, RETRY_S):
                    return
                continue
            waiting = False
            self._serve(peer)
            if not self._wait(-1, 0):
                return

    def _wait(self, fd: int, seconds: float | None = None, trouble: int = -1) -> bool:
        """Wait for one of two descriptors (-1: none) or for some seconds; return False when it is time to end."""
        port = self._ports.port
        deadline = None if seconds is None else time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for watched in {fd, trouble, self._stop, port.fileno()} - {-1}:
                selector.register(watched, selectors.EVENT_READ)
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = {key.fd for key, _ in selector.select(left)}
                if self._stop in ready:
                    return False
                if port.fileno() in ready and port.gone:
                    if self._ports.has_worker:
                        raise PeerError(
                            errno.ECHILD,
                            "vhost-user: the worker has ended: the guest's memory has vanished\n"
                            "        the front end has to come again",
                        )
                    raise PortError(
                        errno.ECONNRESET,
                        f"vhost-user: netmapd at {port.address} {port.loss}, and {port.name} with it\n"
                        "        start this again",
                    )
                if {fd, trouble} & ready or (left is not None and left <= 0):
                    return True

    def _serve(self, peer: _socket.socket) -> None:
        """Serve one front end until it goes, or breaks the protocol."""
        channel = Channel(peer)
        device = PortDevice(self._ports, self._pairs)
        connection = Connection(
            device,
            features=device.offered,
            protocol_features=PROTOCOL_FEATURES,
            max_queues=2 * self._pairs,
            queue_num=self._pairs,
            max_regions=MAX_MEMORY,
        )
        self._tell("a front end is here")
        served: frozenset[int] = frozenset()
        why = "ends"
        try:
            while self._wait(channel.fileno(), trouble=self._ports.port.trouble):
                for index in device.look_for_trouble():
                    self._tell(f"queue {index} stands still: its driver broke it, and has to reset the device")
                while (received := channel.receive()) is not None:
                    reply = connection.receive(*received)
                    if reply is not None:
                        channel.send(*reply)
                if self._ports.port.running != served:
                    served = self._ports.port.running
                    numbers = ", ".join(map(str, sorted(served)))
                    self._tell(f"serves queues {numbers}" if served else "serves no queue")
        except PeerError as error:
            gone = error.errno == errno.ECONNRESET
            why = "the front end has gone" if gone else str(error)
        finally:
            connection.close()
            device.close()
            channel.close()
            self._ports.reset()
        self._tell(why)

# SPDX-License-Identifier: BSD-2-Clause
"""Asking the kernel about network interfaces, and hearing of their changes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import ethtool
from ptnetmap.abi import rtnetlink as abi
from ptnetmap.netmap.nic.message import Interface, error_of, get_link, interface_of

_ANSWER = 1 << 16


class Asker:
    """A way to ask about interfaces of the network namespace that its maker's thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, abi.NETLINK_ROUTE)
        self._lock = threading.Lock()

    def request(self, message: bytes) -> bytes:
        """Make one request; return the answer's bytes. Raises OSError with the errno of one that is refused."""
        with self._lock:
            self._socket.send(message)
            answer = self._socket.recv(_ANSWER)
        number = error_of(answer)
        if number:
            raise OSError(number, os.strerror(number))
        return answer

    def find(self, name: str = "", index: int = 0) -> Interface | None:
        """Return an interface by its name or number; None if there is none."""
        try:
            return interface_of(self.request(get_link(name, index)))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):  # the latter for what can be no name
                return None
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def find_interface(name: str) -> Interface | None:
    """Return the interface of a name in this thread's network namespace; None if there is none."""
    with contextlib.closing(Asker()) as asker:
        return asker.find(name)


def queues_of(name: str) -> tuple[int, int]:
    """Return how many TX and RX queues an interface uses; one of each where its driver does not say."""
    channels = np.zeros(1, ethtool.ethtool_channels)
    channels["cmd"] = ethtool.ETHTOOL_GCHANNELS
    try:
        _ethtool(name, channels)
    except OSError:
        return 1, 1
    both = int(channels["combined_count"][0])
    return max(1, both + int(channels["tx_count"][0])), max(1, both + int(channels["rx_count"][0]))


def let_frames_be_complete(name: str) -> None:
    """Let the kernel put checksums and VLAN tags into what it sends by an interface, not leave them to the driver.

    Raises OSError.
    """
    _set_value(name, ethtool.ETHTOOL_STXCSUM, 0)
    flags = _set_value(name, ethtool.ETHTOOL_GFLAGS, 0)
    _set_value(name, ethtool.ETHTOOL_SFLAGS, flags & ~ethtool.ETH_FLAG_TXVLAN)


def _set_value(name: str, command: int, number: int) -> int:
    value = np.zeros(1, ethtool.ethtool_value)
    value["cmd"], value["data"] = command, number
    _ethtool(name, value)
    return int(value["data"][0])


def _ethtool(name: str, structure: npt.NDArray[Any]) -> None:
    """Run a command, which may answer in its structure. Raises OSError."""
    request = np.zeros(1, ethtool.ifreq)
    request["ifr_name"], request["ifr_data"] = name.encode(), structure.ctypes.data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, ethtool.SIOCETHTOOL, bytearray(request.tobytes()))


class Watch:
    """Calls a function with what an interface has become, after each change: an :class:`Interface`, or None once it is gone.

    Runs in the thread of all watches. :meth:`close` waits for a call that is being made.
    """

    def __init__(self, index: int, action: Callable[[Interface | None], None]) -> None:
        self._index = index
        self._action = action
        self._asker = Asker()
        self._events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, abi.NETLINK_ROUTE
        )
        self._events.bind((0, abi.RTMGRP_LINK))
        _watches.add(self._events.fileno(), self._look)

    def _look(self) -> None:
        """Whatever the events say, the state is asked for: some of them may have been lost."""
        with contextlib.suppress(OSError):
            while self._events.recv(_ANSWER):
                pass
        self._action(self._asker.find(index=self._index))

    def close(self) -> None:
        """Watch no longer."""
        _watches.remove(self._events.fileno())
        self._events.close()
        self._asker.close()


class _Watches:
    """The thread of all watches; it starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._looks: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        self._pid = 0

    def add(self, fd: int, look: Callable[[], None]) -> None:
        with self._lock:
            if self._epoll is None or self._pid != os.getpid():  # a forked process has no threads
                self._looks = {}
                self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
                self._pid = os.getpid()
                threading.Thread(target=self._run, args=(self._epoll,), name="netmap-links", daemon=True).start()
            self._looks[fd] = look
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._looks.pop(fd, None) is not None and self._epoll is not None:
                self._epoll.unregister(fd)

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll():
                with self._lock:
                    look = self._looks.get(fd)
                    if look is not None:
                        look()


_watches = _Watches()

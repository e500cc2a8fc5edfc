# SPDX-License-Identifier: BSD-2-Clause
"""The watcher: one thread per process that sleeps until some netmapd goes, and then tells its ports.

Syncs are done through memory, which does not notice that nobody serves it any more; the socket does.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable


class Watcher:
    """Calls a function when the other end of a socket goes. Its thread starts with the first socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None
        self._pid = 0

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Call ``action`` once, in the watcher's thread, when the peer of the socket ``fd`` goes."""
        with self._lock:
            if self._epoll is None or self._pid != os.getpid():  # a forked process has no threads
                self._actions = {}
                self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
                self._pid = os.getpid()
                threading.Thread(target=self._run, args=(self._epoll,), name="netmap-watcher", daemon=True).start()
            self._actions[fd] = action
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def forget(self, fd: int) -> None:
        """Stop watching a socket, which is about to be closed."""
        if self._pid != os.getpid():
            return  # the epoll is our parent's, too, and these are its sockets
        with self._lock:
            if self._actions.pop(fd, None) is not None and self._epoll is not None:
                self._epoll.unregister(fd)

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll():
                with self._lock:
                    action = self._actions.get(fd) if _has_hung_up(fd) else None
                if action is not None:
                    action()


def _has_hung_up(fd: int) -> bool:
    """Whether it is this socket's peer that has gone: its number may have been another's when the event came."""
    poller = select.poll()
    poller.register(fd, select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poller.poll(0))


watcher = Watcher()
"""The process's own."""

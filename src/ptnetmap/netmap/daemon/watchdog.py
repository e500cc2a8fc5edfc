# SPDX-License-Identifier: BSD-2-Clause
"""The watchdog of interrupts: no client can hold a kthread up with the eventfd that it wants to be interrupted by.

A write to an eventfd waits while its counter is full, unless the eventfd is non-blocking, which is a property that the
client shares with us and can take back at any time. Counting interrupts, no counter is full before 2^64 - 2 of them: one
that is, was filled on purpose. So whatever is full is interrupted by no more, and emptied, which ends the write that
may be waiting. Neither needs the control thread, which may be waiting for that kthread itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterable

from ptnetmap.netmap.daemon.kthreads import Service

LOOK_S = 0.02
"""Seconds between two looks: for so long, about, a client can hold up one kthread, once per sync loop."""

_TRIES = 256


class Watchdog:
    """Looks after eventfds of clients that kthreads write to. Its thread lives while there are some.

    ``muted`` counts those that were found full.
    """

    def __init__(self) -> None:
        self.muted = 0
        self._lock = threading.Lock()
        self._watched: dict[int, Service] = {}
        self._muted: set[int] = set()
        self._writable = select.poll()
        self._over = threading.Event()
        self._room = bytearray(8)

    def watch(self, services: Iterable[Service]) -> None:
        """Look after the interrupts of these services from now on."""
        with self._lock:
            idle = not self._watched
            for service in services:
                fd = service.block["irqfd"]
                if fd >= 0:
                    self._watched[fd] = service
                    self._writable.register(fd, select.POLLOUT)
            if idle and self._watched:
                self._over = threading.Event()
                threading.Thread(target=self._run, args=(self._over,), name="netmapd-watchdog", daemon=True).start()

    def forget(self, services: Iterable[Service]) -> None:
        """Look no more after these services, which no kthread has any more; their eventfds can be closed then."""
        with self._lock:
            gone = set(services)
            for fd in [fd for fd, service in self._watched.items() if service in gone]:
                del self._watched[fd]
                self._muted.discard(fd)
                self._writable.unregister(fd)
            if not self._watched:
                self._over.set()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            with self._lock:
                if over.is_set():
                    return
                for fd in self._full():
                    self._mute(fd)

    def _full(self) -> set[int]:
        # A counter at its very end is reported too, as an error and not as writable.
        return set(self._watched) - {fd for fd, events in self._writable.poll(0) if events & select.POLLOUT}

    def _mute(self, fd: int) -> None:
        self._watched[fd].block["irqfd"] = -1
        if fd not in self._muted:
            self._muted.add(fd)
            self.muted += 1
        # Its client may be filling it again at this moment, and win the race with the kthread's write, but not always.
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                os.preadv(fd, [self._room], -1, os.RWF_NOWAIT)
            os.sched_yield()
            if fd not in self._full():
                return

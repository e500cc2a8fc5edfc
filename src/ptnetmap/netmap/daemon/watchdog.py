# SPDX-License-Identifier: BSD-2-Clause
"""The watchdog of interrupts: no client can hold a kthread up with the eventfd that it wants to be interrupted by.

A write to an eventfd waits while its counter is full, unless the eventfd is non-blocking, which is a property that the
client shares with us and can take back at any time. Counting interrupts, no counter is full before 2^64 - 2 of them: one
that is, was filled on purpose. So whatever is full is interrupted by no more, and a signal ends the write that may be
waiting. Emptying the counter would not do: any number of the client's own writers may be waiting for that, too. Neither
needs the control thread, which may be waiting for that kthread itself.

While all kthreads sleep nobody writes, and nothing has to be looked at: then the watchdog sleeps as well, until one of
them wakes up.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections.abc import Iterable, Sequence

from ptnetmap.netmap.daemon.kthreads import KThread, QueueService, Service

LOOK_S = 0.02
"""Seconds between two looks: for so long, about, a client can hold up one kthread, once per sync loop."""


class Watchdog:
    """Looks after eventfds of clients that kthreads write to. Its thread lives while there are some.

    ``threads`` are the kthreads; if none are given, it never rests. ``muted`` counts what was found full, ``looks`` how
    often it looked.
    """

    def __init__(self, threads: Sequence[KThread] = ()) -> None:
        self.muted = 0
        self.looks = 0
        self._threads = threads
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._alarm).atexit = False
        self._heard = select.poll()
        self._heard.register(self._alarm, select.POLLIN)
        for thread in threads:
            thread.block["watchdog"] = self._alarm
        self._lock = threading.Lock()
        self._watched: dict[int, Service] = {}
        self._muted: set[int] = set()
        self._writable = select.poll()
        self._running = False

    def watch(self, services: Iterable[Service]) -> None:
        """Look after the interrupts of these services from now on."""
        with self._lock:
            for service in services:
                fd = service.block["irqfd"]
                if fd >= 0:
                    self._watched[fd] = service
                    self._writable.register(fd, select.POLLOUT)
            os.eventfd_write(self._alarm, 1)
            if self._watched and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="netmapd-watchdog", daemon=True).start()

    def forget(self, services: Iterable[Service]) -> None:
        """Look no more after these services, which no kthread has any more; their eventfds can be closed then."""
        with self._lock:
            gone = set(services)
            for fd in [fd for fd, service in self._watched.items() if service in gone]:
                del self._watched[fd]
                self._muted.discard(fd)
                self._writable.unregister(fd)
            os.eventfd_write(self._alarm, 1)

    def _run(self) -> None:
        while True:
            self._heard.poll(None if self._may_rest() else LOOK_S * 1000)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._alarm)
            with self._lock:
                if not self._watched:
                    self._running = False
                    return
                self.looks += 1
                for fd in self._full():
                    self._mute(fd)

    def _may_rest(self) -> bool:
        """Whether all kthreads sleep; the first one that does not any more writes to the alarm."""
        for thread in self._threads:
            thread.block["watchdog_waits"] = 1
        with self._lock:  # a full fence: a kthread that we see asleep sees the line above when it wakes up
            return bool(self._threads) and all(thread.block["asleep_since"] for thread in self._threads)

    def _full(self) -> set[int]:
        # A counter at its very end is reported too, as an error and not as writable.
        return set(self._watched) - {fd for fd, events in self._writable.poll(0) if events & select.POLLOUT}

    def _mute(self, fd: int) -> None:
        service = self._watched[fd]
        service.block["irqfd"] = -1
        if fd not in self._muted:
            self._muted.add(fd)
            self.muted += 1
        # It may be about to write, and not yet waiting: then the next look finds the counter full again. A driver's
        # receive queue is written to by whichever kthread serves the sender.
        writers = self._threads if isinstance(service, QueueService) else [service.kthread]
        for kthread in writers:
            if kthread is not None:  # once it has let go of the service
                kthread.interrupt()

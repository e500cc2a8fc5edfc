# SPDX-License-Identifier: BSD-2-Clause
"""Kthreads, seen from the control thread: starting them, and giving them rings to serve."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Sequence

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.jit.libc import EPOLL_CTL_ADD, EPOLL_CTL_DEL
from ptnetmap.jit.wait import SPINS, YIELDS
from ptnetmap.netmap.daemon.csbfields import CsbFields
from ptnetmap.netmap.kthread import run_kthread
from ptnetmap.netmap.ringstate import ONE, RingState
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.service import EVENTS, MAX_ACTIVE, kthread, service

DEFAULT_SPIN = SPINS + YIELDS
_DOORBELL = 0
_INTERRUPT = signal.SIGURG  # ignored where interruptible() was not called
_libc = ctypes.CDLL(None, use_errno=True)


class Service:
    """One ring that is served for somebody else, and its notifiers.

    ``csb`` says where the fields of the ring's CSB are, ``kickfd`` is the eventfd that its user writes to, ``irqfd`` the
    one that we write to (-1: nobody is to be interrupted); ``kicks`` are more that others write to. All stay the
    caller's.
    """

    def __init__(
        self,
        ring: RingState,
        csb: CsbFields,
        kickfd: int,
        irqfd: int,
        *,
        kicks: Sequence[int] = (),
        spin: int = DEFAULT_SPIN,
    ) -> None:
        self.ring = ring
        self.kickfd = kickfd
        self._kicks = tuple(kicks)
        self.kthread: KThread | None = None
        self.block = Block(service)
        self.address = self.block.address
        self.block["kring"] = ring.address
        self.block["kern_need_kick_at"] = csb.kern_need_kick
        self.block["appl_need_kick_at"] = csb.appl_need_kick
        self.block["served_at"] = csb.served
        self.block["core_at"] = csb.core
        self.block["clears"] = int(csb.clears)
        self.is_guests = not csb.core
        self.block["irqfd"] = irqfd
        self.block["news"] = -1 if ring.news is None else ring.news[0]
        self.block["spin"] = spin
        self._doorbell = ring.make_eventfd()
        kring = ring.block
        kring["head_at"] = csb.head
        kring["cur_at"] = csb.cur
        kring["tail_at"] = csb.hwtail
        kring["hwcur_at"] = csb.hwcur
        kring["order"] = csb.order
        kring["indirect"] = 0  # the user's pointers would be followed in our memory
        kring["most"] = max(1, ring.num_slots // 2) if ring.direction == abi.TX else ring.num_slots
        self.block["seen"] = kring["rhead"]

    @property
    def kicks(self) -> tuple[int, ...]:
        """What the kthread waits on for this ring: the user's kicks, and other threads'."""
        return self.kickfd, self._doorbell, *self._kicks


class QueueService(Service):
    """A virtqueue that is served for its driver, which writes to ``kickfd`` and is interrupted by ``irqfd`` (-1: not)."""

    def __init__(
        self, ring: RingState, kickfd: int, irqfd: int, *, kicks: Sequence[int] = (), spin: int = DEFAULT_SPIN
    ) -> None:
        self.ring = ring
        self.kickfd = kickfd
        self._kicks = tuple(kicks)
        self.kthread = None
        self.block = Block(service)
        self.address = self.block.address
        self.block["kring"] = ring.address
        self.block["irqfd"] = irqfd
        self.block["news"] = -1
        self.block["spin"] = spin
        self.block["armed"] = 1  # the driver kicks until it is told not to
        self.is_guests = True
        self._doorbell = ring.make_eventfd()


class KThread:
    """A thread that runs the compiled loop, and the services it has. ``cpu`` pins it.

    Adding and removing a service never stalls the others for longer than a batch.
    """

    def __init__(self, number: int, cpu: int | None = None, spin: int = DEFAULT_SPIN) -> None:
        self.number = number
        self.cpu = cpu
        self.tid = 0
        self.services: set[Service] = set()
        self.block = Block(kthread)
        self.address = self.block.address
        self._active = Block(np.uint64, MAX_ACTIVE)
        self._events = Block(np.uint8, 12 * EVENTS)
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll_add(self._doorbell, _DOORBELL)
        self.block["epoll"] = self._epoll.fileno()
        self.block["spin"] = spin
        self.block["active"] = self._active.address
        self.block["events"] = self._events.address
        self.block["one"] = ONE.address
        self.block["watchdog"] = -1
        self._started_ns = time.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name=f"kthread-{number}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.tid = threading.get_native_id()
        if self.cpu is not None:
            os.sched_setaffinity(0, {self.cpu})
        run_kthread(self.address, scratch())

    def _epoll_add(self, fd: int, data: int) -> None:
        _epoll_ctl(self._epoll.fileno(), EPOLL_CTL_ADD, fd, data, select.EPOLLIN)

    def add(self, added: Service) -> None:
        """Serve one more ring. Its kicks are watched from now on, and it is looked at at once."""
        if len(self.services) >= MAX_ACTIVE:
            raise PortError(
                errno.ENOMEM,
                f"netmap: kthread {self.number} serves {MAX_ACTIVE} rings\n        start netmapd with more",
            )
        self.block["guests"] += int(added.is_guests)
        added.block["kthread"] = self.address
        added.block["leaving"] = added.block["watched"] = 0
        added.kthread = self
        self.services.add(added)
        try:
            for fd in added.kicks:
                self._epoll_add(fd, added.address)
        except PortError:
            self.remove([added])  # it may have been kicked already
            raise
        added.ring.block["service"] = added.address
        added.ring.wake()

    def remove(self, services: Sequence[Service]) -> None:
        """Serve some rings no longer; returns when the thread has let go of them."""
        if not services:
            return
        for gone in services:
            gone.ring.block["service"] = 0
        services[0].ring.epoch.synchronize()  # no other thread is about to activate them
        for gone in services:
            gone.block["leaving"] = 1
            for fd in (*gone.kicks, gone.block["news"]):
                with contextlib.suppress(PortError):  # adding it may have failed half-way
                    _epoll_ctl(self._epoll.fileno(), EPOLL_CTL_DEL, fd, 0)
        removals = self.block["removals"] + 1
        self.block["removals"] = removals
        os.eventfd_write(self._doorbell, 1)
        while self.block["acked"] != removals:
            os.sched_yield()
        for gone in services:
            self.block["guests"] -= int(gone.is_guests)
            self.services.discard(gone)
            gone.kthread = None

    def interrupt(self) -> None:
        """End the system call that the thread is waiting in, if it is; see :func:`interruptible`."""
        if self._thread.ident is not None and self._thread.is_alive():
            signal.pthread_kill(self._thread.ident, _INTERRUPT)

    def stop(self) -> None:
        """End the thread; its services must be gone."""
        self.block["stop"] = 1
        os.eventfd_write(self._doorbell, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._doorbell)

    @property
    def age_ns(self) -> int:
        """Nanoseconds since it was started."""
        return time.monotonic_ns() - self._started_ns

    @property
    def asleep_ns(self) -> int:
        """Nanoseconds that it has slept since it was started; the rest is its load."""
        slept = self.block["asleep_ns"]  # first: a wake-up in between must not count one sleep twice
        since = self.block["asleep_since"]
        return slept + (time.monotonic_ns() - since if since else 0)


class KThreads:
    """All kthreads of a daemon: new services go where there are fewest."""

    def __init__(self, count: int = 1, cpus: Sequence[int] = (), spin: int = DEFAULT_SPIN) -> None:
        self.spin = spin
        self.threads = [KThread(i, cpus[i % len(cpus)] if cpus else None, spin) for i in range(count)]

    def add(self, services: Sequence[Service]) -> None:
        """Serve the rings of one port, all by one kthread."""
        chosen = min(self.threads, key=lambda thread: len(thread.services))
        try:
            for added in services:
                chosen.add(added)
        except PortError:
            self.remove(services)
            raise

    def remove(self, services: Sequence[Service]) -> None:
        """Serve some rings no longer."""
        for thread in self.threads:
            thread.remove([gone for gone in services if gone.kthread is thread])

    def move(self, services: Sequence[Service], number: int) -> None:
        """Let kthread ``number`` serve these rings. Raises PortError (EINVAL) if there is none of that number."""
        if number not in range(len(self.threads)):
            raise PortError(
                errno.EINVAL,
                f"netmap: no kthread has number {number}: there are {len(self.threads)}, counted from 0\n"
                "        start netmapd with --kthreads for more",
            )
        self.remove(services)
        for moved in services:
            self.threads[number].add(moved)

    def stop(self) -> None:
        """End all threads."""
        for thread in self.threads:
            thread.stop()


def interruptible() -> None:
    """Let :meth:`KThread.interrupt` work in this process. To be called in the main thread."""
    signal.signal(_INTERRUPT, lambda number, frame: None)  # system calls are not restarted after it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {_INTERRUPT})  # the starter may have blocked it


def _epoll_ctl(epoll: int, operation: int, fd: int, data: int, events: int = 0) -> None:
    """epoll_ctl(2), edge-triggered, with 64 bits of data, which Python's own has no place for."""
    event = (ctypes.c_uint32 * 3)((events | select.EPOLLET) & 0xFFFFFFFF, data & 0xFFFFFFFF, data >> 32)
    if _libc.epoll_ctl(epoll, operation, fd, event) < 0:
        number = ctypes.get_errno()
        raise PortError(number, f"netmap: cannot watch descriptor {fd}: {os.strerror(number)}")

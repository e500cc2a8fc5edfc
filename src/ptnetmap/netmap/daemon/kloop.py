# SPDX-License-Identifier: BSD-2-Clause
"""Sync loops: a binding's rings served through a CSB, and eventfds, that its user brings (SYNC_KLOOP_START).

Upstream runs the loop in the thread that asks for it; here a kthread serves the rings, and the answer comes when the
loop is stopped. Direct modes are what a kthread does anyway: it syncs when it is kicked.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.memory import store32
from ptnetmap.netmap.daemon.closing import check_eventfd
from ptnetmap.netmap.daemon.csbfields import CsbFields, entries
from ptnetmap.netmap.daemon.exposure import Exposure, ServedExposure
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kthreads import Service
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import check_sealed
from ptnetmap.netmap.wire.codec import Values
from ptnetmap.netmap.wire.option import FilePlace, csb_places, eventfd_indices, kloop_mode
from ptnetmap.netmap.wire.request import Request

_SHORTEST_SLEEP_US = 200


class Ticker:
    """Kicks every so often, in place of a user without eventfds: the sleep mode. ``kick`` is an eventfd of ours."""

    def __init__(self, seconds: float) -> None:
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="netmapd-ticker", daemon=True)
        self._thread.start()

    def _run(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            os.eventfd_write(self.kick, 1)

    def close(self) -> None:
        """Kick no more."""
        self._over.set()
        self._thread.join()
        os.close(self.kick)


class ServedRings:
    """Rings of a port that kthreads serve through a CSB of their user's, from :meth:`serve` to :meth:`stop`.

    ``services`` is what kthreads have of it.
    """

    def __init__(self, host: Host, watchdog: Watchdog, exposure: Exposure) -> None:
        self.services: list[Service] = []
        self._host = host
        self._exposure = exposure
        self._watchdog = watchdog
        self._fds: list[int] = []

    def serve(self, rings: Sequence[RingState], places: Sequence[CsbFields], pairs: Sequence[tuple[int, int]]) -> None:
        """Serve rings, each with its CSB's fields, and the eventfds to be kicked by and to interrupt (-1: none).

        Both are duplicated. Raises PortError, and serves none: EINVAL for what is no eventfd.
        """
        for fd in {fd for pair in pairs for fd in pair if fd >= 0}:
            check_eventfd(fd)
        try:
            for ring, csb, (kick, irq) in zip(rings, places, pairs, strict=True):
                kickfd = self._keep(os.dup(kick))
                irqfd = self._keep(os.dup(irq)) if irq >= 0 else -1
                kicks = self._exposure.kicks(ring)
                self.services.append(Service(ring, csb, kickfd, irqfd, kicks=kicks, spin=self._host.kthreads.spin))
            self._watchdog.watch(self.services)
            self._host.kthreads.add(self.services)
        except OSError:
            self.stop()
            raise

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def stop(self) -> None:
        """Serve them no longer; on return nobody touches the CSB. Harmless when repeated."""
        self._host.kthreads.remove(self.services)
        self._watchdog.forget(self.services)
        self.services = []
        while self._fds:
            os.close(self._fds.pop())


class SyncLoop:
    """A binding in CSB mode. ``running`` says whether its loop does, ``services`` what kthreads have of it.

    Raises PortError: EINVAL for a binding that is not exclusive, places that are not aligned, or memory that may vanish;
    EFAULT for memory that is too small or cannot be mapped; EOPNOTSUPP for a port without rings that could be served.
    """

    def __init__(
        self, host: Host, watchdog: Watchdog, descriptor: Descriptor, option: Values, fds: Sequence[int]
    ) -> None:
        exposure = host.exposure(descriptor.adapter)
        if not isinstance(exposure, ServedExposure):
            raise PortError(
                errno.EOPNOTSUPP,
                f"netmap: {descriptor.name} takes no CSB: its users run its syncs\n        use it as it is",
            )
        atok, ktoa = csb_places(option, descriptor.flags, len(fds))
        count = len(descriptor.rings)
        self._descriptor = descriptor
        self._served = ServedRings(host, watchdog, exposure)
        self._ticker: Ticker | None = None
        self._atok = map_array(atok, fds, abi.nm_csb_atok, count)
        self._ktoa = map_array(ktoa, fds, abi.nm_csb_ktoa, count)
        self.running = False
        exposure.stop(descriptor.rings)
        for ring, csb in zip(descriptor.rings, self._places(), strict=True):
            write_state(ring, csb)

    @property
    def services(self) -> list[Service]:
        """What kthreads serve of the binding."""
        return self._served.services

    def _places(self) -> list[CsbFields]:
        atok, ktoa = int(self._atok.ctypes.data), int(self._ktoa.ctypes.data)
        return [entries(atok + i * abi.CSB_ALIGN, ktoa + i * abi.CSB_ALIGN) for i in range(len(self._descriptor.rings))]

    def start(self, request: Request, fds: Sequence[int]) -> None:
        """Serve the rings. Raises PortError: EBUSY if they are, EINVAL or EBADF for eventfds that will not do."""
        if self.running:
            raise PortError(
                errno.EBUSY, f"netmap: the sync loop of {self._descriptor.name} runs\n        stop it first"
            )
        rings = self._descriptor.rings
        eventfds = request.options.get(abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS)
        pairs = eventfd_indices(eventfds, len(rings), len(fds)) if eventfds else [(-1, -1)] * len(rings)
        if mode := request.options.get(abi.NETMAP_REQ_OPT_SYNC_KLOOP_MODE):
            kloop_mode(mode, pairs)
        ticks = any(kick < 0 for kick, _ in pairs)
        given = [(-1 if ticks else fds[kick], fds[irq] if irq >= 0 else -1) for kick, irq in pairs]
        try:
            if ticks:
                self._ticker = Ticker(max((request.body or {})["sleep_us"], _SHORTEST_SLEEP_US) / 1e6)
                given = [(self._ticker.kick, irq) for _, irq in given]
            self._served.serve(rings, self._places(), given)
        except OSError:
            self.stop()
            raise
        self.running = True

    def stop(self) -> None:
        """Serve the rings no longer; nothing happens if they are not."""
        self._served.stop()
        self.running = False
        if self._ticker is not None:
            self._ticker.close()
            self._ticker = None


def write_state(ring: RingState, csb: CsbFields) -> None:
    """Tell a CSB's user where a ring stands, and to kick and be interrupted at first (netmap-abi 5a.4, 5b.3)."""
    state = ring.block
    for address, value in (
        (csb.cur, state["rcur"]),
        (csb.head, state["rhead"]),
        (csb.sync_flags, 1),
        (csb.hwtail, state["hwtail"]),
        (csb.hwcur, state["hwcur"]),
        (csb.appl_need_kick, 1),
        (csb.kern_need_kick, 1),
    ):
        store32(address, value)


def map_array(place: FilePlace, fds: Sequence[int], layout: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """Map the pages that ``count`` items are in, and no more: a client's file may be larger than all that we can map.

    The mapping lives as long as the array. Raises PortError: EINVAL for memory that may vanish, EFAULT if that fails.
    """
    end = place.offset + count * np.dtype(layout).itemsize
    check_sealed(fds[place.fd], end, "the CSB's memory")
    status = os.fstat(fds[place.fd])
    # Memory on huge pages is mapped by whole ones.
    page = max(mmap.ALLOCATIONGRANULARITY, status.st_blksize)
    first, end = place.offset & -page, min(-(-end // page) * page, status.st_size)
    try:
        pages = mmap.mmap(fds[place.fd], end - first, offset=first)
    except OSError as error:
        raise PortError(errno.EFAULT, f"netmap: cannot map the CSB: {error.strerror}") from None
    return np.frombuffer(pages, layout, count, place.offset - first)

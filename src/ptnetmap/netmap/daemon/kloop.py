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
from ptnetmap.netmap.daemon.closing import EVENTFD, kind_of
from ptnetmap.netmap.daemon.exposure import ServedExposure
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kthreads import Service
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.descriptor import Descriptor
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
        self._host = host
        self._watchdog = watchdog
        self._descriptor = descriptor
        self.services: list[Service] = []
        self._fds: list[int] = []
        self._ticker: Ticker | None = None
        self._atok = _map_entries(atok, fds, abi.nm_csb_atok, count)
        self._ktoa = _map_entries(ktoa, fds, abi.nm_csb_ktoa, count)
        self.running = False
        exposure.stop(descriptor.rings)
        self._write_indices()

    def _write_indices(self) -> None:
        atok, ktoa = self._atok, self._ktoa
        for i, ring in enumerate(self._descriptor.rings):
            atok["head"][i], atok["cur"][i] = ring.block["rhead"], ring.block["rcur"]
            atok["appl_need_kick"][i] = atok["sync_flags"][i] = 1
            ktoa["hwcur"][i], ktoa["hwtail"][i] = ring.block["hwcur"], ring.block["hwtail"]
            ktoa["kern_need_kick"][i] = 1

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
        for index in {i for pair in pairs for i in pair if i >= 0}:
            _check_eventfd(fds[index])
        try:
            if any(kick < 0 for kick, _ in pairs):
                self._ticker = Ticker(max((request.body or {})["sleep_us"], _SHORTEST_SLEEP_US) / 1e6)
            for i, (kick, irq) in enumerate(pairs):
                kickfd = self._keep(os.dup(self._ticker.kick if self._ticker else fds[kick]))
                irqfd = self._keep(os.dup(fds[irq])) if irq >= 0 else -1
                atok, ktoa = (int(entries.ctypes.data) + i * abi.CSB_ALIGN for entries in (self._atok, self._ktoa))
                self.services.append(Service(rings[i], atok, ktoa, kickfd, irqfd, private=False))
            self._watchdog.watch(self.services)
            self._host.kthreads.add(self.services)
        except OSError:
            self.stop()
            raise
        self.running = True

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def stop(self) -> None:
        """Serve the rings no longer; nothing happens if they are not."""
        self._host.kthreads.remove(self.services)
        self._watchdog.forget(self.services)
        self.services = []
        self.running = False
        if self._ticker is not None:
            self._ticker.close()
            self._ticker = None
        while self._fds:
            os.close(self._fds.pop())


def _map_entries(place: FilePlace, fds: Sequence[int], layout: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """Map the pages that ``count`` entries are in, and no more: a client's file may be larger than all that we can map.

    The mapping lives as long as the array.
    """
    end = place.offset + count * abi.CSB_ALIGN
    check_sealed(fds[place.fd], end, "the CSB's memory")
    first = place.offset & -mmap.ALLOCATIONGRANULARITY
    try:
        pages = mmap.mmap(fds[place.fd], end - first, offset=first)
    except OSError as error:
        raise PortError(errno.EFAULT, f"netmap: cannot map the CSB: {error.strerror}") from None
    return np.frombuffer(pages, layout, count, place.offset - first)


def _check_eventfd(fd: int) -> None:
    """Raise PortError (EINVAL) for a descriptor that is no eventfd."""
    kind = kind_of(fd)
    if kind != EVENTFD:
        raise PortError(errno.EINVAL, f"netmap: {kind} is no eventfd\n        pass one from eventfd(2)")

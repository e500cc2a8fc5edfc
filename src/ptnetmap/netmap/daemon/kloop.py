# SPDX-License-Identifier: BSD-2-Clause
"""Sync loops: a binding's rings served through a CSB, and eventfds, that its user brings (SYNC_KLOOP_START).

Upstream runs the loop in the thread that asks for it; here a kthread serves the rings, and the answer comes when the
loop is stopped. Direct modes are what a kthread does anyway: it syncs when it is kicked.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import view
from ptnetmap.netmap.daemon.exposure import ServedExposure
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kthreads import Service
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.shared import Mapping, check_sealed
from ptnetmap.netmap.wire.codec import Values
from ptnetmap.netmap.wire.option import FilePlace, csb_places, eventfd_indices, kloop_mode
from ptnetmap.netmap.wire.request import Request

_SHORTEST_SLEEP_US = 50
_libc = ctypes.CDLL(None, use_errno=True)


class SyncLoop:
    """A binding in CSB mode. ``running`` says whether the loop does; ``on_end`` is called when it has stopped.

    Raises PortError: EINVAL for a binding that is not exclusive, places that are not aligned, or memory that may vanish;
    EFAULT for memory that is too small or cannot be mapped; EOPNOTSUPP for a port without rings that could be served.
    """

    def __init__(self, host: Host, descriptor: Descriptor, option: Values, fds: Sequence[int]) -> None:
        exposure = host.exposure(descriptor.adapter)
        if not isinstance(exposure, ServedExposure):
            raise PortError(
                errno.EOPNOTSUPP,
                f"netmap: {descriptor.name} takes no CSB: its users run its syncs\n        use it as it is",
            )
        atok, ktoa = csb_places(option, descriptor.flags, len(fds))
        self._host = host
        self._descriptor = descriptor
        self._services: list[Service] = []
        self._fds: list[int] = []
        self._maps = [_map_entries(place, fds, len(descriptor.rings)) for place in (atok, ktoa)]
        self._atok, self._ktoa = (
            mapping.address + place.offset for mapping, place in zip(self._maps, (atok, ktoa), strict=True)
        )
        self.running = False
        exposure.stop(descriptor.rings)
        self._write_indices()

    def _write_indices(self) -> None:
        count = len(self._descriptor.rings)
        atok = view(self._atok, abi.nm_csb_atok, count, self._maps[0])
        ktoa = view(self._ktoa, abi.nm_csb_ktoa, count, self._maps[1])
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
        polls = any(kick < 0 for kick, _ in pairs)
        sleep_us = max((request.body or {})["sleep_us"], _SHORTEST_SLEEP_US)
        services = []
        for i, (ring, (kick, irq)) in enumerate(zip(rings, pairs, strict=True)):
            kickfd = _timer(sleep_us) if polls else os.dup(fds[kick])
            irqfd = os.dup(fds[irq]) if irq >= 0 else -1
            self._fds += [fd for fd in (kickfd, irqfd) if fd >= 0]
            at = i * abi.CSB_ALIGN
            services.append(Service(ring, self._atok + at, self._ktoa + at, kickfd, irqfd, private=False))
        self._services = services
        self._host.kthreads.add(services)
        self.running = True

    def stop(self) -> None:
        """Serve the rings no longer; nothing happens if they are not."""
        self._host.kthreads.remove(self._services)
        self._services = []
        self.running = False
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def _map_entries(place: FilePlace, fds: Sequence[int], count: int) -> Mapping:
    size = place.offset + count * abi.CSB_ALIGN
    check_sealed(fds[place.fd], size, "the CSB's memory")
    try:
        return Mapping(fds[place.fd], size)
    except OSError as error:
        raise PortError(errno.EFAULT, f"netmap: cannot map the CSB: {error.strerror}") from None


def _check_eventfd(fd: int) -> None:
    """Raise PortError (EINVAL) for a descriptor that is no eventfd; make sure that writing to it does not block."""
    kind = str(Path(f"/proc/self/fd/{fd}").readlink())
    if kind != "anon_inode:[eventfd]":
        raise PortError(errno.EINVAL, f"netmap: {kind} is no eventfd\n        pass one from eventfd(2)")
    os.set_blocking(fd, False)


def _timer(microseconds: int) -> int:
    """Return a timerfd that fires every so often: it stands in for the kicks of a user without eventfds."""
    fd = _libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
    seconds, rest = divmod(microseconds, 1_000_000)
    interval = (ctypes.c_long * 4)(seconds, rest * 1000, seconds, rest * 1000)
    if fd < 0 or _libc.timerfd_settime(fd, 0, interval, None) < 0:
        number = ctypes.get_errno()
        raise PortError(number, f"netmap: cannot make a timer: {os.strerror(number)}")
    return int(fd)

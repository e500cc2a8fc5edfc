# SPDX-License-Identifier: BSD-2-Clause
"""Pass-through: a port's rings served to a guest, through a CSB in the guest's memory (PTNETMAP_CREATE).

Upstream of 2015 does this with a kthread per ring that works in the hypervisor's address space; here the hypervisor sends
the guest's memory along, and the pages that the CSB is in are mapped. The guest can write them at any time, so all that
comes out of them is read once and checked, as for any CSB (:mod:`ptnetmap.netmap.kthread`).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import csb_2015
from ptnetmap.errors import PortError
from ptnetmap.netmap.daemon.csbfields import CsbFields, entries, page_2015
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kloop import ServedRings, map_array, write_state
from ptnetmap.netmap.daemon.kthreads import Service
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.option import csb_places, eventfd_indices
from ptnetmap.netmap.wire.request import Request


class GuestLoop:
    """A guest's rings, being served; made by PTNETMAP_CREATE, ended by :meth:`stop`, for good.

    Raises PortError, and leaves nothing: EINVAL for a binding that is not for guests, places that are not aligned,
    memory that may vanish, a number of eventfds that is not that of rings, or descriptors that are none; EFAULT for
    memory that is too small or cannot be mapped; EBADF for descriptors that did not come along.
    """

    running = True

    def __init__(
        self, host: Host, watchdog: Watchdog, descriptor: Descriptor, request: Request, fds: Sequence[int]
    ) -> None:
        if not descriptor.flags & abi.NR_PTNETMAP_HOST:
            raise PortError(
                errno.EINVAL,
                f"netmap: {descriptor.name} is bound, but not for a guest\n        REGISTER it with NR_PTNETMAP_HOST",
            )
        layout = (request.body or {})["layout"]
        rings = descriptor.rings if layout == extension.CSB_ENTRIES else _first_pair(descriptor)
        option = request.options[abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS]
        pairs = eventfd_indices(option, len(rings), len(fds))
        if any(kick < 0 for kick, _ in pairs):
            raise PortError(
                errno.EINVAL, "netmap: a guest's ring without a kick\n        send an eventfd for each ring"
            )
        self._memory: list[npt.NDArray[Any]] = []
        places = self._map(layout, request, descriptor, rings, fds)
        for ring, csb in zip(rings, places, strict=True):
            write_state(ring, csb)
        self._served = ServedRings(host, watchdog, host.exposure(descriptor.adapter))
        self._served.serve(rings, places, [(fds[kick], fds[irq] if irq >= 0 else -1) for kick, irq in pairs])

    def _map(
        self, layout: int, request: Request, descriptor: Descriptor, rings: Sequence[RingState], fds: Sequence[int]
    ) -> list[CsbFields]:
        atok, ktoa = csb_places(request.options[abi.NETMAP_REQ_OPT_CSB], descriptor.flags, len(fds))
        if layout == extension.CSB_PAGE_2015:
            self._memory = [map_array(atok, fds, csb_2015, 1)]
            page = int(self._memory[0].ctypes.data)
            return [page_2015(page, ring.direction) for ring in rings]
        self._memory = [
            map_array(atok, fds, abi.nm_csb_atok, len(rings)),
            map_array(ktoa, fds, abi.nm_csb_ktoa, len(rings)),
        ]
        first, second = (int(part.ctypes.data) for part in self._memory)
        return [entries(first + i * abi.CSB_ALIGN, second + i * abi.CSB_ALIGN) for i in range(len(rings))]

    @property
    def services(self) -> list[Service]:
        """What kthreads serve of the binding."""
        return self._served.services

    def stop(self) -> None:
        """Serve the rings no longer, and let go of the guest's memory. Harmless when repeated."""
        self._served.stop()
        self._memory = []


def _first_pair(descriptor: Descriptor) -> list[RingState]:
    """Return the rings that the CSB of 2015 has room for: ring 0 of each direction. Raises PortError (EINVAL)."""
    found = [ring for ring in descriptor.rings if ring.index == 0]
    if len(found) != 2:
        raise PortError(
            errno.EINVAL,
            f"netmap: {descriptor.name} has not both rings 0 bound, which a CSB of 2015 is for\n        bind all rings",
        )
    return found

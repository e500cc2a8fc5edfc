# SPDX-License-Identifier: BSD-2-Clause
"""Exposures: an adapter's rings as other processes get at them, and what wakes whom.

A ring of a VALE port, or of a monitor, is *served*: its user writes indices to a page and a kthread of ours does the
rest. A ring of a pipe is *inline*: the processes at both ends run the syncs themselves, over the pipe's lanes, and we
only keep the memory. What netmapd itself writes to can block it in no way: the user of a served ring waits on an epoll
descriptor with the eventfd inside, and can neither fill the eventfd nor change its flags. The ends of a pipe wake each
other, and trust each other that far.
"""

from __future__ import annotations

import errno
import os
import select
import weakref

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.errors import PortError
from ptnetmap.jit.memory import store32
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.csb import STOPPED
from ptnetmap.netmap.daemon.csbfields import entries
from ptnetmap.netmap.daemon.kthreads import KThreads, Service
from ptnetmap.netmap.kring import KIND_NULL
from ptnetmap.netmap.nic.adapter import NicAdapter
from ptnetmap.netmap.pipeport import PipeEnd, lane_indices, resume
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import SharedBlock

SERVED = "served"
INLINE = "inline"
NO_RINGS = "none"


def _kept(owner: object, fd: int) -> int:
    """Close a descriptor when its owner goes."""
    weakref.finalize(owner, os.close, fd).atexit = False
    return fd


class Notifier:
    """What wakes the user of one ring: ``eventfd`` is for whoever does that, ``waiting`` for the user.

    ``own`` wakes the same user, and no process but this one can ever have it: whoever was given an eventfd may let its
    writers block.
    """

    def __init__(self) -> None:
        self.eventfd = _kept(self, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        with select.epoll(flags=select.EPOLL_CLOEXEC) as epoll:
            epoll.register(self.eventfd, select.EPOLLIN | select.EPOLLET)
            self.waiting = _kept(self, os.dup(epoll.fileno()))
        self._own = -1

    @property
    def own(self) -> int:
        """The eventfd of this process's own, made on first use."""
        if self._own < 0:
            self._own = _kept(self, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            with select.epoll.fromfd(os.dup(self.waiting)) as epoll:
                epoll.register(self._own, select.EPOLLIN | select.EPOLLET)
        return self._own


class Kick:
    """The eventfd that the user of a served ring writes to; we only watch it, and never read or write it."""

    def __init__(self) -> None:
        self.eventfd = _kept(self, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


class Exposure:
    """One adapter, exposed. ``how`` is SERVED, INLINE or NO_RINGS; ``memory`` what its users map beside the region."""

    how = NO_RINGS

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.users = 0
        self.memory: list[SharedBlock] = []

    def start(self, rings: list[RingState]) -> None:
        """Expose rings that have just been bound; those that are already, stay so."""

    def stop(self, rings: list[RingState]) -> None:
        """Stop exposing rings whose last user is going."""

    def pass_through(self, rings: list[RingState]) -> None:
        """Prepare rings that have just been bound for a guest, whose CSB comes later; in place of :meth:`start`.

        Raises PortError (EOPNOTSUPP) where there are none.
        """
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: cannot pass {self.adapter.name} through to a guest: it carries no packets\n"
            "        use a port of a switch, or a pipe",
        )

    def kicks(self, ring: RingState) -> tuple[int, ...]:
        """What other processes write to, to wake the kthread of a ring that is passed through."""
        return ()

    def descriptors(self, ring: RingState) -> tuple[int, int]:
        """What the user of a ring writes to, to wake the other side, and what it waits on."""
        raise KeyError(str(ring))

    def describe(self, ring: RingState) -> dict[str, int]:
        """Where the ring's part of ``memory`` is."""
        return {}


class ServedExposure(Exposure):
    """Rings that kthreads serve, each with an entry in two pages: atok, which users write, and ktoa, which they read."""

    how = SERVED

    def __init__(self, adapter: Adapter, kthreads: KThreads) -> None:
        super().__init__(adapter)
        self._kthreads = kthreads
        self._entry = {ring.address: i for i, ring in enumerate(adapter.rings)}
        self._atok = SharedBlock("netmap-atok", nm_csb_atok, len(self._entry))
        self._ktoa = SharedBlock("netmap-ktoa", nm_csb_ktoa, len(self._entry), read_only=True)
        self.memory = [self._atok, self._ktoa]
        self.services: dict[int, Service] = {}
        self._kicks: dict[int, Kick] = {}
        self._notifiers: dict[int, Notifier] = {}
        if isinstance(adapter, NicAdapter):
            adapter.on_stop.append(self._tell_stopped)

    def _tell_stopped(self) -> None:
        """Tell the users that their rings have stopped for good. Runs in the thread that watches interfaces."""
        for entry in range(len(self._entry)):
            store32(self._ktoa.address + entry * nm_csb_ktoa.itemsize + STOPPED, 1)
        for notifier in list(self._notifiers.values()):
            os.eventfd_write(notifier.eventfd, 1)

    def start(self, rings: list[RingState]) -> None:
        """Let one of the kthreads serve the rings."""
        started = [self._make_service(ring) for ring in rings if ring.address not in self.services]
        self._kthreads.add(started)

    def pass_through(self, rings: list[RingState]) -> None:
        """Leave the rings alone: a kthread serves them once there is a CSB."""
        name = self.adapter.part(rings).name
        if name != self.adapter.name:
            raise PortError(
                errno.EOPNOTSUPP,
                f"netmap: cannot pass {name} through to a guest: a guest's driver knows no host rings\n"
                f"        pass {self.adapter.name} through, or let bridge join {self.adapter.name}^ to a port of a switch",
            )

    def _make_service(self, ring: RingState) -> Service:
        i = self._entry[ring.address]
        atok, ktoa, kring = self._atok.items[i], self._ktoa.items[i], ring.block
        for field in ("head", "cur"):
            atok[field] = kring[f"r{field}"]
        atok["appl_need_kick"] = atok["sync_flags"] = 0
        ktoa["hwcur"], ktoa["hwtail"], ktoa["kern_need_kick"] = kring["hwcur"], kring["hwtail"], 1
        kick = self._kicks.setdefault(ring.address, Kick())
        notifier = self._notifiers.setdefault(ring.address, Notifier())
        service = Service(
            ring,
            entries(
                self._atok.address + i * nm_csb_atok.itemsize,
                self._ktoa.address + i * nm_csb_ktoa.itemsize,
                private=True,
            ),
            kick.eventfd,
            notifier.eventfd,
            spin=self._kthreads.spin,
        )
        self.services[ring.address] = service
        return service

    def stop(self, rings: list[RingState]) -> None:
        """Take the rings off their kthread."""
        self._kthreads.remove([self.services.pop(ring.address) for ring in rings if ring.address in self.services])

    def move(self, number: int) -> int:
        """Let kthread ``number`` serve all rings from now on; return which one did. Raises PortError (EINVAL)."""
        before = self.kthread
        self._kthreads.move(list(self.services.values()), number)
        return before

    @property
    def kthread(self) -> int:
        """Number of the kthread that serves the rings; -1 if there are none."""
        numbers = [service.kthread.number for service in self.services.values() if service.kthread]
        return numbers[0] if numbers else -1

    def descriptors(self, ring: RingState) -> tuple[int, int]:
        """Return the kick eventfd, and the epoll descriptor with the interrupt's eventfd inside."""
        return self._kicks[ring.address].eventfd, self._notifiers[ring.address].waiting

    def describe(self, ring: RingState) -> dict[str, int]:
        """Return the number of the ring's entry in both pages."""
        return {"entry": self._entry[ring.address]}


class InlineExposure(Exposure):
    """Both ends of a pipe, which share lanes and nothing else; each ring's user wakes the other end's."""

    how = INLINE

    def __init__(self, end: PipeEnd) -> None:
        super().__init__(end)
        self._pair = end.pair
        self.memory = [self._pair.lanes] if isinstance(self._pair.lanes, SharedBlock) else []
        self._notifiers: dict[int, Notifier] = {}
        self._peers: dict[int, RingState] = {}
        self._lanes: dict[int, int] = {}
        for i, (tx, rx) in enumerate(self._pair.joined()):
            self._peers[tx.address], self._peers[rx.address] = rx, tx
            self._lanes[tx.address] = self._lanes[rx.address] = i

    def start(self, rings: list[RingState]) -> None:
        """Put in order what an earlier user of these rings, who may have died, has left in their headers."""
        for ring in rings:
            if ring.users == 1:
                settle(ring)

    def pass_through(self, rings: list[RingState]) -> None:
        """Let krings of our own take over where the lanes stand, and join both ends' wake-ups.

        The kthread that will serve these rings waits for what the other end's process writes to, too (:meth:`kicks`),
        and wakes whatever the other end waits on, a process or another kthread.
        """
        self.start(rings)
        for ring in rings:
            resume(ring)
            for end in (ring, self._peers[ring.address]):
                if end.eventfd < 0:
                    end.block["eventfd"] = os.dup(self._notifier(end).own)

    def kicks(self, ring: RingState) -> tuple[int, ...]:
        """Return the eventfd that the process at the other end has."""
        return (self._notifier(ring).eventfd,)

    def _notifier(self, ring: RingState) -> Notifier:
        return self._notifiers.setdefault(ring.address, Notifier())

    def descriptors(self, ring: RingState) -> tuple[int, int]:
        """Return the eventfd that wakes the other end, and the epoll descriptor with our own inside."""
        return self._notifier(self._peers[ring.address]).eventfd, self._notifier(ring).waiting

    def describe(self, ring: RingState) -> dict[str, int]:
        """Return the number of the ring's lane, and where the other end's ring is in the region."""
        return {"lane": self._lanes[ring.address], "peer_offset": self._peers[ring.address].offset}


def settle(ring: RingState) -> None:
    """Give a pipe's ring that has a new user the indices that its lane implies.

    What the user before had released without a sync, and was not sent, is the new one's to fill again.
    """
    if ring.allocator is None or ring.lane is None:
        return
    hwcur, hwtail = lane_indices(ring.lane, ring.direction, ring.num_slots)
    header = ring.allocator.region.view(ring.offset, abi.ring, 1)
    header["head"] = header["cur"] = hwcur
    header["tail"] = hwtail


def expose(adapter: Adapter, kthreads: KThreads) -> Exposure:
    """Return the exposure that suits an adapter."""
    if isinstance(adapter, PipeEnd):
        return InlineExposure(adapter)
    if adapter.kind == KIND_NULL:
        return Exposure(adapter)
    return ServedExposure(adapter, kthreads)

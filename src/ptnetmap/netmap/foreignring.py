# SPDX-License-Identifier: BSD-2-Clause
"""Rings and regions that somebody else has made: the user's side of them, with krings of this process's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.jit.block import offsets, view
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.geometry import Geometry
from ptnetmap.netmap.kring import kring
from ptnetmap.netmap.region import Region
from ptnetmap.netmap.ringstate import RingState

_EPOCH = Epoch()
"""Nothing is ever changed under this process's syncs, so all its ports share one."""

_PEER_EVENTFD, _NEED_KICK = offsets(kring)["peer_eventfd"], offsets(kring)["need_kick"]
_ATOK, _KTOA = offsets(nm_csb_atok), offsets(nm_csb_ktoa)


@dataclass
class MappedAllocator:
    """An allocator of somebody else's: its id and shape, and its region as it is mapped here."""

    id: int
    geometry: Geometry
    region: Region

    def if_offset(self, offset: int) -> int:
        """Return a netmap_if's offset: descriptors of such ports know it instead of the object's number."""
        return offset


class ForeignRing(RingState):
    """A ring at ``offset`` of a region that somebody else has made, and whose other side another process runs."""

    def __init__(self, port: str, kind: int, direction: int, index: int, slots: int, offset: int) -> None:
        self._offset = offset
        super().__init__(port, _EPOCH, kind, direction, index, slots)

    @property
    def offset(self) -> int:
        """Offset of the netmap_ring in its region."""
        return self._offset

    @property
    def own_need_kick(self) -> int:
        """Address of a word that nobody looks at, to ask for wake-ups in vain."""
        return self.address + _NEED_KICK

    def enter(self, allocator: Any) -> None:
        """Take over the region that the ring is in."""
        self.allocator = allocator
        self._write_kring(allocator)
        self.block["peer_eventfd_at"] = self.address + _PEER_EVENTFD

    def join_csb(self, atok: int, ktoa: int, owner: object) -> tuple[int, int]:
        """Let the indices be exchanged through the CSB's entries at these addresses; return its hwcur and hwtail."""
        block = self.block
        block["told_at"] = atok
        block["indirect"] = int(self.direction == abi.TX)
        block["need_kick_at"] = atok + _ATOK["appl_need_kick"]
        block["peer_tail_at"] = ktoa + _KTOA["hwtail"]
        block["peer_need_kick_at"] = ktoa + _KTOA["kern_need_kick"]
        told = view(ktoa, nm_csb_ktoa, 1, owner)[0]
        return int(told["hwcur"]), int(told["hwtail"])

    def stand(self, hwcur: int, hwtail: int) -> None:
        """Begin where the other side is."""
        for name, value in {"hwcur": hwcur, "rhead": hwcur, "rcur": hwcur, "hwtail": hwtail, "rtail": hwtail}.items():
            self.block[name] = value
        assert self.allocator is not None
        self.allocator.region.view(self.offset, abi.ring, 1)["tail"] = hwtail

    def use(self, peer_eventfd: int, irqfd: int) -> None:
        """Take over the descriptors to wake the other side with, and to wait on (-1: none)."""
        self.block["peer_eventfd"] = peer_eventfd
        self.block["irqfd"] = irqfd

    def close(self) -> None:
        """Close all descriptors; nobody waits any more."""
        super().close()
        for field in ("irqfd", "peer_eventfd"):
            fd = self.block[field]
            if fd != -1:
                self.block[field] = -1
                os.close(fd)

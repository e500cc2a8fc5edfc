# SPDX-License-Identifier: BSD-2-Clause
"""What a port of netmapd looks like in its user's process: the memory mapped, and krings of the process's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.jit.block import offsets
from ptnetmap.netmap.adapter import Shape
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.geometry import Geometry, Pool
from ptnetmap.netmap.kring import KIND_CSB, KIND_NULL, KIND_PIPE, kring
from ptnetmap.netmap.lane import lane
from ptnetmap.netmap.pipeport import enter_lane, lane_indices
from ptnetmap.netmap.region import Region
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import Mapping

_EPOCH = Epoch()
"""Nothing is ever changed under this process's syncs, so all its ports share one."""

_PEER_EVENTFD = offsets(kring)["peer_eventfd"]
_KINDS = {"served": KIND_CSB, "inline": KIND_PIPE, "none": KIND_NULL}


@dataclass
class MappedAllocator:
    """An allocator that netmapd owns: its id and shape, and its region as it is mapped here."""

    id: int
    geometry: Geometry
    region: Region

    def if_offset(self, offset: int) -> int:
        """Return a netmap_if's offset: descriptors of remote ports know it instead of the object's number."""
        return offset


class RemoteRing(RingState):
    """One ring of a port of netmapd, with a kring of this process's own."""

    def __init__(self, port: str, kind: int, description: dict[str, Any]) -> None:
        self._offset: int = description["offset"]
        super().__init__(port, _EPOCH, kind, description["direction"], description["index"], description["slots"])

    @property
    def offset(self) -> int:
        """Offset of the netmap_ring in its region."""
        return self._offset

    def join(self, allocator: Any, memory: list[Mapping], description: dict[str, Any]) -> None:
        """Take over where the ring stands, from the memory shared with netmapd or with the other end of a pipe."""
        self.allocator = allocator
        self._write_kring(allocator)
        block = self.block
        block["peer_eventfd_at"] = self.address + _PEER_EVENTFD
        if block["kind"] == KIND_CSB:
            atok = memory[0].address + description["entry"] * nm_csb_atok.itemsize
            ktoa = memory[1].address + description["entry"] * nm_csb_ktoa.itemsize
            block["told_at"] = atok
            block["indirect"] = int(self.direction == abi.TX)
            block["need_kick_at"] = atok + offsets(nm_csb_atok)["appl_need_kick"]
            block["peer_tail_at"] = ktoa + offsets(nm_csb_ktoa)["hwtail"]
            block["peer_need_kick_at"] = ktoa + offsets(nm_csb_ktoa)["kern_need_kick"]
            told = memory[1].view(0, nm_csb_ktoa, description["entry"] + 1)[description["entry"]]
            hwcur, hwtail = int(told["hwcur"]), int(told["hwtail"])
        else:
            number = description["lane"]
            words = memory[0].view(0, lane, number + 1)[number]
            enter_lane(self, memory[0].address + number * lane.itemsize, words)
            block["peer_slots"] = allocator.region.address + description["peer_offset"] + abi.ring.itemsize
            hwcur, hwtail = lane_indices(words, self.direction, self.num_slots)
            block["peer_tail"] = int(words["published"]) % self.num_slots
        for name, value in {"hwcur": hwcur, "rhead": hwcur, "rcur": hwcur, "hwtail": hwtail, "rtail": hwtail}.items():
            block[name] = value
        allocator.region.view(self.offset, abi.ring, 1)["tail"] = hwtail

    def use(self, peer_eventfd: int, irqfd: int) -> None:
        """Take over the descriptors to wake the other side with, and to wait on."""
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


class RemoteAdapter:
    """A port of netmapd, in as far as a descriptor needs it."""

    def __init__(self, description: dict[str, Any], mem_id: int, fds: list[int], memory: list[int]) -> None:
        geometry = _geometry(description["geometry"])
        self.name: str = description["name"]
        self.kind = _KINDS[description["how"]]
        self.is_pipe = self.kind == KIND_PIPE
        self.header: int = description["header"]
        self.shape = Shape(**description["shape"])
        self.allocator = MappedAllocator(mem_id, geometry, Region(geometry, fd=fds[0]))
        maps = []
        for i, (fd, size) in enumerate(zip(memory, description["memory"], strict=True)):
            maps.append(Mapping(fd, size, writable=not (self.kind == KIND_CSB and i == 1)))
            os.close(fd)
        self._maps = maps
        self.rings: list[RingState] = []
        for one in description["rings"]:
            ring = RemoteRing(self.name, self.kind, one)
            if self.kind != KIND_NULL:
                ring.join(self.allocator, maps, one)
            self.rings.append(ring)


def _geometry(values: dict[str, Any]) -> Geometry:
    pools = {name: Pool(**value) for name, value in values.items() if name.endswith("_pool")}
    return Geometry(**pools, shift=values["shift"])

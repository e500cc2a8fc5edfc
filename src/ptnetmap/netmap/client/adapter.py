# SPDX-License-Identifier: BSD-2-Clause
"""What a port of netmapd looks like in its user's process: the memory mapped, and krings of the process's own."""

from __future__ import annotations

import os
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import nm_csb_atok, nm_csb_ktoa
from ptnetmap.netmap.adapter import Shape
from ptnetmap.netmap.foreignring import ForeignRing, MappedAllocator
from ptnetmap.netmap.geometry import Geometry, Pool
from ptnetmap.netmap.kring import KIND_CSB, KIND_NULL, KIND_PIPE
from ptnetmap.netmap.lane import lane
from ptnetmap.netmap.pipeport import enter_lane, lane_indices
from ptnetmap.netmap.region import Region
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import Mapping

_KINDS = {"served": KIND_CSB, "inline": KIND_PIPE, "none": KIND_NULL}


class RemoteRing(ForeignRing):
    """One ring of a port of netmapd."""

    def __init__(self, port: str, kind: int, description: dict[str, Any]) -> None:
        at = (description[name] for name in ("direction", "index", "slots", "offset"))
        super().__init__(port, kind, *at)

    def join(self, allocator: Any, memory: list[Mapping], description: dict[str, Any]) -> None:
        """Take over where the ring stands, from the memory shared with netmapd or with the other end of a pipe."""
        self.enter(allocator)
        if self.block["kind"] == KIND_CSB:
            atok = memory[0].address + description["entry"] * nm_csb_atok.itemsize
            ktoa = memory[1].address + description["entry"] * nm_csb_ktoa.itemsize
            hwcur, hwtail = self.join_csb(atok, ktoa, memory[1])
        else:
            number = description["lane"]
            words = memory[0].view(0, lane, number + 1)[number]
            enter_lane(self, memory[0].address + number * lane.itemsize, words)
            self.block["peer_slots"] = allocator.region.address + description["peer_offset"] + abi.ring.itemsize
            hwcur, hwtail = lane_indices(words, self.direction, self.num_slots)
            self.block["peer_tail"] = int(words["published"]) % self.num_slots
        self.stand(hwcur, hwtail)


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

# SPDX-License-Identifier: BSD-2-Clause
"""Pipes: two adapters that are made together, share their parent's memory, and are each other's other end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.block import offsets
from ptnetmap.netmap.adapter import Adapter, Shape
from ptnetmap.netmap.audit import mend
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.kring import KIND_PIPE, kring
from ptnetmap.netmap.lane import LANE, LaneMemory, lane, private_lanes
from ptnetmap.netmap.ringstate import RingState

MAX_PIPE_RINGS = 256

_EVENTFD = offsets(kring)["eventfd"]


def enter_lane(ring: RingState, address: int, fields: np.void) -> None:
    """Let a pipe's ring use the lane at ``address``: the sender's ``fields`` or the reader's, by its direction."""
    mine, other = ("tx", "rx") if ring.direction == abi.TX else ("rx", "tx")
    told, read = ("published", "returned") if ring.direction == abi.TX else ("returned", "published")
    block = ring.block
    block["told_at"] = address + LANE[told]
    block["peer_tail_at"] = address + LANE[read]
    block["need_kick_at"] = address + LANE[f"{mine}_need_kick"]
    block["peer_need_kick_at"] = address + LANE[f"{other}_need_kick"]
    ring.lane = fields
    ring.count_in(address + LANE[f"{mine}_counters"], fields[f"{mine}_counters"])


def lane_indices(words: np.void, direction: int, n: int) -> tuple[int, int]:
    """Return hwcur and hwtail of a pipe's ring of ``n`` slots, as its lane implies them.

    Either end's process may write the lane, so what it says is taken modulo ``n``.
    """
    published, returned = int(words["published"]) % n, int(words["returned"]) % n
    return (published, returned) if direction == abi.TX else ((returned + 1) % n, published)


def resume(ring: RingState) -> None:
    """Let a pipe's kring go on where its lane stands: another process may have run the syncs until now."""
    assert ring.lane is not None
    hwcur, hwtail = lane_indices(ring.lane, ring.direction, ring.num_slots)
    indices = {"hwcur": hwcur, "rhead": hwcur, "rcur": hwcur, "hwtail": hwtail, "rtail": hwtail}
    for name, value in indices.items():
        ring.block[name] = value
    ring.block["peer_tail"] = int(ring.lane["published"]) % ring.num_slots


class PipeEnd(Adapter):
    """One end of a pipe. Both ends' rings exist while either is bound, so data outlives the reader's absence."""

    kind = KIND_PIPE
    is_pipe = True
    pair: PipePair

    @property
    def other(self) -> PipeEnd:
        """The other end."""
        return self.pair.slave if self is self.pair.master else self.pair.master

    def create_ring(self, ring: RingState) -> None:
        """Make the rings of both ends."""
        if not ring.exists:
            self.pair.create_rings()

    def destroy_rings(self, rings: list[RingState]) -> None:
        """Take both ends' rings down once neither is bound."""
        if not self.other.bound and not self.bound:
            self.pair.destroy_rings()


class PipePair:
    """Both ends of a pipe ``parent{id``. ``on_unused`` is called when neither has a descriptor any more."""

    def __init__(
        self,
        parent: Adapter,
        id: str,
        epoch: Epoch,
        shape: Shape,
        on_unused: Callable[[PipePair], None],
        new_lanes: Callable[[int], LaneMemory] = private_lanes,
    ) -> None:
        self.parent = parent
        self.id = id
        self.name = f"{parent.name}{{{id}"
        mirrored = Shape(shape.rx_rings, shape.tx_rings, shape.rx_slots, shape.tx_slots)
        self.master = PipeEnd(self.name, epoch, parent.allocator, shape)
        self.slave = PipeEnd(f"{parent.name}}}{id}", epoch, parent.allocator, mirrored)
        self._on_unused = on_unused
        for end in (self.master, self.slave):
            end.pair = self
            end.on_unused = self._end_unused
        self.lanes = new_lanes(len(self.joined()))
        for i, (tx, rx) in enumerate(self.joined()):
            lane_at = self.lanes.address + i * lane.itemsize
            tx.reader = rx
            for ring, other in ((tx, rx), (rx, tx)):
                ring.block["peer"] = other.address
                ring.block["peer_eventfd_at"] = other.address + _EVENTFD
                enter_lane(ring, lane_at, self.lanes.items[i])

    def joined(self) -> list[tuple[RingState, RingState]]:
        """Each TX ring with the RX ring at the other end."""
        return [
            *zip(self.master.tx, self.slave.rx, strict=True),
            *zip(self.slave.tx, self.master.rx, strict=True),
        ]

    def create_rings(self) -> None:
        """Make all rings. Both rings of a joined pair start with the same buffers. All or none."""
        for tx, _ in self.joined():
            assert tx.lane is not None
            tx.lane["published"], tx.lane["returned"] = 0, tx.num_slots - 1
        made: list[RingState] = []
        try:
            for tx, rx in self.joined():
                tx.create(self.parent.allocator)
                made.append(tx)
                rx.create(self.parent.allocator, [int(i) for i in tx.slots()["buf_idx"]])
                made.append(rx)
        except Exception:
            for ring in made:
                ring.destroy()
            raise
        for tx, rx in self.joined():
            tx.block["peer_tail"] = 0
            tx.block["peer_slots"] = rx.block["slots"]
            rx.block["peer_slots"] = tx.block["slots"]

    def mend(self, end: PipeEnd) -> int:
        """Put the slots in order that were in the hands of an ``end`` which may have died; the other end lives on.

        Returns how many buffers had to be replaced.
        """
        replaced = 0
        for tx, rx in self.joined():
            theirs = tx.in_flight()
            if rx in end.rx:
                replaced += mend(self.parent.allocator, rx.slots(), theirs)
            else:
                mine = np.setdiff1d(np.arange(tx.num_slots), theirs)
                replaced += mend(self.parent.allocator, tx.slots(), mine)
        return replaced

    def destroy_rings(self) -> None:
        """Take all rings down."""
        for tx, rx in self.joined():
            tx.destroy()
            rx.destroy()
            tx.close()
            rx.close()

    def _end_unused(self, _: Adapter) -> None:
        if self.master.references == 0 and self.slave.references == 0:
            self._on_unused(self)

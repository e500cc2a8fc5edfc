# SPDX-License-Identifier: BSD-2-Clause
"""Pipes: two adapters that are made together, share their parent's memory, and are each other's other end."""

from __future__ import annotations

from collections.abc import Callable

from ptnetmap.netmap.adapter import Adapter, Shape
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.kring import KIND_PIPE
from ptnetmap.netmap.ringstate import RingState

MAX_PIPE_RINGS = 256


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
        self, parent: Adapter, id: str, epoch: Epoch, shape: Shape, on_unused: Callable[[PipePair], None]
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
        for tx, rx in self.joined():
            tx.block["peer"] = rx.address
            rx.block["peer"] = tx.address
            tx.reader = rx

    def joined(self) -> list[tuple[RingState, RingState]]:
        """Each TX ring with the RX ring at the other end."""
        return [
            *zip(self.master.tx, self.slave.rx, strict=True),
            *zip(self.slave.tx, self.master.rx, strict=True),
        ]

    def create_rings(self) -> None:
        """Make all rings. Both rings of a joined pair start with the same buffers. All or none."""
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

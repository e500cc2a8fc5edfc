# SPDX-License-Identifier: BSD-2-Clause
"""Adapters: what a port name stands for. A descriptor binds some of an adapter's rings; several may share one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.ringstate import RingState

MAX_SLOTS = 4096
DEFAULT_SLOTS = 1024


@dataclass(frozen=True)
class Shape:
    """Rings of an adapter, and slots of each."""

    tx_rings: int
    rx_rings: int
    tx_slots: int
    rx_slots: int


HOST_SUFFIXES = ("^", "*")
"""How the names of ports end that have host rings, alone or together with the interface's."""


class Part(NamedTuple):
    """What of an adapter a descriptor is a port of: its name for people, and the rings that count for it."""

    name: str
    tx: list[RingState]
    rx: list[RingState]


def bounded(value: int, default: int, most: int) -> int:
    """Return what upstream makes of a requested count: 0 is the default, and the rest is clamped to 1...most."""
    return min(max(value or default, 1), most)


class Adapter:
    """A port: its rings, its memory, and its users.

    ``references`` counts what keeps the adapter: descriptors, pipes on it, a switch that it was created on. When the
    last one goes, ``on_unused`` is called. Subclasses say what kind of kring they have and what happens around binding.
    ``host_tx`` and ``host_rx`` are the host rings of an interface, numbered after ``tx`` and ``rx``; others have none.
    """

    kind: int
    is_pipe = False

    def __init__(self, name: str, epoch: Epoch, allocator: Allocator, shape: Shape) -> None:
        self.name = name
        self.epoch = epoch
        self.allocator = allocator
        self.shape = shape
        self.header = 0
        self.references = 0
        self.owned_by_runtime = ""
        self.on_unused: Callable[[Adapter], None] = lambda _: None
        self.monitors: list[Adapter] = []
        self.tx = [self._ring(abi.TX, i, shape.tx_slots) for i in range(shape.tx_rings)]
        self.rx = [self._ring(abi.RX, i, shape.rx_slots) for i in range(shape.rx_rings)]
        self.host_tx: list[RingState] = []
        self.host_rx: list[RingState] = []

    def _ring(self, direction: int, index: int, slots: int) -> RingState:
        return RingState(self.name, self.epoch, self.kind, direction, index, slots)

    @property
    def rings(self) -> list[RingState]:
        """All rings, TX first."""
        return [*self.tx, *self.host_tx, *self.rx, *self.host_rx]

    def part(self, rings: Iterable[RingState]) -> Part:
        """Return what a descriptor with some of the rings is a port of: everything, but for host rings."""
        return Part(self.name, self.tx, self.rx)

    def counters_of(self, ring: RingState) -> dict[str, int]:
        """What was counted of a ring of this adapter, for people."""
        return ring.counters()

    @property
    def bound(self) -> bool:
        """Whether some descriptor has a ring bound: upstream's "in netmap mode"."""
        return any(ring.users for ring in self.rings)

    def retain(self) -> None:
        """Keep the adapter."""
        self.references += 1

    def drop(self) -> None:
        """Stop keeping it; the last one to do so ends it."""
        self.references -= 1
        if self.references == 0:
            self.on_unused(self)

    def check_bind(self, rings: Iterable[RingState], exclusive: bool) -> None:
        """Raise PortError (EBUSY) if the rings cannot be bound this way: exclusive means alone."""
        if self.owned_by_runtime:
            raise PortError(
                errno.EBUSY, f"netmap: cannot open {self.name}: {self.owned_by_runtime}\n        detach it first"
            )
        for ring in rings:
            if ring.exclusive:
                raise PortError(
                    errno.EBUSY,
                    f"netmap: cannot open {self.name}: {ring} is held exclusively by another descriptor\n"
                    "        close that one first",
                )
            if exclusive and ring.users:
                raise PortError(
                    errno.EBUSY,
                    f"netmap: cannot open {self.name} exclusively: {ring} is bound by {ring.users} other descriptor(s)\n"
                    "        close them first, or leave out /x",
                )

    def bind(self, rings: list[RingState], exclusive: bool) -> None:
        """Bind rings to one more descriptor, making those that do not exist yet. All of them, or none and an error."""
        self.check_bind(rings, exclusive)
        made: list[RingState] = []
        try:
            for ring in rings:
                if not ring.exists:
                    self.create_ring(ring)
                    made.append(ring)
        except Exception:
            self.destroy_rings(made)
            raise
        for ring in rings:
            ring.users += 1
            ring.exclusive = exclusive
            ring.turn(on=True)

    def unbind(self, rings: list[RingState]) -> None:
        """Undo :meth:`bind` for one descriptor; rings that nobody has bound any more are taken down."""
        idle = []
        for ring in rings:
            ring.users -= 1
            ring.exclusive = False
            if ring.users == 0:
                ring.turn(on=False)
                idle.append(ring)
        if idle:
            self.epoch.synchronize()
            self.destroy_rings(idle)

    def create_ring(self, ring: RingState) -> None:
        """Give a ring its memory."""
        ring.create(self.allocator)

    def destroy_rings(self, rings: list[RingState]) -> None:
        """Take memory from rings that are off and that no executor is inside of."""
        for ring in rings:
            ring.destroy()
            ring.close()

    def failure(self) -> PortError | None:
        """Why the rings have stopped for good, if they have: only a network interface can go."""
        return None

    @property
    def is_lossless(self) -> bool:
        """Whether senders wait for room in this port's RX rings."""
        return any(ring.block["lossless"] for ring in self.rx)

    def lossless(self, on: bool) -> None:
        """Choose whether senders wait for room in this port's RX rings."""
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: {self.name} cannot be made lossless: only VALE ports drop\n        a full pipe waits anyway",
        )

# SPDX-License-Identifier: BSD-2-Clause
"""Network interfaces as adapters: their queues, the host's side, and what becomes of the interface."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.rtnetlink import ARPHRD_ETHER, ARPHRD_LOOPBACK
from ptnetmap.errors import PortError
from ptnetmap.netmap.adapter import Adapter, Part, Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.geometry import NIC_SHIFT
from ptnetmap.netmap.kring import KIND_NIC, STATE_STOPPED
from ptnetmap.netmap.nic.hostside import HostSide
from ptnetmap.netmap.nic.interface import Watch
from ptnetmap.netmap.nic.message import Interface, gone
from ptnetmap.netmap.nic.queues import Queues
from ptnetmap.netmap.ringstate import RingState

MOST_QUEUES = 128
"""Rings of either direction that a port of an interface has at the most."""


class NicAdapter(Adapter):
    """The rings of a network interface, by AF_XDP or AF_PACKET; and a pair of host rings, for its stack.

    TX ring i and RX ring i share a socket, and so do the host rings. Frames of a queue whose RX ring nobody has bound go
    to the host's stack; what that sends goes to the host RX ring while somebody has it bound. With ``force``, somebody
    else's XDP program is detached from the interface. ``on_stop`` are called, in any thread, once the interface has gone.
    """

    kind = KIND_NIC

    def __init__(
        self,
        interface: Interface,
        epoch: Epoch,
        allocator: Allocator,
        shape: Shape,
        *,
        force: bool = False,
        mode: str = "auto",
        busy_poll: int = 0,
    ) -> None:
        super().__init__(interface.name, epoch, allocator, shape)
        self.interface = interface
        self.host_tx = [self._host_ring(abi.TX, shape.tx_rings, shape.tx_slots)]
        self.host_rx = [self._host_ring(abi.RX, shape.rx_rings, shape.rx_slots)]
        self._queues = Queues(interface, allocator, self.tx, self.rx, force=force, mode=mode, busy_poll=busy_poll)
        self._host = HostSide(interface, allocator, self.host_tx, self.host_rx)
        self._gone = False
        self.on_stop: list[Callable[[], None]] = []
        self._watch = Watch(interface.index, self._has_changed)

    def _host_ring(self, direction: int, index: int, slots: int) -> RingState:
        return RingState(f"{self.name}^", self.epoch, self.kind, direction, index, slots)

    @property
    def mode(self) -> str | None:
        """How frames come and go: "zero copy", "copy" or "AF_PACKET"; None while no ring is open."""
        return self._queues.mode

    @property
    def is_gone(self) -> bool:
        """Whether the interface has been removed: nothing can be done with the port but to close it."""
        return self._gone

    def failure(self) -> PortError | None:
        """Why the rings have stopped for good, if they have."""
        return gone(self.name) if self._gone else None

    def close(self) -> None:
        """Stop hearing of the interface; nobody uses the adapter any more."""
        self._watch.close()

    def part(self, rings: Iterable[RingState]) -> Part:
        """Return the interface's rings, the host's, or all, with the name that a port of these is opened by."""
        sides = {self._side(ring) for ring in rings}
        if self._host not in sides:
            return super().part(rings)
        if self._queues not in sides:
            return Part(f"{self.name}^", self.host_tx, self.host_rx)
        return Part(f"{self.name}*", [*self.tx, *self.host_tx], [*self.rx, *self.host_rx])

    # -- binding ------------------------------------------------------------------------------------------------------

    def _side(self, ring: RingState) -> Queues | HostSide:
        return self._host if ring in self.host_tx or ring in self.host_rx else self._queues

    def bind(self, rings: list[RingState], exclusive: bool) -> None:
        """Bind rings, as :meth:`Adapter.bind`; the frames of their queues come here from now on."""
        lost = self.failure()
        if lost is not None:
            raise lost
        for ring in rings:
            if ring.exists and not ring.users:
                ring.settle()
        super().bind(rings, exclusive)
        try:
            for ring in rings:
                if ring.direction == abi.RX and ring.users == 1:
                    self._side(ring).let_come(ring)
        except BaseException:
            self.unbind(rings)
            raise
        if self._gone:  # while this went on
            self._stop()

    def create_ring(self, ring: RingState) -> None:
        """Make both rings of a queue, or the host rings, and what they stand on."""
        self._side(ring).create(ring)

    def destroy_rings(self, rings: list[RingState]) -> None:
        """Let the host have the frames of RX rings; take queues down whose rings nobody has bound."""
        for ring in rings:
            if ring.direction == abi.RX and not self._gone:
                self._side(ring).let_pass(ring)
            ring.close()
        for side in (self._queues, self._host):
            side.destroy_unused()

    # -- what becomes of the interface -------------------------------------------------------------------------------

    def _has_changed(self, now: Interface | None) -> None:
        """Take note of what the interface has become. Runs in the thread of all watches."""
        if now is None:
            self._gone = True
            self._stop()
        else:
            self._host.follow(now.mtu)
            if now.is_up:
                self._queues.tell_up()
        for ring in self.rings:
            ring.wake()

    def _stop(self) -> None:
        for ring in self.rings:
            if ring.users:
                ring.block["state"] = STATE_STOPPED
        for tell in self.on_stop:
            tell()


def check_kind(interface: Interface) -> None:
    """Raise PortError (EINVAL) for an interface that has no Ethernet frames."""
    if interface.kind not in (ARPHRD_ETHER, ARPHRD_LOOPBACK):
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open {interface.name}: its frames are not Ethernet's (type {interface.kind})\n"
            "        use an Ethernet interface",
        )


def check_layout(name: str, allocator: Allocator) -> None:
    """Raise PortError (EINVAL) for memory that cannot be a UMEM: that of other ports begins elsewhere in its pages."""
    if allocator.geometry.shift != NIC_SHIFT:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open {name} in the memory of allocator {allocator.id}: that is not laid out for AF_XDP\n"
            f"        open {name} without @, and share its memory with the other port",
        )

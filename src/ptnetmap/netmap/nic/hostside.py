# SPDX-License-Identifier: BSD-2-Clause
"""The host rings of an interface: a queue at the end of the pair that leads to its stack."""

from __future__ import annotations

from collections.abc import Sequence

from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.nic.hostlink import HostLink
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.queues import Queues
from ptnetmap.netmap.ringstate import RingState


class HostSide:
    """One TX and one RX ring, and the way to the stack for as long as one of them is bound.

    Their buffers are the region's, as those of the interface's own rings, so frames change sides without a copy of ours.
    """

    def __init__(
        self, interface: Interface, allocator: Allocator, tx: Sequence[RingState], rx: Sequence[RingState]
    ) -> None:
        self._interface = interface
        self._allocator = allocator
        self._tx, self._rx = tx, rx
        self._link: HostLink | None = None
        self._queues: Queues | None = None
        self._mtu = interface.mtu

    def create(self, ring: RingState) -> None:
        """Make both rings, and the way to the stack. Raises PortError and MemoryPoolError."""
        if ring.exists:
            return
        link = HostLink(self._interface, self._mtu)
        try:
            queues = Queues(link.inside, self._allocator, self._tx, self._rx, inside=link.run)
            queues.create(ring)
        except BaseException:
            link.close()
            raise
        self._link, self._queues = link, queues

    def let_come(self, ring: RingState) -> None:
        """Let what the stack sends come to the RX ring. Raises PortError."""
        assert self._link is not None
        assert self._queues is not None
        self._queues.let_come(ring)
        self._link.divert()

    def let_pass(self, ring: RingState) -> None:
        """Let what the stack sends leave by the interface."""
        if self._link is not None:
            self._link.restore()

    def destroy_unused(self) -> None:
        """Take everything down if nobody has either ring bound."""
        if self._link is not None and self._queues is not None:
            self._queues.destroy_unused()
            if self._queues.unused:
                link, self._link, self._queues = self._link, None, None
                link.close()

    def follow(self, mtu: int) -> None:
        """Let frames be as long as the interface's new MTU allows."""
        link = self._link
        if link is not None and mtu != self._mtu:
            link.follow(mtu)
        self._mtu = mtu

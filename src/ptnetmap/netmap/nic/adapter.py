# SPDX-License-Identifier: BSD-2-Clause
"""Network interfaces as adapters: each queue's socket, the program that feeds them, and what becomes of the interface."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterable

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.rtnetlink import ARPHRD_ETHER, ARPHRD_LOOPBACK
from ptnetmap.abi.xdp import XDP_PACKET_HEADROOM
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.adapter import Adapter, Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.geometry import NIC_SHIFT
from ptnetmap.netmap.kring import KIND_NIC, STATE_STOPPED
from ptnetmap.netmap.nic.interface import Watch
from ptnetmap.netmap.nic.message import Interface, gone
from ptnetmap.netmap.nic.redirect import Redirect
from ptnetmap.netmap.nic.ring import xskrings
from ptnetmap.netmap.nic.sync import fill
from ptnetmap.netmap.nic.xsk import Ring, Socket, Umem
from ptnetmap.netmap.ringstate import RingState

MOST_QUEUES = 128
"""Rings of either direction that a port of an interface has at the most."""


class Queue:
    """One queue of an interface: its socket, and what stands behind the TX and the RX ring that belong to it."""

    def __init__(self, rings: Iterable[RingState], made: Socket, chunk: int) -> None:
        self.socket = made
        self.rings = list(rings)
        self._blocks: dict[int, tuple[Block, Block]] = {}
        for ring in self.rings:
            give, take = (made.tx, made.completion) if ring.direction == abi.TX else (made.fill, made.rx)
            self._join(ring, give, take, chunk)
            # Each ring has a descriptor of its own, so that one epoll can tell them apart.
            ring.news = os.dup(made.fileno()), select.EPOLLOUT if ring.direction == abi.TX else select.EPOLLIN

    def _join(self, ring: RingState, give: Ring, take: Ring, chunk: int) -> None:
        held = Block(np.uint32, ring.num_slots)
        block = Block(xskrings)
        block["give_producer"], block["give_consumer"] = give.producer, give.consumer
        block["give_flags"], block["give_entries"] = give.flags, give.entries
        block["take_producer"], block["take_consumer"] = take.producer, take.consumer
        block["take_entries"] = take.entries
        block["held"] = held.address
        block["mask"] = self.socket.entries - 1
        block["shift"] = chunk.bit_length() - 1
        block["headroom"] = XDP_PACKET_HEADROOM
        block["room"] = chunk - XDP_PACKET_HEADROOM
        block["most_fragments"] = self.socket.most_fragments
        block["zero_copy"] = int(self.socket.zero_copy)
        block["fd"] = self.socket.fileno()
        self._blocks[ring.direction] = block, held
        ring.block["nic"] = block.address
        if ring.direction == abi.RX:
            self._missed_before = ring.counters()["missed"]
            ring.lost_outside = self._missed
            fill(ring.address)

    def _missed(self) -> int:
        """Frames for the RX ring that the kernel had no buffer or no room for, since the port was opened."""
        found = self.socket.statistics()[0]
        return self._missed_before + int(found["rx_dropped"]) + int(found["rx_ring_full"])

    def tell_up(self) -> None:
        """Let syncs wake the kernel again, after the interface was down."""
        for block, _ in self._blocks.values():
            block["down"] = 0

    def close(self) -> None:
        """Let go of the queue; nobody is inside a sync of its rings."""
        for ring in self.rings:
            ring.counters()  # what it has missed is told for the last time
            ring.lost_outside = None
            ring.block["nic"] = 0
            if ring.news is not None:
                os.close(ring.news[0])
                ring.news = None
        self.socket.close()


class NicAdapter(Adapter):
    """The rings of a network interface, by AF_XDP. TX ring i and RX ring i share a socket.

    The rings of a queue come and go together, as the kernel has buffers of both. Frames of a queue whose RX ring nobody
    has bound go to the host's stack. With ``force``, somebody else's XDP program is detached from the interface.
    ``on_stop`` are called, in any thread, once the interface has gone.
    """

    kind = KIND_NIC

    def __init__(
        self, interface: Interface, epoch: Epoch, allocator: Allocator, shape: Shape, *, force: bool = False
    ) -> None:
        super().__init__(interface.name, epoch, allocator, shape)
        self.interface = interface
        self._force = force
        self._queues: dict[int, Queue] = {}
        self._redirect: Redirect | None = None
        self._gone = False
        self.on_stop: list[Callable[[], None]] = []
        self._watch = Watch(interface.index, self._has_changed)

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

    # -- binding ------------------------------------------------------------------------------------------------------

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
                    self._let_come(ring.index)
        except BaseException:
            self.unbind(rings)
            raise
        if self._gone:  # while this went on
            self._stop()

    def _let_come(self, number: int) -> None:
        assert self._redirect is not None
        try:
            self._redirect.give(number, self._queues[number].socket.fileno())
        except OSError as error:
            raise PortError(
                error.errno or errno.EIO,
                f"netmap: cannot receive from queue {number} of {self.name}: {error.strerror}\n        close the port",
            ) from None

    def create_ring(self, ring: RingState) -> None:
        """Make both rings of a queue, its socket, and the interface's program if it is the first."""
        if ring.exists:
            return
        rings = [one for direction in (self.tx, self.rx) for one in direction[ring.index : ring.index + 1]]
        made: list[RingState] = []
        try:
            for one in rings:
                one.create(self.allocator)
                made.append(one)
            if self._redirect is None:
                self._redirect = Redirect(self.interface, max(len(self.tx), len(self.rx)), force=self._force)
            self._queues[ring.index] = self._open_queue(ring.index, rings)
        except BaseException:
            for one in made:
                one.destroy()
            self._detach_if_unused()
            raise

    def _open_queue(self, number: int, rings: list[RingState]) -> Queue:
        geometry = self.allocator.geometry
        umem = Umem(
            self.allocator.region.address + geometry.umem_offset, geometry.buf_pool.size, geometry.buf_pool.objsize
        )
        entries = 1 << (max(one.num_slots for one in rings) - 1).bit_length()
        beside = next((queue.socket for queue in self._queues.values()), None)
        return Queue(rings, Socket(self.interface, number, umem, max(entries, 2), beside), umem.chunk)

    def destroy_rings(self, rings: list[RingState]) -> None:
        """Let the host have the frames of RX rings; take queues down whose rings nobody has bound."""
        for ring in rings:
            if ring.direction == abi.RX and self._redirect is not None and not self._gone:
                self._redirect.take(ring.index)
            ring.close()
        for number in {ring.index for ring in rings}:
            queue = self._queues.get(number)
            if queue is not None and not any(ring.users for ring in queue.rings):
                del self._queues[number]
                queue.close()
                for ring in queue.rings:
                    ring.destroy()
        self._detach_if_unused()

    def _detach_if_unused(self) -> None:
        if not self._queues and self._redirect is not None:
            self._redirect.close()
            self._redirect = None

    # -- what becomes of the interface -------------------------------------------------------------------------------

    def _has_changed(self, now: Interface | None) -> None:
        """Take note of what the interface has become. Runs in the thread of all watches."""
        if now is None:
            self._gone = True
            self._stop()
        elif now.is_up:
            for queue in list(self._queues.values()):
                queue.tell_up()
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

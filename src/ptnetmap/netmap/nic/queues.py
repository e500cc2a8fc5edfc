# SPDX-License-Identifier: BSD-2-Clause
"""The queues of an interface that have AF_XDP sockets, and the XDP program that feeds these."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.xdp import XDP_PACKET_HEADROOM
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.packet import PacketQueue
from ptnetmap.netmap.nic.redirect import Redirect
from ptnetmap.netmap.nic.ring import xskrings
from ptnetmap.netmap.nic.sync import fill
from ptnetmap.netmap.nic.xsk import Ring, Socket, Umem
from ptnetmap.netmap.ringstate import RingState

NIC_MODES = ("auto", "xdp", "af_packet")
"""How interfaces are opened: by AF_PACKET only if AF_XDP cannot be had, never, or always."""
_NO_XDP = (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


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
        if len(self.rings) == 2:
            by_direction = {ring.direction: ring for ring in self.rings}
            self._blocks[abi.TX][0]["beside"] = by_direction[abi.RX].address

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
        block["busy_poll"] = int(self.socket.busy_poll > 0)
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


class Queues:
    """The queues of one interface: ring i of either direction belongs to queue i.

    Both rings of a queue, its socket and, with the first of them, the program come and go together, as the kernel has
    buffers of both. ``inside`` runs what is to happen in the interface's network namespace.
    ``mode`` is one of :data:`NIC_MODES`, ``busy_poll`` a :class:`~ptnetmap.netmap.nic.xsk.Socket`'s.
    """

    def __init__(
        self,
        interface: Interface,
        allocator: Allocator,
        tx: Sequence[RingState],
        rx: Sequence[RingState],
        *,
        force: bool = False,
        mode: str = "xdp",
        busy_poll: int = 0,
        inside: Callable[[Callable[[], None]], None] = lambda action: action(),
    ) -> None:
        self.interface = interface
        self._allocator = allocator
        self._tx, self._rx = list(tx), list(rx)
        self._force = force
        self._inside = inside
        self._mode = mode
        self._busy_poll = busy_poll
        self._group: int | None = None
        self._open: dict[int, Queue | PacketQueue] = {}
        self._redirect: Redirect | None = None

    def _number(self, ring: RingState) -> int:
        return (self._tx if ring.direction == abi.TX else self._rx).index(ring)

    def create(self, ring: RingState) -> None:
        """Make both rings of a ring's queue, its socket, and the interface's program if it is the first."""
        if ring.exists:
            return
        number = self._number(ring)
        rings = [one for direction in (self._tx, self._rx) for one in direction[number : number + 1]]
        made: list[RingState] = []
        try:
            for one in rings:
                one.create(self._allocator)
                made.append(one)
            self._inside(lambda: self._open_in_some_mode(number, rings))
        except BaseException:
            for one in made:
                one.destroy()
            self._detach_if_unused()
            raise

    @property
    def mode(self) -> str | None:
        """How frames come and go: "zero copy", "copy" or "AF_PACKET"; None while no queue is open."""
        for queue in list(self._open.values()):
            if isinstance(queue, PacketQueue):
                return "AF_PACKET"
            return "zero copy" if queue.socket.zero_copy else "copy"
        return None

    def _open_in_some_mode(self, number: int, rings: list[RingState]) -> None:
        """Open a queue in the mode of those that are open, or in the best one that is allowed."""
        if self._mode == "af_packet" or self.mode == "AF_PACKET":
            self._open_packet_queue(number, rings)
            return
        try:
            self._open_queue(number, rings)
        except PortError as error:
            if self._mode != "auto" or self._open or error.errno not in _NO_XDP:
                raise
            self._detach_if_unused()
            try:
                self._open_packet_queue(number, rings)
            except PortError:
                raise error from None

    def _open_packet_queue(self, number: int, rings: list[RingState]) -> None:
        self._open[number] = PacketQueue(self.interface, rings, self._allocator.geometry.buf_pool.objsize)

    def _open_queue(self, number: int, rings: list[RingState]) -> None:
        if self._redirect is None:
            self._redirect = Redirect(self.interface, max(len(self._tx), len(self._rx)), force=self._force)
        geometry = self._allocator.geometry
        umem = Umem(
            self._allocator.region.address + geometry.umem_offset, geometry.buf_pool.size, geometry.buf_pool.objsize
        )
        entries = 1 << (max(one.num_slots for one in rings) - 1).bit_length()
        beside = next((queue.socket for queue in self._open.values() if isinstance(queue, Queue)), None)
        made = Socket(self.interface, number, umem, max(entries, 2), beside, self._busy_poll)
        self._open[number] = Queue(rings, made, umem.chunk)

    def let_come(self, ring: RingState) -> None:
        """Let the frames of an RX ring's queue come to it. Raises PortError."""
        number = self._number(ring)
        queue = self._open[number]
        try:
            if isinstance(queue, PacketQueue):
                alone = max(len(self._tx), len(self._rx)) == 1
                self._group = queue.let_come(self._group, alone=alone)
            else:
                assert self._redirect is not None
                self._redirect.give(number, queue.socket.fileno())
        except OSError as error:
            raise PortError(
                error.errno or errno.EIO,
                f"netmap: cannot receive from queue {number} of {self.interface.name}: {error.strerror}\n"
                "        close the port",
            ) from None

    def let_pass(self, ring: RingState) -> None:
        """Let the frames of an RX ring's queue go to the stack of the namespace that the interface is in."""
        if self._redirect is not None:
            self._redirect.take(self._number(ring))
        queue = self._open.get(self._number(ring))
        if isinstance(queue, PacketQueue):
            queue.take()

    def destroy_unused(self) -> None:
        """Take down queues whose rings nobody has bound, and the program with the last."""
        for number, queue in list(self._open.items()):
            if not any(ring.users for ring in queue.rings):
                del self._open[number]
                queue.close()
                for ring in queue.rings:
                    ring.destroy()
        self._detach_if_unused()

    @property
    def unused(self) -> bool:
        """Whether there is no queue."""
        return not self._open

    def _detach_if_unused(self) -> None:
        if not self._open:
            self._group = None
        if not self._open and self._redirect is not None:
            self._redirect.close()
            self._redirect = None

    def tell_up(self) -> None:
        """Let syncs wake the kernel again, after the interface was down."""
        for queue in list(self._open.values()):
            queue.tell_up()

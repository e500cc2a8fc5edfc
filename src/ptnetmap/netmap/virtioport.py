# SPDX-License-Identifier: BSD-2-Clause
"""A virtio-net device's port of a switch: its rings are virtqueues in a guest's memory."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from ptnetmap.abi import virtio as abi
from ptnetmap.abi import virtio_pci
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.adapter import Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.joint import joint
from ptnetmap.netmap.kring import KIND_VIRTQUEUE
from ptnetmap.netmap.queuering import queue_suppress_kicks
from ptnetmap.netmap.queuestate import (
    ACCEPT_CSUM,
    ACCEPT_ECN,
    ACCEPT_TSO4,
    ACCEPT_TSO6,
    ACCEPT_UFO,
    ACCEPT_USO,
    COUNTERS,
    STATE_BROKEN,
    STATE_STOPPED,
    Region,
    start_virtqueue,
    stop_virtqueue,
    virtqueue,
)
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.valeport import ValeAdapter
from ptnetmap.netmap.view import KIND_VIRTQUEUE as VPORT_VIRTQUEUE

RING_FEATURES = (
    virtio_pci.VIRTIO_F_INDIRECT_DESC
    | virtio_pci.VIRTIO_F_EVENT_IDX
    | virtio_pci.VIRTIO_F_VERSION_1
    | virtio_pci.VIRTIO_F_RING_PACKED
    | virtio_pci.VIRTIO_F_IN_ORDER
)
"""What the queues can do."""
NET_FEATURES = (
    virtio_pci.VIRTIO_NET_F_CSUM
    | virtio_pci.VIRTIO_NET_F_GUEST_CSUM
    | virtio_pci.VIRTIO_NET_F_GUEST_TSO4
    | virtio_pci.VIRTIO_NET_F_GUEST_TSO6
    | virtio_pci.VIRTIO_NET_F_GUEST_ECN
    | virtio_pci.VIRTIO_NET_F_GUEST_UFO
    | virtio_pci.VIRTIO_NET_F_HOST_TSO4
    | virtio_pci.VIRTIO_NET_F_HOST_TSO6
    | virtio_pci.VIRTIO_NET_F_HOST_ECN
    | virtio_pci.VIRTIO_NET_F_HOST_UFO
    | virtio_pci.VIRTIO_NET_F_MRG_RXBUF
    | virtio_pci.VIRTIO_NET_F_GUEST_USO4
    | virtio_pci.VIRTIO_NET_F_GUEST_USO6
    | virtio_pci.VIRTIO_NET_F_HOST_USO
)
"""What a port of a switch can do of a network device's features: everything that is about packets."""

_ACCEPTS = (
    (virtio_pci.VIRTIO_NET_F_GUEST_CSUM, ACCEPT_CSUM),
    (virtio_pci.VIRTIO_NET_F_GUEST_TSO4, ACCEPT_TSO4),
    (virtio_pci.VIRTIO_NET_F_GUEST_TSO6, ACCEPT_TSO6),
    (virtio_pci.VIRTIO_NET_F_GUEST_ECN, ACCEPT_ECN),
    (virtio_pci.VIRTIO_NET_F_GUEST_UFO, ACCEPT_UFO),
    (virtio_pci.VIRTIO_NET_F_GUEST_USO4 | virtio_pci.VIRTIO_NET_F_GUEST_USO6, ACCEPT_USO),
)


class Setup(NamedTuple):
    """A queue as its driver has set it up: ``size`` entries, guest addresses of its parts, and where it stands."""

    size: int
    desc: int
    avail: int
    used: int
    last_avail: int
    used_idx: int | None
    """None: what the used ring says."""


def accepts(features: int) -> int:
    """Return what a driver that has taken these features takes unfinished (ACCEPT_*)."""
    return sum(bit for feature, bit in _ACCEPTS if features & feature == feature)


def header_size(features: int) -> int:
    """Return the bytes of header before each packet: 12 in virtio 1 and with mergeable buffers, else 10."""
    long = features & (virtio_pci.VIRTIO_F_VERSION_1 | virtio_pci.VIRTIO_NET_F_MRG_RXBUF)
    return (abi.virtio_net_hdr_mrg_rxbuf if long else abi.virtio_net_hdr).itemsize


class VirtioAdapter(ValeAdapter):
    """A port of ``pairs`` receive and transmit queues, all stopped at first.

    Queues are numbered as the device's are: receive queue i is 2 i, transmit queue i is 2 i + 1. It has no memory of its
    own; nobody can bind it.
    """

    kind = KIND_VIRTQUEUE
    vport_kind = VPORT_VIRTQUEUE

    def __init__(self, name: str, epoch: Epoch, allocator: Allocator, pairs: int, most: int) -> None:
        super().__init__(name, epoch, allocator, Shape(pairs, pairs, most, most))
        self.owned_by_runtime = "a virtio-net device has it"
        self.rings_in_use = 1
        self._joints: list[Block] = []
        self.blocks: dict[int, Block] = {}
        self.log = (0, 0)
        """Where queues that are started note what they write to: address, and pages that have bits."""
        for ring in self.rings:
            block = Block(virtqueue)
            self.blocks[ring.address] = block
            ring.block["ring"] = block.address
            ring.block["most"] = max(1, most // 2)

    def join(self, tx: Sequence[int], rx: Sequence[int], header: int = 0) -> None:
        """Send by the TX rings and receive by the RX rings whose krings are at these addresses, in place of a switch.

        Pair i uses ring i, or one that there is. The rings are used by nobody else; ``header`` is what their frames
        begin with.
        """
        for mine, theirs in ((self.tx, tx), (self.rx, rx)):
            for ring in mine:
                block = Block(joint)
                block["ring"] = theirs[ring.index % len(theirs)]
                block["mfs"] = self.mfs
                block["header"] = header
                block["tap"] = -1
                ring.block["peer"] = block.address
                self._joints.append(block)

    def join_tap(self, fd: int) -> None:
        """Write what the driver sends to a tap device, and read what it receives from there, in place of a switch."""
        for ring in self.rings:
            block = Block(joint)
            block["mfs"] = self.mfs
            block["tap"] = fd
            ring.block["peer"] = block.address
            self._joints.append(block)

    @property
    def is_joined(self) -> bool:
        """Whether the port is joined to rings or a tap device, and on no switch."""
        return bool(self._joints)

    def set_mfs(self, octets: int) -> None:
        """Finish frames for this port in pieces of at most so many bytes."""
        self.mfs = octets
        for block in self._joints:
            block["mfs"] = octets
        if self.switch is not None:
            self.switch.refresh(self)

    def use_pairs(self, pairs: int) -> None:
        """Deliver to the first ``pairs`` receive queues only, which is one at first."""
        self.rings_in_use = pairs
        if self.switch is not None:
            self.switch.refresh(self)

    def set_header(self, length: int) -> None:
        """Refuse to set a header: it is the driver's to choose. Raises PortError (EOPNOTSUPP)."""
        raise PortError(
            errno.EOPNOTSUPP,
            f"netmap: the virtio-net header of {self.name} is its driver's to choose\n        leave it",
        )

    def queue(self, index: int) -> RingState:
        """Return the ring that stands for the device's queue ``index``."""
        return (self.rx, self.tx)[index & 1][index >> 1]

    def start_queue(
        self, index: int, setup: Setup, regions: Sequence[Region], features: int, trouble: int = -1
    ) -> None:
        """Use a queue from now on; the eventfd ``trouble`` is written to if its driver breaks it.

        Raises PeerError (EINVAL, EFAULT) for one that cannot be; it is as it was then.
        """
        ring = self.queue(index)
        block = self.blocks[ring.address]
        start_virtqueue(
            block.items[0],
            **setup._asdict(),
            regions=regions,
            header=header_size(features),
            mergeable=bool(features & virtio_pci.VIRTIO_NET_F_MRG_RXBUF),
            accepts=accepts(features),
            event_idx=bool(features & virtio_pci.VIRTIO_F_EVENT_IDX),
            packed=bool(features & virtio_pci.VIRTIO_F_RING_PACKED),
            in_order=bool(features & virtio_pci.VIRTIO_F_IN_ORDER),
            trouble=trouble,
            log=self.log,
        )
        ring.block["held"] = 0
        if ring in self.rx and not self.is_joined:
            queue_suppress_kicks(block.address, 1)
        self.epoch.register(ring.block)
        ring.turn(on=True)

    def stop_queue(self, index: int) -> tuple[int, int]:
        """Touch a queue and its buffers no more; return (last_avail, used_idx). Harmless when repeated."""
        ring = self.queue(index)
        block = self.blocks[ring.address].items[0]
        ring.turn(on=False)
        self.epoch.synchronize()
        if ring.block["held"]:
            self.release_senders()
            ring.block["held"] = 0
        self.epoch.unregister(ring.block)
        return stop_virtqueue(block)

    def is_running(self, index: int) -> bool:
        """Whether a queue has been started, and not stopped; a broken one is."""
        return bool(self.blocks[self.queue(index).address]["state"] != STATE_STOPPED)

    def is_broken(self, index: int) -> bool:
        """Whether a queue's driver has broken it, and it stands still."""
        return bool(self.blocks[self.queue(index).address]["state"] == STATE_BROKEN)

    def counters_of(self, ring: RingState) -> dict[str, int]:
        """As for any ring, with what the driver did wrong: broken chains are bad slots, and long ones have many fragments."""
        counters, queue = ring.counters(), self.blocks[ring.address]
        counters["bad_slot"] += sum(queue[name] for name in ("bad_chain", "bad_address", "bad_index"))
        counters["fragments" if ring in self.tx else "truncated"] += queue["too_long"]
        return counters

    def queue_counters(self, index: int) -> dict[str, int]:
        """What was counted in a queue, violations among it (see :data:`~ptnetmap.netmap.queuestate.virtqueue`)."""
        block = self.blocks[self.queue(index).address]
        return {name: block[name] for name in COUNTERS}

# SPDX-License-Identifier: BSD-2-Clause
"""VALE ports, ephemeral and persistent: adapters whose TX rings are forwarded by a switch."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.adapter import Adapter, Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.kring import KIND_VALE
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.view import KIND_NETMAP, ingress

if TYPE_CHECKING:
    from ptnetmap.netmap.switch import Switch

DEFAULT_MFS = 1514
HEADER_LENGTHS = (0, 10, 12)

_NO_SWITCH = Block(np.uint64)
"""The view of a port that is attached to nothing: none."""


class ValeAdapter(Adapter):
    """A port that sends into a switch. ``persistent`` ones outlive their descriptors.

    ``created`` says that somebody asked for a persistent port, and has not deleted it; ``patched_to`` is the other side
    of one that joins two switches.
    """

    kind = KIND_VALE
    vport_kind = KIND_NETMAP

    def __init__(
        self, name: str, epoch: Epoch, allocator: Allocator, shape: Shape, *, persistent: bool = False
    ) -> None:
        super().__init__(name, epoch, allocator, shape)
        self.persistent = persistent
        self.created = False
        self.patched_to: ValeAdapter | None = None
        self.switch: Switch | None = None
        self.index = -1
        self.mfs = DEFAULT_MFS
        self.rings_in_use = len(self.rx)
        self.feeders: list[RingState] = []
        self._ingress = {ring.address: self._make_ingress(ring) for ring in self.rings}
        for ring in self.tx:
            ring.block["indirect"] = 1

    @staticmethod
    def _make_ingress(ring: RingState) -> Block:
        block = Block(ingress)
        block["view_at"] = _NO_SWITCH.address
        block["counters"] = ring.block["counters_at"]
        block["ring"] = ring.index
        ring.block["ingress"] = block.address
        return block

    def enter_switch(self, switch: Switch, index: int) -> None:
        """Send into ``switch`` as its port ``index`` from now on."""
        self.switch, self.index = switch, index
        for block in self._ingress.values():
            block["port"] = index
            block["view_at"] = switch.view_word.address

    def leave_switch(self) -> None:
        """Send nowhere; what is sent is counted as ``bridge_off``."""
        for block in self._ingress.values():
            block["view_at"] = _NO_SWITCH.address
        self.switch, self.index = None, -1

    def set_header(self, length: int) -> None:
        """Set the virtio-net header length before every frame: 0, 10 or 12 bytes (PORT_HDR_SET).

        A port with a header takes frames as large as its buffers. Raises PortError (EINVAL) for other lengths.
        """
        if length not in HEADER_LENGTHS:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot give {self.name} a virtio-net header of {length} bytes\n        use 0, 10 or 12",
            )
        self.header = length
        self.mfs = self.allocator.geometry.buf_pool.objsize if length else DEFAULT_MFS
        for block in self._ingress.values():
            block["header"] = length
        if self.switch is not None:
            self.switch.refresh(self)

    def lossless(self, on: bool) -> None:
        """Hold senders back while an RX ring of this port is full, instead of dropping."""
        for ring in self.rx:
            ring.block["lossless"] = int(on)
        if not on:
            self.release_senders()

    def release_senders(self) -> None:
        """Let those look again who wait for room in an RX ring that has stopped being lossless, or being there."""
        if self.switch is not None and any(ring.block["held"] for ring in self.rx):
            for ring in self.rx:
                if not (ring.exists and ring.block["lossless"]):
                    ring.block["held"] = 0
            self.switch.wake_senders()

    def patch(self, other: ValeAdapter | None) -> None:
        """Forward what arrives here as if ``other`` had sent it on its switch; None ends that."""
        before, self.patched_to = self.patched_to, other
        for i, ring in enumerate(self.rx):
            target = 0 if other is None else other._ingress[other.tx[i % len(other.tx)].address].address
            ring.block["patch"] = target
        # A lossless port there tells its senders of room: what is fed in from here is one of them.
        for target_port, feeders in ((before, []), (other, self.rx)):
            if target_port is not None:
                target_port.feeders = feeders
                if target_port.switch is not None:
                    target_port.switch.publish()
        if other is None:
            self.epoch.synchronize()

    def start_runtime_use(self, why: str) -> None:
        """Bind all rings on the runtime's behalf, so that nobody else can."""
        self.bind(self.rings, exclusive=True)
        self.owned_by_runtime = why

    def stop_runtime_use(self) -> None:
        """Undo :meth:`start_runtime_use`; nothing happens if it failed."""
        if self.owned_by_runtime:
            self.owned_by_runtime = ""
            self.unbind(self.rings)

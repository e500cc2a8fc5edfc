# SPDX-License-Identifier: BSD-2-Clause
"""A tap device as a port of a switch: what the kernel sends there enters the switch, and what is sent to it, the kernel."""

from __future__ import annotations

from ptnetmap.jit.block import Block
from ptnetmap.netmap.adapter import DEFAULT_SLOTS, Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.joint import joint
from ptnetmap.netmap.kring import KIND_VIRTQUEUE
from ptnetmap.netmap.valeport import ValeAdapter
from ptnetmap.netmap.view import KIND_VIRTQUEUE as VPORT_VIRTQUEUE


class TapAdapter(ValeAdapter):
    """The port of the tap device ``fd``, whose packets have headers of 12 bytes; it stays the caller's.

    It has no rings in memory: to a switch it is a port whose packets have their headers beside them, as a guest's queues.
    """

    kind = KIND_VIRTQUEUE
    vport_kind = VPORT_VIRTQUEUE

    def __init__(self, name: str, epoch: Epoch, allocator: Allocator, fd: int) -> None:
        super().__init__(name, epoch, allocator, Shape(1, 1, DEFAULT_SLOTS, DEFAULT_SLOTS))
        self.owned_by_runtime = "it is a tap device's"
        self._joint = Block(joint)
        self._joint["tap"] = fd
        for ring in self.rings:
            ring.block["peer"] = self._joint.address

    def turn(self, *, on: bool) -> None:
        """Let packets pass, or no more: on return nobody touches the device."""
        for ring in self.rings:
            if on:
                self.epoch.register(ring.block)
            ring.turn(on=on)
        if not on:
            self.epoch.synchronize()
            for ring in self.rings:
                self.epoch.unregister(ring.block)

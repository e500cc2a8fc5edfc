# SPDX-License-Identifier: BSD-2-Clause
"""Monitors: adapters that hang on the rings of another one."""

from __future__ import annotations

import errno

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.adapter import Adapter, Part, Shape
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.epoch import Epoch
from ptnetmap.netmap.kring import KIND_MONITOR, STATE_STOPPED
from ptnetmap.netmap.ringstate import RingState


class MonitorAdapter(Adapter):
    """Watches the TX or RX rings, or both, of a ``part`` of ``parent``; its RX ring i sees what passes through ring i there.

    A copy monitor has memory of its own, a zero-copy one its parent's. It cannot send. When a watched ring goes, the
    monitor's ring is stopped: polling it reports an error.
    """

    kind = KIND_MONITOR

    def __init__(
        self, parent: Adapter, part: Part, epoch: Epoch, allocator: Allocator, shape: Shape, flags: int
    ) -> None:
        letters = ("r" if flags & abi.NR_MONITOR_RX else "") + ("t" if flags & abi.NR_MONITOR_TX else "")
        zero_copy = bool(flags & abi.NR_ZCOPY_MON)
        super().__init__(f"{part.name}/{letters}{'z' if zero_copy else ''}", epoch, allocator, shape)
        self.parent = parent
        self._part = part
        self.flags = flags
        self.zero_copy = zero_copy
        self._watched: list[tuple[RingState, RingState]] = []

    def watch(self, rings: list[RingState]) -> None:
        """Begin to see what passes through the parent's rings that correspond to the bound ``rings``."""
        for ring in rings:
            for flag, sources in ((abi.NR_MONITOR_TX, self._part.tx), (abi.NR_MONITOR_RX, self._part.rx)):
                if ring.direction == abi.RX and self.flags & flag and ring.index < len(sources):
                    source = sources[ring.index]
                    if source.exists:
                        self._attach(ring, source)
        self.parent.monitors.append(self)

    def _attach(self, ring: RingState, source: RingState) -> None:
        if self.zero_copy:
            last = _end_of_chain(source)
            if ring is not last:
                last.chained = ring
                last.block["swap_monitor"] = ring.address
        else:
            _replace_list(source, [*source.copiers, ring])
        self._watched.append((ring, source))

    def unwatch(self) -> None:
        """Stop seeing anything; the rings stay as they are."""
        for ring, source in self._watched:
            if self.zero_copy:
                _unchain(source, ring)
            else:
                _replace_list(source, [copier for copier in source.copiers if copier is not ring])
        self._watched = []
        if self in self.parent.monitors:
            self.parent.monitors.remove(self)
        self.epoch.synchronize()

    def source_gone(self, rings: list[RingState]) -> None:
        """Stop the rings that watch ``rings``, which are being taken down, and tell whoever waits."""
        gone = [(ring, source) for ring, source in self._watched if source in rings]
        if gone:
            self.unwatch()
            for ring in self.rx:
                if ring.exists:
                    ring.block["state"] = STATE_STOPPED
                    ring.wake()


def _end_of_chain(source: RingState) -> RingState:
    while source.chained is not None:
        source = source.chained
    return source


def _unchain(source: RingState, ring: RingState) -> None:
    while source.chained is not None:
        if source.chained is ring:
            source.block["swap_monitor"] = ring.block["swap_monitor"]
            source.chained = ring.chained
            source.epoch.synchronize()
            ring.chained = None
            ring.block["swap_monitor"] = 0
            return
        source = source.chained


def _replace_list(source: RingState, rings: list[RingState]) -> None:
    """Publish a new list of a kring's copy monitors, and let the old one go when nobody reads it."""
    old = source.copier_list
    source.copiers = rings
    source.copier_list = Block(np.uint64, 1 + len(rings))
    source.copier_list.items[0] = len(rings)
    source.copier_list.items[1:] = [ring.address for ring in rings]
    source.block["copy_monitors"] = source.copier_list.address if rings else 0
    source.epoch.synchronize()
    del old


def check_watched(part: Part) -> None:
    """Raise PortError (EINVAL) unless what is to be watched is open."""
    if not any(ring.users for ring in (*part.tx, *part.rx)):
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot monitor {part.name}: nobody has it open\n        open the port first, then its monitor",
        )

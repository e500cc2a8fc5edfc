# SPDX-License-Identifier: BSD-2-Clause
"""The control side of one ring: its kring, its place in a region, who has it bound, and how its waiters are woken."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block, offsets
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.audit import reclaim
from ptnetmap.netmap.counters import NAMES
from ptnetmap.netmap.kring import STATE_OFF, STATE_ON, kring

if TYPE_CHECKING:
    from ptnetmap.netmap.epoch import Epoch

_RING = offsets(abi.ring)
_descriptors = threading.Lock()
_KRING = offsets(kring)
ONE = Block(np.uint64)
"""A 64-bit 1: what is written to an eventfd."""
ONE.items[0] = 1


class RingState:
    """One ring of an adapter.

    ``users`` counts the descriptors that have it bound, ``exclusive`` says that one of them insists on being alone.
    ``reader`` is, for a pipe's TX ring, the RX ring that shares its positions, and ``lane`` what both know; ``chained``
    the zero-copy monitor's ring that takes its consumed buffers, ``copiers`` those of copy monitors; ``lost_outside``
    tells what is ``missed`` where the kernel counts that, and ``news`` is a descriptor, with its events of epoll, that
    tells of what no sync has seen yet. Nothing tells of a ``silent`` ring: who waits for it has to look again and again.
    The netmap_ring exists between :meth:`create` and :meth:`destroy`; the kring's address stays the same for life.
    """

    def __init__(self, port: str, epoch: Epoch, kind: int, direction: int, index: int, num_slots: int) -> None:
        self.port = port
        self.epoch = epoch
        self.direction = direction
        self.index = index
        self.num_slots = num_slots
        self.users = 0
        self.exclusive = False
        self.allocator: Allocator | None = None
        self.ring_object = 0
        self.own_buffers = True
        self.reader: RingState | None = None
        self.lane: np.void | None = None
        self.chained: RingState | None = None
        self.copiers: list[RingState] = []
        self.copier_list: Block | None = None
        self.lost_outside: Callable[[], int] | None = None
        self.news: tuple[int, int] | None = None
        self.silent = False
        self.block = Block(kring)
        self.address = self.block.address
        self._leases = Block(np.uint32, num_slots)
        self._counters_owner = epoch.new_counters()
        self._counters: Any = self._counters_owner.items[0]
        self.block["kind"] = kind
        self.block["direction"] = direction
        self.block["num_slots"] = num_slots
        self.block["epoch_at"] = epoch.address
        self.block["leases"] = self._leases.address
        self.block["most"] = num_slots
        self.block["peer_tail_at"] = self.address + _KRING["peer_tail"]
        self.block["need_kick_at"] = self.address + _KRING["need_kick"]
        self.block["counters_at"] = self._counters_owner.address
        for fd in ("eventfd", "irqfd", "peer_eventfd"):
            self.block[fd] = -1
        self.block["one"] = ONE.address

    @property
    def exists(self) -> bool:
        """Whether the ring has memory."""
        return self.allocator is not None

    @property
    def eventfd(self) -> int:
        """The eventfd that wakes waiters, or -1 before anybody needed it."""
        return self.block["eventfd"]

    @property
    def offset(self) -> int:
        """Offset of the netmap_ring in its region."""
        if self.allocator is None:
            return 0
        return self.allocator.ring_offset(self.ring_object)

    def create(self, allocator: Allocator, buffers: list[int] | None = None) -> None:
        """Build the netmap_ring: header, slots and a buffer for each slot; ``buffers`` shares those of another ring.

        Raises MemoryPoolError and changes nothing if a pool cannot give what is needed.
        """
        geometry = allocator.geometry
        geometry.require_ring(self.num_slots)
        what = f"{'RX' if self.direction == abi.RX else 'TX'} ring {self.index} of {self.num_slots} slots"
        self.ring_object = allocator.rings.allocate(1, what)[0]
        self.own_buffers = buffers is None
        if buffers is None:
            try:
                buffers = allocator.bufs.allocate(self.num_slots, f"the buffers of {what}")
            except Exception:
                allocator.rings.release([self.ring_object])
                raise
        self.allocator = allocator
        self._write_ring(allocator, buffers)
        self._write_kring(allocator)
        allocator.owners.add(self)
        self.epoch.register(self.block)

    def _write_ring(self, allocator: Allocator, buffers: list[int]) -> None:
        geometry = allocator.geometry
        header = allocator.region.view(self.offset, abi.ring, 1)
        header[0] = np.zeros((), abi.ring)
        header["buf_ofs"] = geometry.buf_offset - self.offset
        header["num_slots"] = self.num_slots
        header["nr_buf_size"] = geometry.buf_pool.objsize
        header["ringid"] = self.index
        header["dir"] = self.direction
        header["tail"] = self.num_slots - 1 if self.direction == abi.TX else 0
        slots = allocator.region.view(self.offset + abi.ring.itemsize, abi.slot, self.num_slots)
        slots[:] = np.zeros((), abi.slot)
        slots["buf_idx"] = buffers
        slots["len"] = min(geometry.buf_pool.objsize, 0xFFFF)

    def _write_kring(self, allocator: Allocator) -> None:
        geometry = allocator.geometry
        block = self.block
        tail = self.num_slots - 1 if self.direction == abi.TX else 0
        self._use_header(allocator)
        block["buffers"] = allocator.region.address + geometry.buf_offset
        block["buf_size"] = geometry.buf_pool.objsize
        block["room"] = geometry.room
        block["num_bufs"] = geometry.buf_pool.objtotal
        for index in ("hwcur", "rhead", "rcur", "lease_tail", "lease_next", "seen_hwcur", "lossless", "held"):
            block[index] = 0
        for index in ("hwtail", "rtail", "peer_tail"):
            block[index] = tail

    def _use_header(self, allocator: Allocator) -> None:
        """Let head, cur and tail be those of the netmap_ring."""
        ring = allocator.region.address + self.offset
        self.block["ring"] = ring
        self.block["slots"] = ring + abi.ring.itemsize
        self.block["head_at"] = ring + _RING["head"]
        self.block["cur_at"] = ring + _RING["cur"]
        self.block["tail_at"] = ring + _RING["tail"]
        self.block["hwcur_at"] = self.block["service"] = 0
        self.block["most"] = self.num_slots

    def settle(self) -> None:
        """Let a new user begin where the runtime is: what an earlier one wrote to the header means nothing."""
        if self.allocator is None:
            return
        self._use_header(self.allocator)
        header = self.allocator.region.view(self.offset, abi.ring, 1)
        hwcur, hwtail = self.block["hwcur"], self.block["hwtail"]
        for index, value in {"rhead": hwcur, "rcur": hwcur, "rtail": hwtail}.items():
            self.block[index] = value
        header["head"] = header["cur"] = hwcur
        header["tail"] = hwtail

    def slots(self) -> npt.NDArray[Any]:
        """The ring's slots, live; only while it exists."""
        if self.allocator is None:
            raise PortError(errno.ENXIO, f"netmap: {self} has no memory: nobody has it bound\n        open it first")
        return self.allocator.region.view(self.offset + abi.ring.itemsize, abi.slot, self.num_slots)

    def claims(self) -> npt.NDArray[np.int64]:
        """Buffers in the ring's slots. Of a pipe, each position counts once: at the end in whose hands it is."""
        if not self.own_buffers or not self.exists:
            return np.zeros(0, np.int64)
        indices: npt.NDArray[np.int64] = self.slots()["buf_idx"].astype(np.int64)
        if self.reader is not None and self.reader.exists:
            positions = self.in_flight()
            indices[positions] = self.reader.slots()["buf_idx"][positions]
        return indices

    def in_flight(self) -> npt.NDArray[np.int64]:
        """Positions of a pipe's ring that are in the reader's hands; the others are in the sender's."""
        if self.lane is None:
            return np.zeros(0, np.int64)
        published, returned = (int(self.lane[field]) % self.num_slots for field in ("published", "returned"))
        start = (returned + 1) % self.num_slots
        return (np.arange((published - start) % self.num_slots) + start) % self.num_slots

    @property
    def loose(self) -> int:
        """A ring holds nothing that its slots do not name."""
        return 0

    @property
    def label(self) -> str:
        """What the audit calls this owner of buffers."""
        return str(self)

    def __str__(self) -> str:
        """Name the ring for reports."""
        return f"{self.port} {'RX' if self.direction == abi.RX else 'TX'} ring {self.index}"

    def destroy(self) -> None:
        """Give the ring's memory back; the ring is off and quiet. Its slots are not believed: see the audit."""
        allocator = self.allocator
        if allocator is None:
            return
        named = self.claims()
        self.epoch.unregister(self.block)
        allocator.owners.discard(self)
        if self.own_buffers:
            reclaim(allocator, self.num_slots, named)
        allocator.rings.release([self.ring_object])
        self.allocator = None

    def turn(self, on: bool) -> None:
        """Let executors in, or keep them out."""
        self.block["state"] = STATE_ON if on else STATE_OFF

    def make_eventfd(self) -> int:
        """Return the ring's eventfd, which is made on first use, by whichever descriptor is first."""
        with _descriptors:
            if self.eventfd < 0:
                self.block["eventfd"] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            return self.eventfd

    def wake(self) -> None:
        """Wake whoever sleeps on the ring, whatever it waits for."""
        with _descriptors:
            if self.eventfd >= 0:
                os.eventfd_write(self.eventfd, 1)

    def close(self) -> None:
        """Close the eventfd; nobody waits any more."""
        self.block["watched"] = 0
        with _descriptors:
            if self.eventfd >= 0:
                fd = self.eventfd
                self.block["eventfd"] = -1
                os.close(fd)

    def counters(self) -> dict[str, int]:
        """All counters of the ring, by name."""
        if self.lost_outside is not None:
            self._counters["missed"] = self.lost_outside()
        return {name: int(self._counters[name]) for name in NAMES}

    def count_in(self, address: int, fields: Any) -> None:
        """Count at ``address`` instead, where ``fields`` are: before anything has been counted."""
        self._counters_owner = None
        self._counters = fields
        self.block["counters_at"] = address

# SPDX-License-Identifier: BSD-2-Clause
"""The device of a connection: a port at netmapd, whose kthreads serve the queues."""

from __future__ import annotations

import contextlib
import errno
import os
import select

from ptnetmap.abi import vhost_user as abi
from ptnetmap.abi import virtio_pci
from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap.client.virtioport import MemoryRegion, QueueSetup, VirtioPort
from ptnetmap.netmap.vhost.connection import PROTOCOL_FEATURES as KNOWN
from ptnetmap.netmap.vhost.memory import Region, Table
from ptnetmap.netmap.vhost.ports import Ports
from ptnetmap.netmap.vhost.queue import Setup

PROTOCOL_FEATURES = KNOWN & ~(abi.VHOST_USER_PROTOCOL_F_RARP | abi.VHOST_USER_PROTOCOL_F_CONFIG)
"""What such a device takes part in: guests announce themselves, and the configuration is the front end's."""

_INFLIGHT_HEAD = 16
_INFLIGHT_ENTRY = 16
_LINE = 64


class PortDevice:
    """A device whose packets go through the port of ``ports``, which has ``pairs`` pairs of queues; see :class:`Device`.

    ``offered`` are its features. Receive queues are used in order, as many as the front end has enabled; what is not
    enabled is not served. Chains are returned in order and never held, so there is never anything in flight to note.
    """

    def __init__(self, ports: Ports, pairs: int) -> None:
        self._ports = ports
        self._pairs = pairs
        self._features = 0
        self._regions: dict[Region, int] = {}
        self._setups: dict[int, Setup] = {}
        self._broken: set[int] = set()
        self._log: tuple[int, int, int] | None = None
        self._logs = False
        self.offered = ports.port.features | virtio_pci.VIRTIO_F_ANY_LAYOUT | virtio_pci.VIRTIO_NET_F_GUEST_ANNOUNCE
        if pairs > 1:
            self.offered |= virtio_pci.VIRTIO_NET_F_MQ

    @property
    def _port(self) -> VirtioPort:
        return self._ports.port

    def set_features(self, features: int) -> None:
        """Use these features for queues that start from now on, and log what is written from now on, or no more."""
        logs = bool(features & abi.VHOST_F_LOG_ALL)
        if logs != self._logs and self._log is not None:
            self._ports.set_log(self._log if logs else None)
        self._features, self._logs = features & ~abi.VHOST_F_LOG_ALL, logs

    def set_memory(self, table: Table) -> None:
        """Pass the guest's memory on."""
        regions = {one._replace(fd=-1): one.fd if one.fd >= 0 else self._regions[one] for one in table}
        if regions:
            self._ports.set_memory([MemoryRegion(one.guest, one.size, fd, one.offset) for one, fd in regions.items()])
        for fd in set(self._regions.values()) - set(regions.values()):
            os.close(fd)
        self._regions = regions

    def start_queue(self, index: int, setup: Setup) -> None:
        """Have a queue served, if it is enabled."""
        if setup.kick < 0:
            raise PeerError(
                errno.EOPNOTSUPP, f"queue {index} is to be polled\n        send a kick: a kthread that sleeps needs one"
            )
        if setup.enabled:
            self._start(index, setup)
        self._setups[index] = setup

    def _start(self, index: int, setup: Setup) -> None:
        base = setup.base
        returned = base >> 16 if setup.packed else None
        queue = QueueSetup(setup.size, setup.desc, setup.avail, setup.used, base & 0xFFFF, returned)
        self._port.start(index, queue, self._features, setup.kick, setup.call)
        self._count_pairs()

    def stop_queue(self, index: int) -> int:
        """Have a queue served no longer; return where it stands."""
        self._pause(index)
        return self._setups.pop(index).base

    def _pause(self, index: int) -> None:
        if index not in self._port.running:
            return
        positions = self._port.stop(index)
        setup = self._setups[index]
        if positions is not None:
            base = positions[0] | positions[1] << 16 if setup.packed else positions[0]
            self._setups[index] = setup._replace(base=base)
        self._count_pairs()

    def enable_queue(self, index: int, on: bool) -> None:
        """Have a queue served, or not."""
        self._setups[index] = self._setups[index]._replace(enabled=on)
        self._pause(index)
        if on:
            with contextlib.suppress(PortError):
                self._start(index, self._setups[index])

    def set_call(self, index: int, fd: int) -> None:
        """Have a queue's driver interrupted by another eventfd."""
        was_running = index in self._port.running
        self._pause(index)
        self._setups[index] = self._setups[index]._replace(call=fd)
        if was_running:
            self._start(index, self._setups[index])

    def set_error(self, index: int, fd: int) -> None:
        """Write to another eventfd when a queue breaks, or to none (-1)."""
        self._setups[index] = self._setups[index]._replace(error=fd)

    def look_for_trouble(self) -> list[int]:
        """Tell the front end which queues its driver has broken; return those that were not known to be."""
        broken = set(self._port.broken())
        new = sorted(broken - self._broken)
        self._broken = broken
        for index in new:
            fd = self._setups[index].error
            if fd >= 0 and select.select([], [fd], [], 0)[1]:
                with contextlib.suppress(OSError):
                    os.eventfd_write(fd, 1)
        return new

    def log_queue(self, index: int, log: int | None) -> None:
        """Nothing to do: rings are logged as all of the guest's memory is, by its guest addresses."""

    def set_log(self, fd: int, size: int, offset: int) -> None:
        """Pass the log on, if there is something to be logged."""
        if self._logs:
            self._ports.set_log((fd, size, offset))
        old, self._log = self._log, (fd, size, offset)
        if old is not None:
            os.close(old[0])

    def set_log_event(self, fd: int) -> None:
        """Nothing to do: front ends look at the log when they need it."""

    def make_inflight(self, queues: int, queue_size: int) -> tuple[int, int, int]:
        """Make memory that says, and goes on saying, that nothing is in flight."""
        each = -(-(_INFLIGHT_HEAD + queue_size * _INFLIGHT_ENTRY) // _LINE) * _LINE
        fd = os.memfd_create("vhost-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, queues * each)
        except OSError:
            os.close(fd)
            raise
        return fd, queues * each, 0

    def set_inflight(self, fd: int, size: int, offset: int, queues: int, queue_size: int) -> None:
        """Take note that nothing was in flight."""
        os.close(fd)

    def set_mtu(self, mtu: int) -> None:
        """Pass the device's MTU on."""
        self._port.set_mtu(mtu)

    def send_rarp(self, mac: bytes) -> None:
        """Nobody is told: guests announce themselves."""

    def get_config(self, offset: int, size: int) -> bytes:
        """The configuration is the front end's."""
        return bytes(size)

    def reset(self) -> None:
        """Forget the features and the log; no queue runs."""
        self._features = 0
        if self._log is not None:
            if self._logs:
                with contextlib.suppress(PortError):
                    self._ports.set_log(None)
            os.close(self._log[0])
        self._log, self._logs = None, False

    def close(self) -> None:
        """Let go of the guest's memory, and of the log."""
        self.reset()
        for fd in set(self._regions.values()):
            os.close(fd)
        self._regions = {}

    def _count_pairs(self) -> None:
        pairs = next((i for i in range(self._pairs) if 2 * i not in self._port.running), self._pairs)
        if self._pairs > 1 and pairs:
            with contextlib.suppress(PortError):
                self._port.use_pairs(pairs)

# SPDX-License-Identifier: BSD-2-Clause
"""The device of a connection: a port at netmapd, whose kthreads serve the queues."""

from __future__ import annotations

from collections.abc import Sequence

from ptnetmap.abi import virtio_pci
from ptnetmap.netmap.client.virtioport import MemoryRegion, QueueSetup, VirtioPort
from ptnetmap.vhost.memory import Region


class PortDevice:
    """A device whose packets go through ``port``, which has ``pairs`` pairs of queues; see :class:`Device`.

    Receive queues are used in order, as many as the front end has enabled.
    """

    def __init__(self, port: VirtioPort, pairs: int) -> None:
        self._port = port
        self.features = port.features | virtio_pci.VIRTIO_F_ANY_LAYOUT | virtio_pci.VIRTIO_NET_F_GUEST_ANNOUNCE
        if pairs > 1:
            self.features |= virtio_pci.VIRTIO_NET_F_MQ
        self.queues = 2 * pairs

    def set_memory(self, regions: Sequence[Region]) -> None:
        """Pass the guest's memory on."""
        self._port.set_memory([MemoryRegion(one.guest, one.size, one.fd, one.offset) for one in regions])

    def start(self, index: int, setup: QueueSetup, features: int, kick: int, call: int) -> None:
        """Have a queue served."""
        self._port.start(index, setup, features, kick, call)
        self._count_pairs()

    def stop(self, index: int) -> tuple[int, int]:
        """Have a queue served no longer; return the positions of the next chain to take and the next to return."""
        positions = self._port.stop(index)
        self._count_pairs()
        return positions or (0, 0)

    def _count_pairs(self) -> None:
        pairs = next((i for i in range(self.queues // 2) if 2 * i not in self._port.running), self.queues // 2)
        if self.queues > 2 and pairs:
            self._port.use_pairs(pairs)

    def set_mtu(self, mtu: int) -> None:
        """Pass the device's MTU on."""
        self._port.set_mtu(mtu)

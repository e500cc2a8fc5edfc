# SPDX-License-Identifier: BSD-2-Clause
"""ptnetmap-memdev: shows the memory of a passed-through port to the guest, as a BAR (netmap-abi 5b.1).

It has no port of its own: it shows the region of a ptnet or virtio-net device, which the guest's driver finds it by
(:mod:`~ptnetmap.bhyve.passthrough.pairing`).
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Mapping

from ptnetmap.abi import pci, ptnet
from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.passthrough.pairing import pair_on
from ptnetmap.bhyve.passthrough.port import PassedPort
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.mapping import Mapping as FileMapping

MEM32_LIMIT = 256 << 20
"""Bytes of memory, at most, for which a 32-bit BAR is given: half of the addresses that there are."""

_log = logging.getLogger(__name__)


@register
class PtnetmapMemdev(PciDevice):
    """A memdev. Option ``mem32``: a 32-bit BAR, if the memory is small enough, for guests that reach no other.

    ``mem_id`` is the memory that it shows, 0 if there is none for it: then it has no memory BAR.
    """

    name = ptnet.PTNETMAP_MEMDEV_NAME

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        self._mem32 = boolean_value("mem32", options.get("mem32", "false"))
        self.identify(
            vendor_id=ptnet.PTNETMAP_PCI_VENDOR_ID,
            device_id=ptnet.PTNETMAP_PCI_DEVICE_ID,
            class_code=pci.PCIC_OTHER << 16,
        )
        self.add_bar(ptnet.PTNETMAP_IO_PCI_BAR, BarKind.IO, ptnet.PTNET_MDEV_IO_SIZE)
        self.mem_id = 0
        self._registers = bytes(ptnet.PTNET_MDEV_IO_SIZE)
        self._fd = -1
        self._mapping: FileMapping | None = None

    def all_plugged(self) -> None:
        """Take the memory of a port that no other memdev takes."""
        assert self.bus is not None
        port = pair_on(self.bus).get(self)
        if port is None:
            _log.warning("%s at %s: no passed-through port needs it", self.name, self.function)
        else:
            self._show(port)

    def _show(self, port: PassedPort) -> None:
        netmap = port.netmap
        self._fd = os.dup(netmap.region_fd)
        try:
            self._mapping = FileMapping(self._fd, netmap.memsize)
        except OSError as error:
            raise HypervisorError(
                error.errno or 0, f"bhyve: cannot map {netmap.memsize:,} bytes of netmap memory: {error.strerror}"
            ) from error
        kind = BarKind.MEM64
        if self._mem32 and netmap.memsize <= MEM32_LIMIT:
            kind = BarKind.MEM32
        self.add_memory(ptnet.PTNETMAP_MEM_PCI_BAR, kind, self._mapping.address, netmap.memsize, fd=self._fd)
        self.mem_id = netmap.mem_id
        registers = bytearray(ptnet.PTNET_MDEV_IO_SIZE)
        struct.pack_into("<QI", registers, ptnet.PTNET_MDEV_IO_MEMSIZE_LO, netmap.memsize, netmap.mem_id)
        for at, pool in zip(
            (ptnet.PTNET_MDEV_IO_IF_POOL_OFS, ptnet.PTNET_MDEV_IO_RING_POOL_OFS, ptnet.PTNET_MDEV_IO_BUF_POOL_OFS),
            netmap.pools,
            strict=True,
        ):
            struct.pack_into("<III", registers, at, *pool)
        self._registers = bytes(registers)

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read a register."""
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def close(self) -> None:
        """Let go of the memory."""
        super().close()
        self._mapping = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

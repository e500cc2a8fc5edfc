# SPDX-License-Identifier: BSD-2-Clause
"""Which memdev shows which memory: by memory id, whatever the order of devices on the command line (netmap-abi 5a.8)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from ptnetmap.abi import ptnet
from ptnetmap.bhyve.passthrough.port import PassedPort
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.device import PciDevice

Memdev = TypeVar("Memdev")
Port = TypeVar("Port")

_log = logging.getLogger(__name__)


def pair(memdevs: Sequence[Memdev], ports: Iterable[tuple[int, Port]]) -> dict[Memdev, Port]:
    """Return the port whose memory each memdev shows; a memdev without one is left out.

    ``ports`` are memory ids and ports. The first memdev takes the memory of the first port, the second one the next
    memory: ports of one allocator share a memdev. Both are in the order of their places on the PCI bus.
    """
    by_memory: dict[int, Port] = {}
    for mem_id, port in ports:
        by_memory.setdefault(mem_id, port)
    return dict(zip(memdevs, by_memory.values(), strict=False))


def pair_on(bus: PciBus) -> dict[PciDevice, PassedPort]:
    """Return the port whose memory each memdev on a bus shows; a device passes through what its ``port`` is."""
    devices = [bus.devices[function] for function in sorted(bus.devices)]
    memdevs = [device for device in devices if device.name == ptnet.PTNETMAP_MEMDEV_NAME]
    ports = [port for device in devices if isinstance(port := getattr(device, "port", None), PassedPort)]
    return pair(memdevs, ((port.netmap.mem_id, port) for port in ports))


def warn_unless_shown(bus: PciBus, port: PassedPort) -> None:
    """Say which memory the guest will miss, if no memdev shows it."""
    mem_id = port.netmap.mem_id
    if mem_id not in {shown.netmap.mem_id for shown in pair_on(bus).values()}:
        _log.warning(
            "the guest cannot see memory %d, of %s\n        add -s SLOT,ptnetmap-memdev", mem_id, port.netmap.name
        )

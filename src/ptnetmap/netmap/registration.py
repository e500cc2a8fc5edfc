# SPDX-License-Identifier: BSD-2-Clause
"""Registration: which rings a descriptor gets, and what its netmap_if says of them (NETMAP_REQ_REGISTER)."""

from __future__ import annotations

import errno

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.allocator import Allocator
from ptnetmap.netmap.descriptor import Descriptor
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.ringstate import RingState

MAX_EXTRA_BUFFERS = 128 * 4096
HOST_MODES = (abi.NR_REG_SW, abi.NR_REG_NIC_SW, abi.NR_REG_ONE_SW)
"""Modes that bind host rings."""


def check_registration(parsed: PortName, adapter: Adapter, flags: int) -> None:
    """Raise PortError for a mode that the port does not have (EINVAL), or a header that is not expected (EIO)."""
    check_host_rings(parsed, adapter)
    if adapter.header and not flags & abi.NR_ACCEPT_VNET_HDR:
        raise PortError(
            errno.EIO,
            f"netmap: cannot open {parsed.name}: its frames begin with a virtio-net header of {adapter.header} bytes\n"
            "        pass flags=NR_ACCEPT_VNET_HDR if the program expects that",
        )


def check_host_rings(parsed: PortName, adapter: Adapter) -> None:
    """Raise PortError (EINVAL) if a name asks for host rings of a port that has none."""
    if parsed.mode in HOST_MODES and not adapter.host_rx:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot open the host rings of {parsed.name}: it has none\n        only network interfaces do",
        )


def select_rings(parsed: PortName, adapter: Adapter, flags: int) -> list[RingState]:
    """Return the rings that a registration's mode and flags ask for."""
    tx, rx = adapter.tx, adapter.rx
    if parsed.mode == abi.NR_REG_NIC_SW:
        tx, rx = [*tx, *adapter.host_tx], [*rx, *adapter.host_rx]
    elif parsed.mode == abi.NR_REG_SW:
        tx, rx = adapter.host_tx, adapter.host_rx
    elif parsed.mode == abi.NR_REG_ONE_SW:
        tx, rx = adapter.host_tx[parsed.ringid :][:1], adapter.host_rx[parsed.ringid :][:1]
        if not rx:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot open host ring {parsed.ringid} of {parsed.name}: it has {len(adapter.host_rx)}\n"
                "        rings are counted from 0",
            )
    if parsed.mode == abi.NR_REG_ONE_NIC:
        ringid = parsed.ringid
        if ringid >= max(len(tx), len(rx)):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot open ring {ringid} of {parsed.name}: it has {len(tx)} TX and {len(rx)} RX rings\n"
                "        rings are counted from 0",
            )
        # A direction that has fewer rings binds its first one, as upstream.
        tx = [tx[ringid if ringid < len(tx) else 0]]
        rx = [rx[ringid if ringid < len(rx) else 0]]
    if flags & abi.NR_TX_RINGS_ONLY:
        rx = []
    if flags & abi.NR_RX_RINGS_ONLY:
        tx = []
    return [*tx, *rx]


def write_interface(port: Descriptor, adapter: Adapter, rings: list[RingState]) -> None:
    """Fill this descriptor's netmap_if: offsets of the rings it has bound, 0 for the others and the fake host rings."""
    region = adapter.allocator.region
    interface = port.interface
    interface[0] = np.zeros((), abi.netmap_if)
    interface["ni_name"] = adapter.name.encode()[: abi.IFNAMSIZ - 1]
    interface["ni_version"] = abi.NETMAP_API
    interface["ni_flags"] = abi.NI_PRIV_MEM if adapter.allocator.id != 1 else 0
    interface["ni_tx_rings"] = len(adapter.tx)
    interface["ni_rx_rings"] = len(adapter.rx)
    interface["ni_host_tx_rings"] = 1
    interface["ni_host_rx_rings"] = 1
    count = len(adapter.tx) + len(adapter.rx) + 2
    ring_ofs = region.view(port.nifp_offset + abi.netmap_if.itemsize, np.int64, count)
    ring_ofs[:] = 0
    for ring in rings:
        place = abi.ring_offset_index(ring.direction, ring.index, len(adapter.tx), 1, abi.NETMAP_API)
        ring_ofs[place] = ring.offset - port.nifp_offset


def grant_extra(port: Descriptor, allocator: Allocator, wanted: int) -> None:
    """Allocate extra buffers, as many as there are, and link them: each one's first word is the next's number."""
    granted = min(wanted, MAX_EXTRA_BUFFERS, allocator.bufs.available)
    if not granted:
        return
    buffers = allocator.bufs.allocate(granted, "extra buffers")
    geometry = allocator.geometry
    step = geometry.buf_pool.objsize // 4
    words = allocator.region.view(geometry.buf_offset, np.uint32, geometry.buf_pool.objtotal * step)
    words[np.array(buffers) * step] = [*buffers[1:], 0]
    port.interface["ni_bufs_head"] = buffers[0]
    port.extra_bufs = granted
    allocator.owners.add(port)


def check_counts(name: str, counts: dict[str, int]) -> None:
    """Raise PortError (EINVAL) for a count of rings, slots or buffers that is no whole number, or negative."""
    for what, value in counts.items():
        if not isinstance(value, int) or value < 0:
            raise PortError(
                errno.EINVAL, f"netmap: cannot open {name}: {what} is {value!r}\n        give 0 (the default) or more"
            )

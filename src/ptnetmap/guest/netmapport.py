# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A passed-through port in use: what programs see of it, whichever device it came by."""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.guest.console import say
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.memdev import find_memory
from ptnetmap.guest.netmapring import join_ring, netmap_ring
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.memory import load32, load64, store64

netmap_port = np.dtype(
    [
        ("ports", "<u8"),
        ("mac", "<u8"),
        ("memory", "<u8"),
        ("interface", "<u8"),
        ("tx_rings", "<u8"),
        ("rx_rings", "<u8"),
        ("rings", "<u8"),
        ("is_2015", "<u8"),
    ]
)
"""A port: 64 bytes.

========= ==========================================================================================================
field     meaning
========= ==========================================================================================================
ports     first port of the device's registers
mac       its MAC address, the first byte in the most significant of 48 bits
memory    address of the region that its memdev shows
interface address of its netmap_if in there
tx_rings  rings that it sends by, and rx_rings that it receives by
rings     address of a :data:`~ptnetmap.guest.netmapring.netmap_ring` for each, TX rings first
is_2015   1 for virtio-net with the pass-through of 2015, 0 for ptnet
========= ==========================================================================================================
"""

PORT = offsets(netmap_port)
RING = offsets(netmap_ring)

MEMORY = PORT["memory"]
INTERFACE = PORT["interface"]
TX_RINGS = PORT["tx_rings"]
RX_RINGS = PORT["rx_rings"]
RINGS = PORT["rings"]
IS_2015 = PORT["is_2015"]

MOST_RINGS = 64
"""Rings of both directions together, whose CSB entries fill a page."""

_SIZE = netmap_port.itemsize
_RING_SIZE = netmap_ring.itemsize
_OFFSETS = abi.netmap_if.itemsize
_OFFSET_SIZE = abi.ring_ofs.itemsize
_HOST_TX_RINGS = offsets(abi.netmap_if)["ni_host_tx_rings"]
_NI_TX_RINGS = offsets(abi.netmap_if)["ni_tx_rings"]

_NO_ROOM = Text("FAIL port: no memory left for its rings, or more of them than can be")


@routine
def allocate_port(boot, tx_rings, rx_rings):
    """Return a port with so many rings, 0 if that cannot be."""
    if tx_rings < 1 or rx_rings < 1 or tx_rings + rx_rings > MOST_RINGS:
        say(boot, _NO_ROOM)
        return 0
    port = allocate(boot, _SIZE, 64)
    rings = allocate(boot, (tx_rings + rx_rings) * _RING_SIZE, 64)
    if port == 0 or rings == 0:
        say(boot, _NO_ROOM)
        return 0
    store64(port + TX_RINGS, tx_rings)
    store64(port + RX_RINGS, rx_rings)
    store64(port + RINGS, rings)
    return port


@routine
def tx_ring(port, i):
    """Return the netmap_ring of TX ring ``i``."""
    return load64(port + RINGS) + i * _RING_SIZE


@routine
def rx_ring(port, i):
    """Return the netmap_ring of RX ring ``i``."""
    return tx_ring(port, load64(port + TX_RINGS) + i)


@routine
def join_memory(boot, port, mem_id, offset):
    """Find the region with a memory id, in it the port's netmap_if at ``offset``, and by that its rings.

    Return 1; 0 if no memdev shows it, which is said. The host's rings come between those of both directions.
    """
    memory = find_memory(boot, mem_id)
    if memory == 0:
        return 0
    interface = memory + offset
    store64(port + MEMORY, memory)
    store64(port + INTERFACE, interface)
    count = load64(port + TX_RINGS)
    skipped = load32(interface + _NI_TX_RINGS) - count + load32(interface + _HOST_TX_RINGS)
    for i in range(count + load64(port + RX_RINGS)):
        place = i if i < count else i + skipped
        join_ring(tx_ring(port, i), interface + load64(interface + _OFFSETS + place * _OFFSET_SIZE))
    return 1

# SPDX-License-Identifier: BSD-2-Clause
"""Registers and PCI ids of the pass-through devices: ptnetmap-memdev, ptnet, and virtio-net's additions of 2015.

The *memdev* shows a netmap region to the guest as a memory BAR. What serves the rings differs between generations:
in 2015 a virtio-net (or e1000) with a feature bit and five more registers, today the ptnet NIC. Names are upstream's;
``_2015`` is appended where both generations use one name for different values. Registers are 32 bits wide and little
endian, unless a table says otherwise. "r" is read, "w" write, by the guest.

Source: netmap_virt.h, today's and that of 2015; the drivers and devices that use it.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.netmap.memory import netmap_if

# --- today: PCI identity, the same BARs in both devices

PTNETMAP_MEMDEV_NAME = "ptnetmap-memdev"
"""The memdev's name on a hypervisor's command line."""
PTNETMAP_PCI_VENDOR_ID = 0x1B36
"""PCI vendor of memdev and ptnet: QEMU's virtual devices."""
PTNETMAP_PCI_DEVICE_ID = 0x000C
"""PCI device of the memdev."""
PTNETMAP_PCI_NETIF_ID = 0x000D
"""PCI device of the ptnet NIC."""

PTNETMAP_IO_PCI_BAR = 0
"""The I/O BAR with the registers, of either device."""
PTNETMAP_MEM_PCI_BAR = 1
"""The memory BAR with the region, of the memdev."""
PTNETMAP_MSIX_PCI_BAR = 2
"""The memory BAR with the MSI-X table, of ptnet: one vector per ring, TX rings first."""

# --- today: memdev

PTNET_MDEV_IO_MEMSIZE_LO = 0
"""Registers of today's memdev: BAR 0, an I/O BAR of 128 bytes; all are read only.

====== ==== ================ =====================================================================================
offset size register         meaning
====== ==== ================ =====================================================================================
0      4    MEMSIZE_LO       bytes of the region, low half
4      4    MEMSIZE_HI       and high half
8      4    MEMID            id of the host's allocator; equals HOSTMEMID of the ptnet it belongs to
64     4    IF_POOL_OFS      where the ``netmap_if`` objects start in the region
68     4    IF_POOL_OBJNUM   how many there are
72     4    IF_POOL_OBJSZ    bytes of each
76     4    RING_POOL_OFS    where the rings start
80     4    RING_POOL_OBJNUM how many there are
84     4    RING_POOL_OBJSZ  bytes of each
88     4    BUF_POOL_OFS     where the buffers start
92     4    BUF_POOL_OBJNUM  how many there are
96     4    BUF_POOL_OBJSZ   bytes of each
100         END
====== ==== ================ =====================================================================================
"""
PTNET_MDEV_IO_MEMSIZE_HI = 4
PTNET_MDEV_IO_MEMID = 8
PTNET_MDEV_IO_IF_POOL_OFS = 64
PTNET_MDEV_IO_IF_POOL_OBJNUM = 68
PTNET_MDEV_IO_IF_POOL_OBJSZ = 72
PTNET_MDEV_IO_RING_POOL_OFS = 76
PTNET_MDEV_IO_RING_POOL_OBJNUM = 80
PTNET_MDEV_IO_RING_POOL_OBJSZ = 84
PTNET_MDEV_IO_BUF_POOL_OFS = 88
PTNET_MDEV_IO_BUF_POOL_OBJNUM = 92
PTNET_MDEV_IO_BUF_POOL_OBJSZ = 96
PTNET_MDEV_IO_END = 100

PTNET_MDEV_IO_SIZE = 128
"""Bytes of the memdev's I/O BAR."""

# --- today: ptnet

PTNET_IO_PTFEAT = 0
"""Registers of ptnet: BAR 0, an I/O BAR; addresses are taken modulo ``PTNET_IO_MASK + 1``.

====== ==== ============ ====== ==================================================================================
offset size register     access meaning
====== ==== ============ ====== ==================================================================================
0      4    PTFEAT       rw     features wanted, then accepted: ``PTNETMAP_F_VNET_HDR``
4      4    PTCTL        rw     a command, ``PTNETMAP_PTCTL_CREATE`` or ``_DELETE``; reads as 0 or an error
8      4    MAC_LO       r      bytes 2 to 5 of the MAC address (:func:`mac_registers`)
12     4    MAC_HI       r      bytes 0 and 1 of the MAC address
16     4    CSBBAH       w      deprecated
20     4    CSBBAL       w      deprecated
24     4    NIFP_OFS     r      where this port's ``netmap_if`` is in the region
28     4    NUM_TX_RINGS r      TX rings
32     4    NUM_RX_RINGS r      RX rings
36     4    NUM_TX_SLOTS r      slots per TX ring
40     4    NUM_RX_SLOTS r      slots per RX ring
44     4    VNET_HDR_LEN rw     bytes of virtio-net header before each frame
48     4    HOSTMEMID    r      id of the host's allocator; find the memdev with the same MEMID
52     4    CSB_GH_BAH   w      guest-physical address of the ``nm_csb_atok`` array, high half
56     4    CSB_GH_BAL   w      low half; writing it maps the array and stops the sync loop
60     4    CSB_HG_BAH   w      guest-physical address of the ``nm_csb_ktoa`` array, high half
64     4    CSB_HG_BAL   w      low half; writing it maps the array and stops the sync loop
68          END
128    4·n  KICK         w      any value kicks ring i at 128 + 4·i, TX rings first (:func:`kick_register`)
====== ==== ============ ====== ==================================================================================
"""
PTNET_IO_PTCTL = 4
PTNET_IO_MAC_LO = 8
PTNET_IO_MAC_HI = 12
PTNET_IO_CSBBAH = 16
PTNET_IO_CSBBAL = 20
PTNET_IO_NIFP_OFS = 24
PTNET_IO_NUM_TX_RINGS = 28
PTNET_IO_NUM_RX_RINGS = 32
PTNET_IO_NUM_TX_SLOTS = 36
PTNET_IO_NUM_RX_SLOTS = 40
PTNET_IO_VNET_HDR_LEN = 44
PTNET_IO_HOSTMEMID = 48
PTNET_IO_CSB_GH_BAH = 52
PTNET_IO_CSB_GH_BAL = 56
PTNET_IO_CSB_HG_BAH = 60
PTNET_IO_CSB_HG_BAL = 64
PTNET_IO_END = 68
PTNET_IO_KICK_BASE = 128
PTNET_IO_MASK = 0xFF

PTNETMAP_F_VNET_HDR = 1
"""PTFEAT: frames may start with a virtio-net header."""

PTNETMAP_PTCTL_CREATE = 1
"""PTCTL: start the sync loop over the CSB."""
PTNETMAP_PTCTL_DELETE = 2
"""PTCTL: stop the sync loop."""

# --- 2015: memdev

PTNETMAP_PCI_VENDOR_ID_2015 = 0x3333
"""PCI vendor, and subsystem vendor, of the memdev of 2015."""
PTNETMAP_PCI_DEVICE_ID_2015 = 0x0001
"""PCI device, and subsystem, of the memdev of 2015."""

PTNETMAP_IO_PCI_FEATURES = 0
"""Registers of the memdev of 2015: BAR 0, an I/O BAR; all are read only.

====== ==== ======== =============================================================================================
offset size register meaning
====== ==== ======== =============================================================================================
0      4    FEATURES not answered by the bhyve of 2015
4      4    MEMSIZE  bytes of the region
8      2    HOSTID   id of the host's allocator
10          SIZE     (the BAR has 16 bytes)
====== ==== ======== =============================================================================================
"""
PTNETMAP_IO_PCI_MEMSIZE = 4
PTNETMAP_IO_PCI_HOSTID = 8
PTNETMAP_IO_SIZE = 10

NMS_NAME = "nms_info"
"""``ni_name`` of the :data:`netmap_mem_shared_info` block."""
NMS_VERSION = 1
"""``ni_version`` of the :data:`netmap_mem_shared_info` block."""
NMS_FEAT_BUF_POOL = 0x1
"""``features``: the three ``buf_pool_*`` fields are valid."""
NMS_FEAT_MEMSIZE = 0x2
"""``features``: ``totalsize`` is valid."""

netmap_mem_shared_info = np.dtype(
    [
        ("up", netmap_if),
        ("features", "u8"),
        ("buf_pool_offset", "u4"),
        ("buf_pool_objtotal", "u4"),
        ("buf_pool_objsize", "u4"),
        ("totalsize", "u4"),
    ]
)
"""How a guest of 2015 learns the shape of a region: 80 bytes, the first object of the if pool (offset 0).

====== ==== ================= ====================================================================================
offset size field             meaning
====== ==== ================= ====================================================================================
0      56   up                a ``netmap_if`` with the name ``NMS_NAME`` and the version ``NMS_VERSION``
56     8    features          ``NMS_FEAT_*``: which fields are valid
64     4    buf_pool_offset   where the buffers start in the region
68     4    buf_pool_objtotal how many there are
72     4    buf_pool_objsize  bytes of each
76     4    totalsize         bytes of the region
====== ==== ================= ====================================================================================
"""

# --- 2015: virtio-net's additions

VIRTIO_NET_F_PTNETMAP = 25
"""The feature bit that a virtio-net of 2015 offers when its backend passes a port through."""

PTNETMAP_VIRTIO_IO_PTFEAT = 0
"""Registers of 2015 in virtio-net's I/O BAR, after its 10 bytes of configuration: 20 bytes.

====== ==== ======== ====== ======================================================================================
offset size register access meaning
====== ==== ======== ====== ======================================================================================
0      4    PTFEAT   rw     features wanted, then accepted: ``PTNETMAP_F_BASE``
4      4    PTCTL    w      a command, ``PTNETMAP_PTCTL_CONFIG`` to ``_HOSTMEMID``
8      4    PTSTS    r      result of the last command: 0 or an errno; HOSTMEMID: the id
12     4    CSBBAH   w      guest-physical address of the CSB page, high half
16     4    CSBBAL   w      low half; writing it activates the CSB, and address 0 releases it
20          SIZE
====== ==== ======== ====== ======================================================================================

Offsets count from ``PTNETMAP_VIRTIO_IO_BASE_MSIX``, or ``PTNETMAP_VIRTIO_IO_BASE`` without MSI-X. Drivers of 2015
write a register as four bytes, from offset 3 down to 0: it takes effect with the byte at its own offset.
"""
PTNETMAP_VIRTIO_IO_PTCTL = 4
PTNETMAP_VIRTIO_IO_PTSTS = 8
PTNETMAP_VIRTIO_IO_CSBBAH = 12
PTNETMAP_VIRTIO_IO_CSBBAL = 16
PTNETMAP_VIRTIO_IO_SIZE = 20

PTNETMAP_VIRTIO_IO_BASE = 30
"""Where these registers start in the BAR, without MSI-X: 20 bytes of legacy registers, 10 of configuration."""
PTNETMAP_VIRTIO_IO_BASE_MSIX = 34
"""Where these registers start in the BAR, with MSI-X: two vector registers of 2 bytes come in between."""

PTNETMAP_F_BASE = 1
"""PTFEAT of 2015: pass-through of one ring pair."""
PTNETMAP_F_FULL = 2
"""PTFEAT of 2015: defined, not used."""

PTNETMAP_PTCTL_CONFIG = 1
"""PTCTL of 2015: write ``nifp_offset``, ring and slot counts into the CSB."""
PTNETMAP_PTCTL_FINALIZE = 2
"""PTCTL of 2015: nothing to do."""
PTNETMAP_PTCTL_IFNEW = 3
"""PTCTL of 2015: nothing to do."""
PTNETMAP_PTCTL_IFDELETE = 4
"""PTCTL of 2015: nothing to do."""
PTNETMAP_PTCTL_RINGSCREATE = 5
"""PTCTL of 2015: refused (EINVAL)."""
PTNETMAP_PTCTL_RINGSDELETE = 6
"""PTCTL of 2015: refused (EINVAL)."""
PTNETMAP_PTCTL_DEREF = 7
"""PTCTL of 2015: nothing to do."""
PTNETMAP_PTCTL_TXSYNC = 8
"""PTCTL of 2015: refused (EINVAL)."""
PTNETMAP_PTCTL_RXSYNC = 9
"""PTCTL of 2015: refused (EINVAL)."""
PTNETMAP_PTCTL_REGIF = 10
"""PTCTL of 2015: start the threads that serve the rings."""
PTNETMAP_PTCTL_UNREGIF = 11
"""PTCTL of 2015: stop the threads that serve the rings."""
PTNETMAP_PTCTL_HOSTMEMID = 12
"""PTCTL of 2015: put the id of the host's allocator into PTSTS."""


def kick_register(i: int) -> int:
    """Return the offset in ptnet's I/O BAR of the register that kicks ring ``i``, TX rings counted first."""
    return PTNET_IO_KICK_BASE + 4 * i


def mac_registers(mac: bytes) -> tuple[int, int]:
    """Return ptnet's ``(MAC_HI, MAC_LO)`` for the 6 bytes of ``mac``: big-endian halves of 2 and 4 bytes."""
    return int.from_bytes(mac[:2], "big"), int.from_bytes(mac[2:6], "big")

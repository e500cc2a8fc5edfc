# SPDX-License-Identifier: BSD-2-Clause
"""Virtio over PCI: ids, features and status, both generations of registers, and what network and block devices add.

A *transitional* device shows the registers of virtio 0.9 in an I/O BAR (legacy), and those of virtio 1 in a memory BAR
that vendor-specific PCI capabilities describe (modern). All fields are little endian. "r" is read, "w" write, by the
driver. Source: virtio 1.2 §2 (status, features), §4.1 (PCI), §5.1 (network), §5.2 (block), §5.4 (entropy), §6 (feature bits).
"""

from __future__ import annotations

import numpy as np

# --- identity

VIRTIO_PCI_VENDOR = 0x1AF4
"""PCI vendor, and subsystem vendor, of every virtio device (virtio 1.2 §4.1.2)."""
VIRTIO_PCI_TRANSITIONAL_ID = 0x1000
"""First PCI device id of transitional devices; the subsystem id then tells the type (virtio 1.2 §4.1.2.3)."""
VIRTIO_PCI_MODERN_ID = 0x1040
"""PCI device id of a device without legacy registers, less its ``VIRTIO_ID_*`` (virtio 1.2 §4.1.2.1)."""

VIRTIO_ID_NET = 1
"""Network device (virtio 1.2 §5.1.1)."""
VIRTIO_ID_BLOCK = 2
"""Block device (virtio 1.2 §5.2.1)."""
VIRTIO_ID_CONSOLE = 3
"""Console (virtio 1.2 §5.3.1)."""
VIRTIO_ID_ENTROPY = 4
"""Source of entropy (virtio 1.2 §5.4.1)."""

VIRTIO_PCI_TRANSITIONAL = {
    VIRTIO_ID_NET: VIRTIO_PCI_TRANSITIONAL_ID,
    VIRTIO_ID_BLOCK: VIRTIO_PCI_TRANSITIONAL_ID + 1,
    VIRTIO_ID_CONSOLE: VIRTIO_PCI_TRANSITIONAL_ID + 3,
    VIRTIO_ID_ENTROPY: VIRTIO_PCI_TRANSITIONAL_ID + 5,
}
"""PCI device id of a transitional device, by its type (virtio 1.2 §4.1.2.1)."""

# --- status

VIRTIO_STATUS_ACKNOWLEDGE = 1
"""The driver has found the device (virtio 1.2 §2.1)."""
VIRTIO_STATUS_DRIVER = 2
"""It knows how to drive it (virtio 1.2 §2.1)."""
VIRTIO_STATUS_DRIVER_OK = 4
"""It is ready: queues may be used (virtio 1.2 §2.1)."""
VIRTIO_STATUS_FEATURES_OK = 8
"""Features are settled; the device refuses by not showing it (virtio 1.2 §2.1)."""
VIRTIO_STATUS_NEEDS_RESET = 64
"""The device met something from which only a reset recovers (virtio 1.2 §2.1.2)."""
VIRTIO_STATUS_FAILED = 128
"""The driver has given up (virtio 1.2 §2.1)."""

# --- feature bits, as masks

VIRTIO_F_NOTIFY_ON_EMPTY = 1 << 24
"""Legacy: interrupt when the available ring runs empty, even if told not to (virtio 1.2 §6.3)."""
VIRTIO_F_ANY_LAYOUT = 1 << 27
"""Legacy: the device does not care how a request is cut into descriptors; implied in virtio 1 (virtio 1.2 §6.3)."""
VIRTIO_F_INDIRECT_DESC = 1 << 28
"""Descriptors may refer to tables of descriptors (virtio 1.2 §6)."""
VIRTIO_F_EVENT_IDX = 1 << 29
"""Both sides say at which index they want to be notified (virtio 1.2 §6)."""
VIRTIO_F_VERSION_1 = 1 << 32
"""Virtio 1; without it, everything is as in virtio 0.9 (virtio 1.2 §6)."""
VIRTIO_F_RING_PACKED = 1 << 34
"""Queues are packed rings (virtio 1.2 §2.8)."""
VIRTIO_F_IN_ORDER = 1 << 35
"""The device uses chains in the order in which they were offered (virtio 1.2 §2.7.9, §2.8.9)."""

# --- legacy registers

VIRTIO_PCI_HOST_FEATURES = 0
"""Legacy registers: the beginning of BAR 0, an I/O BAR (virtio 1.2 §4.1.4.10).

====== ==== ============== ====== ================================================================================
offset size register       access meaning
====== ==== ============== ====== ================================================================================
0      4    HOST_FEATURES  r      features offered, bits 0 to 31
4      4    GUEST_FEATURES rw     features accepted
8      4    QUEUE_PFN      rw     guest-physical address of the selected queue / 4096; 0 takes it out of use
12     2    QUEUE_NUM      r      its entries; 0 if there is no such queue
14     2    QUEUE_SEL      rw     the queue that the two above, and QUEUE_VECTOR, mean
16     2    QUEUE_NOTIFY   w      the number of a queue: it has new buffers
18     1    STATUS         rw     ``VIRTIO_STATUS_*``; writing 0 resets the device
19     1    ISR            r      ``VIRTIO_ISR_*``; reading clears it and lowers the interrupt line
20     2    CONFIG_VECTOR  rw     MSI-X vector of configuration changes; only there while MSI-X is enabled
22     2    QUEUE_VECTOR   rw     MSI-X vector of the selected queue; only there while MSI-X is enabled
====== ==== ============== ====== ================================================================================

The device's own configuration follows: at 24 while MSI-X is enabled, at 20 otherwise (:func:`legacy_config`).
"""
VIRTIO_PCI_GUEST_FEATURES = 4
VIRTIO_PCI_QUEUE_PFN = 8
VIRTIO_PCI_QUEUE_NUM = 12
VIRTIO_PCI_QUEUE_SEL = 14
VIRTIO_PCI_QUEUE_NOTIFY = 16
VIRTIO_PCI_STATUS = 18
VIRTIO_PCI_ISR = 19
VIRTIO_MSI_CONFIG_VECTOR = 20
VIRTIO_MSI_QUEUE_VECTOR = 22

VIRTIO_PCI_QUEUE_ADDR_SHIFT = 12
"""QUEUE_PFN counts pages of 4096 bytes (virtio 1.2 §4.1.5.1.3.1)."""

VIRTIO_MSI_NO_VECTOR = 0xFFFF
"""No interrupt for this event; also what reads back if a vector could not be had (virtio 1.2 §4.1.5.1.2.1)."""

VIRTIO_ISR_QUEUE = 1
"""Interrupt status: some queue has used buffers (virtio 1.2 §4.1.4.5)."""
VIRTIO_ISR_CONFIG = 2
"""Interrupt status: the configuration, or the status, has changed (virtio 1.2 §4.1.4.5)."""


def legacy_config(msix: bool) -> int:
    """Return where a device's own configuration starts in the legacy BAR, with MSI-X enabled or not."""
    return VIRTIO_MSI_QUEUE_VECTOR + 2 if msix else VIRTIO_MSI_CONFIG_VECTOR


# --- modern registers

virtio_pci_cap = np.dtype(
    [
        ("cap_vndr", "u1"),
        ("cap_next", "u1"),
        ("cap_len", "u1"),
        ("cfg_type", "u1"),
        ("bar", "u1"),
        ("id", "u1"),
        ("padding", "u1", 2),
        ("offset", "<u4"),
        ("length", "<u4"),
    ]
)
"""A PCI capability that says where one structure of registers is: 16 bytes (virtio 1.2 §4.1.4).

====== ==== ======== =============================================================================================
offset size field    meaning
====== ==== ======== =============================================================================================
0      1    cap_vndr 9, vendor specific
1      1    cap_next the next capability in configuration space
2      1    cap_len  bytes of this one
3      1    cfg_type ``VIRTIO_PCI_CAP_*``
4      1    bar      the BAR that holds the structure, 0 to 5
5      1    id       tells several structures of one type apart
6      2    padding
8      4    offset   where it starts in the BAR
12     4    length   its bytes
====== ==== ======== =============================================================================================
"""

virtio_pci_notify_cap = np.dtype([*virtio_pci_cap.descr, ("notify_off_multiplier", "<u4")])
"""The capability of the notification registers: 20 bytes (virtio 1.2 §4.1.4.4).

====== ==== ===================== ================================================================================
offset size field                 meaning
====== ==== ===================== ================================================================================
0      1    cap_vndr              as in :data:`virtio_pci_cap`, like the next seven
1      1    cap_next
2      1    cap_len
3      1    cfg_type
4      1    bar
5      1    id
6      2    padding
8      4    offset
12     4    length
16     4    notify_off_multiplier a queue is notified at offset + queue_notify_off * this
====== ==== ===================== ================================================================================
"""

virtio_pci_cfg_cap = np.dtype([*virtio_pci_cap.descr, ("pci_cfg_data", "u1", 4)])
"""The capability through which BARs are reached from configuration space: 20 bytes (virtio 1.2 §4.1.4.9).

====== ==== ============ =========================================================================================
offset size field        meaning
====== ==== ============ =========================================================================================
0      1    cap_vndr     as in :data:`virtio_pci_cap`, like the next seven; the driver writes bar, offset, length
1      1    cap_next
2      1    cap_len
3      1    cfg_type
4      1    bar
5      1    id
6      2    padding
8      4    offset
12     4    length       1, 2 or 4
16     4    pci_cfg_data reading it reads the BAR, writing it writes the BAR
====== ==== ============ =========================================================================================
"""

VIRTIO_PCI_CAP_COMMON_CFG = 1
"""cfg_type: :data:`virtio_pci_common_cfg` (virtio 1.2 §4.1.4.3)."""
VIRTIO_PCI_CAP_NOTIFY_CFG = 2
"""cfg_type: where queues are notified (virtio 1.2 §4.1.4.4)."""
VIRTIO_PCI_CAP_ISR_CFG = 3
"""cfg_type: the interrupt status, one byte (virtio 1.2 §4.1.4.5)."""
VIRTIO_PCI_CAP_DEVICE_CFG = 4
"""cfg_type: the device's own configuration (virtio 1.2 §4.1.4.6)."""
VIRTIO_PCI_CAP_PCI_CFG = 5
"""cfg_type: access through configuration space (virtio 1.2 §4.1.4.9)."""

virtio_pci_common_cfg = np.dtype(
    [
        ("device_feature_select", "<u4"),
        ("device_feature", "<u4"),
        ("driver_feature_select", "<u4"),
        ("driver_feature", "<u4"),
        ("config_msix_vector", "<u2"),
        ("num_queues", "<u2"),
        ("device_status", "u1"),
        ("config_generation", "u1"),
        ("queue_select", "<u2"),
        ("queue_size", "<u2"),
        ("queue_msix_vector", "<u2"),
        ("queue_enable", "<u2"),
        ("queue_notify_off", "<u2"),
        ("queue_desc", "<u8"),
        ("queue_driver", "<u8"),
        ("queue_device", "<u8"),
        ("queue_notify_data", "<u2"),
        ("queue_reset", "<u2"),
    ]
)
"""The registers common to all modern devices: 60 bytes (virtio 1.2 §4.1.4.3).

====== ==== ===================== ====== =========================================================================
offset size field                 access meaning
====== ==== ===================== ====== =========================================================================
0      4    device_feature_select rw     which 32 features device_feature shows: 0 or 1
4      4    device_feature        r      features offered
8      4    driver_feature_select rw     which 32 features driver_feature means
12     4    driver_feature        rw     features accepted
16     2    config_msix_vector    rw     MSI-X vector of configuration changes
18     2    num_queues            r      queues of the device
20     1    device_status         rw     ``VIRTIO_STATUS_*``; writing 0 resets the device
21     1    config_generation     r      changes with the device's configuration
22     2    queue_select          rw     the queue that all the following mean
24     2    queue_size            rw     its entries, at first the largest number; 0 if there is no such queue
26     2    queue_msix_vector     rw     its MSI-X vector
28     2    queue_enable          rw     1 puts it into use
30     2    queue_notify_off      r      where it is notified, in units of notify_off_multiplier
32     8    queue_desc            rw     guest-physical address of its descriptor table
40     8    queue_driver          rw     guest-physical address of its available ring
48     8    queue_device          rw     guest-physical address of its used ring
56     2    queue_notify_data     r      only with VIRTIO_F_NOTIF_CONFIG_DATA
58     2    queue_reset           rw     only with VIRTIO_F_RING_RESET
====== ==== ===================== ====== =========================================================================
"""

# --- network device

VIRTIO_NET_F_CSUM = 1 << 0
"""The device completes checksums (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_CSUM = 1 << 1
"""The driver takes frames with incomplete checksums (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_MTU = 1 << 3
"""``mtu`` is given (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_MAC = 1 << 5
"""``mac`` is given (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_TSO4 = 1 << 7
"""The driver takes TCP over IPv4 that is not segmented (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_TSO6 = 1 << 8
"""The driver takes TCP over IPv6 that is not segmented (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_ECN = 1 << 9
"""The driver takes unsegmented TCP with ECN (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_UFO = 1 << 10
"""The driver takes UDP that is not fragmented (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_HOST_TSO4 = 1 << 11
"""The device segments TCP over IPv4 (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_HOST_TSO6 = 1 << 12
"""The device segments TCP over IPv6 (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_HOST_ECN = 1 << 13
"""The device segments TCP with ECN (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_HOST_UFO = 1 << 14
"""The device fragments UDP (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_MRG_RXBUF = 1 << 15
"""A received frame may take several chains (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_STATUS = 1 << 16
"""``status`` is given (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_CTRL_VQ = 1 << 17
"""There is a control queue (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_CTRL_RX = 1 << 18
"""It takes commands about which frames to receive (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_ANNOUNCE = 1 << 21
"""The driver announces itself when asked to (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_MQ = 1 << 22
"""There may be several pairs of queues (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_CTRL_MAC_ADDR = 1 << 23
"""The control queue takes a MAC address (virtio 1.2 §5.1.3)."""
VIRTIO_NET_F_GUEST_USO4 = 1 << 54
"""The driver takes UDP over IPv4 to be segmented (virtio 1.3 §5.1.3)."""
VIRTIO_NET_F_GUEST_USO6 = 1 << 55
"""The driver takes UDP over IPv6 to be segmented (virtio 1.3 §5.1.3)."""
VIRTIO_NET_F_HOST_USO = 1 << 56
"""The device segments UDP (virtio 1.3 §5.1.3)."""
VIRTIO_NET_S_LINK_UP = 1
"""``status``: there is a link (virtio 1.2 §5.1.4)."""

VIRTIO_NET_QUEUE_RX = 0
"""The queue of chains to be filled with received frames (virtio 1.2 §5.1.2)."""
VIRTIO_NET_QUEUE_TX = 1
"""The queue of frames to be sent (virtio 1.2 §5.1.2)."""

virtio_net_config = np.dtype([("mac", "u1", 6), ("status", "<u2"), ("max_virtqueue_pairs", "<u2")])
"""The first 10 bytes of a network device's configuration, which the device of 2015 ends with (virtio 1.2 §5.1.4).

====== ==== =================== ====================================================================================
offset size field               meaning
====== ==== =================== ====================================================================================
0      6    mac                 its MAC address, with VIRTIO_NET_F_MAC
6      2    status              ``VIRTIO_NET_S_*``, with VIRTIO_NET_F_STATUS
8      2    max_virtqueue_pairs with VIRTIO_NET_F_MQ
====== ==== =================== ====================================================================================

After these, 2 more bytes are ``mtu`` (with VIRTIO_NET_F_MTU).
"""

VIRTIO_NET_MTU = 10
"""Offset of ``mtu`` in the configuration (virtio 1.2 §5.1.4)."""
VIRTIO_NET_MIN_MTU = 68
"""The least MTU that a device may give (virtio 1.2 §5.1.4.1)."""

virtio_net_ctrl_hdr = np.dtype([("class", "u1"), ("cmd", "u1")])
"""What a command in the control queue starts with: 2 bytes; data follows, and then a byte for the answer (virtio 1.2 §5.1.6.5).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      1    class ``VIRTIO_NET_CTRL_*``, what it is about
1      1    cmd   which command of that class
====== ==== ===== ================================================================================================
"""

VIRTIO_NET_OK = 0
"""Answer: done (virtio 1.2 §5.1.6.5)."""
VIRTIO_NET_ERR = 1
"""Answer: not done (virtio 1.2 §5.1.6.5)."""

VIRTIO_NET_CTRL_RX = 0
"""Class: which frames to receive, a byte of data (virtio 1.2 §5.1.6.5.1)."""
VIRTIO_NET_CTRL_RX_PROMISC = 0
"""1: all frames (virtio 1.2 §5.1.6.5.1)."""
VIRTIO_NET_CTRL_RX_ALLMULTI = 1
"""1: all frames to groups (virtio 1.2 §5.1.6.5.1)."""
VIRTIO_NET_CTRL_MAC = 1
"""Class: MAC addresses (virtio 1.2 §5.1.6.5.2)."""
VIRTIO_NET_CTRL_MAC_TABLE_SET = 0
"""Two tables, of stations and of groups to receive for: a ``<u4``, and so many addresses (virtio 1.2 §5.1.6.5.2)."""
VIRTIO_NET_CTRL_MAC_ADDR_SET = 1
"""The device's own address (virtio 1.2 §5.1.6.5.2)."""
VIRTIO_NET_CTRL_MQ = 4
"""Class: pairs of queues (virtio 1.2 §5.1.6.5.5)."""
VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0
"""How many pairs to use, a ``<u2`` (virtio 1.2 §5.1.6.5.5)."""
VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN = 1
"""The fewest pairs, and how many are used at first (virtio 1.2 §5.1.6.5.5)."""
VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX = 0x8000
"""The most pairs that a device may have (virtio 1.2 §5.1.6.5.5)."""

# --- block device

VIRTIO_BLK_SECTOR = 512
"""Capacity and positions count sectors of so many bytes, whatever the block size is (virtio 1.2 §5.2.4)."""

VIRTIO_BLK_F_SEG_MAX = 1 << 2
"""``seg_max`` limits the segments of a request (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_RO = 1 << 5
"""The device cannot be written (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_BLK_SIZE = 1 << 6
"""``blk_size`` is the block size (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_FLUSH = 1 << 9
"""There is a cache, and a command to flush it (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_TOPOLOGY = 1 << 10
"""The fields from ``physical_block_exp`` to ``opt_io_size`` are valid (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_DISCARD = 1 << 13
"""Blocks can be discarded (virtio 1.2 §5.2.3)."""
VIRTIO_BLK_F_WRITE_ZEROES = 1 << 14
"""Blocks can be zeroed without sending zeroes (virtio 1.2 §5.2.3)."""

virtio_blk_config = np.dtype(
    [
        ("capacity", "<u8"),
        ("size_max", "<u4"),
        ("seg_max", "<u4"),
        ("cylinders", "<u2"),
        ("heads", "u1"),
        ("sectors", "u1"),
        ("blk_size", "<u4"),
        ("physical_block_exp", "u1"),
        ("alignment_offset", "u1"),
        ("min_io_size", "<u2"),
        ("opt_io_size", "<u4"),
        ("writeback", "u1"),
        ("unused0", "u1"),
        ("num_queues", "<u2"),
        ("max_discard_sectors", "<u4"),
        ("max_discard_seg", "<u4"),
        ("discard_sector_alignment", "<u4"),
        ("max_write_zeroes_sectors", "<u4"),
        ("max_write_zeroes_seg", "<u4"),
        ("write_zeroes_may_unmap", "u1"),
        ("unused1", "u1", 3),
    ]
)
"""The configuration of a block device: 60 bytes (virtio 1.2 §5.2.4).

====== ==== ======================== =============================================================================
offset size field                    meaning
====== ==== ======================== =============================================================================
0      8    capacity                 sectors of 512 bytes
8      4    size_max                 bytes of a segment at the most, with VIRTIO_BLK_F_SIZE_MAX
12     4    seg_max                  segments of a request at the most
16     2    cylinders                with VIRTIO_BLK_F_GEOMETRY, like the next two
18     1    heads
19     1    sectors
20     4    blk_size                 bytes of a block
24     1    physical_block_exp       blocks of a physical block, as a power of two
25     1    alignment_offset         first block that starts a physical one
26     2    min_io_size              blocks that are transferred well
28     4    opt_io_size              blocks that are transferred best
32     1    writeback                with VIRTIO_BLK_F_CONFIG_WCE
33     1    unused0
34     2    num_queues               with VIRTIO_BLK_F_MQ
36     4    max_discard_sectors      sectors of one discarded range at the most
40     4    max_discard_seg          ranges of a request
44     4    discard_sector_alignment sectors to which ranges are best aligned
48     4    max_write_zeroes_sectors sectors of one zeroed range at the most
52     4    max_write_zeroes_seg     ranges of a request
56     1    write_zeroes_may_unmap   1 if zeroing may free the space
57     3    unused1
====== ==== ======================== =============================================================================
"""

virtio_blk_req = np.dtype([("type", "<u4"), ("reserved", "<u4"), ("sector", "<u8")])
"""What every request to a block device starts with: 16 bytes; data follows, then a status byte (virtio 1.2 §5.2.6).

====== ==== ======== =============================================================================================
offset size field    meaning
====== ==== ======== =============================================================================================
0      4    type     ``VIRTIO_BLK_T_*``
4      4    reserved a priority, once
8      8    sector   first sector to read or write
====== ==== ======== =============================================================================================
"""

VIRTIO_BLK_T_IN = 0
"""Read (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_T_OUT = 1
"""Write (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_T_FLUSH = 4
"""Make all completed writes durable (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_T_GET_ID = 8
"""Read the device's name, 20 bytes (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_T_DISCARD = 11
"""The contents of some ranges do not matter any more (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_T_WRITE_ZEROES = 13
"""Zero some ranges (virtio 1.2 §5.2.6)."""

VIRTIO_BLK_ID_BYTES = 20
"""Bytes of a device's name, padded with NUL (virtio 1.2 §5.2.6)."""

VIRTIO_BLK_S_OK = 0
"""Status: done (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_S_IOERR = 1
"""Status: failed (virtio 1.2 §5.2.6)."""
VIRTIO_BLK_S_UNSUPP = 2
"""Status: the device cannot do that (virtio 1.2 §5.2.6)."""

virtio_blk_discard_write_zeroes = np.dtype([("sector", "<u8"), ("num_sectors", "<u4"), ("flags", "<u4")])
"""A range to discard or to zero: 16 bytes (virtio 1.2 §5.2.6).

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      8    sector      where it starts
8      4    num_sectors its sectors
12     4    flags       ``VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`` or 0
====== ==== =========== ==========================================================================================
"""

VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1
"""Zeroing may free the space; not for discarding (virtio 1.2 §5.2.6)."""

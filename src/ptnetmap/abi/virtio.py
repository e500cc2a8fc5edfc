# SPDX-License-Identifier: BSD-2-Clause
"""Virtqueues, split and packed, and the header that virtio-net puts before each frame.

All fields are little endian. A split virtqueue has three parts: the descriptor table, the available ring, which the
driver writes, and the used ring, which the device writes. Source: virtio 1.2 §2.7 and §2.8 (queues), §5.1.6 (network).
"""

from __future__ import annotations

import numpy as np

virtio_net_hdr = np.dtype(
    [
        ("flags", "u1"),
        ("gso_type", "u1"),
        ("hdr_len", "<u2"),
        ("gso_size", "<u2"),
        ("csum_start", "<u2"),
        ("csum_offset", "<u2"),
    ]
)
"""What a frame still needs, in the legacy form without VIRTIO_NET_F_MRG_RXBUF: 10 bytes (virtio 1.2 §5.1.6).

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      1    flags       ``VIRTIO_NET_HDR_F_*``
1      1    gso_type    ``VIRTIO_NET_HDR_GSO_*``
2      2    hdr_len     bytes of headers to repeat in each segment; a hint
4      2    gso_size    bytes of payload per segment
6      2    csum_start  where the checksum starts, in bytes from the start of the frame
8      2    csum_offset where the checksum goes, in bytes from ``csum_start``
====== ==== =========== ==========================================================================================
"""

virtio_net_hdr_mrg_rxbuf = np.dtype([*virtio_net_hdr.descr, ("num_buffers", "<u2")])
"""The header with VIRTIO_NET_F_MRG_RXBUF, and always in virtio 1: 12 bytes (virtio 1.2 §5.1.6).

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      1    flags       as in :data:`virtio_net_hdr`, like the next five
1      1    gso_type
2      2    hdr_len
4      2    gso_size
6      2    csum_start
8      2    csum_offset
10     2    num_buffers descriptor chains that this frame fills; only the first carries a header
====== ==== =========== ==========================================================================================
"""

VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
"""The checksum at ``csum_start + csum_offset`` is to be completed (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_F_DATA_VALID = 2
"""The checksums of this received frame were verified (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_F_RSC_INFO = 4
"""The checksum fields count coalesced segments (virtio 1.2 §5.1.6)."""

VIRTIO_NET_HDR_GSO_NONE = 0
"""One frame, not to be segmented (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_GSO_TCPV4 = 1
"""TCP over IPv4, to be segmented (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_GSO_UDP = 3
"""UDP, to be fragmented by IP (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_GSO_TCPV6 = 4
"""TCP over IPv6, to be segmented (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_GSO_UDP_L4 = 5
"""UDP, to be segmented into datagrams (virtio 1.2 §5.1.6)."""
VIRTIO_NET_HDR_GSO_ECN = 0x80
"""Or-ed to a TCP type: the segments carry ECN (virtio 1.2 §5.1.6)."""

VIRTQ_DESC_ALIGN = 16
"""Alignment of the descriptor table, in bytes (virtio 1.2 §2.7)."""
VIRTQ_AVAIL_ALIGN = 2
"""Alignment of the available ring, in bytes (virtio 1.2 §2.7)."""
VIRTQ_USED_ALIGN = 4
"""Alignment of the used ring, in bytes (virtio 1.2 §2.7)."""
VIRTQ_LEGACY_ALIGN = 4096
"""Alignment of the used ring in a legacy queue, whose parts lie together (virtio 1.2 §2.7.2)."""

virtq_desc = np.dtype([("addr", "<u8"), ("len", "<u4"), ("flags", "<u2"), ("next", "<u2")])
"""One buffer of the guest: 16 bytes (virtio 1.2 §2.7.5).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      8    addr  guest-physical address
8      4    len   bytes
12     2    flags ``VIRTQ_DESC_F_*``
14     2    next  next descriptor of the chain, with VIRTQ_DESC_F_NEXT
====== ==== ===== ================================================================================================
"""

VIRTQ_DESC_F_NEXT = 1
"""The chain continues at ``next`` (virtio 1.2 §2.7.5)."""
VIRTQ_DESC_F_WRITE = 2
"""The device writes this buffer; without it, the device reads it (virtio 1.2 §2.7.5)."""
VIRTQ_DESC_F_INDIRECT = 4
"""The buffer is a table of descriptors (virtio 1.2 §2.7.5.3)."""

virtq_avail = np.dtype([("flags", "<u2"), ("idx", "<u2")])
"""The head of the available ring: 4 bytes; one :data:`virtq_avail_elem` per entry follows (virtio 1.2 §2.7.6).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      2    flags ``VIRTQ_AVAIL_F_NO_INTERRUPT`` or 0
2      2    idx   where the driver puts the next entry, modulo 65536
====== ==== ===== ================================================================================================

After the entries, 2 more bytes are ``used_event`` (with VIRTIO_F_EVENT_IDX).
"""

virtq_avail_elem = np.dtype("<u2")
"""An entry of the available ring: the first descriptor of a chain, 2 bytes (virtio 1.2 §2.7.6)."""

VIRTQ_AVAIL_F_NO_INTERRUPT = 1
"""The driver does not need an interrupt when buffers are used (virtio 1.2 §2.7.7)."""

virtq_used = np.dtype([("flags", "<u2"), ("idx", "<u2")])
"""The head of the used ring: 4 bytes; one :data:`virtq_used_elem` per entry follows (virtio 1.2 §2.7.8).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      2    flags ``VIRTQ_USED_F_NO_NOTIFY`` or 0
2      2    idx   where the device puts the next entry, modulo 65536
====== ==== ===== ================================================================================================

After the entries, 2 more bytes are ``avail_event`` (with VIRTIO_F_EVENT_IDX).
"""

virtq_used_elem = np.dtype([("id", "<u4"), ("len", "<u4")])
"""An entry of the used ring: 8 bytes (virtio 1.2 §2.7.8).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      4    id    first descriptor of the chain that was used
4      4    len   bytes that the device wrote into it
====== ==== ===== ================================================================================================
"""

VIRTQ_USED_F_NO_NOTIFY = 1
"""The device does not need a kick when buffers become available (virtio 1.2 §2.7.10)."""


pvirtq_desc = np.dtype([("addr", "<u8"), ("len", "<u4"), ("id", "<u2"), ("flags", "<u2")])
"""One descriptor of a packed ring: 16 bytes (virtio 1.2 §2.8.13).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      8    addr  guest-physical address
8      4    len   bytes
12     2    id    number of the chain, in its last descriptor, or in the used one
14     2    flags ``VIRTQ_DESC_F_*`` and ``VIRTQ_PACKED_*``
====== ==== ===== ================================================================================================
"""

VIRTQ_PACKED_AVAIL = 1 << 7
"""Equals the driver's wrap counter once the descriptor is available, and is flipped from it before (virtio 1.2 §2.8.1)."""
VIRTQ_PACKED_USED = 1 << 15
"""Equals VIRTQ_PACKED_AVAIL once the descriptor is used (virtio 1.2 §2.8.1)."""

pvirtq_event_suppress = np.dtype([("desc", "<u2"), ("flags", "<u2")])
"""What one side of a packed ring wants to be told of: 4 bytes (virtio 1.2 §2.8.14).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      2    desc  a place in the ring, and in bit 15 the wrap counter that goes with it
2      2    flags ``VIRTQ_PACKED_EVENT_*``
====== ==== ===== ================================================================================================
"""

VIRTQ_PACKED_EVENT_ENABLE = 0
"""Tell of everything (virtio 1.2 §2.8.10)."""
VIRTQ_PACKED_EVENT_DISABLE = 1
"""Tell of nothing (virtio 1.2 §2.8.10)."""
VIRTQ_PACKED_EVENT_DESC = 2
"""Tell when the descriptor at ``desc`` has passed; with VIRTIO_F_EVENT_IDX (virtio 1.2 §2.8.10)."""


def virtq_avail_size(num: int) -> int:
    """Return the bytes of an available ring of ``num`` entries, ``used_event`` included (virtio 1.2 §2.7)."""
    return virtq_avail.itemsize + num * virtq_avail_elem.itemsize + 2


def virtq_used_size(num: int) -> int:
    """Return the bytes of a used ring of ``num`` entries, ``avail_event`` included (virtio 1.2 §2.7)."""
    return virtq_used.itemsize + num * virtq_used_elem.itemsize + 2

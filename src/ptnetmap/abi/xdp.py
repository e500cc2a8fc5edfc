# SPDX-License-Identifier: BSD-2-Clause
"""AF_XDP: sockets whose packets lie in memory of their owner's, the UMEM (Linux, include/uapi/linux/if_xdp.h).

Four rings of one producer and one consumer each, whose indices are 32-bit words that only ever grow: by the *fill* ring
the kernel is given buffers, and by the *RX* ring it gives them back with a frame in each; by the *TX* ring it is given
frames, and by the *completion* ring it gives their buffers back.
"""

from __future__ import annotations

import numpy as np

AF_XDP = 44
"""The address family."""
SOL_XDP = 283
"""The level of its socket options."""

sockaddr_xdp = np.dtype(
    [
        ("sxdp_family", "<u2"),
        ("sxdp_flags", "<u2"),
        ("sxdp_ifindex", "<u4"),
        ("sxdp_queue_id", "<u4"),
        ("sxdp_shared_umem_fd", "<u4"),
    ]
)
"""What a socket is bound to: 16 bytes.

====== ==== =================== ===================================================================================
offset size field               meaning
====== ==== =================== ===================================================================================
0      2    sxdp_family         ``AF_XDP``
2      2    sxdp_flags          ``XDP_SHARED_UMEM`` ... ``XDP_USE_SG``
4      4    sxdp_ifindex        the interface
8      4    sxdp_queue_id       which of its queues
12     4    sxdp_shared_umem_fd with ``XDP_SHARED_UMEM``: a bound socket whose UMEM to use
====== ==== =================== ===================================================================================
"""

XDP_SHARED_UMEM = 1 << 0
"""In sxdp_flags: use another socket's UMEM, and its flags."""
XDP_COPY = 1 << 1
"""In sxdp_flags: let the kernel copy frames between the UMEM and buffers of its own."""
XDP_ZEROCOPY = 1 << 2
"""In sxdp_flags: let the driver use the UMEM's buffers, or refuse."""
XDP_USE_NEED_WAKEUP = 1 << 3
"""In sxdp_flags: say in the rings' flags when the kernel has to be woken."""
XDP_USE_SG = 1 << 4
"""In sxdp_flags: frames may lie in several buffers."""

XDP_RING_NEED_WAKEUP = 1 << 0
"""In the flags of a TX or fill ring: the kernel has to be woken (sendto, recvfrom or poll)."""
XDP_PKT_CONTD = 1 << 0
"""In a descriptor's options: the frame goes on in the next one."""

xdp_ring_offset = np.dtype([("producer", "<u8"), ("consumer", "<u8"), ("desc", "<u8"), ("flags", "<u8")])
"""Where the parts of a ring are in its mapping: 32 bytes.

====== ==== ======== ==============================================================================================
offset size field    meaning
====== ==== ======== ==============================================================================================
0      8    producer offset of the producer's index (u32)
8      8    consumer offset of the consumer's index (u32)
16     8    desc     offset of the first entry
24     8    flags    offset of the flags (u32)
====== ==== ======== ==============================================================================================
"""

xdp_mmap_offsets = np.dtype(
    [("rx", xdp_ring_offset), ("tx", xdp_ring_offset), ("fr", xdp_ring_offset), ("cr", xdp_ring_offset)]
)
"""What ``XDP_MMAP_OFFSETS`` answers, a :data:`xdp_ring_offset` for each ring: 128 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      32   rx    the RX ring's
32     32   tx    the TX ring's
64     32   fr    the fill ring's
96     32   cr    the completion ring's
====== ==== ===== =================================================================================================
"""

XDP_MMAP_OFFSETS = 1
"""Get :data:`xdp_mmap_offsets`."""
XDP_RX_RING = 2
"""Make the RX ring, of so many entries (int, a power of two)."""
XDP_TX_RING = 3
"""Make the TX ring."""
XDP_UMEM_REG = 4
"""Register a UMEM (:data:`xdp_umem_reg`)."""
XDP_UMEM_FILL_RING = 5
"""Make the fill ring."""
XDP_UMEM_COMPLETION_RING = 6
"""Make the completion ring."""
XDP_STATISTICS = 7
"""Get :data:`xdp_statistics`."""
XDP_OPTIONS = 8
"""Get what was bound: ``XDP_OPTIONS_ZEROCOPY`` or 0 (u32)."""
XDP_MAX_TX_SKB_BUDGET = 9
"""Set how many frames one system call sends in copy mode (u32; 32 unless set; since Linux 6.17)."""

XDP_OPTIONS_ZEROCOPY = 1 << 0
"""In the answer to ``XDP_OPTIONS``: the driver uses the UMEM's buffers."""

XDP_PGOFF_RX_RING = 0
"""Where the RX ring is mapped from: the offset for mmap(2)."""
XDP_PGOFF_TX_RING = 0x80000000
"""Where the TX ring is mapped from."""
XDP_UMEM_PGOFF_FILL_RING = 0x100000000
"""Where the fill ring is mapped from."""
XDP_UMEM_PGOFF_COMPLETION_RING = 0x180000000
"""Where the completion ring is mapped from."""

xdp_umem_reg = np.dtype(
    [("addr", "<u8"), ("len", "<u8"), ("chunk_size", "<u4"), ("headroom", "<u4"), ("flags", "<u4"), ("tail", "<u4")]
)
"""A UMEM: 32 bytes.

====== ==== ========== ============================================================================================
offset size field      meaning
====== ==== ========== ============================================================================================
0      8    addr       where it begins, on a page
8      8    len        bytes
16     4    chunk_size bytes of a chunk: a power of two from 2,048 to a page
20     4    headroom   bytes to leave before a received frame, beyond ``XDP_PACKET_HEADROOM``
24     4    flags      0
28     4    tail       0; the length of metadata before sent frames in later kernels
====== ==== ========== ============================================================================================
"""

XDP_PACKET_HEADROOM = 256
"""Bytes of a chunk before a received frame."""

xdp_statistics = np.dtype(
    [
        ("rx_dropped", "<u8"),
        ("rx_invalid_descs", "<u8"),
        ("tx_invalid_descs", "<u8"),
        ("rx_ring_full", "<u8"),
        ("rx_fill_ring_empty_descs", "<u8"),
        ("tx_ring_empty_descs", "<u8"),
    ]
)
"""What became of a socket's frames: 48 bytes.

====== ==== ======================== ==============================================================================
offset size field                    meaning
====== ==== ======================== ==============================================================================
0      8    rx_dropped               frames lost for lack of a buffer in the fill ring, or longer than a buffer
8      8    rx_invalid_descs         entries of the fill ring that named no chunk
16     8    tx_invalid_descs         entries of the TX ring that were refused
24     8    rx_ring_full             frames lost for lack of room in the RX ring
32     8    rx_fill_ring_empty_descs times the fill ring was found empty
40     8    tx_ring_empty_descs      times the TX ring was found empty
====== ==== ======================== ==============================================================================
"""

xdp_desc = np.dtype([("addr", "<u8"), ("len", "<u4"), ("options", "<u4")])
"""An entry of an RX or TX ring: 16 bytes. Those of the fill and completion ring are the ``addr`` alone.

====== ==== ======= ===============================================================================================
offset size field   meaning
====== ==== ======= ===============================================================================================
0      8    addr    where the frame begins: bytes from the UMEM's beginning
8      4    len     bytes
12     4    options ``XDP_PKT_CONTD`` or 0
====== ==== ======= ===============================================================================================
"""

MAX_COPY_FRAGMENTS = 18
"""Descriptors of one frame at the most, in copy mode (``CONFIG_MAX_SKB_FRAGS`` is 17, and the first one)."""

XDP_PASS = 2
"""What an XDP program returns to let the host's stack have a frame (include/uapi/linux/bpf.h)."""

xdp_md = np.dtype(
    [
        ("data", "<u4"),
        ("data_end", "<u4"),
        ("data_meta", "<u4"),
        ("ingress_ifindex", "<u4"),
        ("rx_queue_index", "<u4"),
        ("egress_ifindex", "<u4"),
    ]
)
"""What an XDP program is called with: 24 bytes (include/uapi/linux/bpf.h).

====== ==== =============== =======================================================================================
offset size field           meaning
====== ==== =============== =======================================================================================
0      4    data            where the frame begins
4      4    data_end        where it ends
8      4    data_meta       where data before it begins
12     4    ingress_ifindex the interface that it came by
16     4    rx_queue_index  and the queue
20     4    egress_ifindex  the interface that it leaves by, for programs run there
====== ==== =============== =======================================================================================
"""

XDP_FLAGS_UPDATE_IF_NOEXIST = 1 << 0
"""When attaching a program: only where there is none (include/uapi/linux/if_link.h)."""
XDP_FLAGS_SKB_MODE = 1 << 1
"""Run it in the stack, on any interface, a copy later."""
XDP_FLAGS_DRV_MODE = 1 << 2
"""Run it in the driver."""

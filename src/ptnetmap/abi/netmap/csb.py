# SPDX-License-Identifier: BSD-2-Clause
"""The communication status block (CSB): how an application or a guest and the kernel exchange ring indices.

Today's CSB is two arrays, one per writer, with a 64-byte entry per ring (TX rings first, then RX), so that no cache
line has two writers. The CSB of 2015 is one page for one ring pair. Order of stores and loads, where "then" is a
barrier, for a reader that must never see the second index without the first:

========= =========================== =========================== ===================== =====================
CSB       application stores          kernel loads                kernel stores         application loads
========= =========================== =========================== ===================== =====================
today     cur, then head              head, then cur              hwcur, then hwtail    hwtail, then hwcur
2015      cur, then head              head, then cur              hwtail, then hwcur    hwcur, then hwtail
========= =========================== =========================== ===================== =====================

A reader of the 2015 order may combine a stale first index with a new second one, and has to check for it.
Source: netmap.h, and netmap_virt.h of 2015.
"""

from __future__ import annotations

import numpy as np

CSB_ALIGN = 64
"""Alignment of both arrays of entries, in bytes (EINVAL), and the size of an entry."""

nm_csb_atok = np.dtype(
    {
        "names": ["head", "cur", "appl_need_kick", "sync_flags"],
        "formats": ["u4", "u4", "u4", "u4"],
        "offsets": [0, 4, 8, 12],
        "itemsize": CSB_ALIGN,
    }
)
"""Application to kernel, one ring: 64 bytes, written by the application.

====== ==== ============== =======================================================================================
offset size field          meaning
====== ==== ============== =======================================================================================
0      4    head           ``ring.head``
4      4    cur            ``ring.cur``
8      4    appl_need_kick not 0: interrupt me when ``hwtail`` moves
12     4    sync_flags     ``NAF_*`` of the next sync
====== ==== ============== =======================================================================================
"""

nm_csb_ktoa = np.dtype(
    {
        "names": ["hwcur", "hwtail", "kern_need_kick"],
        "formats": ["u4", "u4", "u4"],
        "offsets": [0, 4, 8],
        "itemsize": CSB_ALIGN,
    }
)
"""Kernel to application, one ring: 64 bytes, written by the kernel.

====== ==== ============== =======================================================================================
offset size field          meaning
====== ==== ============== =======================================================================================
0      4    hwcur          next slot that the kernel will look at
4      4    hwtail         becomes ``ring.tail``
8      4    kern_need_kick not 0: kick me when ``head`` moves
====== ==== ============== =======================================================================================
"""

NAF_FORCE_READ = 1
"""Sync flag: look for received packets even without an interrupt pending."""
NAF_FORCE_RECLAIM = 2
"""Sync flag: take back the slots of all packets that were sent."""
NAF_CAN_FORWARD_DOWN = 4
"""Sync flag: packets may be passed to the host stack."""

NETMAP_VIRT_CSB_SIZE = 4096
"""Bytes that a guest of 2015 allocates for its CSB: one page, of which ``csb_2015`` is the start."""

csb_2015_ring = np.dtype([("head", "u4"), ("cur", "u4"), ("hwcur", "u4"), ("hwtail", "u4"), ("sync_flags", "u4")])
"""The indices of one ring in the CSB of 2015: 20 bytes.

====== ==== ========== ======= ===================================================================================
offset size field      writer  meaning
====== ==== ========== ======= ===================================================================================
0      4    head       guest   ``ring.head``
4      4    cur        guest   ``ring.cur``
8      4    hwcur      host    next slot that the host will look at
12     4    hwtail     host    becomes ``ring.tail``
16     4    sync_flags guest   ``NAF_*`` of the next sync
====== ==== ========== ======= ===================================================================================
"""

csb_2015 = np.dtype(
    {
        "names": [
            "guest_tdt", "guest_need_txkick", "guest_need_rxkick", "guest_csb_on", "guest_rdt", "guest_txkick_at",
            "guest_use_msix",
            "host_tdh", "host_need_txkick", "host_txcycles_lim", "host_txcycles", "host_rdh", "host_need_rxkick",
            "host_isr", "host_rxkick_at", "vnet_ring_high", "vnet_ring_low",
            "nifp_offset", "num_tx_rings", "num_rx_rings", "num_tx_slots", "num_rx_slots",
            "tx_ring", "rx_ring",
        ],
        "formats": ["u4"] * 18 + ["u2"] * 4 + [csb_2015_ring] * 2,
        "offsets": [
            0, 4, 8, 12, 16, 20, 24,
            64, 68, 72, 76, 80, 84, 88, 92, 96, 100,
            104, 108, 110, 112, 114,
            116, 136,
        ],
        "itemsize": 156,
    }
)  # fmt: skip
"""The CSB of 2015, for one ring pair: 156 bytes at the start of a guest page.

====== ==== ================= ======= ============================================================================
offset size field             writer  meaning
====== ==== ================= ======= ============================================================================
0      4    guest_tdt         guest   e1000's TX tail
4      4    guest_need_txkick both    guest sets it to be interrupted about TX space; the host clears it first
8      4    guest_need_rxkick both    guest sets it to be interrupted about packets; the host clears it first
12     4    guest_csb_on      guest   1: this page is in use
16     4    guest_rdt         guest   e1000's RX tail
20     4    guest_txkick_at   guest   TX position that should interrupt
24     4    guest_use_msix    guest   the guest takes MSI-X
64     4    host_tdh          host    e1000's TX head
68     4    host_need_txkick  host    not 0: kick me when the TX head moves
72     4    host_txcycles_lim host    rounds to spin before the host sleeps
76     4    host_txcycles     host    rounds that it spun
80     4    host_rdh          host    e1000's RX head
84     4    host_need_rxkick  host    not 0: kick me when RX slots are released
88     4    host_isr          host    shadow of the interrupt status
92     4    host_rxkick_at    host    RX position that should kick
96     4    vnet_ring_high    guest   address of a virtqueue, high half
100    4    vnet_ring_low     guest   and low half
104    4    nifp_offset       host    where ``netmap_if`` is in the region (from CONFIG)
108    2    num_tx_rings      host    TX rings of the port
110    2    num_rx_rings      host    RX rings of the port
112    2    num_tx_slots      host    slots per TX ring
114    2    num_rx_slots      host    slots per RX ring
116    20   tx_ring           both    :data:`csb_2015_ring` of TX ring 0
136    20   rx_ring           both    :data:`csb_2015_ring` of RX ring 0
====== ==== ================= ======= ============================================================================
"""

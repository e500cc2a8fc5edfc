# SPDX-License-Identifier: BSD-2-Clause
"""Options of NIOCCTRL requests: a linked list of blocks, each with one header.

``nmreq_header.nr_options`` points to the first block, ``nro_next`` to the next. Every known option starts with status
EOPNOTSUPP, which whoever consumes it sets to 0; an unknown one keeps EOPNOTSUPP, an option given twice gets EINVAL in
both. Statuses are always written back, the rest only when the request succeeds. Source: netmap.h, API 14.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from ptnetmap.abi.netmap.request import nmreq_pools_info

nmreq_option = np.dtype([("nro_next", "u8"), ("nro_reqtype", "u4"), ("nro_status", "u4"), ("nro_size", "u8")])
"""The header of every option: 24 bytes.

====== ==== =========== ======= ==================================================================================
offset size field       in/out  meaning
====== ==== =========== ======= ==================================================================================
0      8    nro_next    in      address of the next option, 0 for the last
8      4    nro_reqtype in      ``NETMAP_REQ_OPT_*``; 0 is EINVAL
12     4    nro_status  out     0 when it was processed, else an errno
16     8    nro_size    in      bytes of the whole option when its size varies, else 0
====== ==== =========== ======= ==================================================================================
"""

NETMAP_REQ_OPT_EXTMEM = 1
"""REGISTER: build the region in the user's memory; :data:`nmreq_opt_extmem`."""
NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS = 2
"""SYNC_KLOOP_START: the eventfds of each ring; :data:`nmreq_opt_sync_kloop_eventfds`."""
NETMAP_REQ_OPT_CSB = 3
"""REGISTER or CSB_ENABLE: where the CSB is; :data:`nmreq_opt_csb`."""
NETMAP_REQ_OPT_SYNC_KLOOP_MODE = 4
"""SYNC_KLOOP_START: who runs the syncs; :data:`nmreq_opt_sync_kloop_mode`."""
NETMAP_REQ_OPT_OFFSETS = 5
"""REGISTER: packets that do not start where their buffer starts; :data:`nmreq_opt_offsets`."""
NETMAP_REQ_OPT_MAX = 6
"""The first number that is no option."""

nmreq_opt_extmem = np.dtype(
    [("nro_opt", nmreq_option), ("nro_usrptr", "u8"), ("nro_info", nmreq_pools_info)],
)
"""Memory for the region, given by the user: 96 bytes.

====== ==== ========== ======= ===================================================================================
offset size field      in/out  meaning
====== ==== ========== ======= ===================================================================================
0      24   nro_opt    in/out  header
24     8    nro_usrptr in      address of the memory
32     64   nro_info   in/out  pools wanted and made; see :data:`~ptnetmap.abi.netmap.request.nmreq_pools_info`
====== ==== ========== ======= ===================================================================================
"""

nmreq_opt_sync_kloop_eventfds = np.dtype([("nro_opt", nmreq_option)])
"""The head of an eventfds option: 24 bytes; one :data:`sync_kloop_eventfd` per ring follows.

====== ==== ========== ======= ===================================================================================
offset size field      in/out  meaning
====== ==== ========== ======= ===================================================================================
0      24   nro_opt    in/out  header; ``nro_size`` must be :func:`eventfds_option_size` of the bound rings (EINVAL)
====== ==== ========== ======= ===================================================================================
"""

sync_kloop_eventfd = np.dtype([("ioeventfd", "i4"), ("irqfd", "i4")])
"""The two notifiers of one ring, TX rings first, in the order of the CSB: 8 bytes.

====== ==== ========= ============================================================================================
offset size field     meaning
====== ==== ========= ============================================================================================
0      4    ioeventfd application to kernel (kick); negative in any entry: the loop sleeps instead of waiting
4      4    irqfd     kernel to application (interrupt); negative for none
====== ==== ========= ============================================================================================
"""

nmreq_opt_csb = np.dtype([("nro_opt", nmreq_option), ("csb_atok", "u8"), ("csb_ktoa", "u8")])
"""Where the two arrays of CSB entries are: 40 bytes; the binding must be NR_EXCLUSIVE (EINVAL).

====== ==== ======== ======= =====================================================================================
offset size field    in/out  meaning
====== ==== ======== ======= =====================================================================================
0      24   nro_opt  in/out  header
24     8    csb_atok in      address of the ``nm_csb_atok`` entries, aligned to 64 bytes (EINVAL)
32     8    csb_ktoa in      address of the ``nm_csb_ktoa`` entries, aligned to 64 bytes (EINVAL)
====== ==== ======== ======= =====================================================================================
"""

nmreq_opt_sync_kloop_mode = np.dtype(
    {"names": ["nro_opt", "mode"], "formats": [nmreq_option, "u4"], "offsets": [0, 24], "itemsize": 32}
)
"""Which directions are synced in the context of the kick: 32 bytes; needs eventfds in all rings (EINVAL).

====== ==== ======= ======= ======================================================================================
offset size field   in/out  meaning
====== ==== ======= ======= ======================================================================================
0      24   nro_opt in/out  header
24     4    mode    in      ``NM_OPT_SYNC_KLOOP_DIRECT_*``, or-ed; other bits are EINVAL
====== ==== ======= ======= ======================================================================================
"""

NM_OPT_SYNC_KLOOP_DIRECT_TX = 1
"""A kick of a TX ring runs its sync at once, without waking the loop."""
NM_OPT_SYNC_KLOOP_DIRECT_RX = 2
"""A kick of an RX ring runs its sync at once, without waking the loop."""

nmreq_opt_offsets = np.dtype(
    [
        ("nro_opt", nmreq_option),
        ("nro_max_offset", "u8"),
        ("nro_initial_offset", "u8"),
        ("nro_offset_bits", "u4"),
        ("nro_tx_align", "u4"),
        ("nro_min_gap", "u8"),
    ]
)
"""How far into its buffer a packet may start: 56 bytes.

====== ==== ================== ======= ===========================================================================
offset size field              in/out  meaning
====== ==== ================== ======= ===========================================================================
0      24   nro_opt            in/out  header
24     8    nro_max_offset     in/out  largest offset that the user will set, in bytes; the largest allowed
32     8    nro_initial_offset in      offset that all slots get at first, in bytes
40     4    nro_offset_bits    in/out  low bits of ``slot.ptr`` that hold the offset, 0 for all; how many do
44     4    nro_tx_align       in      alignment of packets to send, in bytes
48     8    nro_min_gap        in      gap asked for, in bytes
====== ==== ================== ======= ===========================================================================
"""

OPTION_LAYOUTS: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        NETMAP_REQ_OPT_EXTMEM: nmreq_opt_extmem,
        NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS: nmreq_opt_sync_kloop_eventfds,
        NETMAP_REQ_OPT_CSB: nmreq_opt_csb,
        NETMAP_REQ_OPT_SYNC_KLOOP_MODE: nmreq_opt_sync_kloop_mode,
        NETMAP_REQ_OPT_OFFSETS: nmreq_opt_offsets,
    }
)
"""The layout of each option type, header included; only the eventfds' goes on after it."""


def eventfds_option_size(num_rings: int) -> int:
    """Return the bytes of an eventfds option for ``num_rings`` bound rings of both directions."""
    return nmreq_opt_sync_kloop_eventfds.itemsize + num_rings * sync_kloop_eventfd.itemsize

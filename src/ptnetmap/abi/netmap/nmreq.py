# SPDX-License-Identifier: BSD-2-Clause
"""The legacy request of NIOCGINFO and NIOCREGIF: one struct, whose meaning depends on ``nr_cmd``.

The layout is the same in 2015 and today; what a kernel does with ``nr_version`` is not. Programs that come with their
own copy of nm_open (libpcap, tcpreplay, Suricata) speak this dialect. Source: netmap_legacy.h.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.netmap.memory import IFNAMSIZ

nmreq = np.dtype(
    [
        ("nr_name", f"S{IFNAMSIZ}"),
        ("nr_version", "u4"),
        ("nr_offset", "u4"),
        ("nr_memsize", "u4"),
        ("nr_tx_slots", "u4"),
        ("nr_rx_slots", "u4"),
        ("nr_tx_rings", "u2"),
        ("nr_rx_rings", "u2"),
        ("nr_ringid", "u2"),
        ("nr_cmd", "u2"),
        ("nr_arg1", "u2"),
        ("nr_arg2", "u2"),
        ("nr_arg3", "u4"),
        ("nr_flags", "u4"),
        ("spare2", "u4"),
    ]
)
"""The argument of NIOCGINFO and NIOCREGIF: 60 bytes.

====== ==== =========== ======= ==================================================================================
offset size field       in/out  meaning
====== ==== =========== ======= ==================================================================================
0      16   nr_name     in      the port, NUL padded
16     4    nr_version  in/out  API version of the program, then of the kernel
20     4    nr_offset   out     where this binding's ``netmap_if`` is in the region
24     4    nr_memsize  out     bytes of the region
28     4    nr_tx_slots in/out  slots per TX ring; 0 asks for the default
32     4    nr_rx_slots in/out  slots per RX ring; 0 asks for the default
36     2    nr_tx_rings in/out  TX rings of the NIC
38     2    nr_rx_rings in/out  RX rings of the NIC
40     2    nr_ringid   in      ring number (``NETMAP_RING_MASK``) and flag bits
42     2    nr_cmd      in      0 to bind the port, else ``NETMAP_BDG_*`` and the like
44     2    nr_arg1     in/out  pipes wanted (2015), or ``NETMAP_BDG_HOST``, or header length, or switch index
46     2    nr_arg2     in/out  id of the allocator, or port index
48     4    nr_arg3     in/out  extra buffers wanted, and granted
52     4    nr_flags    in      ``NR_REG_*`` (``NR_REG_MASK``) and registration flags
56     4    spare2
====== ==== =========== ======= ==================================================================================

For ``NETMAP_PT_HOST_CREATE`` the 8 bytes at :data:`PTNETMAP_CFG_OFFSET` hold an address instead of the arguments.
"""

PTNETMAP_CFG_OFFSET = 44
"""Where a ``NETMAP_PT_HOST_CREATE`` request of 2015 holds the address of its configuration."""

NR_REG_MASK = 0xF
"""The part of ``nr_flags`` that is a mode, ``NR_REG_*``."""

NETMAP_HW_RING = 0x4000
"""``nr_ringid``: bind one ring pair of the NIC (with NR_REG_DEFAULT)."""
NETMAP_SW_RING = 0x2000
"""``nr_ringid``: bind the host rings (with NR_REG_DEFAULT)."""
NETMAP_RING_MASK = 0x0FFF
"""``nr_ringid``: the ring number."""
NETMAP_NO_TX_POLL = 0x1000
"""``nr_ringid``: as ``NR_NO_TX_POLL``."""
NETMAP_DO_RX_POLL = 0x8000
"""``nr_ringid``: as ``NR_DO_RX_POLL``."""

NETMAP_BDG_ATTACH = 1
"""``nr_cmd``: attach an interface to a switch; ``nr_arg1`` 0 or ``NETMAP_BDG_HOST``."""
NETMAP_BDG_DETACH = 2
"""``nr_cmd``: detach an interface from its switch."""
NETMAP_BDG_REGOPS = 3
"""``nr_cmd``: set a switch's callbacks; for kernel modules only."""
NETMAP_BDG_LIST = 4
"""``nr_cmd`` of NIOCGINFO: find a port on a switch, or the next one of a listing."""
NETMAP_BDG_VNET_HDR = 5
"""``nr_cmd``: set the length of a port's virtio-net header to ``nr_arg1``."""
NETMAP_BDG_OFFSET = NETMAP_BDG_VNET_HDR
"""``nr_cmd``: an older name of ``NETMAP_BDG_VNET_HDR``."""
NETMAP_BDG_NEWIF = 6
"""``nr_cmd``: create a persistent VALE port."""
NETMAP_BDG_DELIF = 7
"""``nr_cmd``: delete a persistent VALE port."""
NETMAP_PT_HOST_CREATE = 8
"""``nr_cmd`` of 2015: start the threads that serve a guest; refused today."""
NETMAP_PT_HOST_DELETE = 9
"""``nr_cmd`` of 2015: stop the threads that serve a guest; refused today."""
NETMAP_BDG_POLLING_ON = 10
"""``nr_cmd``, not in 2015: let kernel threads poll an attached NIC."""
NETMAP_BDG_POLLING_OFF = 11
"""``nr_cmd``, not in 2015: stop polling an attached NIC."""
NETMAP_VNET_HDR_GET = 12
"""``nr_cmd``, not in 2015: read the length of a port's virtio-net header into ``nr_arg1``."""

NETMAP_BDG_HOST = 1
"""``nr_arg1`` of ``NETMAP_BDG_ATTACH``: attach the host rings too."""

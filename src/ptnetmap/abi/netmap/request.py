# SPDX-License-Identifier: BSD-2-Clause
"""Requests of NIOCCTRL: one header, and a body per request type.

The header carries the API version, the request type, the port's name and the addresses of the body and of the first
option (:mod:`~ptnetmap.abi.netmap.option`). Fields marked *in/out* are written back with what was granted. Paddings
are not fields: upstream ignores them. Source: netmap.h, API 14.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

NETMAP_API = 14
"""The API version of today's netmap: written in every header."""
NETMAP_MIN_API = 14
"""The oldest version that NIOCCTRL accepts; EINVAL below."""
NETMAP_MAX_API = 15
"""The newest version that NIOCCTRL accepts; EINVAL above."""
NETMAP_API_2015 = 11
"""The version of 2015, before NIOCCTRL: programs that use the legacy ``nmreq`` write it."""

NETMAP_REQ_IFNAMSIZ = 64
"""Bytes of ``nr_name`` in the header, with the closing NUL."""
NETMAP_REQ_MAXSIZE = 4096
"""Bytes of body and options together, at most (EMSGSIZE beyond; also what a circular list of options ends in)."""

NM_BDG_NAME = "vale"
"""The prefix of a VALE switch's name."""

nmreq_header = np.dtype(
    [
        ("nr_version", "u2"),
        ("nr_reqtype", "u2"),
        ("nr_reserved", "u4"),
        ("nr_name", f"S{NETMAP_REQ_IFNAMSIZ}"),
        ("nr_options", "u8"),
        ("nr_body", "u8"),
    ]
)
"""The argument of NIOCCTRL: 88 bytes.

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      2    nr_version  ``NETMAP_MIN_API`` to ``NETMAP_MAX_API``
2      2    nr_reqtype  ``NETMAP_REQ_*``
4      4    nr_reserved must be 0 (EINVAL)
8      64   nr_name     the port, NUL padded
72     8    nr_options  address of the first option, 0 for none
80     8    nr_body     address of the body, 0 exactly when the request has none (EINVAL)
====== ==== =========== ==========================================================================================
"""

NETMAP_REQ_REGISTER = 1
"""Bind a port to this descriptor; body :data:`nmreq_register`."""
NETMAP_REQ_PORT_INFO_GET = 2
"""Describe a port; body :data:`nmreq_port_info_get`."""
NETMAP_REQ_VALE_ATTACH = 3
"""Attach an interface to a switch; body :data:`nmreq_vale_attach`."""
NETMAP_REQ_VALE_DETACH = 4
"""Detach an interface from its switch; body :data:`nmreq_vale_detach`."""
NETMAP_REQ_VALE_LIST = 5
"""Find a port on a switch, or the next one of a listing; body :data:`nmreq_vale_list`."""
NETMAP_REQ_PORT_HDR_SET = 6
"""Set the length of a port's virtio-net header; body :data:`nmreq_port_hdr`."""
NETMAP_REQ_PORT_HDR_GET = 7
"""Read the length of a port's virtio-net header; body :data:`nmreq_port_hdr`."""
NETMAP_REQ_VALE_NEWIF = 8
"""Create a persistent VALE port; body :data:`nmreq_vale_newif`."""
NETMAP_REQ_VALE_DELIF = 9
"""Delete a persistent VALE port; no body."""
NETMAP_REQ_VALE_POLLING_ENABLE = 10
"""Let kernel threads poll an attached NIC; body :data:`nmreq_vale_polling`."""
NETMAP_REQ_VALE_POLLING_DISABLE = 11
"""Stop polling an attached NIC; body :data:`nmreq_vale_polling`."""
NETMAP_REQ_POOLS_INFO_GET = 12
"""Describe the pools of a region; body :data:`nmreq_pools_info`."""
NETMAP_REQ_SYNC_KLOOP_START = 13
"""Sync this descriptor's rings in a loop until STOP; body :data:`nmreq_sync_kloop_start`."""
NETMAP_REQ_SYNC_KLOOP_STOP = 14
"""End the sync loop of this descriptor; no body."""
NETMAP_REQ_CSB_ENABLE = 15
"""Exchange indices through a CSB from now on; no body, the CSB comes as an option."""

nmreq_register = np.dtype(
    {
        "names": [
            "nr_offset", "nr_memsize", "nr_tx_slots", "nr_rx_slots", "nr_tx_rings", "nr_rx_rings",
            "nr_host_tx_rings", "nr_host_rx_rings", "nr_mem_id", "nr_ringid", "nr_mode", "nr_extra_bufs", "nr_flags",
        ],
        "formats": ["u8", "u8", "u4", "u4", "u2", "u2", "u2", "u2", "u2", "u2", "u4", "u4", "u8"],
        "offsets": [0, 8, 16, 20, 24, 26, 28, 30, 32, 34, 36, 40, 48],
        "itemsize": 56,
    }
)  # fmt: skip
"""Body of REGISTER: 56 bytes.

====== ==== ================ ======= =============================================================================
offset size field            in/out  meaning
====== ==== ================ ======= =============================================================================
0      8    nr_offset        out     where this binding's ``netmap_if`` is in the region
8      8    nr_memsize       out     bytes of the region
16     4    nr_tx_slots      in/out  slots per TX ring; 0 asks for the default
20     4    nr_rx_slots      in/out  slots per RX ring; 0 asks for the default
24     2    nr_tx_rings      in/out  TX rings of the NIC
26     2    nr_rx_rings      in/out  RX rings of the NIC
28     2    nr_host_tx_rings in/out  host TX rings
30     2    nr_host_rx_rings in/out  host RX rings
32     2    nr_mem_id        in/out  id of the allocator; 0 asks for the port's own
34     2    nr_ringid        in      which ring, for NR_REG_ONE_NIC and NR_REG_ONE_SW
36     4    nr_mode          in      ``NR_REG_*``
40     4    nr_extra_bufs    in/out  buffers wanted beside those in the rings; what was granted
48     8    nr_flags         in      ``NR_MONITOR_TX`` and the other registration flags
====== ==== ================ ======= =============================================================================
"""

NR_REG_DEFAULT = 0
"""Legacy only: the bits of ``nr_ringid`` decide."""
NR_REG_ALL_NIC = 1
"""Bind all rings of the NIC."""
NR_REG_SW = 2
"""Bind the host rings."""
NR_REG_NIC_SW = 3
"""Bind the NIC's and the host's rings."""
NR_REG_ONE_NIC = 4
"""Bind one pair of the NIC's rings."""
NR_REG_PIPE_MASTER = 5
"""Legacy only: the master end of pipe ``nr_ringid``; today ``name{id`` (EINVAL in NIOCCTRL)."""
NR_REG_PIPE_SLAVE = 6
"""Legacy only: the slave end of pipe ``nr_ringid``; today ``name}id`` (EINVAL in NIOCCTRL)."""
NR_REG_NULL = 7
"""A port without traffic, for its memory; needs ``nr_mem_id``."""
NR_REG_ONE_SW = 8
"""Bind one pair of host rings."""

NR_MONITOR_TX = 0x100
"""Registration flag: monitor what the port sends."""
NR_MONITOR_RX = 0x200
"""Registration flag: monitor what the port receives."""
NR_ZCOPY_MON = 0x400
"""Registration flag: monitor without copies, after the owner is done with a frame."""
NR_EXCLUSIVE = 0x800
"""Registration flag: nobody else may bind these rings."""
NR_PTNETMAP_HOST = 0x1000
"""Registration flag of 2015: the rings will be served to a guest; free today."""
NR_RX_RINGS_ONLY = 0x2000
"""Registration flag: bind no TX ring."""
NR_TX_RINGS_ONLY = 0x4000
"""Registration flag: bind no RX ring."""
NR_ACCEPT_VNET_HDR = 0x8000
"""Registration flag: the program copes with virtio-net headers (EIO without, on a port that has them)."""
NR_DO_RX_POLL = 0x10000
"""Registration flag: release RX slots in every poll; upstream stores it and reads it nowhere."""
NR_NO_TX_POLL = 0x20000
"""Registration flag: poll flushes TX rings only when asked for POLLOUT."""

nmreq_port_info_get = np.dtype(
    {
        "names": [
            "nr_memsize", "nr_tx_slots", "nr_rx_slots", "nr_tx_rings", "nr_rx_rings",
            "nr_host_tx_rings", "nr_host_rx_rings", "nr_mem_id",
        ],
        "formats": ["u8", "u4", "u4", "u2", "u2", "u2", "u2", "u2"],
        "offsets": [0, 8, 12, 16, 18, 20, 22, 24],
        "itemsize": 32,
    }
)  # fmt: skip
"""Body of PORT_INFO_GET: 32 bytes.

====== ==== ================ ======= =============================================================================
offset size field            in/out  meaning
====== ==== ================ ======= =============================================================================
0      8    nr_memsize       out     bytes of the region
8      4    nr_tx_slots      in/out  slots per TX ring
12     4    nr_rx_slots      in/out  slots per RX ring
16     2    nr_tx_rings      in/out  TX rings of the NIC
18     2    nr_rx_rings      in/out  RX rings of the NIC
20     2    nr_host_tx_rings in/out  host TX rings
22     2    nr_host_rx_rings in/out  host RX rings
24     2    nr_mem_id        in/out  id of the allocator
====== ==== ================ ======= =============================================================================
"""

nmreq_vale_attach = np.dtype(
    {"names": ["reg", "port_index"], "formats": [nmreq_register, "u4"], "offsets": [0, 56], "itemsize": 64}
)
"""Body of VALE_ATTACH: 64 bytes.

====== ==== ========== ======= ===================================================================================
offset size field      in/out  meaning
====== ==== ========== ======= ===================================================================================
0      56   reg        in/out  how to register the interface: NR_REG_ALL_NIC, or NR_REG_NIC_SW with host rings
56     4    port_index out     port id on the switch
====== ==== ========== ======= ===================================================================================
"""

nmreq_vale_detach = np.dtype({"names": ["port_index"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of VALE_DETACH: 8 bytes.

====== ==== ========== ======= ===================================================================================
offset size field      in/out  meaning
====== ==== ========== ======= ===================================================================================
0      4    port_index out     port id that the interface had on the switch
====== ==== ========== ======= ===================================================================================
"""

nmreq_vale_list = np.dtype(
    {"names": ["nr_bridge_idx", "nr_port_idx"], "formats": ["u2", "u4"], "offsets": [0, 4], "itemsize": 8}
)
"""Body of VALE_LIST: 8 bytes. With an empty name, in: where to start, out: the next port there is (ENOENT at the end).

====== ==== ============= ======= ================================================================================
offset size field         in/out  meaning
====== ==== ============= ======= ================================================================================
0      2    nr_bridge_idx in/out  index of the switch
4      4    nr_port_idx   in/out  port id; 255 when only a switch was named
====== ==== ============= ======= ================================================================================
"""

nmreq_port_hdr = np.dtype({"names": ["nr_hdr_len"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of PORT_HDR_SET and PORT_HDR_GET: 8 bytes.

====== ==== ========== ======= ===================================================================================
offset size field      in/out  meaning
====== ==== ========== ======= ===================================================================================
0      4    nr_hdr_len in/out  bytes of virtio-net header before each frame: 0, 10 or 12 (EINVAL)
====== ==== ========== ======= ===================================================================================
"""

nmreq_vale_newif = np.dtype(
    {
        "names": ["nr_tx_slots", "nr_rx_slots", "nr_tx_rings", "nr_rx_rings", "nr_mem_id"],
        "formats": ["u4", "u4", "u2", "u2", "u2"],
        "offsets": [0, 4, 8, 10, 12],
        "itemsize": 16,
    }
)
"""Body of VALE_NEWIF: 16 bytes.

====== ==== =========== ======= ==================================================================================
offset size field       in/out  meaning
====== ==== =========== ======= ==================================================================================
0      4    nr_tx_slots in/out  slots per TX ring; 0 is 1024
4      4    nr_rx_slots in/out  slots per RX ring; 0 is 1024
8      2    nr_tx_rings in/out  TX rings; 0 is 1
10     2    nr_rx_rings in/out  RX rings; 0 is 1
12     2    nr_mem_id   in/out  id of the allocator; 0 makes a private one
====== ==== =========== ======= ==================================================================================
"""

nmreq_vale_polling = np.dtype(
    {
        "names": ["nr_mode", "nr_first_cpu_id", "nr_num_polling_cpus"],
        "formats": ["u4", "u4", "u4"],
        "offsets": [0, 4, 8],
        "itemsize": 16,
    }
)
"""Body of VALE_POLLING_ENABLE and VALE_POLLING_DISABLE: 16 bytes.

====== ==== =================== ===== ============================================================================
offset size field               in    meaning
====== ==== =================== ===== ============================================================================
0      4    nr_mode             in    ``NETMAP_POLLING_MODE_*``
4      4    nr_first_cpu_id     in    first CPU that polls
8      4    nr_num_polling_cpus in    how many CPUs poll; 0, or all there are, is refused (EINVAL)
====== ==== =================== ===== ============================================================================
"""

NETMAP_POLLING_MODE_SINGLE_CPU = 1
"""One CPU polls all rings; ``nr_num_polling_cpus`` must be 1."""
NETMAP_POLLING_MODE_MULTI_CPU = 2
"""One CPU per ring, from ``nr_first_cpu_id`` up."""

nmreq_pools_info = np.dtype(
    {
        "names": [
            "nr_memsize", "nr_mem_id",
            "nr_if_pool_offset", "nr_if_pool_objtotal", "nr_if_pool_objsize",
            "nr_ring_pool_offset", "nr_ring_pool_objtotal", "nr_ring_pool_objsize",
            "nr_buf_pool_offset", "nr_buf_pool_objtotal", "nr_buf_pool_objsize",
        ],
        "formats": ["u8", "u2", "u8", "u4", "u4", "u8", "u4", "u4", "u8", "u4", "u4"],
        "offsets": [0, 8, 16, 24, 28, 32, 40, 44, 48, 56, 60],
        "itemsize": 64,
    }
)  # fmt: skip
"""Body of POOLS_INFO_GET: 64 bytes.

The EXTMEM option carries one too. There ``nr_memsize`` and the counts and sizes are in/out: what the user wants of
its own memory, 0 for the defaults.

====== ==== ===================== ======= ========================================================================
offset size field                 in/out  meaning
====== ==== ===================== ======= ========================================================================
0      8    nr_memsize            out     bytes of the region
8      2    nr_mem_id             in/out  id of the allocator
16     8    nr_if_pool_offset     out     where the ``netmap_if`` objects start in the region
24     4    nr_if_pool_objtotal   out     how many there are
28     4    nr_if_pool_objsize    out     bytes of each
32     8    nr_ring_pool_offset   out     where the rings start
40     4    nr_ring_pool_objtotal out     how many there are
44     4    nr_ring_pool_objsize  out     bytes of each
48     8    nr_buf_pool_offset    out     where the buffers start
56     4    nr_buf_pool_objtotal  out     how many there are
60     4    nr_buf_pool_objsize   out     bytes of each
====== ==== ===================== ======= ========================================================================
"""

nmreq_sync_kloop_start = np.dtype({"names": ["sleep_us"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of SYNC_KLOOP_START: 8 bytes.

====== ==== ======== ===== =======================================================================================
offset size field    in    meaning
====== ==== ======== ===== =======================================================================================
0      4    sleep_us in    microseconds between two rounds without eventfds; 1,000,000 at most (EINVAL)
====== ==== ======== ===== =======================================================================================
"""

REQUEST_BODIES: Mapping[int, np.dtype[Any] | None] = MappingProxyType(
    {
        NETMAP_REQ_REGISTER: nmreq_register,
        NETMAP_REQ_PORT_INFO_GET: nmreq_port_info_get,
        NETMAP_REQ_VALE_ATTACH: nmreq_vale_attach,
        NETMAP_REQ_VALE_DETACH: nmreq_vale_detach,
        NETMAP_REQ_VALE_LIST: nmreq_vale_list,
        NETMAP_REQ_PORT_HDR_SET: nmreq_port_hdr,
        NETMAP_REQ_PORT_HDR_GET: nmreq_port_hdr,
        NETMAP_REQ_VALE_NEWIF: nmreq_vale_newif,
        NETMAP_REQ_VALE_DELIF: None,
        NETMAP_REQ_VALE_POLLING_ENABLE: nmreq_vale_polling,
        NETMAP_REQ_VALE_POLLING_DISABLE: nmreq_vale_polling,
        NETMAP_REQ_POOLS_INFO_GET: nmreq_pools_info,
        NETMAP_REQ_SYNC_KLOOP_START: nmreq_sync_kloop_start,
        NETMAP_REQ_SYNC_KLOOP_STOP: None,
        NETMAP_REQ_CSB_ENABLE: None,
    }
)
"""The body of each request type; ``None`` where a request has none. A type that is not here does not exist."""

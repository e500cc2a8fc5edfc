# SPDX-License-Identifier: BSD-2-Clause
"""AF_PACKET with TPACKET_V3, as include/uapi/linux/if_packet.h has it."""

from __future__ import annotations

import numpy as np

SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_VNET_HDR = 15
PACKET_FANOUT = 18
PACKET_IGNORE_OUTGOING = 23
PACKET_FANOUT_QM = 5
PACKET_FANOUT_FLAG_UNIQUEID = 0x2000
PACKET_FANOUT_FLAG_IGNORE_OUTGOING = 0x4000
TPACKET_V3 = 2
ETH_P_ALL = 3

TP_STATUS_KERNEL = 0
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6

tpacket_req3 = np.dtype(
    [
        ("block_size", "u4"),
        ("block_nr", "u4"),
        ("frame_size", "u4"),
        ("frame_nr", "u4"),
        ("retire_blk_tov", "u4"),
        ("sizeof_priv", "u4"),
        ("feature_req_word", "u4"),
    ]
)
"""What PACKET_RX_RING is given; ``retire_blk_tov`` is in milliseconds."""

tpacket_stats_v3 = np.dtype([("packets", "u4"), ("drops", "u4"), ("freeze_q_cnt", "u4")])
"""What PACKET_STATISTICS gives, since it was last asked."""

tpacket_block_desc = np.dtype(
    [
        ("version", "u4"),
        ("offset_to_priv", "u4"),
        ("block_status", "u4"),
        ("num_pkts", "u4"),
        ("offset_to_first_pkt", "u4"),
        ("blk_len", "u4"),
    ]
)
"""How a block begins."""

tpacket3_hdr = np.dtype(
    [
        ("next_offset", "u4"),
        ("sec", "u4"),
        ("nsec", "u4"),
        ("snaplen", "u4"),
        ("len", "u4"),
        ("status", "u4"),
        ("mac", "u2"),
        ("net", "u2"),
        ("rxhash", "u4"),
        ("vlan_tci", "u4"),
        ("vlan_tpid", "u2"),
        ("_pad", "V10"),
    ]
)
"""How a packet begins in its block; the frame is ``mac`` bytes behind, and its virtio-net header right before that."""

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
"""What PACKET_RX_RING is given: 28 bytes.

====== ==== ================ ====================================================================================
offset size field            meaning
====== ==== ================ ====================================================================================
0      4    block_size       bytes of a block, whole pages
4      4    block_nr         blocks
8      4    frame_size       bytes of a frame at the most; of TPACKET_V3, a hint
12     4    frame_nr         ``block_nr * block_size / frame_size``
16     4    retire_blk_tov   milliseconds after which a block is given away though it is not full
20     4    sizeof_priv      bytes of a block for its user
24     4    feature_req_word 0
====== ==== ================ ====================================================================================
"""

tpacket_stats_v3 = np.dtype([("packets", "u4"), ("drops", "u4"), ("freeze_q_cnt", "u4")])
"""What PACKET_STATISTICS gives, since it was last asked: 12 bytes.

====== ==== ============ ========================================================================================
offset size field        meaning
====== ==== ============ ========================================================================================
0      4    packets      received, those that were dropped among them
4      4    drops        dropped, for want of room
8      4    freeze_q_cnt times that all blocks were full
====== ==== ============ ========================================================================================
"""

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
"""How a block begins: 24 bytes.

====== ==== =================== =================================================================================
offset size field               meaning
====== ==== =================== =================================================================================
0      4    version             the version
4      4    offset_to_priv      where the user's bytes are
8      4    block_status        ``TP_STATUS_KERNEL``, or the user's
12     4    num_pkts            packets in the block
16     4    offset_to_first_pkt where the first one's header is
20     4    blk_len             bytes that are used
====== ==== =================== =================================================================================
"""

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
"""How a packet begins in its block; the frame is ``mac`` bytes behind, and its virtio-net header right before that: 48 bytes.

====== ==== =========== =========================================================================================
offset size field       meaning
====== ==== =========== =========================================================================================
0      4    next_offset from here to the next packet's header, 0 for the last
4      4    sec         when it came: seconds
8      4    nsec        and nanoseconds
12     4    snaplen     bytes of it that are here
16     4    len         bytes that it has
20     4    status      ``TP_STATUS_*``
24     2    mac         from here to the frame
26     2    net         from here to what is behind the Ethernet header
28     4    rxhash      hash of its flow
32     4    vlan_tci    the tag that was taken off it, if any
36     2    vlan_tpid   and that tag's EtherType
38     10   _pad        0
====== ==== =========== =========================================================================================
"""

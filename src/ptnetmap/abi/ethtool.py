# SPDX-License-Identifier: BSD-2-Clause
"""ethtool: what a network interface's driver says of it (Linux, include/uapi/linux/ethtool.h, sockios.h)."""

from __future__ import annotations

import numpy as np

SIOCETHTOOL = 0x8946
"""The ioctl of any socket: its argument is a struct ifreq with the address of a command's structure."""
ETHTOOL_GCHANNELS = 0x3C
"""Get :data:`ethtool_channels`."""

ifreq = np.dtype([("ifr_name", "S16"), ("ifr_data", "<u8"), ("_pad", "V16")])
"""What SIOCETHTOOL takes: 40 bytes.

====== ==== ======== ==============================================================================================
offset size field    meaning
====== ==== ======== ==============================================================================================
0      16   ifr_name the interface's name
16     8    ifr_data address of the command's structure
24     16   _pad     the rest of a union
====== ==== ======== ==============================================================================================
"""

ethtool_channels = np.dtype(
    [
        ("cmd", "<u4"),
        ("max_rx", "<u4"),
        ("max_tx", "<u4"),
        ("max_other", "<u4"),
        ("max_combined", "<u4"),
        ("rx_count", "<u4"),
        ("tx_count", "<u4"),
        ("other_count", "<u4"),
        ("combined_count", "<u4"),
    ]
)
"""Queues of an interface: 36 bytes.

====== ==== ============== ========================================================================================
offset size field          meaning
====== ==== ============== ========================================================================================
0      4    cmd            ``ETHTOOL_GCHANNELS``
4      4    max_rx         what the following can be set to at the most, like the next three
8      4    max_tx
12     4    max_other
16     4    max_combined
20     4    rx_count       queues that only receive
24     4    tx_count       queues that only send
28     4    other_count    queues for other things
32     4    combined_count queues that do both
====== ==== ============== ========================================================================================
"""

# SPDX-License-Identifier: BSD-2-Clause
"""ethtool: what a network interface's driver says of it (Linux, include/uapi/linux/ethtool.h, sockios.h)."""

from __future__ import annotations

import numpy as np

SIOCETHTOOL = 0x8946
"""The ioctl of any socket: its argument is a struct ifreq with the address of a command's structure."""
ETHTOOL_GDRVINFO = 0x03
"""Get :data:`ethtool_drvinfo`."""
ETHTOOL_STXCSUM = 0x17
"""Set whether the driver completes checksums of what is sent: :data:`ethtool_value`."""
ETHTOOL_GFLAGS = 0x25
"""Get some offloads, as bits of :data:`ethtool_value`."""
ETHTOOL_SFLAGS = 0x26
"""Set them."""
ETH_FLAG_TXVLAN = 1 << 7
"""Of these: the driver puts VLAN tags into what is sent."""
ETH_FLAG_RXVLAN = 1 << 8
"""Of these: the driver takes VLAN tags off what is received."""
ETH_FLAG_LRO = 1 << 15
"""Of these: the driver merges received segments."""
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

ethtool_value = np.dtype([("cmd", "<u4"), ("data", "<u4")])
"""One number: 8 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      4    cmd   ``ETHTOOL_*``
4      4    data  the number
====== ==== ===== =================================================================================================
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

ethtool_drvinfo = np.dtype(
    [
        ("cmd", "<u4"),
        ("driver", "S32"),
        ("version", "S32"),
        ("fw_version", "S32"),
        ("bus_info", "S32"),
        ("erom_version", "S32"),
        ("reserved2", "V12"),
        ("n_priv_flags", "<u4"),
        ("n_stats", "<u4"),
        ("testinfo_len", "<u4"),
        ("eedump_len", "<u4"),
        ("regdump_len", "<u4"),
    ]
)
"""An interface's driver: 196 bytes. Of tun devices ``driver`` is "tun", and ``bus_info`` "tap" where frames are Ethernet's.

====== ==== ============ ==========================================================================================
offset size field        meaning
====== ==== ============ ==========================================================================================
0      4    cmd          ``ETHTOOL_GDRVINFO``
4      32   driver       its name
36     32   version      its version
68     32   fw_version   its firmware's
100    32   bus_info     where the device is
132    32   erom_version of a ROM of its own
164    12   reserved2
176    4    n_priv_flags flags of its own
180    4    n_stats      statistics
184    4    testinfo_len results of its self-test
188    4    eedump_len   bytes of its EEPROM
192    4    regdump_len  bytes of its registers
====== ==== ============ ==========================================================================================
"""

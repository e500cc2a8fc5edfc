# SPDX-License-Identifier: BSD-2-Clause
"""rtnetlink: what the kernel tells of network interfaces (Linux, include/uapi/linux/rtnetlink.h, if_link.h, netlink.h).

A message is a header, a structure by its type, and attributes; these may be nested. Everything begins at a multiple of
four bytes.
"""

from __future__ import annotations

import numpy as np

NETLINK_ROUTE = 0
"""The protocol of an AF_NETLINK socket for this."""
RTMGRP_LINK = 1
"""The group whose members are told of each change of an interface."""
NLMSG_ERROR = 2
"""Type of a message with an errno, negative or 0, as i32 (and the request's header)."""
RTM_NEWLINK = 16
"""An interface, as it is or as it has become."""
RTM_DELLINK = 17
"""An interface that has gone; as a request, remove one."""
RTM_GETLINK = 18
"""Ask for an interface."""
RTM_SETLINK = 19
"""Change an interface."""
NLM_F_REQUEST = 1
"""In a header's flags: this is a request."""
NLM_F_ACK = 4
"""In a header's flags: say how it went."""
NLM_F_EXCL = 0x200
"""In the flags of ``RTM_NEWLINK``: there may be no such interface yet."""
NLM_F_CREATE = 0x400
"""In the flags of ``RTM_NEWLINK``: make it."""

nlmsghdr = np.dtype([("len", "<u4"), ("type", "<u2"), ("flags", "<u2"), ("seq", "<u4"), ("pid", "<u4")])
"""The start of each message: 16 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      4    len   bytes of the message, with this
4      2    type  ``RTM_*``, ``NLMSG_ERROR``
6      2    flags ``NLM_F_*``
8      4    seq   number that an answer repeats
12     4    pid   of the sender's socket; 0 is the kernel
====== ==== ===== =================================================================================================
"""

ifinfomsg = np.dtype(
    [("family", "u1"), ("_pad", "u1"), ("type", "<u2"), ("index", "<i4"), ("flags", "<u4"), ("change", "<u4")]
)
"""An interface: 16 bytes; attributes follow.

====== ==== ====== ================================================================================================
offset size field  meaning
====== ==== ====== ================================================================================================
0      1    family 0
1      1    _pad   0
2      2    type   ``ARPHRD_*``
4      4    index  its number
8      4    flags  ``IFF_*``
12     4    change which of them a request sets
====== ==== ====== ================================================================================================
"""

rtattr = np.dtype([("len", "<u2"), ("type", "<u2")])
"""The start of an attribute: 4 bytes.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      2    len   bytes of the attribute, with this
2      2    type  ``IFLA_*``, or-ed with ``NLA_F_NESTED``
====== ==== ===== =================================================================================================
"""

NLA_F_NESTED = 0x8000
"""In an attribute's type: it consists of attributes."""
NLA_TYPE_MASK = 0x3FFF
"""The bits of an attribute's type that are the type."""
NLA_ALIGNTO = 4
"""What messages and attributes begin at a multiple of."""

IFLA_IFNAME = 3
"""The interface's name."""
IFLA_MTU = 4
"""Its MTU (u32)."""
IFLA_LINKINFO = 18
"""What is special about its kind (nested)."""
IFLA_INFO_KIND = 1
"""In ``IFLA_LINKINFO``: the kind, a string such as "veth"."""
IFLA_INFO_DATA = 2
"""In ``IFLA_LINKINFO``: settings of that kind (nested)."""
VETH_INFO_PEER = 1
"""In ``IFLA_INFO_DATA`` of a veth: the other end, :data:`ifinfomsg` and attributes (include/uapi/linux/veth.h)."""
IFLA_IFALIAS = 20
"""Text about it, for people."""
IFLA_AF_SPEC = 26
"""Settings of protocols (nested)."""
AF_INET6 = 10
"""In ``IFLA_AF_SPEC``: those of IPv6 (nested)."""
IFLA_INET6_ADDR_GEN_MODE = 8
"""In ``AF_INET6``: how the kernel gives it an address by itself (u8)."""
IN6_ADDR_GEN_MODE_NONE = 1
"""In no way (include/uapi/linux/if_link.h)."""
IFLA_NET_NS_FD = 28
"""The network namespace to be in, as a descriptor (u32)."""
IFLA_GSO_MAX_SEGS = 40
"""Frames that a packet for it may stand for at the most (u32)."""
IFLA_XDP = 43
"""What XDP program it has (nested)."""
IFLA_XDP_FD = 1
"""In ``IFLA_XDP``, to set it: the program's descriptor; -1 detaches it (i32)."""
IFLA_XDP_ATTACHED = 2
"""In ``IFLA_XDP``: ``XDP_ATTACHED_*`` (u8)."""
IFLA_XDP_FLAGS = 3
"""In ``IFLA_XDP``, to set it: ``XDP_FLAGS_*`` (u32)."""
IFLA_XDP_PROG_ID = 4
"""In ``IFLA_XDP``: the program's number, if there is one (u32)."""

IFLA_XDP_DRV_PROG_ID = 5
"""In ``IFLA_XDP``: number of the program in the driver (u32)."""
IFLA_XDP_SKB_PROG_ID = 6
"""In ``IFLA_XDP``: number of the program in the stack (u32)."""
IFLA_XDP_HW_PROG_ID = 7
"""In ``IFLA_XDP``: number of the program on the card (u32)."""

XDP_ATTACHED_NONE = 0
XDP_ATTACHED_DRV = 1
XDP_ATTACHED_SKB = 2
XDP_ATTACHED_HW = 3
XDP_ATTACHED_MULTI = 4

ARPHRD_ETHER = 1
"""The type of an interface with Ethernet frames (include/uapi/linux/if_arp.h)."""
ARPHRD_LOOPBACK = 772
"""The type of the loopback interface, whose frames look the same."""
IFF_UP = 1
"""In an interface's flags: somebody has turned it on (include/uapi/linux/if.h)."""

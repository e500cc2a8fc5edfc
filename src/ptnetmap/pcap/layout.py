# SPDX-License-Identifier: BSD-2-Clause
"""The byte layouts of both formats, each once. They are given little endian; a file may have either order.

Sources: the pcap and pcapng specifications of the IETF's opsawg working group.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import numpy as np

Order = Literal["<", ">"]

PCAP_MICROSECONDS = 0xA1B2C3D4
PCAP_NANOSECONDS = 0xA1B23C4D

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 0x00000001
PACKET = 0x00000002
SIMPLE_PACKET = 0x00000003
INTERFACE_STATISTICS = 0x00000005
ENHANCED_PACKET = 0x00000006

BYTE_ORDER_MAGIC = 0x1A2B3C4D

MAX_BLOCK = 16 << 20
"""Bytes of a block, or of a packet, at the most. What claims to be longer is taken for damage, not allocated."""

MAX_INTERFACES = 1 << 16
"""Interfaces of a file at the most: more is damage too, and each costs memory."""

pcap_header = np.dtype(
    [
        ("magic", "<u4"),
        ("major", "<u2"),
        ("minor", "<u2"),
        ("thiszone", "<i4"),
        ("sigfigs", "<u4"),
        ("snaplen", "<u4"),
        ("linktype", "<u4"),
    ]
)
"""The beginning of a pcap file: 24 bytes.

====== ==== ======== ===========================================================================
offset size field    meaning
====== ==== ======== ===========================================================================
0      4    magic    PCAP_MICROSECONDS or PCAP_NANOSECONDS: the unit of times, and the byte order
4      2    major    2
6      2    minor    4
8      4    thiszone 0 (once: seconds between local time and UTC)
12     4    sigfigs  0
16     4    snaplen  most bytes recorded of a packet
20     4    linktype LINKTYPE_* in the low 16 bits
====== ==== ======== ===========================================================================
"""

pcap_record = np.dtype([("seconds", "<u4"), ("fraction", "<u4"), ("captured", "<u4"), ("length", "<u4")])
"""Before each packet of a pcap file: 16 bytes. The packet follows, without padding.

====== ==== ======== ===========================================================================
offset size field    meaning
====== ==== ======== ===========================================================================
0      4    seconds  since 1970
4      4    fraction micro- or nanoseconds
8      4    captured bytes that follow
12     4    length   bytes of the packet on the wire
====== ==== ======== ===========================================================================
"""

block_header = np.dtype([("type", "<u4"), ("size", "<u4")])
"""The beginning of every pcapng block: 8 bytes. ``size`` is of the whole block, and is repeated in its last 4 bytes.

====== ==== ======== ===========================================================================
offset size field    meaning
====== ==== ======== ===========================================================================
0      4    type     what block it is
4      4    size     bytes of the block, all included: a multiple of 4
====== ==== ======== ===========================================================================
"""

section_header = np.dtype([("magic", "<u4"), ("major", "<u2"), ("minor", "<u2"), ("section_length", "<i8")])
"""Body of a section header block (SHB), before its options: 16 bytes.

====== ==== ============== =====================================================================
offset size field          meaning
====== ==== ============== =====================================================================
0      4    magic          BYTE_ORDER_MAGIC, in the byte order of the section
4      2    major          1
6      2    minor          0
8      8    section_length bytes of the section after this block, -1 if not known
====== ==== ============== =====================================================================
"""

interface_description = np.dtype([("linktype", "<u2"), ("reserved", "<u2"), ("snaplen", "<u4")])
"""Body of an interface description block (IDB), before its options: 8 bytes.

====== ==== ======== ===========================================================================
offset size field    meaning
====== ==== ======== ===========================================================================
0      2    linktype LINKTYPE_*
2      2    reserved 0
4      4    snaplen  most bytes recorded of a packet, 0 for no limit
====== ==== ======== ===========================================================================
"""

enhanced_packet = np.dtype(
    [("interface", "<u4"), ("high", "<u4"), ("low", "<u4"), ("captured", "<u4"), ("length", "<u4")]
)
"""Body of an enhanced packet block (EPB), before the packet: 20 bytes. Packet, padding to 4 bytes, options follow.

====== ==== ========= ==========================================================================
offset size field     meaning
====== ==== ========= ==========================================================================
0      4    interface number of the interface in its section
4      4    high      time in the interface's ticks, upper half
8      4    low       lower half
12     4    captured  bytes of the packet in the file
16     4    length    bytes of the packet on the wire
====== ==== ========= ==========================================================================
"""

packet = np.dtype(
    [("interface", "<u2"), ("drops", "<u2"), ("high", "<u4"), ("low", "<u4"), ("captured", "<u4"), ("length", "<u4")]
)
"""Body of a packet block, which is obsolete: as the enhanced one, but for its first 4 bytes.

====== ==== ========= ==========================================================================
offset size field     meaning
====== ==== ========= ==========================================================================
0      2    interface number of the interface in its section
2      2    drops     packets lost between this one and the one before, 0xFFFF if not known
4      16   high ...  as in the enhanced packet block
====== ==== ========= ==========================================================================
"""

simple_packet = np.dtype([("length", "<u4")])
"""Body of a simple packet block (SPB): 4 bytes, then as much of the packet as interface 0's snaplen allows.

====== ==== ========= ==========================================================================
offset size field     meaning
====== ==== ========= ==========================================================================
0      4    length    bytes of the packet on the wire
====== ==== ========= ==========================================================================
"""

interface_statistics = np.dtype([("interface", "<u4"), ("high", "<u4"), ("low", "<u4")])
"""Body of an interface statistics block (ISB), before its options: 12 bytes.

====== ==== ========= ==========================================================================
offset size field     meaning
====== ==== ========= ==========================================================================
0      4    interface number of the interface in its section
4      4    high      time of the statistics, upper half
8      4    low       lower half
====== ==== ========= ==========================================================================
"""

option_header = np.dtype([("code", "<u2"), ("size", "<u2")])
"""Before each option of a block: 4 bytes. The value follows, padded to 4 bytes, which ``size`` does not count.

====== ==== ========= ==========================================================================
offset size field     meaning
====== ==== ========= ==========================================================================
0      2    code      which option; END closes the list
2      2    size      bytes of the value
====== ==== ========= ==========================================================================
"""

END = 0
SHB_USERAPPL = 4
IF_NAME = 2
IF_TSRESOL = 9
IF_TSOFFSET = 14
EPB_FLAGS = 2
ISB_STARTTIME = 2
ISB_ENDTIME = 3
ISB_IFRECV = 4
ISB_IFDROP = 5

DIRECTION = 0x3
"""The bits of EPB_FLAGS that tell the direction: 0 not known, INBOUND, OUTBOUND."""
INBOUND = 1
OUTBOUND = 2

_LETTERS = {("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "Q", ("i", 4): "i", ("i", 8): "q"}


def packed(layout: np.dtype[Any], order: Order = "<") -> struct.Struct:
    """Return what unpacks a layout's fields from bytes, or packs them, in a byte order."""
    fields = [layout[name] for name in layout.names or ()]
    return struct.Struct(order + "".join(_LETTERS[field.kind, field.itemsize] for field in fields))


def padding(size: int) -> int:
    """Return how many bytes pad ``size`` bytes to a multiple of 4."""
    return -size & 3

# SPDX-License-Identifier: BSD-2-Clause
"""What lies in a netmap region: ``netmap_if``, rings, slots, and the flags that travel in them.

Every offset is upstream's on x86-64 (netmap.h, API 14; API 11 differs only where a table says so). A region holds
three pools, one after another: ``netmap_if`` objects, rings, buffers. Addresses derive from each other::

    nifp   = region + nr_offset                     (the answer to a REGISTER request)
    ring   = nifp + ring_ofs[ring_offset_index(...)]
    buffer = ring + buf_ofs + buf_idx * nr_buf_size (+ ptr & offset_mask, when the port has offsets)
"""

from __future__ import annotations

import numpy as np

TX = 0
"""``ring.dir`` of a ring that sends."""

RX = 1
"""``ring.dir`` of a ring that receives."""

IFNAMSIZ = 16
"""Bytes of an interface name in ``netmap_if`` and the legacy ``nmreq``, with the closing NUL."""

slot = np.dtype([("buf_idx", "u4"), ("len", "u2"), ("flags", "u2"), ("ptr", "u8")])
"""One packet position in a ring: 16 bytes.

====== ==== ======= ===========================================================================================
offset size field   meaning
====== ==== ======= ===========================================================================================
0      4    buf_idx index of the buffer in the region; 0 and 1 are never valid
4      2    len     bytes of packet in the buffer
6      2    flags   ``NS_*``
8      8    ptr     NS_INDIRECT: address of the payload; with offsets: where the packet starts in its buffer
====== ==== ======= ===========================================================================================
"""

ring = np.dtype(
    {
        "names": [
            "buf_ofs", "num_slots", "nr_buf_size", "ringid", "dir", "head", "cur", "tail", "flags",
            "ts_sec", "ts_usec", "offset_mask", "buf_align", "sem",
        ],
        "formats": ["i8", "u4", "u4", "u2", "u2", "u4", "u4", "u4", "u4", "i8", "i8", "u8", "u8", ("u1", 128)],
        "offsets": [0, 8, 12, 16, 18, 20, 24, 28, 32, 40, 48, 56, 64, 128],
        "itemsize": 256,
    }
)  # fmt: skip
"""The header of a ring: 256 bytes; ``num_slots`` slots of 16 bytes follow (:func:`ring_size`).

====== ==== =========== ========= =================================================================================
offset size field       writer    meaning
====== ==== =========== ========= =================================================================================
0      8    buf_ofs     kernel    distance from the start of this ring to buffer 0; signed
8      4    num_slots   kernel    slots in this ring
12     4    nr_buf_size kernel    bytes per buffer, and distance between buffers
16     2    ringid      kernel    number of this ring in its direction
18     2    dir         kernel    :data:`TX` or :data:`RX`
20     4    head        user      first slot that the user owns
24     4    cur         user      wake-up point: a poll blocks while ``cur == tail``
28     4    tail        kernel    first slot that the kernel owns
32     4    flags       user      ``NR_TIMESTAMP``, ``NR_FORWARD``
40     8    ts_sec      kernel    time of the last sync, seconds
48     8    ts_usec     kernel    and microseconds
56     8    offset_mask kernel    which bits of ``slot.ptr`` are an offset (padding in API 11)
64     8    buf_align   kernel    alignment asked for packets with offsets (padding in API 11)
128    128  sem         anybody   scratch space
====== ==== =========== ========= =================================================================================
"""

netmap_if = np.dtype(
    {
        "names": [
            "ni_name", "ni_version", "ni_flags", "ni_tx_rings", "ni_rx_rings",
            "ni_bufs_head", "ni_host_tx_rings", "ni_host_rx_rings",
        ],
        "formats": [f"S{IFNAMSIZ}", "u4", "u4", "u4", "u4", "u4", "u4", "u4"],
        "offsets": [0, 16, 20, 24, 28, 32, 36, 40],
        "itemsize": 56,
    }
)  # fmt: skip
"""The header of one binding's view of a port: 56 bytes; an array of :data:`ring_ofs` follows (:func:`netmap_if_size`).

====== ==== ================ =====================================================================================
offset size field            meaning
====== ==== ================ =====================================================================================
0      16   ni_name          name of the port, NUL padded
16     4    ni_version       API version
20     4    ni_flags         ``NI_PRIV_MEM``
24     4    ni_tx_rings      TX rings of the NIC, host rings not counted
28     4    ni_rx_rings      RX rings of the NIC, host rings not counted
32     4    ni_bufs_head     first buffer of the list of extra buffers; 0 is the empty list
36     4    ni_host_tx_rings host TX rings (spare before API 14, where there is one)
40     4    ni_host_rx_rings host RX rings (spare before API 14, where there is one)
44     12   (spare)
====== ==== ================ =====================================================================================
"""

ring_ofs = np.dtype("i8")
"""One entry of ``netmap_if.ring_ofs``: distance from the ``netmap_if`` to a ring, 0 for a ring that is not bound.

Order: NIC TX rings, host TX rings, NIC RX rings, host RX rings (:func:`ring_offset_index`).
"""

NI_PRIV_MEM = 0x1
"""``ni_flags``: the port has a region of its own."""

NS_BUF_CHANGED = 0x0001
"""Slot flag: the user put another ``buf_idx`` here; whoever owns the mapping refreshes it and clears the flag."""
NS_REPORT = 0x0002
"""Slot flag, TX: report the completion of this very slot."""
NS_FORWARD = 0x0004
"""Slot flag: in transparent mode, hand this packet to the other side (host or NIC) when the slot is released."""
NS_NO_LEARN = 0x0008
"""Slot flag: do not learn the source address; upstream defines it and honours it nowhere."""
NS_INDIRECT = 0x0010
"""Slot flag, TX of a VALE port: the payload is at the user address ``ptr``, not in the buffer."""
NS_MOREFRAG = 0x0020
"""Slot flag: the packet continues in the next slot."""
NS_TXMON = 0x0040
"""Slot flag, monitor rings: this frame was seen leaving, not arriving."""
NS_PORT_SHIFT = 8
"""Where the high byte of the slot flags starts: on RX from VALE it counts the packet's fragments."""
NS_PORT_MASK = 0xFF << NS_PORT_SHIFT
"""The high byte of the slot flags; as a "destination port" on TX upstream honours it nowhere."""

NETMAP_MAX_FRAGS = 64
"""Slots of one packet, at most."""

NR_TIMESTAMP = 0x0002
"""Ring flag: update ``ts_sec`` and ``ts_usec`` at every sync."""
NR_FORWARD = 0x0004
"""Ring flag: heed ``NS_FORWARD`` in this ring's slots."""


def ring_size(num_slots: int) -> int:
    """Return the bytes of a ring with ``num_slots`` slots: header and slots, as an object of the ring pool."""
    return ring.itemsize + num_slots * slot.itemsize


def netmap_if_size(num_rings: int) -> int:
    """Return the bytes of a ``netmap_if`` for ``num_rings`` rings of all four kinds, as an object of the if pool."""
    return netmap_if.itemsize + num_rings * ring_ofs.itemsize


def ring_offset_index(direction: int, i: int, ni_tx_rings: int, ni_host_tx_rings: int, api: int) -> int:
    """Return the position in ``ring_ofs`` of ring ``i`` of ``direction``.

    ``i`` counts the NIC's rings and then the host's, from 0; ``direction`` is :data:`TX` or :data:`RX`. Before API 14
    a port has exactly one host TX ring and ``ni_host_tx_rings`` is spare, so it is not looked at. Source: netmap.h,
    NETMAP_TXRING and NETMAP_RXRING.
    """
    if direction == TX:
        return i
    host_tx_rings = ni_host_tx_rings if api >= 14 else 1
    return ni_tx_rings + host_tx_rings + i

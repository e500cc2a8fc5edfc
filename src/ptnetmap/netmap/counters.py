# SPDX-License-Identifier: BSD-2-Clause
"""What is counted per ring. Every packet that is dropped is counted under exactly one reason."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets

counters = np.dtype(
    [
        # written by the ring's executor
        ("packets", "u8"),
        ("bytes", "u8"),
        ("syncs", "u8"),
        ("reinits", "u8"),
        ("skipped", "u8"),
        ("bad_slot", "u8"),
        ("too_short", "u8"),
        ("bad_header", "u8"),
        ("bad_indirect", "u8"),
        ("fragments", "u8"),
        ("filtered", "u8"),
        ("same_port", "u8"),
        ("no_port", "u8"),
        ("no_reader", "u8"),
        ("no_room", "u8"),
        ("bridge_off", "u8"),
        # written by senders to the ring: the first two under its lock, the others atomically
        ("received", "u8"),
        ("received_bytes", "u8"),
        ("missed", "u8"),
        ("truncated", "u8"),
        # how full it is, written by the executor: a level, not a count
        ("occupied", "u8"),
        # the executor's again
        ("too_long_for_xdp", "u8"),
        ("_pad", "V16"),
    ]
)
"""Counters of one ring.

============== ============================================================================================
field          meaning
============== ============================================================================================
packets, bytes taken from a TX ring; released by the reader of an RX ring
syncs          syncs that ran; ``skipped`` ones found another thread inside
reinits        times the ring was found overwritten and put in order
bad_slot       slots that named no buffer of the pool, or more bytes than a buffer holds
too_short      dropped: fewer than 14 bytes after the virtio-net header
bad_header     dropped: virtio-net header incomplete, or lies about the frame
bad_indirect   dropped: the NS_INDIRECT pointer cannot be read
fragments      dropped: more fragments than a packet may have
filtered       dropped: the lookup said so
same_port      dropped: the lookup chose the port it came from
no_port        dropped: the lookup chose a port that does not exist
no_reader      dropped: nobody has opened the destination ring
no_room        dropped: the destination ring was full
bridge_off     dropped: the port is not attached to a switch
received...    delivered to this RX ring by senders
missed         not delivered to this RX ring, for lack of room
truncated      delivered with length 0: bigger than the buffer, or the reader's slot names no buffer
occupied       slots that hold packets now, where a kthread serves the ring
too_long...    dropped: more bytes in one slot than AF_XDP takes from a network interface's buffer
============== ============================================================================================
"""

_AT = offsets(counters)
PACKETS = _AT["packets"]
BYTES = _AT["bytes"]
SYNCS = _AT["syncs"]
REINITS = _AT["reinits"]
SKIPPED = _AT["skipped"]
BAD_SLOT = _AT["bad_slot"]
TOO_SHORT = _AT["too_short"]
BAD_HEADER = _AT["bad_header"]
BAD_INDIRECT = _AT["bad_indirect"]
FRAGMENTS = _AT["fragments"]
FILTERED = _AT["filtered"]
SAME_PORT = _AT["same_port"]
NO_PORT = _AT["no_port"]
NO_READER = _AT["no_reader"]
NO_ROOM = _AT["no_room"]
BRIDGE_OFF = _AT["bridge_off"]
RECEIVED = _AT["received"]
RECEIVED_BYTES = _AT["received_bytes"]
MISSED = _AT["missed"]
TRUNCATED = _AT["truncated"]
OCCUPIED = _AT["occupied"]
TOO_LONG_FOR_XDP = _AT["too_long_for_xdp"]

NAMES = tuple(name for name in counters.names or () if not name.startswith("_") and name != "occupied")
DROPS = (
    "bad_slot",
    "too_short",
    "bad_header",
    "bad_indirect",
    "fragments",
    "filtered",
    "same_port",
    "no_port",
    "no_reader",
    "no_room",
    "bridge_off",
    "too_long_for_xdp",
)
"""Fields that count packets which went nowhere, by reason."""

# SPDX-License-Identifier: BSD-2-Clause
"""What a sender sees of a switch: an immutable snapshot, replaced whole.

The control thread never changes a view that senders may be reading. It builds a new one, publishes its address, waits
until every sender has left the old one (:mod:`ptnetmap.netmap.epoch`), and lets it go. Ports, their order and the
lookup function therefore always change together, between batches.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets

MAX_PORTS = 254
BROADCAST = 254
DROP = 255
MAX_RINGS = 16

KIND_NETMAP = 0
KIND_VIRTQUEUE = 1

vport = np.dtype(
    [
        ("kind", "u4"),
        ("rings", "u4"),
        ("header", "u4"),
        ("mfs", "u4"),
        ("ring", "u8", MAX_RINGS),
    ]
)
"""A port as a destination.

======= ======================================================================================
field   meaning
======= ======================================================================================
kind    KIND_NETMAP or KIND_VIRTQUEUE: how its rings are filled
rings   how many RX rings it has, 1 to 16
header  bytes of virtio-net header before each frame: 0, 10 or 12
mfs     longest frame it takes when offloads have to be finished for it
ring    addresses of its RX krings
======= ======================================================================================
"""

view = np.dtype(
    [
        ("lookup", "u8"),
        ("table", "u8"),
        ("table_length", "u8"),
        ("active_count", "u4"),
        ("sender_count", "u4"),
        ("senders", "u8"),
        ("active", "u1", 256),
        ("port", "u8", 256),
    ]
)
"""A switch as its senders see it.

============ ==============================================================================
field        meaning
============ ==============================================================================
lookup       address of the lookup function; table and table_length are its table
active       numbers of the ports in use, active_count of them
sender_count how many TX krings send to this switch; senders is the address of their list
port         by number: address of the port's vport, or 0
============ ==============================================================================
"""

ingress = np.dtype(
    [
        ("view_at", "u8"),
        ("counters", "u8"),
        ("port", "u4"),
        ("ring", "u4"),
        ("header", "u4"),
        ("_pad", "V28"),
    ]
)
"""How the packets of one source ring enter a switch.

======== ========================================================================
field    meaning
======== ========================================================================
view_at  address of the word that holds the address of the present view
counters address of the source ring's counters
port     number of the source port in the switch
ring     number of the source ring, the destination's ring unless the lookup says
header   bytes of virtio-net header before each frame
======== ========================================================================
"""

VIEW = offsets(view)
VPORT = offsets(vport)
INGRESS = offsets(ingress)

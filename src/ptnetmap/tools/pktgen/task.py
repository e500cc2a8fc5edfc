# SPDX-License-Identifier: BSD-2-Clause
"""What one thread of a run is to do, and how far it has come: memory shared by kernels, worker and reporter."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets

FIELDS = 6
"""Iterating fields of a frame: source and destination MAC, then source port and IP, destination port and IP."""

BUCKETS = 64

field = np.dtype([("value", "i8"), ("first", "i8"), ("last", "i8"), ("at", "i8"), ("random", "i8")])
"""A field of the frame that changes from packet to packet.

======== ===============================================================================
field    meaning
======== ===============================================================================
value    what the next packet carries, an integer in host order
first    where it starts, and starts again after ``last``
at       its place in the frame, counted from the Ethernet header
random   0, or the mask of a value that is drawn for each packet instead of counted up
======== ===============================================================================
"""

task = np.dtype(
    [
        # the controller's
        ("stop", "i8"),
        ("_controller", "V56"),
        # the worker's figures
        ("packets", "i8"),
        ("bytes", "i8"),
        ("events", "i8"),
        ("space", "i8"),
        ("gaps", "i8"),
        ("missing", "i8"),
        ("disorders", "i8"),
        ("_worker", "V8"),
        # what is asked
        ("tx", "i8"),
        ("tx_count", "i8"),
        ("rx", "i8"),
        ("rx_count", "i8"),
        ("burst", "i8"),
        ("limit", "i8"),
        ("mode", "i8"),
        ("header", "i8"),
        ("size", "i8"),
        ("least", "i8"),
        ("fragments", "i8"),
        ("fragment_size", "i8"),
        # the frame
        ("staging", "i8"),
        ("payload_at", "i8"),
        ("udp_at", "i8"),
        ("ip_checksum_at", "i8"),
        ("ip_sum", "i8"),
        ("udp_sums", "i8"),
        ("indirect", "i8"),
        ("stride", "i8"),
        ("macs", "i8"),
        ("ips", "i8"),
        ("address_sum", "i8"),
        ("port_sum", "i8"),
        ("fields", field, FIELDS),
        # where the worker is
        ("turn", "i8"),
        ("held", "i8"),
        ("held_packets", "i8"),
        ("held_bytes", "i8"),
        ("inside", "i8"),
        ("seen", "i8"),
        ("random", "i8"),
        ("sequence", "i8"),
        ("flow", "i8"),
        # pacing
        ("period", "i8"),
        ("per", "i8"),
        ("due", "i8"),
        ("rest", "i8"),
        # round trips
        ("awaited", "i8"),
        ("oldest", "i8"),
        ("replies", "i8"),
        ("least_ns", "i8"),
        ("total_ns", "i8"),
        ("buckets", "i8", BUCKETS),
        # sequence checks
        ("flows", "i8"),
        ("notes_left", "i8"),
        ("note", "i8"),
        ("note_flow", "i8"),
        ("note_expected", "i8"),
        ("note_got", "i8"),
    ]
)
"""One thread's work.

=============== ================================================================================================
field           meaning
=============== ================================================================================================
stop            not 0: end now
packets ...     whole packets, their bytes, and syncs that moved some
space           least number of slots that a receiver found waiting (``min_space`` of the report)
gaps, missing   times that a sequence jumped ahead, and numbers left out in all
disorders       packets whose number was lower than expected
tx, rx          addresses of arrays of ``tx_count`` and ``rx_count`` kring addresses
burst           packets per sync at most
limit           packets after which the work is done
mode            a sum of the bits below
header          bytes of virtio-net header before each frame
size, least     bytes of a frame; drawn from ``[least, size]`` for each when they differ
fragments       slots of a packet at most; ``fragment_size`` is how it is cut, 0: into equal parts
staging         address of the header and the frame as they are now
payload_at      place of the payload in the frame; ``udp_at`` of the UDP header, 0 if there is none
ip_checksum_at  place of IPv4's checksum, 0 if there is none
ip_sum          sum of the IPv4 header's words without addresses and total length
udp_sums        address of one sum per size from ``least`` on: all that UDP sums up, but for fields and sequence
macs, ips       not 0: fields of the Ethernet header, or of the others, change
address_sum     sum of the words of the IP addresses' fields, now; ``port_sum`` of the ports
indirect        address of a frame's place per slot, ``stride`` bytes apart, for NS_INDIRECT
turn            ring to begin with
held ...        slots that are filled (found) and wait for being shown by the worker, and what they make up
inside          not 0: the next slot received continues a packet
seen            what was loaded of packets
random          state of the generator of random numbers, never 0
sequence, flow  next number to send, and the name of the stream that it counts
period, per     nanoseconds for ``per`` packets; per is 0 for no limit
due, rest       when the next burst may leave, and the fraction of a nanosecond carried on, in 1/per
awaited         replies that are under way; ``oldest`` is the first number that is still waited for
replies         round trips measured
least_ns ...    least round trip, sum of all, and how many took from 2^k ns on
flows           address of the table of flows (sequence checks)
notes_left      irregularities that the worker still wants to hear of; ``note`` ... are the last one
=============== ================================================================================================
"""

AT = offsets(task)
FIELD_SIZE = field.itemsize
FIELD_AT = offsets(field)

REFILL = 1
"""Every packet is written to its buffer; else buffers keep the frame that they have."""
RUBBISH = 2
"""Buffers are sent as they are."""
INDIRECT = 4
"""Slots point to memory outside the ring's buffers."""
HOLD = 8
"""Return before packets are sent (or given back), so that the worker can show them."""
DRY = 16
"""The rings belong to nobody: nothing is synced."""
NUMBERED = 32
"""Packets carry, or are checked for, sequence numbers."""
STAMPED = 256
"""Packets carry a number and the time."""
PREFETCH = 64
"""The next packet's buffer is asked for while one is written or read."""
ACCESS = 128
"""Receivers load a word of each packet."""

DONE = 0
STOPPED = 1
FULL = 2
"""There is no room to send, and spinning has not helped: sleep until there is."""
EMPTY = 3
"""Nothing has come for a while: sleep until there is something."""
EARLY = 4
"""The next burst is due only at ``due``."""
HELD = 5
UNSENT = 6
"""All is in the ring, and not all has left it."""
NOTED = 7
FAULT = 8
"""A ring cannot be synced, or has been overwritten."""

GAP = 1
DISORDER = 2

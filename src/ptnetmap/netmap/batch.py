# SPDX-License-Identifier: BSD-2-Clause
"""The scratch between *collect* and *deliver*: one batch of packets, whatever kind of ring they came from.

A batch belongs to the thread that runs a sync, so nothing here is shared. Records describe fragments; packets are runs
of records. Kinds of ring differ only in their collect and deliver kernels (see :mod:`ptnetmap.netmap.forward`).
"""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets

BATCH_PACKETS = 1024
"""Records after which a batch is full, at the next packet boundary (upstream's bridge_batch)."""

MAX_FRAGMENTS = 64
"""Fragments of a packet at the most (NETMAP_MAX_FRAGS); longer chains are dropped."""

RECORDS = BATCH_PACKETS + MAX_FRAGMENTS

MAX_SEGMENTS = 4096
"""Frames that finishing one frame's offloads may give: 64 KB in segments of a few bytes each."""

LINEAR_BYTES = 1 << 18
CONVERTED_BYTES = 1 << 23
"""Memory for finishing offloads: one frame of the most fragments, and what it may become. Touched only when used."""

QUEUES = 256 * 16
"""One queue per (destination port, destination ring)."""

POLLFDS = 2 * 256 + 2
"""Descriptors that a thread waits on at a time: 256 rings each way, and two of the binding's."""

NO_PACKET = 0xFFFF
"""End of a queue."""

batch = np.dtype(
    [
        ("address", "u8", RECORDS),
        ("length", "u4", RECORDS),
        ("flags", "u2", RECORDS),
        ("fragments", "u2", RECORDS),
        ("slot", "u2", RECORDS),
        ("chain", "u2", RECORDS),
        ("first", "u2", RECORDS),
        ("head_address", "u8", RECORDS),
        ("head_length", "u4", RECORDS),
        ("port", "u1", RECORDS),
        ("ring", "u1", RECORDS),
        ("next", "u2", RECORDS),
        ("order", "u2", RECORDS),
        ("queue_head", "u2", QUEUES),
        ("queue_tail", "u2", QUEUES),
        ("queue_slots", "u2", QUEUES),
        ("destination", "u2", QUEUES),
        ("grant_start", "u4", QUEUES),
        ("grant_slots", "u4", QUEUES),
        ("grant_lease", "u4", QUEUES),
        ("pending", "u8", 64),
        ("pending_count", "u4"),
        ("kthread", "u8"),
        ("discard", "u8", 2),
        ("pollfd", "u8", POLLFDS),
        ("bounce", "u8"),
        ("linear", "u8"),
        ("converted", "u8"),
        ("converted_length", "u4", MAX_SEGMENTS),
        ("bounce_fd", "i4"),
        ("vnets", "u4"),
        ("vnet", "u8", 2 * RECORDS),
        ("blank", "V64"),
    ],
    align=True,
)
"""Scratch of one thread, in parallel arrays.

============ ========= ===============================================================================
field        per       meaning
============ ========= ===============================================================================
address      record    where the fragment's bytes are
length       record    bytes of the fragment; 0 for a slot that could not be used
flags        record    the slot's flags (netmap ring) or 0
fragments    record    on a packet's first record: records of the packet
slot         packet    position of its first slot in the source ring
chain        packet    of a packed virtqueue: descriptors of its chain
first        packet    number of its first record
head_address packet    where the Ethernet header is, after any virtio-net header
head_length  packet    bytes readable there
port, ring   packet    the lookup's answer
next         packet    next packet of the same queue, or NO_PACKET
order        packet    packet numbers of one destination, in order of arrival
queue_*      queue     first and last packet, and slots needed; head is NO_PACKET when empty
destination  queue     queues in order of first use
grant_*      queue     what the destination's ring leased: first slot, slots, lease
pending...   -         wrapped rings that wait to be forwarded into another switch
kthread      -         the kthread whose batch this is, else 0
pollfd       -         struct pollfd entries for poll(2)
discard      -         where an eventfd's count or an epoll_event is read to
bounce       -         memory that indirect frames are copied to, backed by bounce_fd
linear       -         memory for one whole frame, whose offloads are to be finished
converted... -         memory and lengths of the frames it becomes
vnets        -         1 if headers are in ``vnet``, and some packet is not just to be copied: it wants offloads, or is
                       in pieces or larger than usual; 0 if the packets are what the ingress says
vnet         packet    16 bytes: a copy of its virtio-net header, which its records do not have any more
blank        -         zeros: where records without a usable buffer point
============ ========= ===============================================================================
"""

OFFSET = offsets(batch)
"""Byte offset of each array."""

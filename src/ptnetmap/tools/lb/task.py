# SPDX-License-Identifier: BSD-2-Clause
"""What lb's kernels and the Python around them share."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets


def _words(*names: str) -> np.dtype[np.void]:
    return np.dtype([(name, "i8") for name in names])


source = _words("kring", "skipping")
"""An RX ring to receive from; ``skipping`` says that what comes first is the rest of a chain that was dropped."""

pipe = _words(
    *("tx", "head", "limit", "tail", "reaped", "marks", "outstanding"),
    *("queue_first", "queue_last", "queued"),
    *("packets", "bytes", "dropped", "dropped_bytes"),
)
"""A pipe, as its sender knows it.

====================== ===============================================================================
field                  meaning
====================== ===============================================================================
tx                     address of the TX kring
head, limit            the slots from ``head`` up to ``limit`` are free
tail                   the ring's tail as it was last seen: the first slot that may not be used
reaped                 first slot whose packet has not gone to the next group
marks                  address of what was sent in each slot, one 64-bit word each, or 0 in the last group
outstanding            marked slots, whose packets are still to go to the next group
queue_first ... queued backlog: oldest and newest buffer, and their number
packets ... dropped    handed to the pipe, and lost on the way to it, in packets and bytes
====================== ===============================================================================

A mark has the flow in its low 32 bits, then 16 bits of length, NS_MOREFRAG, and MARKED.
"""

group = _words("pipes", "count")
"""A group: address of its first :data:`pipe`, and how many there are. The next group follows it in memory."""

parked = np.dtype([("next", "u4"), ("len", "u2"), ("flags", "u2"), ("flow", "u4"), ("_pad", "u4")])
"""A buffer that is in no ring: the next one of its queue, or of the free ones; and the fragment that is in it."""

task = _words(
    *("stop", "sources", "source_count", "groups", "group_count", "pipes", "pipe_count"),
    *("batch", "waiter", "parked", "num_bufs", "extra", "free_first", "free"),
    *("received", "received_bytes", "non_ip", "bad", "empty", "failed"),
)
"""A run.

=================== ===================================================================================
field               meaning
=================== ===================================================================================
stop                1 ends it
sources ... pipes   addresses and numbers of the RX rings, groups and pipes
batch               packets that an RX ring gives before it is synced again
waiter              where to list the rings to wait on
parked, num_bufs    address of a :data:`parked` for each buffer of the region, and their number
extra, free         extra buffers in all, and those that are free; ``free_first`` is one of them
received ... empty  packets read, their bytes, how many were no IP; dropped for bad slots; without data
failed              number of the RX ring that could not be synced; or, from PIPE on, of the pipe
=================== ===================================================================================
"""

PIPE = 1 << 32
MARKED = 0x4000

SOURCE_SIZE, PIPE_SIZE, GROUP_SIZE, PARKED_SIZE = (layout.itemsize for layout in (source, pipe, group, parked))
SOURCE, PIPE_AT, GROUP, PARKED, TASK = (offsets(layout) for layout in (source, pipe, group, parked, task))

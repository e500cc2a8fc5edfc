# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Extra buffers: free ones, and backlogs of packets that found their pipe full.

Every loop here is bounded by a count of lb's own, and every buffer's number is checked: a program that gives the same
buffer back twice spoils its packets, nothing else.
"""

from __future__ import annotations

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load16, load32, load64, store16, store32, store64
from ptnetmap.tools.lb.task import PARKED, PARKED_SIZE, PIPE_AT, PIPE_SIZE, TASK

_MOREFRAG = abi.NS_MOREFRAG
_NEXT = PARKED["next"]
_LEN = PARKED["len"]
_FLAGS = PARKED["flags"]
_FLOW = PARKED["flow"]
_FIRST = PIPE_AT["queue_first"]
_LAST = PIPE_AT["queue_last"]
_QUEUED = PIPE_AT["queued"]
_DROPPED = PIPE_AT["dropped"]
_DROPPED_BYTES = PIPE_AT["dropped_bytes"]
_PARKED = TASK["parked"]
_NUM_BUFS = TASK["num_bufs"]
_EXTRA = TASK["extra"]
_FREE_FIRST = TASK["free_first"]
_FREE = TASK["free"]
_PIPES = TASK["pipes"]
_PIPE_COUNT = TASK["pipe_count"]


@piece
def place_of(t, index):
    """Address of the ``parked`` entry of a buffer."""
    return load64(t + _PARKED) + index * PARKED_SIZE


@piece
def give(t, index):
    """Add a buffer to the free ones."""
    if 2 <= index < load64(t + _NUM_BUFS):
        store32(place_of(t, index) + _NEXT, load64(t + _FREE_FIRST))
        store64(t + _FREE_FIRST, index)
        store64(t + _FREE, load64(t + _FREE) + 1)


@piece
def take(t):
    """Take a free buffer; there is one."""
    index = load64(t + _FREE_FIRST)
    store64(t + _FREE_FIRST, load32(place_of(t, index) + _NEXT))
    store64(t + _FREE, load64(t + _FREE) - 1)
    return index


@piece
def park(t, p, index, length, more, flow):
    """Append a fragment to a pipe's backlog: the buffer ``index``."""
    entry = place_of(t, index)
    store16(entry + _LEN, length)
    store16(entry + _FLAGS, more)
    store32(entry + _FLOW, flow)
    if load64(p + _QUEUED) == 0:
        store64(p + _FIRST, index)
    else:
        store32(place_of(t, load64(p + _LAST)) + _NEXT, index)
    store64(p + _LAST, index)
    store64(p + _QUEUED, load64(p + _QUEUED) + 1)


@piece
def unpark(t, p):
    """Take the oldest fragment of a backlog, which is not empty. Returns (buffer, length, NS_MOREFRAG or 0, flow)."""
    index = load64(p + _FIRST)
    entry = place_of(t, index)
    store64(p + _FIRST, load32(entry + _NEXT))
    store64(p + _QUEUED, load64(p + _QUEUED) - 1)
    return index, load16(entry + _LEN), load16(entry + _FLAGS), load32(entry + _FLOW)


@piece
def oldest_length(t, p):
    """Fragments of the oldest packet of a backlog."""
    index = load64(p + _FIRST)
    queued = load64(p + _QUEUED)
    for count in range(1, queued + 1):
        if load16(place_of(t, index) + _FLAGS) & _MOREFRAG == 0:
            return count
        index = load32(place_of(t, index) + _NEXT)
    return queued


@piece
def drop_oldest(t, p):
    """Lose the oldest packet of a backlog; its buffers become free."""
    octets = 0
    for _ in range(oldest_length(t, p)):
        index, length, _more, _flow = unpark(t, p)
        octets += length
        give(t, index)
    store64(p + _DROPPED, load64(p + _DROPPED) + 1)
    store64(p + _DROPPED_BYTES, load64(p + _DROPPED_BYTES) + octets)


@piece
def reserve(t, needed):
    """See to it that ``needed`` buffers are free, if need be by stealing from the longest backlog. Returns whether.

    New packets are preferred to old ones: a pipe that nobody reads cannot keep all buffers.
    """
    if needed > load64(t + _EXTRA):
        return False
    while load64(t + _FREE) < needed:
        longest = load64(t + _PIPES)
        for i in range(1, load64(t + _PIPE_COUNT)):
            p = load64(t + _PIPES) + i * PIPE_SIZE
            if load64(p + _QUEUED) > load64(longest + _QUEUED):
                longest = p
        if load64(longest + _QUEUED) == 0:
            return False
        drop_oldest(t, longest)
    return True

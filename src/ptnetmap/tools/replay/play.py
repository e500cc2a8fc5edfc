# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The replay's inner loop: packets into a ring, each when it is due."""

from __future__ import annotations

from ptnetmap.jit.atomic import pause
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns, sched_yield
from ptnetmap.jit.memory import load64
from ptnetmap.netmap.packets import put_frames
from ptnetmap.netmap.sync import OK, txsync

DONE = 0
EARLY = 1
FULL = 2
SPOILT = 3
PAUSED = 4

BURST = 256
"""Packets that are put into a ring before it is synced, if so many are due."""

SPIN = 150_000
"""Nanoseconds that are waited here; for longer waits the caller sleeps, and wakes up a little earlier."""

_YIELD = 20_000


@kernel
def play(k, batch, addresses, lengths, times, start, first, last, until):
    """Send the frames ``[first, last)`` on TX ring ``k``, each at ``start`` + its time (ns of CLOCK_MONOTONIC) or after.

    ``addresses``, ``lengths`` and ``times`` are addresses of int64 arrays, ``batch`` is the thread's scratch. Returns
    (first frame not sent, why, ns until that is due): DONE; EARLY, it is due later than SPIN; FULL, the ring has no room
    for it; SPOILT, the ring was overwritten; PAUSED, because the time ``until`` has come; or the negative errno of a
    ring that cannot be synced.
    """
    at = first
    while at < last:
        now = clock_ns(CLOCK_MONOTONIC)
        if now >= until:
            return at, PAUSED, 0
        end = at
        most = min(last, at + BURST)
        while end < most and start + load64(times + 8 * end) <= now:
            end += 1
        if end == at:
            left = start + load64(times + 8 * at) - now
            if left > SPIN:
                return at, EARLY, left
            if left > _YIELD:
                sched_yield()
            else:
                pause()
            continue
        put = put_frames(k, addresses, lengths, at, end)
        if put == -1:
            return at, SPOILT, 0
        result = txsync(k, batch)
        if result != OK:
            return put, result if result < 0 else SPOILT, 0
        if put == at:
            return at, FULL, 0
        at = put
    return at, DONE, 0

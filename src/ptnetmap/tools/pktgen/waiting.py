# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What every loop does before it gives up and lets its worker sleep."""

from __future__ import annotations

from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.kernel import piece
from ptnetmap.netmap.csb import relax_beside
from ptnetmap.netmap.sync import stirred
from ptnetmap.tools.pktgen.task import AT

_STOP = AT["stop"]


@piece
def linger(k, t, attempt):
    """Spin and yield until a ring stirs or the run ends. Returns the attempts made in all, -1 when it is time to sleep."""
    while relax_beside(k, attempt):
        attempt += 1
        if stirred(k, attempt) or load64_acquire(t + _STOP) != 0:
            return attempt
    return -1

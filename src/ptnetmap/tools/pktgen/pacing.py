# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""When bursts may leave: an absolute schedule in whole numbers, so that a rate is exact however late each burst was.

Packet i of a run at ``per`` packets in ``period`` nanoseconds is due at ``start + i * period / per``. The schedule
adds up exact fractions; it never looks at when a burst really left.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import load64_acquire, pause
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns
from ptnetmap.jit.memory import load64, store64
from ptnetmap.tools.pktgen.task import AT

_STOP = AT["stop"]
_PERIOD = AT["period"]
_PER = AT["per"]
_DUE = AT["due"]
_REST = AT["rest"]

SPIN = 200_000
"""Nanoseconds that are waited for in a loop; going to sleep and coming back would take about as long."""

LATEST = 1_000_000_000
"""How far a sender that was held up runs behind before it gives up catching up: a second's packets."""


@piece
def due_after(due, rest, count, period, per):
    """When the burst after one of ``count`` packets is due, and the rest of the division, in 1/per nanoseconds."""
    total = rest + count * period
    return due + total // per, total % per


@piece
def book(t, count):
    """Note that ``count`` packets have left."""
    per = load64(t + _PER)
    if per != 0:
        due, rest = due_after(load64(t + _DUE), load64(t + _REST), count, load64(t + _PERIOD), per)
        store64(t + _DUE, due)
        store64(t + _REST, rest)


@piece
def is_early(t):
    """Whether the next burst is not due yet; a short time is waited for here."""
    if load64(t + _PER) == 0:
        return False
    due = load64(t + _DUE)
    now = clock_ns(CLOCK_MONOTONIC)
    if due == 0 or now - due > LATEST:
        store64(t + _DUE, now)
        return False
    while now < due and due - now <= SPIN and load64_acquire(t + _STOP) == 0:
        pause()
        now = clock_ns(CLOCK_MONOTONIC)
    return now < due

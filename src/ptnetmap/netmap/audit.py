# SPDX-License-Identifier: BSD-2-Clause
"""The audit of a region: every buffer has exactly one owner, or is free.

Users of a region can write any number into a slot. The bitmap of allocated buffers is the runtime's own and always
right about *how many* are out; the slots of living rings tell *who* has which. What a dead ring held is therefore found
by taking away what the living ones name, never by believing what the dead one left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptnetmap.netmap.allocator import RESERVED_BUFFERS, Allocator

Indices = npt.NDArray[np.int64]


class Owner(Protocol):
    """Whoever holds buffers of a region: a ring, or a descriptor with extra buffers."""

    def claims(self) -> Indices:
        """Numbers of the buffers that it names, whatever they are."""

    @property
    def loose(self) -> int:
        """Buffers that it may hold without naming them, as an application does with extra buffers in its hands."""

    @property
    def label(self) -> str:
        """Name for reports."""


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found in one region, as lists of buffer numbers.

    ``free`` are unallocated, ``owned`` allocated and named exactly once, ``lost`` allocated and named by nobody,
    ``doubled`` named more than once, ``invalid`` named though they are reserved, free or out of range (``owners`` says
    by whom). ``loose`` is how many of the lost ones may be in the hands of applications with extra buffers.
    """

    allocator: int
    total: int
    free: int
    owned: int
    lost: list[int]
    doubled: list[int]
    invalid: list[int]
    loose: int
    owners: dict[int, list[str]]

    @property
    def ok(self) -> bool:
        """Whether every buffer has one owner."""
        return not self.doubled and not self.invalid and len(self.lost) <= self.loose

    def __str__(self) -> str:
        """One line for people."""
        state = "every buffer has one owner" if self.ok else "buffers are lost, doubled or invalid"
        return (
            f"allocator {self.allocator}: {self.total} buffers, {self.free} free, {self.owned} owned, "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.invalid)} invalid: {state}"
        )


def audit(allocator: Allocator) -> Audit:
    """Account for every buffer of an allocator's region. Rings in motion may show a slot on its way as doubled."""
    total = allocator.geometry.buf_pool.objtotal
    used = allocator.bufs.used
    named = np.zeros(total, np.int64)
    strays: list[int] = []
    owners: dict[int, list[str]] = {}
    suspects: list[tuple[str, Indices]] = []
    for owner in allocator.owners:
        claims = owner.claims()
        inside = (claims >= RESERVED_BUFFERS) & (claims < total)
        strays += [int(i) for i in claims[~inside & (claims != 0)]]
        np.add.at(named, claims[inside], 1)
        suspects.append((owner.label, claims))
    doubled = np.flatnonzero(named > 1)
    unallocated = np.flatnonzero((named > 0) & ~used)
    lost = np.flatnonzero((named == 0) & used)[RESERVED_BUFFERS:]
    bad = set(strays) | {int(i) for i in doubled} | {int(i) for i in unallocated}
    for name, claims in suspects:
        for i in bad.intersection(int(c) for c in claims) if bad else ():
            owners.setdefault(i, []).append(name)
    return Audit(
        allocator.id,
        total,
        allocator.bufs.available,
        int(np.count_nonzero((named == 1) & used)),
        [int(i) for i in lost],
        [int(i) for i in doubled],
        sorted({*strays, *(int(i) for i in unallocated)}),
        sum(owner.loose for owner in allocator.owners),
        owners,
    )


def reclaim(allocator: Allocator, count: int, named: npt.NDArray[np.int64]) -> int:
    """Free the ``count`` buffers of an owner that is gone, and is no longer among the allocator's owners.

    ``named`` is what it named at the end, any numbers. Only buffers that no living owner names are freed, those it
    named first; the others only while nobody can hold buffers loosely. What cannot be found now is owed: the last one
    who might have it in hand brings it back. Returns how many were freed.
    """
    pool = allocator.bufs
    count += allocator.owed
    candidate = pool.used.copy()
    candidate[:RESERVED_BUFFERS] = False
    for owner in allocator.owners:
        claims = owner.claims()
        candidate[claims[(claims >= 0) & (claims < len(candidate))]] = False
    claimed = named[(named >= 0) & (named < len(candidate))]
    _, first = np.unique(claimed, return_index=True)
    claimed = claimed[np.sort(first)]
    chosen = claimed[candidate[claimed]][:count]
    if len(chosen) < count and not any(owner.loose for owner in allocator.owners):
        candidate[chosen] = False
        chosen = np.concatenate((chosen, np.flatnonzero(candidate)[: count - len(chosen)]))
    allocator.owed = count - len(chosen)
    return pool.release(chosen)


def mend(allocator: Allocator, slots: npt.NDArray[Any], positions: Indices) -> int:
    """Give the slots at ``positions``, which their owner left in any state when it died, one buffer each again.

    A slot whose number is no allocated buffer, or is named elsewhere too, gets one that nobody names; where there is
    none, or where somebody may hold it loosely, a free one; else it stays empty. Returns how many were replaced.
    """
    pool = allocator.bufs
    total = allocator.geometry.buf_pool.objtotal
    named = np.zeros(total, np.int64)
    for owner in allocator.owners:
        claims = owner.claims()
        np.add.at(named, claims[(claims >= 0) & (claims < total)], 1)
    spare: list[int] = []
    if not any(owner.loose for owner in allocator.owners):
        spare = [int(i) for i in np.flatnonzero((named == 0) & pool.used) if i >= RESERVED_BUFFERS]
    replaced = 0
    for position in positions:
        index = int(slots["buf_idx"][position])
        if RESERVED_BUFFERS <= index < total and pool.used[index] and named[index] == 1:
            continue
        if index < total:
            named[index] -= 1
        if not spare and pool.available:
            spare = pool.allocate(1, "a buffer in place of one that a dead process lost")
        slots["buf_idx"][position] = spare.pop() if spare else 0
        slots["len"][position] = 0
        replaced += 1
    return replaced


def extra_list(head: int, next_of: npt.NDArray[Any], limit: int) -> Iterator[int]:
    """Walk a list of extra buffers from ``head``, at most ``limit`` of them; ``next_of`` is each buffer's first u32."""
    seen = 0
    while RESERVED_BUFFERS <= head < len(next_of) and seen < limit:
        yield head
        head = int(next_of[head])
        seen += 1

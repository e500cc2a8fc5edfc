# SPDX-License-Identifier: BSD-2-Clause
"""Cases between processes that are not ours: DPDK's testpmd at its best, and the rooflines of wake-ups.

testpmd's modes and bursts differ by several times, and which is best depends on the machine. Against it counts its
best: each peer's case tries its variants briefly, once per process, and then measures the fastest. One pair per link
stays up until the process ends, stopped while something else is measured.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.pair import Cores
from ptnetmap.bench.pingpong import IDLE_MS, run_eventfds, run_lines
from ptnetmap.bench.testpmd import CIRCULATING, MEMIF, ONE_WAY, VHOST_USER, Link, Pair, available

SIZES = (60, 1514)
BURSTS = {1: (1,), 16: (16,), 256: (32, 64, 256)}
"""What testpmd may take at once where the subject's batch is the key: its own favourites are far below 256."""

_MODES = {"best": (ONE_WAY, CIRCULATING), ONE_WAY: (ONE_WAY,), CIRCULATING: (CIRCULATING,)}
_TRY = 0.05
_TRIES = 3


@dataclass(frozen=True)
class Variant:
    """One way to run a :class:`~ptnetmap.bench.testpmd.Pair`: mode, burst, and which end sends."""

    mode: str
    burst: int
    sender: int

    def run(self, pair: Pair, size: int, seconds: float) -> Result:
        """Run it once."""
        return pair.run(self.mode, size, seconds, self.burst, sender=self.sender)

    def __str__(self) -> str:
        """Say it for people."""
        return f"{self.mode}, burst {self.burst}, end {self.sender} sends"


def fastest(variants: Sequence[Variant], run: Callable[[Variant], Result], tries: int = _TRIES) -> Variant:
    """Run all ``variants`` in turn, ``tries`` times, and return the one with the single best rate."""
    best = dict.fromkeys(variants, 0.0)
    for _ in range(tries):
        for variant in variants:
            best[variant] = max(best[variant], run(variant).mpps)
    return max(best, key=lambda variant: best[variant])


class Peers:
    """The pairs that run, and the variants that were found best; :meth:`close` ends the pairs."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[Link, Cores], Pair] = {}
        self._chosen: dict[tuple[str, str, int, int], Variant] = {}

    def run(self, link: Link, name: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """Run the best variant of ``name`` (best, one_way or circulating) for a subject's ``batch``."""
        pair = self._pairs.get((link, cores))
        if pair is None:
            pair = self._pairs[link, cores] = Pair(link, cores)
        try:
            key = (link.name, name, size, batch)
            if key not in self._chosen:
                variants = [
                    Variant(mode, burst, sender)
                    for mode in _MODES[name]
                    for burst in BURSTS[batch]
                    for sender in (1, 0)
                ]
                self._chosen[key] = fastest(variants, lambda variant: variant.run(pair, size, _TRY))
            return self._chosen[key].run(pair, size, seconds)
        except BaseException:  # it may be anywhere between start and stop: the next run starts a new one
            del self._pairs[link, cores]
            pair.close()
            raise

    def footnotes(self) -> list[str]:
        """What a reader needs to repeat the peers' figures: command lines, and the variant behind each row."""
        lines = [line for pair in self._pairs.values() for line in pair.command_lines()]
        for (link, name, size, batch), variant in self._chosen.items():
            lines.append(f"peer/{link}/{name}, {size} B, batch {batch}: {variant}")
        return lines

    def close(self) -> None:
        """End all pairs."""
        while self._pairs:
            self._pairs.popitem()[1].close()


peers = Peers()
"""Those of this process."""

atexit.register(peers.close)


def peer_cases() -> list[Case]:
    """Both links of testpmd; none where :func:`~ptnetmap.bench.testpmd.available` has a reason."""
    if available() is not None:
        return []
    rows = [(MEMIF, "best", batch) for batch in BURSTS]
    rows += [(MEMIF, ONE_WAY, 256), (MEMIF, CIRCULATING, 256), (VHOST_USER, "best", 256)]
    return [
        Case(f"peer/{link.name}/{name}", size, batch, partial(peers.run, link, name, size))
        for link, name, batch in rows
        for size in SIZES
    ]


def round_trip_cases() -> list[Case]:
    """Round trips between two processes; a case's packets are round trips, its result has their percentiles."""
    return [
        Case("roofline/eventfd_rtt", 0, 1, _eventfd_rtt),
        Case("roofline/eventfd_rtt_idle", 0, 1, partial(_eventfd_rtt, idle_ms=IDLE_MS), "roofline/eventfd_rtt"),
        Case("roofline/shm_rtt", 0, 1, _shm_rtt),
    ]


def _eventfd_rtt(seconds: float, batch: int, cores: Cores, idle_ms: int = 0) -> Result:
    return run_eventfds(seconds, idle_ms=idle_ms, cores=cores)


def _shm_rtt(seconds: float, batch: int, cores: Cores) -> Result:
    return run_lines(seconds, cores=cores)

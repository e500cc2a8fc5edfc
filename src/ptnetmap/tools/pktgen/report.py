# SPDX-License-Identifier: BSD-2-Clause
"""What pkt-gen prints: log lines, the report of each period, and the final figures."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNTOUCHED = 99999
"""What ``min_space`` says when no receiver has looked since the last report."""

FRAMING_BITS = 192
WINDOW = 15
SHORTEST_US = 10_000

_UNITS = ("", "K", "M", "G", "T")


class Log:
    """Lines on stderr: time modulo 1000 s, the function's name, the line of the source in brackets, the text."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def __call__(self, function: str, text: str) -> None:
        """Print a line."""
        if self.quiet:
            return
        now = time.time_ns() // 1000
        line = sys._getframe(1).f_lineno
        stamp = f"{now // 1_000_000 % 1000:03d}.{now % 1_000_000:06d}"
        sys.stderr.write(f"{stamp} {function} [{line}] {text}\n")  # at once: several threads log
        sys.stderr.flush()


def norm(value: float, normalize: bool = True) -> str:
    """Return a quantity to put before its unit: ``"14.880 M"``, or without K, M, G: ``"14880952.000 "``."""
    unit = 0
    while normalize and value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3f} {_UNITS[unit]}"


@dataclass(frozen=True)
class Counts:
    """Packets, their bytes, and the syncs that moved some."""

    packets: int = 0
    bytes: int = 0
    events: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.packets + other.packets, self.bytes + other.bytes, self.events + other.events)

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.packets - other.packets, self.bytes - other.bytes, self.events - other.events)

    def bits(self, framing: int) -> int:
        """Bits of the packets, with ``framing`` more for each."""
        return self.bytes * 8 + self.packets * framing


class Periods:
    """Turns counts into the lines of the periodic report."""

    def __init__(self, *, normalize: bool, framing: int, average: bool) -> None:
        self._normalize = normalize
        self._framing = framing
        self._window: deque[float] | None = deque(maxlen=WINDOW) if average else None

    def line(self, counts: Counts, usec: int, space: int) -> str:
        """Return the line for what happened in ``usec`` microseconds."""
        pps = counts.packets * 1_000_000 / usec
        batch = counts.packets / counts.events if counts.events else 0.0

        def show(value: float) -> str:
            return norm(value, self._normalize)

        return (
            f"{show(pps)}pps {self._average(pps)}({show(counts.packets)}pkts "
            f"{show(counts.bits(self._framing) * 1_000_000 / usec)}bps in {usec} usec) "
            f"{batch:.2f} avg_batch {space} min_space"
        )

    def _average(self, pps: float) -> str:
        """Return average and standard deviation of the last rates, if asked for."""
        if self._window is None:
            return ""
        self._window.append(pps)
        average, deviation = statistics.fmean(self._window), statistics.pstdev(self._window)
        return f"[avg/std {norm(average, self._normalize)}/{norm(deviation, self._normalize)}pps] "


@dataclass(frozen=True)
class Figures:
    """What came of a run: the counts, how long it took, and what its function adds."""

    counts: Counts
    seconds: float
    framing: int = 0

    @property
    def size(self) -> int:
        """Bytes per packet, rounded down."""
        return self.counts.bytes // self.counts.packets if self.counts.packets else 0

    def _per_second(self, amount: float) -> float:
        return amount / self.seconds if self.seconds > 0 else 0.0

    @property
    def batch(self) -> float:
        """Packets per sync."""
        return self.counts.packets / self.counts.events if self.counts.events else 0.0

    def lines(self, verb: str, normalize: bool = True) -> list[str]:
        """Return the final lines; ``verb`` is "Sent" or "Received"."""
        c = self.counts
        if c.packets == 0:
            return [f"{verb} nothing."]
        pps, bps, raw = (
            norm(self._per_second(amount), normalize) for amount in (c.packets, c.bits(0), c.bits(self.framing))
        )
        amounts = f"{c.packets} packets {c.bytes} bytes {c.events} events {self.size} bytes each"
        return [
            f"{verb} {amounts} in {self.seconds:.2f} seconds.",
            f"Speed: {pps}pps Bandwidth: {bps}bps (raw {raw}bps). Average batch: {self.batch:.2f} pkts",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the figures for ``--json``, rates per second."""
        c = self.counts
        return {
            "packets": c.packets,
            "bytes": c.bytes,
            "events": c.events,
            "seconds": self.seconds,
            "pps": self._per_second(c.packets),
            "bps": self._per_second(c.bits(0)),
            "raw_bps": self._per_second(c.bits(self.framing)),
            "average_batch": self.batch,
        }


@dataclass(frozen=True)
class RoundTrips:
    """Round trips: how many, the least and the sum in nanoseconds, and how many took from 2^k ns on."""

    count: int
    least: int
    total: int
    buckets: tuple[int, ...]

    @property
    def average(self) -> int:
        """Nanoseconds on average."""
        return self.total // self.count if self.count else 0

    def __sub__(self, other: RoundTrips) -> RoundTrips:
        """Return those that came after ``other``; the least one stays the least of all."""
        buckets = tuple(a - b for a, b in zip(self.buckets, other.buckets, strict=True))
        return RoundTrips(self.count - other.count, self.least, self.total - other.total, buckets)

    def line(self) -> str:
        """Return the line of a period."""
        return f"count {self.count} RTT: min {self.least} av {self.average} ns"

    def histogram(self) -> str:
        """Return the power-of-two histogram: the range that has entries, then the entries."""
        used = [k for k, amount in enumerate(self.buckets) if amount]
        first, last = (used[0], used[-1]) if used else (0, 0)
        amounts = "".join(f" {amount:5d}" for amount in self.buckets[first : last + 1])
        return f"k: {1 << first} .. {1 << last}\n\t{amounts}"

    def final(self) -> str:
        """Return the last line."""
        return f"RTT over {self.count} packets: min {self.least} av {self.average} ns"


def total(parts: Sequence[Counts]) -> Counts:
    """Add the counts of several threads."""
    return sum(parts, Counts())

# SPDX-License-Identifier: BSD-2-Clause
"""When each packet of a replay is due: arithmetic only, exact, and without drift.

A schedule is asked for one chunk of packets after the other, and remembers what came before. Times are nanoseconds from
the start of the replay, never a difference to the packet before, so that no error adds up.
"""

from __future__ import annotations

import abc
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

NEVER = 1 << 62
"""The latest time there is: 146 years."""

_SECOND = 1_000_000_000
_FINEST = 100  # denominators of rates: a hundredth of a packet per second is as fine as it gets


class Schedule(abc.ABC):
    """When packets are due."""

    @abc.abstractmethod
    def due(self, ts: Ints, lengths: Ints) -> Ints:
        """Return when the next packets are due: ns from the start, never decreasing.

        ``ts`` are their recorded times (ns), ``lengths`` their bytes; int64 arrays of the same, positive length.
        """

    def rewind(self) -> None:
        """Begin with the file again: what comes next was recorded before what came last."""
        return


class TopSpeed(Schedule):
    """Everything is due at once."""

    def due(self, ts: Ints, lengths: Ints) -> Ints:
        """Return zeros."""
        return np.zeros(len(ts), np.int64)


class Recorded(Schedule):
    """As it was recorded, ``speed`` times as fast.

    A packet with an earlier time than the one before it follows that at once. When the file begins again, its first
    packet follows the last one after the mean gap between packets of the file.
    """

    def __init__(self, speed: Fraction | float = 1) -> None:
        self._speed = _rate(speed, "speed")
        self._origin: int | None = None
        self._before = 0  # recorded time of all passes before this one
        self._latest = 0  # of this pass
        self._packets = 0

    def due(self, ts: Ints, lengths: Ints) -> Ints:
        """Return the recorded times, from the first packet on, divided by the speed."""
        if self._origin is None:
            self._origin = int(ts[0])
        since = np.maximum.accumulate(np.maximum(ts - self._origin, self._latest))
        self._latest = int(since[-1])
        self._packets += len(ts)
        return scaled(self._before, since, self._speed.denominator, self._speed.numerator)

    def rewind(self) -> None:
        """Go on behind the last packet."""
        self._before += self._latest + self._latest // max(1, self._packets - 1)
        self._origin = None
        self._latest = self._packets = 0


class PacketRate(Schedule):
    """So many packets per second, evenly."""

    def __init__(self, packets_per_second: Fraction | float) -> None:
        self._rate = _rate(packets_per_second, "rate")
        self._packets = 0

    def due(self, ts: Ints, lengths: Ints) -> Ints:
        """Return when packet i is due: after i / rate seconds."""
        steps = np.arange(len(ts), dtype=np.int64)
        times = scaled(self._packets, steps, _SECOND * self._rate.denominator, self._rate.numerator)
        self._packets += len(ts)
        return times


class BitRate(Schedule):
    """So many bits per second: those of the frames, without preamble, CRC and gap."""

    def __init__(self, bits_per_second: Fraction | float) -> None:
        self._rate = _rate(bits_per_second, "bit rate")
        self._bits = 0

    def due(self, ts: Ints, lengths: Ints) -> Ints:
        """Return when all bits before a packet's own have left."""
        after = np.cumsum(lengths * 8)
        times = scaled(self._bits, after - lengths * 8, _SECOND * self._rate.denominator, self._rate.numerator)
        self._bits += int(after[-1])
        return times


def scaled(start: int, steps: Ints, factor: int, divisor: int) -> Ints:
    """Return ``(start + steps) * factor // divisor`` exactly, at most NEVER. All are at least 0, steps never decrease."""
    whole, rest = divmod(start * factor, divisor)
    largest = int(steps[-1]) * factor + rest
    if whole + largest // divisor < NEVER and largest < 1 << 63:
        return whole + (steps * factor + rest) // divisor
    exact: list[Any] = [min((start + step) * factor // divisor, NEVER) for step in steps.tolist()]
    return np.array(exact, np.int64)


def _rate(value: Fraction | float, what: str) -> Fraction:
    rate = Fraction(value).limit_denominator(_FINEST)
    if rate <= 0:
        raise ValueError(f"a {what} of {value} is none: give 0.01 or more")
    return rate

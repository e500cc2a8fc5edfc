# SPDX-License-Identifier: BSD-2-Clause
"""What a capture file consists of, whatever its format: records, and the interfaces they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

ETHERNET = 1
"""Link type of Ethernet frames (LINKTYPE_ETHERNET)."""

NANOSECONDS = 1_000_000_000


class Record(NamedTuple):
    """One packet of a capture file.

    ``data`` is what was recorded of it, ``length`` how long it was on the wire (more, if a snaplen cut it). ``ts_ns`` is
    in nanoseconds since 1970, 0 for pcapng's simple packet blocks, which have no time. ``interface`` is an index into
    the capture's ``interfaces``. ``outbound`` tells a sent packet from a received one, None if the file does not say.
    """

    data: bytes
    ts_ns: int
    length: int
    interface: int = 0
    outbound: bool | None = None


@dataclass(frozen=True)
class Interface:
    """Where packets were captured.

    ``linktype`` is one of the LINKTYPE_* numbers, ``snaplen`` the most bytes recorded of a packet (0: all). Times are
    counted in ``ticks`` per second, and ``offset`` seconds are to be added to them.
    """

    linktype: int = ETHERNET
    snaplen: int = 0
    name: str = ""
    ticks: int = NANOSECONDS
    offset: int = 0

    def nanoseconds(self, count: int) -> int:
        """Return the time of a count of ticks, in nanoseconds since 1970, rounded down."""
        if self.ticks == NANOSECONDS:
            return count + self.offset * NANOSECONDS
        return count * NANOSECONDS // self.ticks + self.offset * NANOSECONDS

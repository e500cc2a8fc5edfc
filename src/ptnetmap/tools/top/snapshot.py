# SPDX-License-Identifier: BSD-2-Clause
"""What a netmapd had counted at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from ptnetmap.netmap.stats import PortStats
from ptnetmap.netmap.wire.extension import TopKthread, TopPort


@dataclass(frozen=True)
class Occupied:
    """Slots that hold packets, of ``slots``, over all rings of a direction; None where no kthread counts them."""

    packets: int | None
    slots: int


@dataclass(frozen=True)
class PortSample:
    """One port: what it is, its counters since it was created, and when these were read (monotonic nanoseconds)."""

    port: TopPort
    stats: PortStats
    tx: Occupied
    rx: Occupied
    time_ns: int

    @property
    def identity(self) -> object:
        """What two samples of the same port agree on."""
        port = self.port
        return port["name"], port["kind"], tuple(port["tx"]), tuple(port["rx"])

    def follows(self, before: PortSample) -> bool:
        """Whether the counters of this sample go on from those of ``before``.

        They do not if it is another port, with the same name perhaps, at the place of one that has gone: its counters
        began at 0, and so some are lower; or none of the processes that had it open still has.
        """
        users, earlier = set(self.port["pids"]), set(before.port["pids"])
        if self.identity != before.identity or (users and earlier and not users & earlier):
            return False
        now, then = _counts(self.stats), _counts(before.stats)
        return self.time_ns > before.time_ns and all(now.get(name, 0) >= count for name, count in then.items())


@dataclass(frozen=True)
class Snapshot:
    """All ports and kthreads of the netmapd at ``address``, whose ``generation`` tells it from others there."""

    address: str
    version: str
    generation: int
    time_ns: int
    ports: tuple[PortSample, ...]
    kthreads: tuple[TopKthread, ...]


def _counts(stats: PortStats) -> dict[str, int]:
    return {**stats.drops, **{name: count for name, count in vars(stats).items() if name != "drops"}}


def difference(now: PortStats, then: PortStats) -> PortStats:
    """Return what was counted between two readings of the same counters; ``drops`` has all reasons of ``now``."""
    fields = {name: count - vars(then)[name] for name, count in vars(now).items() if name != "drops"}
    drops = {reason: count - then.drops.get(reason, 0) for reason, count in now.drops.items()}
    return PortStats(drops=drops, **fields)

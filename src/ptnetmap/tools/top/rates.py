# SPDX-License-Identifier: BSD-2-Clause
"""Rates, from two snapshots and the time between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ptnetmap.netmap.stats import PortStats
from ptnetmap.netmap.wire.extension import TopKthread
from ptnetmap.tools.top.snapshot import Occupied, PortSample, Snapshot, difference


class Loss(NamedTuple):
    """Packets lost for one reason: per second (None: not known yet), and since the port was created."""

    reason: str
    rate: float | None
    total: int


@dataclass(frozen=True)
class PortRow:
    """One port: its latest sample, and what it counted in the ``seconds`` before.

    ``window`` is None for a port that is new, or took the place of another: it has no rates yet. Rates are per second;
    bits are those of the frames, without preamble, checksum and gap.
    """

    sample: PortSample
    window: PortStats | None
    seconds: float

    @property
    def name(self) -> str:
        """The port's name."""
        return self.sample.port["name"]

    def _rate(self, field: str, factor: int = 1) -> float | None:
        return None if self.window is None else factor * getattr(self.window, field) / self.seconds

    @property
    def tx_pps(self) -> float | None:
        """Packets that were taken from its TX rings."""
        return self._rate("tx_packets")

    @property
    def tx_bps(self) -> float | None:
        """Bits of these."""
        return self._rate("tx_bytes", 8)

    @property
    def rx_pps(self) -> float | None:
        """Packets that were delivered to its RX rings."""
        return self._rate("rx_packets")

    @property
    def rx_bps(self) -> float | None:
        """Bits of these."""
        return self._rate("rx_bytes", 8)

    @property
    def dropped_pps(self) -> float | None:
        """Packets that it sent and that went nowhere."""
        return self._rate("dropped")

    @property
    def missed_pps(self) -> float | None:
        """Packets for it that found its RX rings full."""
        return self._rate("missed")

    @property
    def losses(self) -> list[Loss]:
        """What was ever lost, by reason: packets that it sent, ``missed`` and ``truncated`` for those to receive."""
        received = ((reason, getattr(self.sample.stats, reason)) for reason in ("missed", "truncated"))
        return [*self._drops(), *(Loss(reason, self._rate(reason), total) for reason, total in received if total)]

    def _drops(self) -> list[Loss]:
        drops = self.sample.stats.drops
        window = None if self.window is None else self.window.drops
        return [Loss(why, None if window is None else window[why] / self.seconds, n) for why, n in drops.items()]

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs; rates that are not known yet are null."""
        port, stats = self.sample.port, self.sample.stats
        return {
            **{name: port[name] for name in ("name", "kind", "switch", "pids", "kthread", "lossless")},
            "mode": port.get("mode"),
            "seconds": self.seconds if self.window is not None else None,
            "tx": {
                "packets": stats.tx_packets,
                "bytes": stats.tx_bytes,
                "pps": self.tx_pps,
                "bps": self.tx_bps,
                "dropped": stats.dropped,
                "dropped_pps": self.dropped_pps,
                **_level(self.sample.tx),
            },
            "rx": {
                "packets": stats.rx_packets,
                "bytes": stats.rx_bytes,
                "pps": self.rx_pps,
                "bps": self.rx_bps,
                "missed": stats.missed,
                "missed_pps": self.missed_pps,
                "truncated": stats.truncated,
                **_level(self.sample.rx),
            },
            "drops": {reason: {"packets": total, "pps": rate} for reason, rate, total in self._drops()},
            **{name: getattr(stats, name) for name in ("syncs", "skipped", "reinits")},
            "syncs_per_second": self._rate("syncs"),
        }


def _level(occupied: Occupied) -> dict[str, int | None]:
    return {"occupied": occupied.packets, "slots": occupied.slots}


@dataclass(frozen=True)
class KthreadRow:
    """One kthread: ``load`` is the part of the time that it did not sleep, the others are per second.

    None: not known yet, or not any more (kicks and irqs when it has lost a ring, with which its share of them went).
    """

    kthread: int
    cpu: int | None
    rings: int
    load: float | None
    rounds: float | None
    sleeps: float | None
    kicks: float | None
    irqs: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return dict(vars(self))


@dataclass(frozen=True)
class View:
    """What there is to show of a netmapd after a window of ``seconds``."""

    address: str
    version: str
    generation: int
    seconds: float
    ports: tuple[PortRow, ...]
    kthreads: tuple[KthreadRow, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "socket": self.address,
            "version": self.version,
            "generation": self.generation,
            "seconds": self.seconds,
            "ports": [row.as_json() for row in self.ports],
            "kthreads": [row.as_json() for row in self.kthreads],
        }


def compare(before: Snapshot, after: Snapshot) -> View:
    """Return what happened between two snapshots.

    Ports of ``after`` have rates if they were there ``before``, with counters that they go on from; ports that have
    gone are left out. Of another generation nothing was there before.
    """
    same = before.generation == after.generation
    ports = {sample.identity: sample for sample in before.ports} if same else {}
    threads = {thread["kthread"]: thread for thread in before.kthreads} if same else {}
    return View(
        after.address,
        after.version,
        after.generation,
        max(after.time_ns - before.time_ns, 0) / 1e9 if same else 0.0,
        tuple(_port_row(ports.get(sample.identity), sample) for sample in after.ports),
        tuple(_kthread_row(threads.get(thread["kthread"]), thread) for thread in after.kthreads),
    )


def _port_row(before: PortSample | None, after: PortSample) -> PortRow:
    if before is None or not after.follows(before):
        return PortRow(after, None, 0.0)
    return PortRow(after, difference(after.stats, before.stats), (after.time_ns - before.time_ns) / 1e9)


def _kthread_row(before: TopKthread | None, after: TopKthread) -> KthreadRow:
    age = after["age_ns"] - before["age_ns"] if before is not None else 0
    if before is None or age <= 0:
        return KthreadRow(after["kthread"], after["cpu"], after["rings"], *[None] * 5)

    def rate(now: int, then: int) -> float | None:
        return (now - then) * 1e9 / age if now >= then else None

    return KthreadRow(
        after["kthread"],
        after["cpu"],
        after["rings"],
        # The kthread may begin or end a sleep while netmapd reads the clock for it.
        min(max(1 - (after["asleep_ns"] - before["asleep_ns"]) / age, 0.0), 1.0),
        rate(after["rounds"], before["rounds"]),
        rate(after["sleeps"], before["sleeps"]),
        rate(after["kicks"], before["kicks"]),
        rate(after["irqs"], before["irqs"]),
    )

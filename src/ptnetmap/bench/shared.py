# SPDX-License-Identifier: BSD-2-Clause
"""Cases of ports that two processes have, at the netmapd that serves them: packets one way, circulating, in a storm.

A pipe between processes is compared with the same pipe between threads, and both kinds with DPDK's memif where that is
installed, which like a pipe shares memory, and like a switch copies each packet once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

from ptnetmap.bench.ends import THIRD
from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.joined import join_by_pipe, join_by_vale
from ptnetmap.bench.pair import Cores
from ptnetmap.bench.remote import Remote
from ptnetmap.bench.shared_latency import latency_cases
from ptnetmap.bench.stage import stage
from ptnetmap.bench.testpmd import CIRCULATING_PACKETS, available

SIZES = (60, 1514)
BATCHES = (1, 16, 256)
BESIDE_PEERS = 256
"""The batch that is compared with testpmd's best burst."""

REPORT = {"vale": 25.0, "pipe": 50.0}
"""Mpps that the 2015 report has for packets of 60 bytes between a guest and its host."""

Run = Callable[..., Result]


def process_cases() -> list[Case]:
    """All cases of ports of different processes; those against memif only where it can run."""
    alone = [
        _case(f"processes/{name}", size, batch, run, name, floor)
        for name, run, floor in (("pipe", pipe, 0.8), ("vale", vale, None))
        for size in SIZES
        for batch in BATCHES
    ]
    memif = available() is None
    peers = [
        _case(f"processes/{name}", size, BESIDE_PEERS, run, f"peer/memif/{rival}" if memif else None, floor)
        for name, run, rival, floor in (
            ("pipe_memif", pipe, "one_way", 2.0),
            ("vale_memif", vale, "one_way", 1.0),
            ("pipe_circulating", pipe_circulating, "circulating", 2.0),
            ("vale_circulating", vale_circulating, "circulating", 1.0),
        )
        for size in SIZES
        if memif or rival == "circulating"
    ]
    stormy = [
        _case("processes/storm", 60, 256, partial(storm.run, kicks=True), "processes/calm", 0.9),
        _case("processes/calm", 60, 256, partial(storm.run, kicks=False), None, None),
    ]
    return alone + peers + latency_cases() + stormy


def _case(name: str, size: int, batch: int, run: Run, against: str | None, floor: float | None) -> Case:
    report = REPORT.get(name.removeprefix("processes/")) if (size, batch) == (SIZES[0], BATCHES[-1]) else None
    return Case(name, size, batch, partial(run, size), against, report, floor if against else None)


def pipe(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """Through a pipe, one way."""
    with stage.ends() as (sender, receiver):
        join_by_pipe(sender, receiver, size)
        return _one_way(sender, receiver, size, seconds, batch, cores)


def vale(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """Through a switch to a lossless port, one way."""
    with stage.ends() as (sender, receiver):
        join_by_vale(sender, receiver, size)
        return _one_way(sender, receiver, size, seconds, batch, cores)


def pipe_circulating(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """512 packets go round through a pipe; those that come at one end are counted."""
    with stage.ends() as (leader, follower):
        join_by_pipe(leader, follower, size)
        return _circulate(leader, follower, size, seconds, batch, cores, switched=False)


def vale_circulating(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """512 packets go round through a switch, where each gets new addresses; those that come at one end are counted."""
    with stage.ends() as (leader, follower):
        join_by_vale(leader, follower, size)
        return _circulate(leader, follower, size, seconds, batch, cores, switched=True)


class Storm:
    """Through a switch, while a third process kicks its own idle port's kthread for nothing, or only uses a core."""

    def __init__(self) -> None:
        self._rates: list[float] = []

    def run(self, size: int, seconds: float, batch: int, cores: Cores, *, kicks: bool) -> Result:
        """Do it once."""
        with stage.ends(3) as (sender, receiver, third):
            third.do("open", f"vale{stage.number()}:third")
            join_by_vale(sender, receiver, size)
            third.begin("disturb", kicks)
            try:
                result = _one_way(sender, receiver, size, seconds, batch, cores)
            finally:
                stage.runs.items["stop"][THIRD] = 1
            rate = third.end()
        if kicks:
            self._rates.append(rate)
        return result

    def footnotes(self) -> list[str]:
        """How many kicks there were."""
        if not self._rates:
            return []
        return [f"processes/storm: {median(self._rates):,.0f} kicks per second, median"]


storm = Storm()
"""That of this process."""


def _one_way(sender: Remote, receiver: Remote, size: int, seconds: float, batch: int, cores: Cores) -> Result:
    receiver.begin("receive", cores[1] if cores else None)
    sender.begin("send", size, seconds, batch, cores[0] if cores else None)
    offered = sender.end()
    received, octets, nanoseconds = receiver.end()
    return Result(received, offered, offered - received, nanoseconds, octets)


def _circulate(
    leader: Remote, follower: Remote, size: int, seconds: float, batch: int, cores: Cores, *, switched: bool
) -> Result:
    follower.begin("circulate", 0, size, seconds, batch, switched, cores[1] if cores else None)
    leader.begin("circulate", CIRCULATING_PACKETS, size, seconds, batch, switched, cores[0] if cores else None)
    received, octets, nanoseconds = leader.end()
    follower.end()
    dropped = sum(end.do("drops") for end in (leader, follower)) if switched else 0
    return Result(received, received + dropped, dropped, nanoseconds, octets)

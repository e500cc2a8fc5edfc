# SPDX-License-Identifier: BSD-2-Clause
"""Round trips of one packet between the ports of two processes.

Busy ones follow each other at once. Idle ones come a millisecond apart, so that both ends and netmapd's kthread have
gone to sleep, and the processors too; they are compared with wake-ups that follow each other at once all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.joined import join_by_pipe, join_by_vale
from ptnetmap.bench.pair import Cores, two_cores
from ptnetmap.bench.pingpong import IDLE_MS
from ptnetmap.bench.stage import stage

SIZE = 60

AT_MOST_3_TIMES = round(1 / 3, 4)
AT_MOST_10_TIMES = 0.1
"""Floors: ratios are of speeds, so that a round trip ten times as long is 0.1."""

_SILENT = 30.0


@dataclass(frozen=True)
class Trip:
    """What round trips go through, and how the ends wait: they sleep, unless ``spinning``."""

    through: str
    idle_ms: int = 0
    spinning: bool = False

    def __call__(self, seconds: float, batch: int, cores: Cores) -> Result:
        """Make them for ``seconds``."""
        if self.spinning:
            cores = cores or two_cores()  # on one core, two processes that spin only wait for each other
        with stage.ends() as (leader, follower):
            (join_by_vale if self.through == "vale" else join_by_pipe)(leader, follower, SIZE)
            follower.begin("follow", _SILENT, self.spinning, cores[1] if cores else None)
            leader.begin("lead", seconds, self.spinning, self.idle_ms, cores[0] if cores else None)
            result: Result = leader.end()
            follower.end()
            return result


def latency_cases() -> list[Case]:
    """Idle and busy round trips of ends that sleep, and those of ends that spin; a case's packets are round trips."""
    asleep = [
        Case(f"processes/{through}_{name}", SIZE, 1, Trip(through, idle), "roofline/eventfd_rtt", floor=floor)
        for name, idle, floor in (("rtt_idle", IDLE_MS, AT_MOST_3_TIMES), ("rtt", 0, None))
        for through in ("vale", "pipe")
    ]
    spinning = Trip("pipe", spinning=True)
    return [*asleep, Case("processes/pipe_rtt_spin", SIZE, 1, spinning, "roofline/shm_rtt", floor=AT_MOST_10_TIMES)]

# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes to tell another process something and to hear back: two rooflines of every wake-up.

*eventfd*: each process blocks in read(2) on its eventfd and writes the other's: two system calls and a wake-up each
way. *lines*: each process spins on a cache line of shared memory and stores to the other's: the bare hand-off between
two cores. Nothing between processes can answer faster than the one without sleeping, or the other with it.

Round trips are counted and timed by the process that leads; the other one follows. The loops are in
:mod:`ptnetmap.bench.trips`.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import config

from ptnetmap.bench import trips
from ptnetmap.bench.frame import Result
from ptnetmap.bench.pair import Cores, two_cores
from ptnetmap.bench.processes import Task, run_together
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block
from ptnetmap.jit.warmup import compile_now

SAMPLES = 1 << 18
"""Times kept of a run: the last ones."""

TIMED_LINES = 8
"""Of round trips through lines one in so many is timed: reading the clock costs a good part of one."""

IDLE_MS = 1
"""How long idle processes rest before each round trip: long enough for everybody to have gone to sleep."""

_WARM_UP = 64
_PATIENCE = 60.0


@dataclass(frozen=True)
class RoundTrips(Result):
    """Round trips as a :class:`Result` whose packets are round trips, with nothing dropped and no bytes.

    ``median_ns`` and ``p99_ns`` are of single round trips.
    """

    median_ns: float
    p99_ns: float

    @property
    def per_second(self) -> float:
        """Round trips per second."""
        return self.received * 1e9 / self.nanoseconds


def run_eventfds(seconds: float, *, most: int = trips.FOREVER, idle_ms: int = 0, cores: Cores = None) -> RoundTrips:
    """Make round trips through two eventfds for ``seconds``, ``most`` at most, resting ``idle_ms`` before each.

    Without ``cores`` the scheduler places the two processes; whoever sleeps may then be woken on the other's core,
    which spares waking a core that is idle.
    """
    ping, pong = os.eventfd(0), os.eventfd(0)
    try:
        lead = Task(_lead_eventfds, (ping, pong, idle_ms, seconds, most), (ping, pong), cores[0] if cores else None)
        follow = Task(_follow_eventfds, (ping, pong), (ping, pong), cores[1] if cores else None)
        return _run(lead, follow, trips.EVENTFD_LOOPS, seconds)
    finally:
        os.close(ping)
        os.close(pong)


def run_lines(seconds: float, *, most: int = trips.FOREVER, cores: Cores = None) -> RoundTrips:
    """Make round trips through two cache lines for ``seconds``, ``most`` at most.

    Without ``cores`` it takes the first two there are: on one core, two processes that spin only wait for each other.
    """
    cores = cores or two_cores()
    memory = os.memfd_create("ptnetmap-pingpong")
    try:
        os.ftruncate(memory, mmap.PAGESIZE)
        lead = Task(_lead_lines, (memory, seconds, most), (memory,), cores[0] if cores else None)
        follow = Task(_follow_lines, (memory,), (memory,), cores[1] if cores else None)
        return _run(lead, follow, trips.LINE_LOOPS, seconds)
    finally:
        os.close(memory)


def _run(lead: Task, follow: Task, loops: tuple[Any, ...], seconds: float) -> RoundTrips:
    _load(loops)  # here first: two processes that both find no cache would both compile
    result: RoundTrips = run_together([lead, follow], timeout=seconds + _PATIENCE)[0]
    return result


def _load(loops: tuple[Any, ...]) -> None:
    if not config.DISABLE_JIT:
        for loop in loops:
            compile_now(loop)


def _leader(call: Callable[[int, int, int, int, int], int], seconds: float, most: int) -> Callable[[], RoundTrips]:
    """Wrap ``call(most, deadline, figures, samples, capacity)``: warm it up, time it, and sum up."""
    figures = Block(trips.figures)
    times = Block("i8", SAMPLES)
    times.items[:] = 0  # pages must exist before the clock runs

    def work() -> RoundTrips:
        call(min(_WARM_UP, most), trips.FOREVER, figures.address, times.address, SAMPLES)
        deadline = time.monotonic_ns() + int(seconds * 1e9)
        made = call(most, deadline, figures.address, times.address, SAMPLES)
        if made == 0:
            raise PtnetmapError(
                errno.EIO,
                f"no round trip was made of up to {most} in {seconds:g} s\n        give it more time, and at least one",
            )
        kept = times.items[: min(figures["sampled"], SAMPLES)]
        median, p99 = (float(value) for value in np.percentile(kept, (50, 99)))
        return RoundTrips(made, made, 0, figures["nanoseconds"], 0, median, p99)

    return work


def _lead_eventfds(ping: int, pong: int, idle_ms: int, seconds: float, most: int) -> Callable[[], RoundTrips]:
    _load(trips.EVENTFD_LOOPS)
    word = Block("i8")
    lead = _leader(lambda *limits: int(trips.lead_eventfds(ping, pong, word.address, idle_ms, *limits)), seconds, most)

    def work() -> RoundTrips:
        result = lead()
        os.eventfd_write(ping, trips.END)
        return result

    return work


def _follow_eventfds(ping: int, pong: int) -> Callable[[], int]:
    _load(trips.EVENTFD_LOOPS)
    word = Block("i8")
    return lambda: int(trips.follow_eventfds(ping, pong, word.address))


def _map(memory: int) -> npt.NDArray[Any]:
    """Map the shared words; the array keeps the mapping."""
    return np.frombuffer(mmap.mmap(memory, mmap.PAGESIZE), trips.lines, 1)


def _lead_lines(memory: int, seconds: float, most: int) -> Callable[[], RoundTrips]:
    _load(trips.LINE_LOOPS)
    words = _map(memory)
    lead = _leader(lambda *limits: int(trips.lead_lines(words.ctypes.data, TIMED_LINES, *limits)), seconds, most)

    def work() -> RoundTrips:
        result = lead()
        words["ping"] = trips.OVER
        return result

    return work


def _follow_lines(memory: int) -> Callable[[], int]:
    _load(trips.LINE_LOOPS)
    words = _map(memory)
    return lambda: int(trips.follow_lines(words.ctypes.data))

# SPDX-License-Identifier: BSD-2-Clause
"""Cases of vhost-user: DPDK's virtio-user as the driver, with our back end at the other side of the socket, or DPDK's.

Both sides have one thread each, whoever the back end is: ours has its sink and source in the thread that serves the
queues. Ring layout and driver are the same for both, and so are the bursts that are tried.
"""

from __future__ import annotations

import atexit
import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.pair import Cores, two_cores
from ptnetmap.bench.prompt import Prompt
from ptnetmap.bench.testpmd import (
    CIRCULATING,
    CIRCULATING_PACKETS,
    ONE_WAY,
    Link,
    Pair,
    available,
    command_line,
    look,
)
from ptnetmap.errors import PtnetmapError

SIZES = (60, 1514)
BATCH = 256
BURSTS = (32, 64, 256)
WAYS = {"out": (ONE_WAY, 1), "in": (ONE_WAY, 0), "circulating": (CIRCULATING, 1)}
"""Mode, and the end that sends: 1 is the driver."""
LAYOUTS = {"split": "mrg_rxbuf=0", "packed": "packed_vq=1,in_order=1,mrg_rxbuf=0"}

_TRY = 0.1
_TRIES = 2
_WITHIN = 20.0


def link(layout: str) -> Link:
    """Return DPDK's two ends of a link, whose driver lays its queues out so."""
    driver = f"net_virtio_user0,path={{socket}},queues=1,queue_size=1024,{LAYOUTS[layout]}"
    return Link(f"vhost_user_{layout}", ("net_vhost0,iface={socket},queues=1", driver))


class OurPair:
    """Our back end, and testpmd with its driver; as :class:`~ptnetmap.bench.testpmd.Pair`."""

    def __init__(self, layout: str, cores: Cores = None) -> None:
        chosen = cores or two_cores()
        if chosen is None:
            raise PtnetmapError(errno.ENOSYS, "cannot measure vhost-user: two cores are needed\n        leave it out")
        self._opened = ExitStack()
        try:
            directory = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="ptnetmap-vhost-"))
            self._end = subprocess.Popen(
                [sys.executable, "-m", "ptnetmap.bench.vhostend", f"{directory}/socket", str(chosen[1])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            self._opened.callback(self._end_it)
            self._hear()
            self._command = command_line(link(layout), 1, chosen, directory)
            environment = {**os.environ, "RUNTIME_DIRECTORY": directory}
            self._driver = self._opened.enter_context(Prompt(self._command, environment, "testpmd> ", _WITHIN))
        except BaseException:
            self._opened.close()
            raise

    def run(self, mode: str, size: int, seconds: float, burst: int, *, sender: int) -> Result:
        """Move frames of ``size`` bytes for ``seconds``; return what the receiver had. Nothing is on its way afterwards."""
        for line in (f"set burst {burst}", f"set txpkts {size}"):
            self._driver.ask(line)
        if mode == CIRCULATING:
            made = self._circulate(seconds, burst)
        elif sender == 1:
            made = self._out(size, seconds)
        else:
            made = self._into(size, seconds, burst)
        self._drain()
        return made

    def _out(self, size: int, seconds: float) -> Result:
        self._tell("sink")
        self._driver.ask("set fwd txonly")
        self._driver.ask("start")
        before, sent = self._stats(), look(self._driver)
        time.sleep(seconds)
        after, more = self._stats(), look(self._driver)
        self._driver.ask("stop")
        received = after[0] - before[0]
        return Result(received, more.tx_packets - sent.tx_packets, 0, after[2] - before[2], received * size)

    def _into(self, size: int, seconds: float, burst: int) -> Result:
        self._driver.ask("set fwd rxonly")
        self._driver.ask("start")
        self._tell(f"source {size} {burst}")
        before, sent = look(self._driver), self._stats()
        time.sleep(seconds)
        after, more = look(self._driver), self._stats()
        self._tell("stop")
        return _received(before.rx_packets, after, more[1] - sent[1], before.rx_bytes)

    def _circulate(self, seconds: float, burst: int) -> Result:
        self._tell(f"reflect {burst}")
        self._driver.ask("set fwd io")
        self._driver.ask(f"start tx_first {CIRCULATING_PACKETS // burst}")
        before = look(self._driver)
        time.sleep(seconds)
        after = look(self._driver)
        self._driver.ask("stop")
        return _received(before.rx_packets, after, after.tx_packets - before.tx_packets, before.rx_bytes)

    def _drain(self) -> None:
        self._driver.ask("stop")
        self._tell("sink")
        self._driver.ask("set fwd rxonly")
        self._driver.ask("start")
        deadline = time.monotonic() + _WITHIN
        last = None
        while (now := (look(self._driver).rx_packets, self._stats()[0])) != last and time.monotonic() < deadline:
            last = now
            time.sleep(0.02)
        self._driver.ask("stop")
        self._tell("stop")

    def _tell(self, line: str) -> str:
        assert self._end.stdin is not None
        self._end.stdin.write(line + "\n")
        self._end.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._end.stdout is not None
        line = self._end.stdout.readline()
        if not line:
            raise PtnetmapError(
                errno.ECHILD, f"our end of vhost-user ended with {self._end.wait()}\n        see what it said above"
            )
        return line

    def _stats(self) -> tuple[int, int, int]:
        received, sent, now = map(int, self._tell("stats").split())
        return received, sent, now

    def _end_it(self) -> None:
        self._end.kill()
        self._end.communicate()

    def close(self) -> None:
        """Kill both processes and remove their files."""
        self._opened.close()


def _received(before: int, after: object, offered: int, bytes_before: int) -> Result:
    """Return what testpmd received, by its own counters and its own clock."""
    received = after.rx_packets - before  # type: ignore[attr-defined]
    pps = after.rx_pps  # type: ignore[attr-defined]
    nanoseconds = received * 1_000_000_000 // pps if pps else 0
    return Result(received, offered, 0, nanoseconds, after.rx_bytes - bytes_before)  # type: ignore[attr-defined]


class Pairs:
    """The pairs that run, ours and DPDK's, and the burst that was found best for each row."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str, Cores], OurPair | Pair] = {}
        self._bursts: dict[tuple[str, str, str, int], int] = {}

    def run(self, whose: str, layout: str, way: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """Run a row with the burst that suits it best, which is tried out once."""
        mode, sender = WAYS[way]
        pair = self._pair(whose, layout, cores)
        try:
            key = (whose, layout, way, size)
            if key not in self._bursts:
                rates = dict.fromkeys(BURSTS, 0.0)
                for _ in range(_TRIES):
                    for burst in BURSTS:
                        rates[burst] = max(rates[burst], pair.run(mode, size, _TRY, burst, sender=sender).mpps)
                self._bursts[key] = max(rates, key=lambda burst: rates[burst])
            return pair.run(mode, size, seconds, self._bursts[key], sender=sender)
        except BaseException:
            del self._pairs[whose, layout, cores]
            pair.close()
            raise

    def _pair(self, whose: str, layout: str, cores: Cores) -> OurPair | Pair:
        key = (whose, layout, cores)
        if key not in self._pairs:
            make: Callable[[], OurPair | Pair] = (
                partial(OurPair, layout, cores) if whose == "ours" else partial(Pair, link(layout), cores)
            )
            self._pairs[key] = make()
        return self._pairs[key]

    def close(self) -> None:
        """End all pairs."""
        while self._pairs:
            self._pairs.popitem()[1].close()


pairs = Pairs()
"""Those of this process."""

atexit.register(pairs.close)


def vhost_cases() -> list[Case]:
    """Our back end against DPDK's, with DPDK's driver; none without testpmd."""
    if available() is not None:
        return []
    cases = []
    for layout in LAYOUTS:
        for way in WAYS:
            rival = f"peer/vhost_{layout}/{way}"
            for size in SIZES:
                run = partial(pairs.run, "ours", layout, way, size)
                cases.append(Case(f"virtio/vhost_{layout}_{way}", size, BATCH, run, rival, floor=1.0))
                cases.append(Case(rival, size, BATCH, partial(pairs.run, "theirs", layout, way, size)))
    return cases

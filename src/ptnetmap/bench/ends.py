# SPDX-License-Identifier: BSD-2-Clause
"""What a process of the benchmark does with a port of netmapd; :mod:`ptnetmap.bench.remote` calls it from outside."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from numba import config

import ptnetmap
from ptnetmap.bench import circulate, ringtrips, storm, traffic, trips
from ptnetmap.bench.pingpong import SAMPLES, RoundTrips
from ptnetmap.bench.runtime import fill_buffers, introduction
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block, offsets
from ptnetmap.jit.warmup import compile_now
from ptnetmap.netmap import binding
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.shared import Mapping

PAIR, THIRD = 0, 1
"""Which :data:`~ptnetmap.bench.traffic.run` of the shared ones is whose: of both ends, or of a third process."""

Figures = tuple[int, int, int]
"""Packets, their bytes, and the nanoseconds from the first to the last."""

_KERNELS = (traffic.send, traffic.receive, circulate.circulate, *ringtrips.LOOPS, *storm.LOOPS)
_GIVEN_BACK_AT_ONCE = 256
_WARM_UP = 64
_WITHIN = 10.0
_QUIET_NS = 1_000_000_000
_STOP = offsets(traffic.run)["stop"]


def load_kernels() -> None:
    """Compile what ends call, or load it."""
    if not config.DISABLE_JIT:
        for kernel in _KERNELS:
            compile_now(kernel)


class End:
    """One process's end of a run: a port, and what is done with it.

    ``address`` is netmapd's socket, ``memory`` a descriptor of two :data:`~ptnetmap.bench.traffic.run` shared by all.
    """

    def __init__(self, address: str, memory: int) -> None:
        self._address = address
        self._runs = Mapping(memory, 2 * traffic.run.itemsize).view(0, traffic.run, 2)
        self._cores = os.sched_getaffinity(0)
        self._port: Port | None = None
        self._header: npt.NDArray[np.uint8] = np.zeros(16, np.uint8)
        load_kernels()

    # -- before and after a run ---------------------------------------------------------------------------------------

    def open(self, name: str, lossless: bool = False) -> None:
        """Open a port, which the next calls are about; a lossless one holds its senders back."""
        self.close()
        self._port = ptnetmap.open(name, lossless=lossless, socket=self._address)

    def fill(self, destination: bytes, source: bytes, size: int) -> None:
        """Write the frame that is sent into every buffer of the TX rings, and its addresses where others are replaced."""
        fill_buffers(self.port, destination, source, size)
        self._header[:12] = np.frombuffer(destination + source, np.uint8)

    def introduce(self, address: bytes) -> None:
        """Let the switch learn where an address is."""
        self.port.send(introduction(address))

    def take_introduction(self) -> None:
        """Take the frame that told it; the switch has learned then."""
        if not self.port.recv(1, timeout=_WITHIN):
            raise PtnetmapError(
                errno.ETIMEDOUT,
                f"{self.port.name} has not received a frame that its switch should flood within {_WITHIN:g} s\n"
                "        see that nobody else uses this netmapd",
            )

    def drops(self) -> int:
        """Packets that the port's rings have lost since it was opened."""
        return sum(self.port.stats.drops.values())

    def close(self) -> None:
        """Close the port if there is one."""
        if self._port is not None:
            self._port.close()
            self._port = None

    @property
    def port(self) -> Port:
        """The open port."""
        if self._port is None:
            raise ValueError("no port is open")
        return self._port

    # -- runs ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _running(self, core: int | None) -> Iterator[int]:
        """Use the port, on one core if that is given; yields the address of the shared run."""
        os.sched_setaffinity(0, self._cores if core is None else {core})
        with self.port.in_use:
            yield self._runs.ctypes.data

    def send(self, size: int, seconds: float, batch: int, core: int | None) -> int:
        """Send for ``seconds``, then tell the receiver to end; return how many packets were sent."""
        with self._running(core) as shared:
            deadline = time.monotonic_ns() + int(seconds * 1e9)
            arguments = (scratch(), shared, batch, size, trips.FOREVER, deadline)
            sent = int(traffic.send(self.port.tx_krings[0], *arguments))
            self._runs["stop"][PAIR] = 1
        return sent

    def receive(self, core: int | None) -> Figures:
        """Receive until told to stop and all that was sent has come, or nothing has for a second; return the figures."""
        packets = octets = first = last = 0
        with self._running(core) as shared:
            heard = time.monotonic_ns()
            while True:
                count = int(traffic.receive(self.port.rx_krings[0], scratch(), shared, _GIVEN_BACK_AT_ONCE))
                now = time.monotonic_ns()
                if count:
                    mine = self._runs[PAIR]
                    first = first or int(mine["first"])
                    last, heard = int(mine["last"]), now
                    packets, octets = packets + count, octets + int(mine["bytes"])
                if packets >= self._runs["sent"][PAIR] or now - heard > _QUIET_NS:
                    return packets, octets, last - first

    def circulate(
        self, packets: int, size: int, seconds: float, batch: int, switched: bool, core: int | None
    ) -> Figures:
        """Send back what comes, for ``seconds``; return the figures of what came.

        Who has ``packets`` to start with ends the run for both, the other one when told. ``switched`` frames get
        :meth:`fill`'s addresses.
        """
        header = self._header.ctypes.data if switched else 0
        with self._running(core) as shared:
            deadline = time.monotonic_ns() + int(seconds * 1e9) if packets else trips.FOREVER
            rings = (self.port.rx_krings[0], self.port.tx_krings[0])
            came = circulate.circulate(*rings, scratch(), shared, batch, packets, size, header, deadline)
            if packets:
                self._runs["stop"][PAIR] = 1
        mine = self._runs[PAIR]
        return int(came), int(mine["bytes"]), int(mine["last"] - mine["first"])

    def lead(self, seconds: float, spinning: bool, idle_ms: int, core: int | None) -> RoundTrips:
        """Make round trips for ``seconds``, resting before each; the other end follows."""
        with _waiter(self.port) as waiting, self._running(core):
            tx, rx = self.port.tx_krings[0], self.port.rx_krings[0]
            found, samples = Block(trips.figures), Block("i8", SAMPLES)
            samples.items[:] = 0  # pages must exist before the clock runs

            def trip(most: int, deadline: int) -> int:
                kept = (found.address, samples.address, SAMPLES)
                given = (waiting, tx, rx, scratch(), int(spinning), idle_ms, most, deadline, *kept)
                return int(ringtrips.lead_ring(*given))

            trip(_WARM_UP, trips.FOREVER)
            made = trip(trips.FOREVER, time.monotonic_ns() + int(seconds * 1e9))
            ringtrips.say_last(tx, scratch())
            if made <= 0:
                raise PtnetmapError(
                    errno.ETIMEDOUT, f"{self.port.name}: a packet was not answered\n        give it more time"
                )
            median, p99 = (float(x) for x in np.percentile(samples.items[: min(made, SAMPLES)], (50, 99)))
            return RoundTrips(made, made, 0, found["nanoseconds"], 0, median, p99)

    def follow(self, seconds: float, spinning: bool, core: int | None) -> int:
        """Answer each packet until the other end is through, or silent for ``seconds``."""
        with _waiter(self.port) as waiting, self._running(core):
            tx, rx = self.port.tx_krings[0], self.port.rx_krings[0]
            return int(ringtrips.follow_ring(waiting, tx, rx, scratch(), int(spinning), int(seconds * 1e9)))

    def disturb(self, kicks: bool) -> float:
        """Until the third run is stopped, kick the port's kthread, or else only spin; return the kicks per second."""
        stop = self._runs.ctypes.data + traffic.run.itemsize + _STOP
        word = Block("i8")
        with self._running(None):
            start = time.monotonic()
            if kicks:
                made = int(storm.kick_until(stop, self.port.rings[0].block["peer_eventfd"], word.address))
            else:
                made = int(storm.spin_until(stop))
            return made / (time.monotonic() - start)


@contextmanager
def _waiter(port: Port) -> Iterator[int]:
    """A binding of the first RX ring alone, for kernels that wait on it; yields its address."""
    block = Block(binding.binding)
    block["close_fd"] = os.eventfd(0)
    block["rx_count"] = 1
    block.items["rx"][0, 0] = port.rx_krings[0]
    try:
        yield block.address
    finally:
        os.close(block["close_fd"])


class Crowd:
    """A process with many ports, which only has them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ports: list[Port] = []

    def open(self, names: Sequence[str]) -> list[float]:
        """Open ports one after the other; return the seconds that each took."""
        took = []
        for name in names:
            start = time.perf_counter()
            self._ports.append(ptnetmap.open(name, socket=self._address))
            took.append(time.perf_counter() - start)
        return took

    def close(self) -> None:
        """Close all ports."""
        while self._ports:
            self._ports.pop().close()

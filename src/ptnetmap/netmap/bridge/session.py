# SPDX-License-Identifier: BSD-2-Clause
"""A bridge between two ports, or of a port with itself."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.block import Block
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap.bridge import move
from ptnetmap.netmap.bridge.waiter import Waiter
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.ring import Ring
from ptnetmap.netmap.scratch import scratch

BURST = 1024
_STAY = 50_000_000
QUIET = 2_500_000_000
"""Nanoseconds without a packet after which a bridge says so."""


@dataclass(frozen=True)
class Figures:
    """What has gone one way: packets and bytes moved, packets without data, and packets dropped by reason."""

    packets: int = 0
    bytes: int = 0
    empty: int = 0
    bad: int = 0
    too_long: int = 0


def same_memory(a: Port, b: Port) -> bool:
    """Whether two ports' buffers are the same memory, so that they can change places."""
    if a.mem_id != b.mem_id:
        return False
    one, other = os.fstat(a.region_fd), os.fstat(b.region_fd)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def raise_failure(ports: tuple[Port, ...] | list[Port], what: str) -> None:
    """Raise why a ring of one of the ports cannot be synced; ``what`` names it, if it has only been overwritten."""
    for port in ports:
        port.rxsync()
        if not port.flags & (abi.NR_MONITOR_TX | abi.NR_MONITOR_RX):
            port.txsync(wait=False)
    raise PeerError(
        errno.EIO,
        f"netmap: {what} has been overwritten by a program that shares its memory\n"
        "        close the port and open it again; programs may write to slots and buffers that are theirs",
    )


class Bridge:
    """Moves packets from each port to the other; with the same port twice, back to where they came from.

    RX ring *i* of one goes to TX ring *i* (modulo their number) of the other, so that what came in order leaves in order.
    Buffers are swapped if both ports share memory, unless ``copy``. ``burst`` bounds the packets that a ring moves
    before others have their turn. ``quiet`` is called after every 2.5 s without a packet, ``polled`` after every wait.

    Raises PortError (EINVAL) if there is nothing to receive from, or nothing to send on.
    """

    def __init__(
        self,
        a: Port,
        b: Port,
        *,
        burst: int = BURST,
        copy: bool = False,
        quiet: Callable[[], object] | None = None,
        polled: Callable[[], object] | None = None,
    ) -> None:
        warm_up("bridge", (move.bridge,))
        self.ports = (a,) if a is b else (a, b)
        self.zero_copy = not copy and same_memory(a, b)
        self._quiet = quiet
        self._polled = polled
        pairs = ((a, b),) if a is b else ((a, b), (b, a))
        self._joined = [(way, rx, tx) for way, pair in enumerate(pairs) for rx, tx in _joined(*pair)]
        if not self._joined:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot bridge {a.name} and {b.name}: neither has RX rings where the other has TX rings\n"
                "        open them without /R and /T; a monitor can only be received from",
            )
        self._links = Block(move.link, len(self._joined))
        self._task = Block(move.task)
        self._waiter = Waiter(self.ports)
        for entry, (_, rx, tx) in zip(self._links.items, self._joined, strict=True):
            entry["rx"], entry["tx"], entry["swap"] = rx[0], tx[0], self.zero_copy
        for name, value in {
            "links": self._links.address,
            "count": len(self._joined),
            "burst": burst,
            "waiter": self._waiter.address,
        }.items():
            self._task[name] = value

    def stop(self) -> None:
        """End :meth:`run` soon; may be called from a signal handler."""
        self._task["stop"] = 1
        self._waiter.stop()

    def pause(self, seconds: float) -> None:
        """Let time pass, unless stopped."""
        self._waiter.pause(seconds)

    def turn(self) -> None:
        """Move all that can be moved now, without waiting. Raises as :meth:`run`."""
        while self._work(linger=False) == move.BUSY:
            pass

    def run(self) -> None:
        """Move packets until stopped. Raises PortError when a port is closed or lost, PeerError if one is overwritten."""
        last = time.monotonic_ns()
        before = self._moved
        while not self._waiter.stopped:
            with ExitStack() as inside:
                for port in self.ports:
                    inside.enter_context(port.in_use)
                ready = self._work() != move.IDLE or self._waiter.wait(last + QUIET)
            now, moved = time.monotonic_ns(), self._moved
            if moved != before:
                last, before = now, moved
            elif now - last >= QUIET:
                last = now
                if self._quiet is not None:
                    self._quiet()
            if ready and self._polled is not None:
                self._polled()

    def _work(self, *, linger: bool = True) -> int:
        """Run the loop for a while; return why it ended."""
        with ExitStack() as inside:
            for port in self.ports:
                inside.enter_context(port.in_use)
            why = int(move.bridge(self._task.address, scratch(), time.monotonic_ns() + _STAY, int(linger)))
        if why == move.FAILED:
            _, rx, tx = self._joined[self._task["failed"]]
            raise_failure(self.ports, f"{rx[1]} or {tx[1]}")
        return why

    @property
    def _moved(self) -> int:
        return sum(int(self._links.items[name].sum()) for name in ("packets", "empty", "bad", "too_long"))

    def figures(self, way: int) -> Figures:
        """What has gone from the first port to the second (0), or back (1)."""
        mine = [entry for entry, (w, _, _) in zip(self._links.items, self._joined, strict=True) if w == way]
        return Figures(**{name: sum(int(entry[name]) for entry in mine) for name in asdict(Figures())})

    def close(self) -> None:
        """Give up what the bridge holds; the ports stay open."""
        self._waiter.close()


_Ring = tuple[int, str]


def _joined(source: Port, target: Port) -> list[tuple[_Ring, _Ring]]:
    """Which RX ring of ``source`` goes to which TX ring of ``target``: krings and their names."""
    receiving = _named(source.name, "RX", source.rx_krings, source.rx_rings)
    sending = _named(target.name, "TX", target.tx_krings, target.tx_rings)
    if target.flags & (abi.NR_MONITOR_TX | abi.NR_MONITOR_RX) or not sending:
        return []
    return [(rx, sending[i % len(sending)]) for i, rx in enumerate(receiving)]


def _named(port: str, kind: str, krings: list[int], rings: list[Ring]) -> list[_Ring]:
    return [(k, f"{port} {kind} ring {ring.ringid}") for k, ring in zip(krings, rings, strict=True)]

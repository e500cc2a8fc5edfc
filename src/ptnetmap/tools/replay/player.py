# SPDX-License-Identifier: BSD-2-Clause
"""A replay: what is due goes into a port's ring, until the file ends or somebody stops it."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap import sync
from ptnetmap.netmap.packets import MAX_FRAGMENTS
from ptnetmap.netmap.port import POLLOUT, Port
from ptnetmap.netmap.scratch import scratch
from ptnetmap.pcap import CaptureFileError, Record
from ptnetmap.tools.replay.chunks import Ahead, Due, prepare
from ptnetmap.tools.replay.play import DONE, EARLY, FULL, PAUSED, play
from ptnetmap.tools.replay.schedule import Recorded, Schedule

Ended = Literal["done", "count", "stopped", "failed"]

_LOOK_UP = 100_000_000
_WAKE_EARLY = 100_000
_TELL = 500_000_000


@dataclass(frozen=True)
class Figures:
    """What became of a replay.

    ``packets`` and ``bytes`` were sent in ``seconds``, from the first one's time until the last one had left.
    ``skipped`` packets of the file were not sent, by reason (counted in the first pass); ``cut`` of the sent ones were
    recorded shorter than they were. ``dropped`` packets were sent and went nowhere, by the port's reason. ``ended`` is
    why it ended: the file did ("done"), the "count" was reached, it was "stopped", or it "failed".
    """

    packets: int
    bytes: int
    seconds: float
    skipped: dict[str, int]
    cut: int
    dropped: dict[str, int]
    ended: Ended

    @property
    def pps(self) -> float:
        """Packets per second."""
        return self.packets / self.seconds if self.seconds else 0.0

    @property
    def bps(self) -> float:
        """Bits of frames per second."""
        return 8 * self.bytes / self.seconds if self.seconds else 0.0


class Player:
    """Sends ``records`` on a TX ring of ``port``, number ``ring`` of the bound ones, each when ``schedule`` says.

    ``records`` are sent ``loop`` times (None: for ever), and then have to be iterable as often, as a list or
    :class:`~ptnetmap.tools.replay.chunks.File` is; ``limit`` uses only so many of them, ``count`` ends after so many
    packets in all. ``progress`` is called about twice a second with the packets sent so far. ``figures`` tells how far
    it has come, also after :meth:`run` raised something.
    """

    def __init__(
        self,
        port: Port,
        records: Iterable[Record],
        schedule: Schedule | None = None,
        *,
        loop: int | None = 1,
        count: int | None = None,
        limit: int | None = None,
        ring: int = 0,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        warm_up("replay", (play, sync.unsent))
        if ring not in range(len(port.tx_rings)):
            raise PortError(
                errno.EIO,
                f"netmap: cannot send on ring {ring} of {port.name}: {len(port.tx_rings)} TX rings are bound\n"
                "        open it without /R, and not as a monitor",
            )
        self._port = port
        self._ring = port.tx_rings[ring]
        self._number = ring
        self._count = count
        self._progress = progress
        self._stopped = threading.Event()
        self._skipped: Counter[str] = Counter()
        self._source = prepare(records, schedule or Recorded(), self.longest, self._skipped, loop=loop, limit=limit)
        self._packets = self._bytes = self._cut = 0
        self._start: int | None = None
        self._end = 0
        self._told = 0
        self._ended: Ended = "failed"
        self._drops_before = port.stats.drops

    @property
    def longest(self) -> int:
        """Bytes of the longest frame that the port can send."""
        return min(MAX_FRAGMENTS, self._ring.num_slots - 1) * self._ring.nr_buf_size

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._stopped.set()

    @property
    def figures(self) -> Figures:
        """The figures so far."""
        drops = self._port.stats.drops
        dropped = {reason: count - self._drops_before.get(reason, 0) for reason, count in drops.items()}
        return Figures(
            packets=self._packets,
            bytes=self._bytes,
            seconds=0.0 if self._start is None else (self._end - self._start) / 1e9,
            skipped=dict(self._skipped),
            cut=self._cut,
            dropped={reason: count for reason, count in dropped.items() if count},
            ended=self._ended,
        )

    def run(self) -> Figures:
        """Send all; returns when the last packet has left, and not just been put into the ring.

        Raises CaptureFileError after all packets before the damage, PortError if the port cannot send.
        """
        with Ahead(self._source) as ahead:
            try:
                self._ended = self._send_all(ahead)
                self._flush()
            except CaptureFileError:
                self._flush()  # what came before the damage
                raise
            finally:
                self._end = time.monotonic_ns()
        return self.figures

    def _send_all(self, ahead: Ahead) -> Ended:
        while not self._stopped.is_set():
            if self._packets == self._count:
                return "count"
            due = ahead.get(_LOOK_UP / 1e9)
            if due is not None:
                self._send(due)
            elif ahead.ended:
                return "done"
        return "stopped"

    def _send(self, due: Due) -> None:
        """Send one chunk, or as much of it as the count asks for, or until stopped."""
        chunk = due.chunk
        last = len(chunk) if self._count is None else min(len(chunk), self._count - self._packets)
        arrays = (chunk.addresses.ctypes.data, chunk.lengths.ctypes.data, due.times.ctypes.data)
        if self._start is None:
            self._start = self._told = time.monotonic_ns()
        first, before = 0, self._packets
        try:
            while first < last and not self._stopped.is_set():
                with self._port.in_use:
                    kring = self._port.tx_krings[self._number]
                    until = time.monotonic_ns() + _LOOK_UP
                    first, state, left = play(kring, scratch(), *arrays, self._start, first, last, until)
                self._packets = before + first
                self._tell()
                if state == EARLY:
                    time.sleep(min(left - _WAKE_EARLY, _LOOK_UP) / 1e9)
                elif state == FULL:
                    self._wait_for_room()
                elif state not in (DONE, PAUSED):
                    self._port.txsync()  # which knows what to raise for a ring that cannot be synced
                    raise PeerError(
                        errno.EIO,
                        f"netmap: {self._port.name}: TX ring {self._ring.ringid} has been overwritten\n"
                        "        close the port and open it again",
                    )
        finally:
            self._bytes += int(chunk.lengths[:first].sum())
            self._cut += int(np.count_nonzero(chunk.cut[:first]))

    def _wait_for_room(self) -> None:
        """Wait, for a while, until the ring has more room than it has now, which was too little."""
        self._ring.cur = self._ring.tail
        try:
            self._port.poll(POLLOUT, _LOOK_UP / 1e9)
        finally:
            self._ring.cur = self._ring.head

    def _flush(self) -> None:
        """Wait until everything has left the ring, or somebody says stop."""
        while not self._stopped.is_set() and not self._port.closed:
            self._port.send((), timeout=_LOOK_UP / 1e9)
            with self._port.in_use:
                if not sync.unsent(self._port.tx_krings[self._number]):
                    return

    def _tell(self) -> None:
        now = time.monotonic_ns()
        if self._progress is not None and now >= self._told + _TELL:
            self._told = now
            self._progress(self._packets)


def replay(
    port: Port,
    records: Iterable[Record],
    schedule: Schedule | None = None,
    *,
    loop: int | None = 1,
    count: int | None = None,
    limit: int | None = None,
    ring: int = 0,
) -> Figures:
    """Send ``records`` on ``port``, each when ``schedule`` (default: as recorded) says; see :class:`Player`."""
    return Player(port, records, schedule, loop=loop, count=count, limit=limit, ring=ring).run()

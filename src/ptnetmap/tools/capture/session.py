# SPDX-License-Identifier: BSD-2-Clause
"""A capture: one thread that empties the monitor's rings, and one that writes to the file.

The two hand a few buffers round, so that a disk that stalls for a moment costs no packet. If it stalls for longer, the
monitor's rings fill up, and what they miss is counted there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ptnetmap.jit.block import Block
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap.port import POLLIN, Port
from ptnetmap.netmap.scratch import scratch
from ptnetmap.pcap import Output, PcapngWriter
from ptnetmap.tools.capture.gather import found, gather, order

Ended = Literal["count", "time", "stopped", "closed"]

SNAPLEN = 262_144
"""Bytes kept of a packet if the file sets no limit: the most that readers of capture files take."""

CHUNKS = 4
CHUNK_BYTES = 4 << 20
CHUNK_PACKETS = 1 << 15

_LOOK_UP = 0.1
_TELL = 0.5
_STAY = 20_000_000


@dataclass(frozen=True)
class Figures:
    """What became of a capture.

    ``packets`` and ``bytes`` (on the wire) were written, of which ``inbound`` packets were received by the port and
    ``outbound`` sent. ``missed`` did not find room in the monitor's rings, or were in them when the port was closed.
    ``file_bytes`` is the size of the file, and ``ended`` why it ended: "count" and "time" as asked, "stopped", or
    "closed" because the port that was watched was.
    """

    packets: int
    bytes: int
    inbound: int
    outbound: int
    missed: int
    seconds: float
    file_bytes: int
    ended: Ended


class _Chunk:
    """Memory for a batch of packets, and the order to fill it."""

    def __init__(self, port: Port, out: Output, snaplen: int, krings: Block) -> None:
        capacity = max(CHUNK_BYTES, snaplen + sum(out.room) + 64)
        self.buffer = Block(np.uint8, capacity)
        self.table = Block(found, CHUNK_PACKETS)
        self.order = Block(order)
        room = out.room
        self.order.items[0] = (
            *(self.buffer.address, capacity, self.table.address, 0, snaplen),
            *(room.before, room.after, room.align, krings.address, len(port.rx_krings), 0, 0),
        )

    def reset(self, most: int | None) -> None:
        self.order["rows"] = CHUNK_PACKETS if most is None else min(CHUNK_PACKETS, most)
        self.order["count"] = 0
        self.order["used"] = 0


class Session:
    """Captures what a monitor ``port`` sees into ``out``, until ``count`` packets or ``seconds`` are over, or stopped.

    ``progress`` is called about twice a second with the packets written and missed so far.
    """

    def __init__(
        self,
        port: Port,
        out: Output,
        *,
        count: int | None = None,
        seconds: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        warm_up("capture", (gather,))
        self._port = port
        self._out = out
        self._count = count
        self._seconds = seconds
        self._progress = progress
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._taken = self._bytes = self._outbound = 0
        self._filled: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()

    def stop(self) -> None:
        """End the capture soon, with all that has been seen so far; may be called from a signal handler."""
        self._stopped.set()

    @property
    def missed(self) -> int:
        """Packets that have not found room in the monitor's rings since it was opened."""
        return self._port.stats.missed

    def run(self) -> Figures:
        """Capture. Returns the figures; the file has all packets and, if it is pcapng, statistics at its end.

        Raises CaptureFileError or BrokenPipeError if the file cannot be written, PortError if the port cannot be read.
        """
        krings = Block(np.int64, max(1, len(self._port.rx_krings)))
        krings.items[: len(self._port.rx_krings)] = self._port.rx_krings
        for _ in range(CHUNKS):
            self._free.put(_Chunk(self._port, self._out, self._out.snaplen or SNAPLEN, krings))
        began, started_ns = time.monotonic(), time.time_ns()
        writer = threading.Thread(target=self._write, name="ptnetmap-capture", daemon=True)
        writer.start()
        try:
            ended = self._gather(None if self._seconds is None else began + self._seconds)
        finally:
            self._filled.put(None)
            writer.join()
        if self._failure is not None:
            raise self._failure
        missed = self.missed
        if ended == "closed":  # what was still in the monitor's rings went with them
            missed += max(0, self._port.stats.rx_packets - self._taken)
        if isinstance(self._out, PcapngWriter):
            self._out.statistics(
                received=self._taken + missed, dropped=missed, ts_ns=time.time_ns(), started_ns=started_ns
            )
        self._out.flush()
        return Figures(
            packets=self._taken,
            bytes=self._bytes,
            inbound=self._taken - self._outbound,
            outbound=self._outbound,
            missed=missed,
            seconds=time.monotonic() - began,
            file_bytes=self._out.bytes,
            ended=ended,
        )

    def _gather(self, deadline: float | None) -> Ended:
        """Fill chunks and hand them to the writer, until something ends the capture; return what did."""
        told = time.monotonic()
        chunk = self._free.get()
        while self._failure is None:
            left = None if self._count is None else self._count - self._taken
            if left == 0:
                return "count"
            chunk.reset(left)
            with self._port.in_use:
                result = gather(chunk.order.address, scratch(), time.monotonic_ns() + _STAY)
            taken = chunk.order["count"]
            if taken:
                self._taken += taken
                self._filled.put(chunk)
                chunk = self._free.get()
            now = time.monotonic()
            if self._progress is not None and now >= told + _TELL:
                told = now
                self._progress(self._taken, self.missed)
            if self._stopped.is_set():
                return "stopped"
            if deadline is not None and now >= deadline:
                return "time"
            if result < 0:
                return "closed"
            if not taken:
                self._port.poll(POLLIN, _LOOK_UP if deadline is None else min(_LOOK_UP, deadline - now))
        return "stopped"

    def _write(self) -> None:
        """Write chunks as they come, until there are no more; after a failure only give them back."""
        while (chunk := self._filled.get()) is not None:
            if self._failure is None:
                try:
                    self._put(chunk)
                except BaseException as error:  # whatever it is, the thread that captures has to end and raise it
                    self._failure = error
            self._free.put(chunk)

    def _put(self, chunk: _Chunk) -> None:
        rows = chunk.table.items[: chunk.order["count"]]
        columns = {name: np.ascontiguousarray(rows[name]) for name in ("start", "captured", "length", "ts", "way")}
        self._bytes += int(columns["length"].sum())
        self._outbound += int((columns["way"] == 2).sum())
        self._out.write_in_place(chunk.buffer.items, *columns.values())

# SPDX-License-Identifier: BSD-2-Clause
"""Packets prepared for sending: a file cut into chunks of bounded size, read ahead of the sender by a thread."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ptnetmap.pcap import ETHERNET, Record, open_capture
from ptnetmap.tools.replay.schedule import Schedule

Ints = npt.NDArray[np.int64]

CHUNK_PACKETS = 4096
CHUNK_BYTES = 1 << 20
WINDOW = 32 << 20
"""Bytes that the reader may be ahead of the sender."""

PATIENCE = 2.0
"""Seconds after which sending begins in any case: the file may be a pipe that packets come out of slowly."""

KEPT = 64 << 20
"""Bytes of packets that are kept for the next pass instead of being read again."""

_LAST_TIME = 1 << 61


@dataclass(frozen=True)
class Chunk:
    """Packets in memory, one behind the other: where each begins (an address), how long it is, when it was recorded.

    ``cut`` is True for those that were recorded shorter than they were.
    """

    memory: npt.NDArray[np.uint8]
    addresses: Ints
    lengths: Ints
    ts: Ints
    cut: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of packets."""
        return len(self.addresses)


@dataclass(frozen=True)
class Due:
    """A chunk and when each of its packets is due: ns from the start of the replay."""

    chunk: Chunk
    times: Ints


class File:
    """The Ethernet packets of a capture file: can be iterated over several times, reading it again.

    ``other`` counts, in the last pass, packets that are not Ethernet frames; ``truncated`` tells that the file ended too
    early, which ``tolerant`` allows. Iterating raises CaptureFileError.
    """

    def __init__(self, path: str | os.PathLike[str], *, tolerant: bool = False) -> None:
        self._path = path
        self._tolerant = tolerant
        self.other = 0
        self.truncated = False

    def __iter__(self) -> Iterator[Record]:
        self.other = 0
        with open_capture(self._path, tolerant=self._tolerant) as capture:
            interfaces = capture.interfaces
            for record in capture:
                if interfaces[record.interface].linktype == ETHERNET:
                    yield record
                else:
                    self.other += 1
            self.truncated = capture.truncated


def pack(records: Iterable[Record], most: int, skipped: Counter[str]) -> Iterator[Chunk]:
    """Cut records into chunks, leaving out and counting by reason what a port that takes ``most`` bytes cannot send.

    What ``records`` raises is raised after the last chunk.
    """
    datas: list[bytes] = []
    times: list[int] = []
    cuts: list[bool] = []
    size = 0
    failure: Exception | None = None
    try:
        for data, ts_ns, whole, _, _ in records:
            length = len(data)
            if not 0 < length <= most:
                skipped["empty" if length == 0 else f"longer than {most:,} bytes"] += 1
                continue
            datas.append(data)
            times.append(ts_ns)
            cuts.append(length < whole)
            size += length
            if len(datas) == CHUNK_PACKETS or size >= CHUNK_BYTES:
                yield _chunk(datas, times, cuts)
                datas, times, cuts, size = [], [], [], 0
    except Exception as error:  # from the records: what came before it is good
        failure = error
    if datas:
        yield _chunk(datas, times, cuts)
    if failure is not None:
        raise failure


def _chunk(datas: list[bytes], times: list[int], cuts: list[bool]) -> Chunk:
    memory = np.frombuffer(b"".join(datas), np.uint8)
    lengths = np.fromiter(map(len, datas), np.int64, len(datas))
    ends = np.cumsum(lengths)
    # A file may claim any time at all.
    ts = np.array([min(max(time, -_LAST_TIME), _LAST_TIME) for time in times], np.int64)
    return Chunk(memory, memory.ctypes.data + ends - lengths, lengths, ts, np.array(cuts))


def prepare(
    records: Iterable[Record],
    schedule: Schedule,
    most: int,
    skipped: Counter[str],
    *,
    loop: int | None = 1,
    limit: int | None = None,
) -> Iterator[Due]:
    """Yield what to send and when: the first ``limit`` records (None: all), ``loop`` times (None: for ever).

    ``records`` is iterated over again for each pass, unless the first one was small enough to keep. ``skipped`` counts
    the first pass only.
    """
    kept: list[Chunk] | None = []
    size = passes = 0
    while loop is None or passes < loop:
        if passes > 0:
            schedule.rewind()
        again = passes > 0 and kept is not None
        chunks: Iterable[Chunk] = (
            kept if again and kept is not None else pack(islice(records, limit), most, Counter() if passes else skipped)
        )
        any_left = False
        for chunk in chunks:
            any_left = True
            if passes == 0 and kept is not None and loop != 1:
                kept.append(chunk)
                size += len(chunk.memory)
                if size > KEPT:
                    kept = None
            yield Due(chunk, schedule.due(chunk.ts, chunk.lengths))
        if not any_left:
            return
        passes += 1


class Ahead:
    """Runs an iterator of :class:`Due` in a thread, at most :data:`WINDOW` bytes ahead. A context manager.

    The first item is given out when the window is full, all is there, or patience is over: then the clock
    runs. What the iterator raises is raised here, after all that came before it.
    """

    def __init__(self, source: Iterator[Due]) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._ready: deque[Due] = deque()
        self._size = 0
        self._begun = time.monotonic()
        self._started = False
        self._ended = False
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="ptnetmap-replay", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def get(self, timeout: float | None) -> Due | None:
        """Return the next item, or None: after ``timeout`` seconds, or at the end (see :attr:`ended`)."""
        with self._changed:
            self._started = self._started or time.monotonic() >= self._begun + PATIENCE
            if not self._changed.wait_for(self._can_give, timeout):
                return None
            self._started = True
            if not self._ready:
                if self._failure is not None:
                    raise self._failure
                return None
            item = self._ready.popleft()
            self._size -= len(item.chunk.memory)
            self._changed.notify_all()
            return item

    @property
    def ended(self) -> bool:
        """Whether all there is has been given out."""
        with self._changed:
            return self._ended and not self._ready

    def _can_give(self) -> bool:
        return self._ended or self._size >= WINDOW or (self._started and bool(self._ready))

    def _read(self) -> None:
        try:
            for item in self._source:
                with self._changed:
                    self._ready.append(item)
                    self._size += len(item.chunk.memory)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._size < WINDOW or self._closed)
                    if self._closed:
                        return
        except BaseException as error:  # it is raised where the items are taken
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

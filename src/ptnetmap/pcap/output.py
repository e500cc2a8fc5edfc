# SPDX-License-Identifier: BSD-2-Clause
"""What both writers share: a file or pipe that records are appended to, a batch per system call."""

from __future__ import annotations

import abc
import errno
import os
import select
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ptnetmap.pcap.error import CaptureFileError
from ptnetmap.pcap.layout import MAX_BLOCK, OUTBOUND

Flush = Literal["batch", "full", "disk"]
"""When records leave the writer: every batch at once, when a megabyte is full, or every batch down to the disk."""

Bytes = bytes | bytearray | memoryview
Ints = npt.NDArray[np.int64]

FULL = 1 << 20
STDOUT = 1


class Room(NamedTuple):
    """The bytes that a format needs around a packet: before it, after it, and what its end is padded to.

    Whoever lays packets out for :meth:`Output.write_in_place` leaves this much: after the packet at ``start``, the next
    one begins at :meth:`next_start`.
    """

    before: int
    after: int
    align: int

    def next_start(self, start: int, captured: int) -> int:
        """Return where the next packet begins behind one of ``captured`` bytes at ``start``."""
        end = start + captured
        return end + -end % self.align + self.after + self.before


class Output(abc.ABC):
    """A capture file being written: a context manager. ``path`` "-" is standard output.

    ``flush`` says when records reach the file: "batch" (every call of a write method is one system call, so that a
    program that is killed leaves all of them), "full" (a megabyte at a time) or "disk" (as "batch", and the disk has
    them when the call returns). ``packets`` and ``bytes`` count what was written, files' overhead included.

    Raises CaptureFileError with the system's errno if the file cannot be opened or written; BrokenPipeError when the
    reader of a pipe has gone.
    """

    room: Room

    def __init__(self, path: str | os.PathLike[str], snaplen: int, flush: Flush) -> None:
        self.name = "standard output" if path == "-" else os.fspath(path)
        self.snaplen = snaplen
        self.packets = 0
        self.bytes = 0
        self._flush = flush
        self._pending: list[bytes] = []
        self._waiting = 0
        if path == "-":
            self._fd = STDOUT
            return
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except (OSError, ValueError) as error:
            raise self._failure(error, "name a file in a directory where you may write") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def _encode(self, data: Bytes, ts_ns: int, length: int, outbound: bool | None, interface: int) -> bytes:
        """Return a record's bytes."""

    @abc.abstractmethod
    def _frame(
        self, buffer: npt.NDArray[np.uint8], starts: Ints, captured: Ints, lengths: Ints, ts: Ints, way: Ints
    ) -> None:
        """Write headers and trailers into the room that was left around packets."""

    def write(
        self, data: Bytes, ts_ns: int, *, length: int | None = None, outbound: bool | None = None, interface: int = 0
    ) -> None:
        """Append one packet: its bytes, its time (ns since 1970), and its length on the wire if more than recorded."""
        self.write_batch([data], [ts_ns], lengths=[length], outbound=[outbound], interface=interface)

    def write_batch(
        self,
        frames: Iterable[Bytes],
        ts_ns: Iterable[int],
        *,
        lengths: Iterable[int | None] | None = None,
        outbound: Iterable[bool | None] | None = None,
        interface: int = 0,
    ) -> None:
        """Append packets, in one system call: as :meth:`write`, with one entry of each argument per packet."""
        frames = list(frames)
        known = [None] * len(frames) if lengths is None else lengths
        ways = [None] * len(frames) if outbound is None else outbound
        parts = []
        for data, ts, length, way in zip(frames, ts_ns, known, ways, strict=True):
            whole = len(data) if length is None else length
            kept = data[: self.snaplen] if self.snaplen else data
            if len(kept) > MAX_BLOCK - sum(self.room) or not len(kept) <= whole < 1 << 32:
                raise CaptureFileError(
                    f"{self.name}: cannot write a packet of {whole:,} bytes, {len(kept):,} of them recorded\n"
                    f"        no reader takes more than {MAX_BLOCK:,}: set a snaplen",
                    errno=errno.EMSGSIZE,
                )
            parts.append(self._encode(kept, ts, whole, way, interface))
        self._append(b"".join(parts))
        self.packets += len(frames)

    def write_in_place(
        self, buffer: npt.NDArray[np.uint8], starts: Ints, captured: Ints, lengths: Ints, ts_ns: Ints, ways: Ints
    ) -> None:
        """Append packets that lie in ``buffer``, of interface 0, in one system call and without copying them.

        Arrays with one int64 per packet: where in ``buffer`` it begins, with :attr:`room` before and behind it as laid
        out by :meth:`Room.next_start`; its bytes there; its length on the wire; its time in ns; and its direction (0 not
        known, 1 inbound, 2 outbound). The first packet begins at ``room.before``; ``buffer`` is a writable array of
        uint8, aligned to 4 bytes. The room is overwritten.
        """
        if len(starts) == 0:
            return
        self._frame(buffer, starts, captured, lengths, ts_ns, ways)
        end = self.room.next_start(int(starts[-1]), int(captured[-1])) - self.room.before
        self._append(buffer[:end].data)
        self.packets += len(starts)

    def flush(self) -> None:
        """Write what is waiting in memory (with flush="full")."""
        if self._pending:
            data = b"".join(self._pending)
            self._pending, self._waiting = [], 0
            self._put(data)

    def close(self) -> None:
        """Write what is waiting, and close the file. Closing again does nothing."""
        if self._fd < 0:
            return
        try:
            self.flush()
        finally:
            fd, self._fd = self._fd, -1
            if fd != STDOUT:
                os.close(fd)

    def _append(self, data: Any) -> None:
        self.bytes += len(data)
        if self._flush != "full":
            self._put(data)
            return
        self._pending.append(bytes(data))
        self._waiting += len(data)
        if self._waiting >= FULL:
            self.flush()

    def _put(self, data: Any) -> None:
        """Write all of ``data``; a pipe may take it in parts."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                raise self._failure(
                    error, f"{self.packets:,} packets were written; all but the last are whole"
                ) from None
        if self._flush == "disk":
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a pipe has no disk
                    raise self._failure(error, "what was written may be lost with the power") from None

    def _failure(self, error: OSError | ValueError, advice: str) -> CaptureFileError:
        found = error.strerror if isinstance(error, OSError) else str(error)
        number = error.errno if isinstance(error, OSError) else None
        return CaptureFileError(
            f"{self.name!s}: cannot write it: {found}\n        {advice}", errno=number or errno.EINVAL
        )


def way_of(outbound: bool | None) -> int:
    """Return a direction as files have it: 0 not known, 1 inbound, 2 outbound."""
    return 0 if outbound is None else 1 + int(outbound) * (OUTBOUND - 1)


def check_time(name: str, ts_ns: int, limit: int) -> None:
    """Raise CaptureFileError for a time that a file cannot hold: before 1970, or from ``limit`` ns on."""
    if not 0 <= ts_ns < limit:
        raise CaptureFileError(
            f"{name}: cannot write the time {ts_ns:,} ns\n        times are counted from 1970 to {limit:,} ns",
            errno=errno.ERANGE,
        )

# SPDX-License-Identifier: BSD-2-Clause
"""What users hand to ``send``, as two arrays that kernels take: addresses and lengths of frames."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.errors import PortError

Frame = bytes | bytearray | memoryview
Frames = Iterable[Frame] | Frame | npt.NDArray[np.uint8]

CHUNK = 1024


class FrameBatch:
    """Frames of one batch in memory that stays where it is: ``addresses`` and ``lengths`` are int64 arrays."""

    __slots__ = ("_memory", "addresses", "lengths")

    def __init__(self, memory: object, addresses: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        self._memory = memory
        self.addresses = addresses
        self.lengths = lengths

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.addresses)


def batches(frames: Frames) -> Iterator[FrameBatch]:
    """Cut anything that ``send`` accepts into batches, copying nothing of an array and each byte of a list once.

    Accepts one frame (bytes, bytearray, memoryview), an array of shape (n, length) or (length,) and dtype uint8, or
    any iterable of frames. Raises PortError (EINVAL) for anything else.
    """
    if isinstance(frames, np.ndarray):
        yield from _array_batches(frames)
    elif isinstance(frames, bytes | bytearray | memoryview):
        yield _pack([frames])
    else:
        try:
            source = iter(frames)
        except TypeError:
            raise _refusal(type(frames).__name__) from None
        while chunk := list(islice(source, CHUNK)):
            yield _pack(chunk)


def _array_batches(frames: npt.NDArray[Any]) -> Iterator[FrameBatch]:
    if frames.dtype != np.uint8 or frames.ndim not in (1, 2):
        raise _refusal(f"an array of shape {frames.shape} and dtype {frames.dtype}")
    rows = np.ascontiguousarray(frames if frames.ndim == 2 else frames[np.newaxis])
    addresses = rows.ctypes.data + np.arange(len(rows), dtype=np.int64) * rows.shape[1]
    lengths = np.full(len(rows), rows.shape[1], np.int64)
    for start in range(0, len(rows), CHUNK):
        yield FrameBatch(rows, addresses[start : start + CHUNK], lengths[start : start + CHUNK])


def _pack(frames: list[Any]) -> FrameBatch:
    try:
        lengths = np.fromiter(map(len, frames), np.int64, len(frames))
        memory = np.frombuffer(b"".join(frames) or b"\0", np.uint8)
    except (TypeError, ValueError):
        odd = next((type(f).__name__ for f in frames if not isinstance(f, bytes | bytearray | memoryview)), "list")
        if odd == "ndarray":
            return _pack([np.ascontiguousarray(f, np.uint8).tobytes() for f in frames])
        raise _refusal(f"an iterable with a {odd} in it") from None
    addresses = memory.ctypes.data + np.concatenate(([0], np.cumsum(lengths[:-1])))
    return FrameBatch(memory, addresses.astype(np.int64), lengths)


def _refusal(found: str) -> PortError:
    return PortError(
        errno.EINVAL,
        f"netmap: cannot send {found}\n"
        "        give bytes, an iterable of bytes, or a uint8 array of shape (frames, length)",
    )

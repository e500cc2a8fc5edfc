# SPDX-License-Identifier: BSD-2-Clause
"""One roofline, ready to run: its memory, and the two loops of :mod:`ptnetmap.bench.roofline` over it."""

from __future__ import annotations

import time
from typing import Any

from ptnetmap.bench import roofline
from ptnetmap.bench.frame import Result
from ptnetmap.bench.pair import Cores, run_pair
from ptnetmap.jit.block import Block


def _given_back_at_once(batch: int, lines: int) -> int:
    """How many slots the receiver gives back at a time: what was measured to be fastest.

    With single packets a receiver that is only just slower than the sender keeps the ring full, and the two off each
    other's cache lines; hence the small numbers there.
    """
    if batch > 1 or lines > 1:
        return max(batch, 64)
    return 4 if lines else 1


class Lane:
    """Memory for one roofline: packets of ``size`` bytes, ``batch`` per index update, frames copied or not."""

    def __init__(self, size: int, batch: int, *, copies: bool) -> None:
        self._size = size
        self._batch = batch
        self._lines = -(-size // roofline.LINE) if copies else 0
        self._shared = Block(roofline.ring)
        side = roofline.SLOTS * roofline.BUFFER
        self._frames = Block("u1", 2 * side + roofline.LINE if copies else 0)
        self._frames.items[:] = 0x55  # pages must exist before the clock runs
        self._source = self._frames.address
        self._destination = self._source + side + roofline.LINE  # a line off: the same cache sets would be 15% slower

    def run(
        self,
        *,
        packets: int = roofline.FOREVER,
        seconds: float | None = None,
        cores: Cores = None,
        loops: Any = roofline,
    ) -> Result:
        """Move ``packets``, or as many as go in ``seconds``, between two threads.

        ``loops`` has the two sides as ``send`` and ``receive``, with the arguments of those of
        :mod:`ptnetmap.bench.roofline`. Raises ValueError if neither limit is given.
        """
        if seconds is None and packets == roofline.FOREVER:
            raise ValueError("a run needs an end: give packets or seconds")
        address = self._shared.address
        most = _given_back_at_once(self._batch, self._lines)

        def send(packets: int, deadline: int) -> int:
            return int(loops.send(address, self._batch, self._size, packets, deadline))

        def receive() -> int:
            return int(loops.receive(address, most, self._source, self._destination, self._lines))

        # One packet first, in this thread: kernels are compiled before there are threads, and before the clock runs.
        self._reset()
        send(1, roofline.FOREVER)
        receive()
        self._reset()
        deadline = roofline.FOREVER if seconds is None else time.monotonic_ns() + int(seconds * 1e9)
        offered, received = run_pair(lambda: send(packets, deadline), receive, stop=self._stop, cores=cores)
        nanoseconds = self._shared["last"] - self._shared["first"]
        return Result(received, offered, offered - received, nanoseconds, self._shared["bytes"])

    def _reset(self) -> None:
        self._shared.items[:] = 0
        self._shared["total"] = -1

    def _stop(self) -> None:
        self._shared["stop"] = 1

# SPDX-License-Identifier: BSD-2-Clause
"""Moves bytes between a guest's serial port and a backend, and never makes a virtual CPU wait.

Output is written at once if the line takes it, else kept and written by the event loop. With :data:`BUSY` bytes kept,
the port shows its transmitter as busy: a guest that waits for it, as drivers do, loses nothing, however slow the reader
is. One that goes on sending is heard up to :data:`LIMIT`; after that the newest bytes are lost, and counted. While
nobody is at the other end nothing is busy, and the last :data:`BACKLOG` bytes wait for whoever comes.

Input that the guest has not read yet is kept, up to :data:`INPUT`, then left where it comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ptnetmap.bhyve.devices.console.backend import Backend
from ptnetmap.bhyve.devices.console.wire import Wire

BUSY = 64 << 10
"""Bytes of output that are kept before the guest's transmitter shows as busy; at half of that it is ready again."""
LIMIT = 1 << 20
"""Bytes of output that are kept at most."""
BACKLOG = 64 << 10
"""Bytes of output that are kept while nobody listens."""
INPUT = 4096
"""Bytes of input that are kept."""
RETRY = 0.25
"""Seconds between looks whether somebody has come, where nothing tells us."""
PATIENCE = 5.0
"""Seconds without progress after which the rest of the output is given up at the end."""


class Port(Protocol):
    """The guest's side: a serial port. Called with the machine's lock held."""

    @property
    def room(self) -> int:
        """Bytes that :meth:`receive` takes now."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the line."""

    def settle(self) -> None:
        """Look at :attr:`Console.is_ready` again."""


class Console:
    """The line between ``port`` and ``backend``; ``lock`` and ``loop`` are the machine's.

    Without a loop output is written as far as the line takes it at once, and nothing is read.
    """

    def __init__(
        self,
        backend: Backend,
        port: Port,
        lock: AbstractContextManager[Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.backend = backend
        self.lost = 0
        self._port = port
        self._lock = lock
        self._loop = loop
        self._wire: Wire | None = None
        self._output = bytearray()
        self._input = bytearray()
        self._input_ended = False
        self._output_broken = False
        self._busy = False
        self._closed = False
        self._asked = False  # the loop has been asked to call _arrange
        self._watched: set[tuple[int, bool]] = set()  # descriptors that the loop waits for; True: to write
        self._dead: list[Wire] = []  # to be closed on the loop's thread, which may still wait for them
        self._timer: asyncio.TimerHandle | None = None
        self._connect()

    # --- the guest's side, lock held, any thread -------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the guest should send more."""
        return not self._busy

    @property
    def is_connected(self) -> bool:
        """Whether somebody is at the other end."""
        return self._wire is not None

    def write(self, data: bytes) -> None:
        """Send ``data``; never waits."""
        waiting = bool(self._output)
        self._output += data
        if not waiting or self._loop is None:
            self._flush()
        self._limit()
        if self._output:
            self._ask()

    def put_back(self, data: bytes) -> None:
        """Take back what the port had received, to be delivered again before everything else."""
        self._input[:0] = data

    def deliver(self) -> None:
        """Give the port what it has room for of the input."""
        count = min(self._port.room, len(self._input))
        if count:
            was_full = len(self._input) >= INPUT
            data = bytes(self._input[:count])
            del self._input[:count]
            self._port.receive(data)
            if was_full and len(self._input) < INPUT:
                self._ask()

    # --- life cycle ------------------------------------------------------------------------------------------------

    def close(self, patience: float = PATIENCE) -> None:
        """Write what is left while that goes on, then let go of the backend. On the loop's thread.

        Somebody who reads nothing for ``patience`` seconds is not waited for; what was lost is said on stderr.
        """
        if self._closed:
            return
        while self._wire is not None and self._wire.output is not None and self._output:
            before = len(self._output)
            self._flush()
            wire = self._wire  # the flush may have found that nobody is there any more
            is_stuck = wire is not None and len(self._output) == before
            if is_stuck and wire.output is not None and not wire.output.wait(patience):
                break
        if self._wire is not None:
            self.lost += len(self._output)
        self._closed = True
        self._hang_up()
        self._arrange()
        self.backend.close()
        if self.lost:
            print(f"bhyve: {self.backend.name}: {self.lost:,} bytes of output were not read", file=sys.stderr)

    # --- output ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what goes now."""
        wire = self._wire
        if wire is None or not self._output:
            return
        if self.backend.is_current(wire):
            self._drain(wire)
        else:
            self._hang_up()
            self._connect()

    def _drain(self, wire: Wire) -> None:
        if wire.output is None or self._output_broken:
            self._output.clear()
            return
        try:
            while self._output:
                count = wire.output.write(bytes(self._output[: BUSY >> 4]))
                if not count:
                    break
                del self._output[:count]
        except OSError:
            if self.backend.is_kept:
                # Standard output, whose reader has left: nobody will ever come back to it.
                self._output.clear()
                self._output_broken = True
            else:
                self._hang_up()

    def _limit(self) -> None:
        """Keep no more output than allowed, and say whether the guest should stop."""
        listening = self._wire is not None
        if listening and len(self._output) > LIMIT:
            self.lost += len(self._output) - LIMIT
            del self._output[LIMIT:]
        elif not listening and len(self._output) > BACKLOG:
            del self._output[:-BACKLOG]
        self._busy = listening and len(self._output) >= (BUSY >> 1 if self._busy else BUSY)

    # --- the line --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._wire = self.backend.open()
        except OSError:
            self._wire = None
        self._input_ended = self._wire is None or self._wire.input is None
        if self._wire is not None:
            self._drain(self._wire)
        self._limit()
        self._ask()

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        self._input_ended = True
        if wire is not None and self._loop is not None:
            self._dead.append(wire)
            self._ask()
        elif wire is not None:
            wire.close()

    # --- the event loop's side -------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Let the loop look at what to wait for."""
        if self._loop is not None and not self._asked and not self._closed:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
                self._loop.call_soon_threadsafe(self._arrange_later)

    def _arrange_later(self) -> None:
        with self._lock:
            self._asked = False
            self._arrange()

    def _arrange(self) -> None:
        """Wait for what matters now, and for nothing else. On the loop's thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            while self._dead:
                self._dead.pop().close()
            return
        wanted = self._wanted()
        for fd, to_write in self._watched - wanted.keys():
            (loop.remove_writer if to_write else loop.remove_reader)(fd)
        self._watched &= wanted.keys()
        while self._dead:
            self._dead.pop().close()
        for (fd, to_write), callback in wanted.items():
            if (fd, to_write) not in self._watched:
                try:
                    (loop.add_writer if to_write else loop.add_reader)(fd, callback)
                    self._watched.add((fd, to_write))
                except PermissionError:  # a file: always ready, so not to be waited for
                    loop.call_soon(callback)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wire is None and self.backend.listener is None and not self._closed:
            self._timer = loop.call_later(RETRY, self._come)

    def _wanted(self) -> dict[tuple[int, bool], Callable[[], None]]:
        wanted: dict[tuple[int, bool], Callable[[], None]] = {}
        wire = self._wire
        if self._closed:
            return wanted
        if wire is None:
            if self.backend.listener is not None:
                wanted[self.backend.listener, False] = self._come
            return wanted
        is_full = len(self._input) >= INPUT and not self.backend.is_interactive
        if wire.input is not None and not self._input_ended and not is_full:
            wanted[wire.input.fd, False] = self._readable
        if wire.output is not None and self._output:
            wanted[wire.output.fd, True] = self._writable
        return wanted

    def _come(self) -> None:
        with self._lock:
            if self._wire is None and not self._closed:
                self._connect()
                self._port.settle()

    def _writable(self) -> None:
        with self._lock:
            self._flush()
            self._limit()
            self._port.settle()
            if not self._output:
                self._ask()

    def _readable(self) -> None:
        with self._lock:
            wire = self._wire
            if wire is None or wire.input is None or self._input_ended:
                return
            try:
                data = wire.input.read()
            except OSError:
                data = b""
            if data:
                data = self.backend.filter_input(data)
                self._input += data[: max(INPUT - len(self._input), 0)] if self.backend.is_interactive else data
                self.deliver()
            elif data is not None:
                self._input_ended = True
                if not self.backend.is_kept:
                    self._hang_up()
                    self._limit()
                    self._port.settle()
            self._ask()

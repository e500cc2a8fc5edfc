# SPDX-License-Identifier: BSD-2-Clause
"""When a daemon leaves: after idling, or when it is told to."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from types import FrameType

IDLE_SECONDS = 10.0
"""How long a daemon that a client started stays without anything to do."""


@dataclass
class IdleTimer:
    """Decides when to leave; no clock of its own, no I/O. ``seconds`` 0: never."""

    seconds: float = IDLE_SECONDS
    since: float | None = None

    def look(self, now: float, connections: int, keep: bool) -> float | None:
        """Return when to look again, in seconds: 0.0 to leave now, None if only a change can matter.

        ``now`` is a monotonic clock's, ``connections`` the number of clients, ``keep`` whether there is state that
        should outlive them (persistent ports). Call it after every change of these, and when the time is up.
        """
        if not self.seconds or connections or keep:
            self.since = None
            return None
        if self.since is None:
            self.since = now
        return max(self.since + self.seconds - now, 0.0)

    def restart(self) -> None:
        """Count from the next look: leaving was not possible after all."""
        self.since = None


class Stop:
    """SIGTERM and SIGINT as a file descriptor that becomes readable, and stays so; SIGHUP is ignored.

    Before :meth:`defer` they end the process by SystemExit, so that a start that takes long can be ended. ``with``
    restores the handlers. Main thread only.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before)  # the starter may have blocked them

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        """Readable once the daemon shall stop."""
        return self._reading

    def defer(self) -> None:
        """From now on a signal only sets :attr:`requested` and makes :meth:`fileno` readable."""
        self._deferred = True

    def request(self) -> None:
        """Ask the daemon to stop, as a signal does."""
        self.requested = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b".")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred:
            raise SystemExit(0)
        self.request()


def raise_open_files() -> None:
    """Use as many files as the hard limit allows: each binding takes several."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for a daemon that starts: as long as it shows signs of life, and telling the user after a second."""

from __future__ import annotations

import sys
import time

TELL_AFTER = 1.0
"""Seconds after which people wonder; from then on a line on stderr grows by a dot each."""


class Patience:
    """A deadline that every sign of life puts off to ``timeout`` seconds from then; ``with`` ends its progress line."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._start = time.monotonic()
        self._end = self._start + timeout
        self._next = self._start + TELL_AFTER
        self._told = False

    def __enter__(self) -> Patience:
        return self

    def __exit__(self, *_: object) -> None:
        if self._told and sys.stderr is not None:
            print(f" {time.monotonic() - self._start:.0f} s", file=sys.stderr, flush=True)
        self._told = False

    def renew(self) -> None:
        """Start the timeout anew."""
        self._end = time.monotonic() + self._timeout

    def wait_at_most(self) -> float:
        """Tell the user if it is time to; return how long to wait before asking again, 0 once the timeout is over."""
        now = time.monotonic()
        if now >= self._next:
            self._tell()
            self._next += TELL_AFTER
        return min(max(self._end - now, 0.0), max(self._next - now, 0.01))

    def pause(self, seconds: float) -> bool:
        """Sleep for up to ``seconds``; False once the timeout is over."""
        left = self.wait_at_most()
        time.sleep(min(left, seconds))
        return left > 0

    def _tell(self) -> None:
        if sys.stderr is None:
            return
        text = "." if self._told else "ptnetmap: starting netmapd, compiling its kernels if need be (half a minute) ..."
        print(text, end="", file=sys.stderr, flush=True)
        self._told = True

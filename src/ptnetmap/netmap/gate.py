# SPDX-License-Identifier: BSD-2-Clause
"""Who is using a port right now: what it holds is given back when they are out, so that nothing is reused under a kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable

_mine = threading.local()


class Gate:
    """Lets threads in until it is shut; a context manager around each use.

    ``refusal`` makes the exception for who comes too late. A thread may enter again while it is inside.
    """

    def __init__(self, refusal: Callable[[], Exception]) -> None:
        self._refusal = refusal
        self._lock = threading.Lock()
        self._inside = 0
        self._last_action: Callable[[], object] | None = None
        self._finished = threading.Event()
        self.is_shut = False

    def __enter__(self) -> None:
        with self._lock:
            if self.is_shut:
                raise self._refusal()
            self._inside += 1
        _mine.depth = getattr(_mine, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        _mine.depth -= 1
        with self._lock:
            self._inside -= 1
            action = self._last_action if self._inside == 0 else None
        if action is not None:
            self._run(action)

    def shut(self) -> bool:
        """Let nobody in any more; return False if it was shut already."""
        with self._lock:
            if self.is_shut:
                return False
            self.is_shut = True
            return True

    def finish(self, action: Callable[[], object]) -> None:
        """Do ``action`` when the shut gate has nobody inside, and return when it is done.

        A thread that is itself inside some gate, as in a callback, must not wait: two could wait for each other. There
        this returns at once, and the last one to leave does the action.
        """
        with self._lock:
            is_empty = self._inside == 0
            if not is_empty:
                self._last_action = action
        if is_empty:
            self._run(action)
        elif getattr(_mine, "depth", 0) == 0:
            self._finished.wait()

    def _run(self, action: Callable[[], object]) -> None:
        try:
            action()
        finally:
            self._finished.set()

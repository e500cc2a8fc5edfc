# SPDX-License-Identifier: BSD-2-Clause
"""Who is using a port right now: closing it waits until they are out, so that nothing is reused under a kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Lets threads in until it is shut; a context manager around each use.

    ``refusal`` makes the exception for who comes too late. A thread may enter again while it is inside, and may shut
    the gate from inside (a callback that closes its port): it does not wait for itself.
    """

    def __init__(self, refusal: Callable[[], Exception]) -> None:
        self._refusal = refusal
        self._changed = threading.Condition(threading.Lock())
        self._inside: dict[int, int] = {}
        self.is_shut = False

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if self.is_shut:
                raise self._refusal()
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._changed:
            left = self._inside[me] - 1
            if left:
                self._inside[me] = left
                return
            del self._inside[me]
            if self.is_shut:
                self._changed.notify_all()

    def shut(self) -> bool:
        """Let nobody in any more; return False if it was shut already."""
        with self._changed:
            if self.is_shut:
                return False
            self.is_shut = True
            return True

    def wait_until_empty(self) -> None:
        """Return once no other thread is inside."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside.keys() - {me})

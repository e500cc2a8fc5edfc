# SPDX-License-Identifier: BSD-2-Clause
"""Network namespaces of our own: what is made in one goes with the process, however that ends."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_here() -> int:
    """Return a descriptor of this thread's network namespace."""
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """A network namespace that nobody else knows; it goes with the last descriptor and socket in it.

    Raises OSError: EPERM without CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        self._fd = _in_a_thread(_enter_new)

    def run(self, action: Callable[[], R]) -> R:
        """Do something inside, in a thread that ends with it. Sockets that it makes stay inside."""
        return _in_a_thread(lambda: self._enter(action))

    def _enter(self, action: Callable[[], R]) -> R:
        if _libc.setns(self._fd, _CLONE_NEWNET):
            raise _last_error()
        return action()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def _enter_new() -> int:
    if _libc.unshare(_CLONE_NEWNET):
        raise _last_error()
    return namespace_here()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _in_a_thread(action: Callable[[], R]) -> R:
    """Run a function in a thread of its own, whose namespace may change; return or raise what it does."""
    results: list[R] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="netmap-namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]

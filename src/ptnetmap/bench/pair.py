# SPDX-License-Identifier: BSD-2-Clause
"""A sender and a receiver, each in a thread, optionally each on a core of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

Cores = tuple[int, int] | None
"""The cores of the sender's and of the receiver's thread; None leaves both to the scheduler."""


_LOOK_UP = 0.1


def two_cores() -> Cores:
    """Return the first two cores this process may use, or None if it has fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) >= 2 else None


def run_pair(
    sender: Callable[[], Any], receiver: Callable[[], Any], *, stop: Callable[[], None], cores: Cores = None
) -> tuple[Any, Any]:
    """Run both at once, each in a new thread, and return their results.

    ``stop`` makes both return soon; it is called when one of them raises or the caller is interrupted. The exception
    is raised again once both threads are gone. Pinning ends with the threads: the caller's own affinity stays as it
    was.
    """
    results: list[Any] = [None, None]
    failures: list[BaseException] = []
    # Work begins once both threads are there. An interrupt may come before that, even inside start(), and then nobody
    # can tell which of them are: whichever find the gate abandoned leave without touching anything.
    gate, abandoned = threading.Event(), threading.Event()
    # Not join(): interrupted, Python 3.11's takes a running thread for a stopped one, and its memory would be freed.
    ended = [threading.Event(), threading.Event()]

    def body(index: int, work: Callable[[], Any]) -> None:
        try:
            gate.wait()
            if abandoned.is_set():
                return
            if cores is not None:
                os.sched_setaffinity(0, {cores[index]})  # 0 is the calling thread
            results[index] = work()
        except BaseException as failure:
            failures.append(failure)
            stop()
        finally:
            ended[index].set()

    threads = [
        threading.Thread(target=body, args=(1, receiver), name="bench-receiver"),
        threading.Thread(target=body, args=(0, sender), name="bench-sender"),
    ]
    both_exist = False
    try:
        for thread in threads:
            thread.start()
        both_exist = True
        gate.set()
        for side in ended:
            # Not for ever: a signal that comes just before the wait would only be noticed after it.
            while not side.wait(_LOOK_UP):
                pass
    except BaseException:
        abandoned.set()
        stop()
        gate.set()
        if both_exist:
            for side in ended:
                side.wait()
        raise
    if failures:
        raise failures[0]
    return results[0], results[1]

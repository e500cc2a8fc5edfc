# SPDX-License-Identifier: BSD-2-Clause
"""Compiling kernels before they are needed, and saying so when it takes a while."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numba import config, types

from ptnetmap.jit.callback import Callback
from ptnetmap.jit.kernel import CACHE_DIR

PATIENCE = 1.0
"""Seconds after which people wonder: from then on a line on stderr tells what is going on."""

_lock = threading.Lock()
_done: set[str] = set()


def compile_now(function: Any) -> bool:
    """Compile a kernel or callback, or load it from the cache; return whether it was there."""
    if isinstance(function, Callback):
        return function.compile()
    function.compile((types.int64,) * len(inspect.signature(function.py_func).parameters))
    return bool(function.stats.cache_hits)


def warm_up(what: str, functions: Sequence[Any]) -> None:
    """Make sure that ``functions`` are compiled, before any thread needs them; ``what`` names the set.

    The first process that uses the set compiles all of it, with a progress line after a second; it leaves a mark in the
    cache, and later processes load each kernel when they first call it. Of several at once, one compiles.
    """
    with _lock:
        if config.DISABLE_JIT or what in _done:
            return
        _done.add(what)
        mark = Path(CACHE_DIR) / f"{what}.compiled" if CACHE_DIR else None
        if mark is not None and mark.exists():
            return
        _compile_all(what, functions, mark)


def _compile_all(what: str, functions: Sequence[Any], mark: Path | None) -> None:
    """Compile each of ``functions``, or wait for who does; from a second on, say so on stderr, on one line."""
    start = time.monotonic()
    finished = threading.Event()

    def tell() -> None:
        if finished.wait(PATIENCE):
            return
        print(f"ptnetmap: compiling the {what}'s kernels, once (about half a minute) ...", end="", file=sys.stderr)
        while True:
            sys.stderr.flush()
            if finished.wait(PATIENCE):
                break
            print(".", end="", file=sys.stderr)
        print(f" {time.monotonic() - start:.0f} s", file=sys.stderr)

    teller = threading.Thread(target=tell, name="ptnetmap-warm-up", daemon=True)
    teller.start()
    try:
        with _interruptible(), _alone(mark):
            if mark is None or not mark.exists():
                for function in functions:
                    compile_now(function)
            if mark is not None:
                mark.touch()
    finally:
        finished.set()
        teller.join()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once: what is compiled is kept, and the compiler swallows KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _alone(mark: Path | None) -> Iterator[None]:
    """Keep other processes from compiling the same; the lock goes with the process, however that ends."""
    if mark is None:
        yield
        return
    with mark.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

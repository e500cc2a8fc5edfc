# SPDX-License-Identifier: BSD-2-Clause
"""Functions in processes of their own, begun together and surely ended.

A process is a fresh interpreter, never a fork: a fork of a process whose threads run compiled code would inherit locks
that nobody will release. What it shares with its parent are the descriptors that it is handed, under the same numbers.

Work has two steps, so that no clock counts imports: ``prepare(*arguments)`` loads kernels, maps memory and returns a
function; that function runs once all processes of a run are prepared, and its result comes back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import TracebackType
from typing import Any

from ptnetmap.errors import PtnetmapError

_PR_SET_PDEATHSIG = 1
_STDERR = 2
_READY, _DONE, _RAISED = "ready", "done", "raised"

Prepare = Callable[..., Callable[[], Any]]


@dataclass(frozen=True)
class Task:
    """What one process does.

    ``prepare`` is a function of a module (it is named to the process, not sent); ``arguments`` can be pickled.
    ``fds`` are descriptors that the process gets under the same numbers, ``core`` the only core it may use.
    """

    prepare: Prepare
    arguments: tuple[Any, ...] = ()
    fds: tuple[int, ...] = ()
    core: int | None = None


class Child:
    """One process with a :class:`Task`; ``close()``, or the end of ``with``, kills what is left of it.

    It is also killed when the thread that made it ends, however that comes, and signals of the terminal do not reach
    it. What it prints goes to standard error.
    """

    def __init__(self, task: Task) -> None:
        ours, theirs = Pipe()
        self._connection = ours
        with theirs:
            code = f"from ptnetmap.bench.processes import serve; serve({theirs.fileno()}, {os.getpid()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=(theirs.fileno(), *task.fds),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                start_new_session=True,
            )
        try:
            self._connection.send((task.prepare, task.arguments, task.core))
        except OSError:
            pass  # it is gone already: the first step tells why
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def connection(self) -> Connection[Any, Any]:
        """Readable when the process has come to the end of a step, or has died."""
        return self._connection

    def go(self) -> None:
        """Begin the work; the process is prepared."""
        self._connection.send(None)

    def step(self) -> Any:
        """Wait for the end of the process's current step, and return the result of the work if that was it.

        Raises what the step raised, with the process's traceback as a note; PtnetmapError (ECHILD) if the process died.
        """
        try:
            outcome, value, trace = self._connection.recv()
        except (EOFError, ConnectionResetError):
            status = self._process.wait()
            raise PtnetmapError(
                errno.ECHILD,
                f"a process of the benchmark ended with status {status} before it had a result\n"
                "        what it wrote to standard error may tell why",
            ) from None
        if outcome == _RAISED:
            value.add_note(f"In a process of the benchmark:\n{trace}")
            raise value
        return value

    def close(self) -> None:
        """Kill the process if it is still there, and wait until it is gone."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def run_together(tasks: Sequence[Task], *, timeout: float) -> list[Any]:
    """Run all ``tasks`` at once, each in a process of its own, and return their results in order.

    ``timeout`` is for each of both steps, in seconds. When this returns or raises, all processes are gone. Raises what
    the first task that failed raised, PtnetmapError (ECHILD) if a process died, TimeoutError.
    """
    with ExitStack() as stack:
        children = [stack.enter_context(Child(task)) for task in tasks]
        _step(children, timeout)
        for child in children:
            child.go()
        return _step(children, timeout)


def _step(children: Sequence[Child], timeout: float) -> list[Any]:
    """Wait until all have ended their step, and return what came back; a failure does not wait for the others."""
    deadline = time.monotonic() + timeout
    results: dict[int, Any] = {}
    while len(results) < len(children):
        pending = {child.connection: index for index, child in enumerate(children) if index not in results}
        ready = wait(list(pending), max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(
                f"{len(pending)} of {len(children)} processes of the benchmark did not end a step within {timeout:g} s"
            )
        for connection in ready:
            index = pending[connection]  # type: ignore[index]
            results[index] = children[index].step()
    return [results[index] for index in range(len(children))]


def serve(fd: int, parent: int) -> None:
    """Be the process: what a :class:`Child` starts. ``fd`` is its end of the connection."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel was told
        return
    with Connection(fd) as connection:
        try:
            prepare, arguments, core = connection.recv()
            if core is not None:
                os.sched_setaffinity(0, {core})
            work = prepare(*arguments)
            connection.send((_READY, None, ""))
            connection.recv()
            connection.send((_DONE, work(), ""))
        except EOFError:
            return
        except BaseException as failure:
            _report(connection, failure)


def _report(connection: Connection[Any, Any], failure: BaseException) -> None:
    trace = "".join(traceback.format_exception(failure))
    try:
        connection.send((_RAISED, failure, trace))
    except OSError:
        return  # nobody listens any more
    except Exception:  # it cannot be pickled
        connection.send((_RAISED, PtnetmapError(errno.ECHILD, repr(failure)), trace))

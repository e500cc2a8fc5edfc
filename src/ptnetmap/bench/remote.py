# SPDX-License-Identifier: BSD-2-Clause
"""An object in a process of its own, whose methods are called from here, one at a time.

A process takes a second to start and to load kernels; one that stays can do many runs, and each costs a message.
"""

from __future__ import annotations

import contextlib
import errno
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ptnetmap.bench.processes import Child, Task
from ptnetmap.errors import PtnetmapError

PATIENCE = 60.0
"""Seconds after which a process that has not answered is given up."""


class Remote:
    """The object that ``make(*arguments)`` returns in a new process, which ends with :meth:`close`.

    ``make`` is a class or function of a module, ``arguments`` can be pickled, ``fds`` are descriptors that the process
    gets under the same numbers. Several of these start at once: the first :meth:`end` is that of ``make``.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, fds: tuple[int, ...] = ()) -> None:
        ours, theirs = Pipe()
        self._calls = ours
        self._doing = "its start"
        with theirs:
            self._child = Child(Task(_prepare, (theirs.fileno(), make, arguments), (theirs.fileno(), *fds)))
        self._child.go()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    def begin(self, method: str, *arguments: Any) -> None:
        """Let the object do something; :meth:`end` waits for it."""
        self._doing = method
        with contextlib.suppress(OSError):  # if it is gone, end() tells
            self._calls.send((method, arguments))

    def end(self, timeout: float = PATIENCE) -> Any:
        """Wait for what was begun, and return its result.

        Raises what it raised, PtnetmapError: ECHILD if the process died, ETIMEDOUT.
        """
        if not self._calls.poll(timeout):
            raise PtnetmapError(
                errno.ETIMEDOUT,
                f"process {self.pid} of the benchmark has not done {self._doing} within {timeout:g} s\n"
                "        packets have got stuck between it and another one, or the machine is far too busy: try again",
            )
        try:
            failure, value = self._calls.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if failure is not None:
            failure.add_note(f"In a process of the benchmark:\n{value}")
            raise failure
        return value

    def _death(self) -> BaseException:
        """What ended the process: nothing but a failure does."""
        try:
            while True:  # prepared, and done
                self._child.step()
        except BaseException as failure:
            return failure

    def do(self, method: str, *arguments: Any) -> Any:
        """Call a method and return its result."""
        self.begin(method, *arguments)
        return self.end()

    def close(self) -> None:
        """End the process."""
        self._calls.close()
        self._child.close()


def _prepare(fd: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], None]:
    return lambda: _serve(fd, make, arguments)


def _serve(fd: int, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with Connection(fd) as calls:
        made: list[Any] = []
        _answer(calls, lambda: made.append(make(*arguments)))
        while made:
            try:
                method, given = calls.recv()
            except EOFError:
                return
            bound = getattr(made[0], method)
            _answer(calls, lambda bound=bound, given=given: bound(*given))  # type: ignore[misc]


def _answer(calls: Connection[Any, Any], action: Callable[[], Any]) -> None:
    answer: tuple[Exception | None, Any]
    try:
        answer = (None, action())
    except Exception as failure:
        answer = (_portable(failure), "".join(traceback.format_exception(failure)))
    calls.send(answer)


def _portable(failure: Exception) -> Exception:
    """Return a failure that another process can read: itself, if it comes out of a pickle as it went in."""
    with contextlib.suppress(Exception):
        if str(pickle.loads(pickle.dumps(failure))) == str(failure):
            return failure
    number = failure.errno if isinstance(failure, OSError) and failure.errno else errno.ECHILD
    return PtnetmapError(number, str(failure))

# SPDX-License-Identifier: BSD-2-Clause
import errno
import operator
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ptnetmap.bench import processes
from ptnetmap.bench.processes import Child, Task, run_together
from ptnetmap.errors import PtnetmapError

WITHIN = 60.0  # a deadline for things that must happen, never for how fast

pytestmark = pytest.mark.interpreted


def task(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Task:
    return Task(partial, (function, *arguments), **keywords)


@pytest.fixture
def witness() -> Iterator[tuple[int, Callable[[], None]]]:
    """Make a descriptor to hand to a process, and a check that every process that had it is gone."""
    theirs: int
    ours, theirs = os.pipe()
    closed = []

    def all_gone() -> None:
        os.close(theirs)
        closed.append(theirs)
        assert select.select([ours], [], [], WITHIN)[0], "a process is still there"
        assert os.read(ours, 1) == b""

    yield theirs, all_gone
    os.close(ours)
    if not closed:
        os.close(theirs)


def test_results_come_back_in_the_order_of_the_tasks():
    assert run_together([task(divmod, 7, 2), task(len, "abc")], timeout=WITHIN) == [(3, 1), 3]


def test_work_begins_when_all_are_prepared():
    read, write = os.pipe()
    other, done = os.pipe()
    try:
        fds = (read, write, other, done)
        waits, wakes = task(os.read, read, 1, fds=fds), task(os.write, write, b"x", fds=fds)

        assert run_together([waits, wakes], timeout=WITHIN) == [b"x", 1]
    finally:
        for fd in fds:
            os.close(fd)


def test_what_a_process_raises_arrives_and_the_others_end(witness):
    fd, all_gone = witness

    with pytest.raises(ZeroDivisionError) as raised:
        run_together([task(signal.pause, fds=(fd,)), task(operator.truediv, 1, 0, fds=(fd,))], timeout=WITHIN)

    assert "Traceback" in raised.value.__notes__[0]
    all_gone()


def test_a_failure_to_prepare_arrives_too():
    with pytest.raises(TypeError):
        run_together([Task(len, (3,))], timeout=WITHIN)


def test_an_exception_that_cannot_be_pickled_arrives_as_text():
    code = "type('Local', (Exception,), {})('odd')"
    failing = task(exec, f"raise {code}")

    with pytest.raises(PtnetmapError, match="odd"):
        run_together([failing], timeout=WITHIN)


def test_a_process_that_dies_is_an_error_and_the_others_end(witness):
    fd, all_gone = witness

    with pytest.raises(PtnetmapError, match="status 3") as raised:
        run_together([task(signal.pause, fds=(fd,)), task(os._exit, 3, fds=(fd,))], timeout=WITHIN)

    assert raised.value.errno == errno.ECHILD
    all_gone()


def test_processes_that_take_too_long_are_ended(witness):
    fd, all_gone = witness

    with pytest.raises(TimeoutError, match="1 of 1"):
        run_together([task(signal.pause, fds=(fd,))], timeout=0)

    all_gone()


def test_an_interrupt_ends_all_processes(witness, monkeypatch):
    fd, all_gone = witness

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_together([task(signal.pause, fds=(fd,)), task(signal.pause, fds=(fd,))], timeout=WITHIN)

    all_gone()


def test_a_process_does_not_outlive_a_parent_that_is_killed(witness):
    fd, all_gone = witness
    code = f"""
import signal
from functools import partial
from ptnetmap.bench.processes import Child, Task
child = Child(Task(partial, (signal.pause,), ({fd},)))
child.step()
child.go()
print("up", flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=(fd,), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()

    all_gone()


def test_a_process_runs_on_its_core_and_closing_it_twice_is_harmless():
    core = max(os.sched_getaffinity(0))

    with Child(task(os.sched_getaffinity, 0, core=core)) as child:
        child.step()
        child.go()
        assert child.step() == {core}
        child.close()

    assert os.sched_getaffinity(0) != {core} or core == min(os.sched_getaffinity(0))

# SPDX-License-Identifier: BSD-2-Clause
import os
import signal
import threading

import pytest

from ptnetmap.bench.pair import run_pair, two_cores

WITHIN = 30.0  # a deadline for things that must happen, never for how fast


def test_both_results_come_back_in_order():
    assert run_pair(lambda: "sent", lambda: "received", stop=lambda: None) == ("sent", "received")


def test_a_side_that_raises_stops_the_other_and_the_exception_arrives():
    stopped = threading.Event()

    def fail():
        raise RuntimeError("broken sender")

    with pytest.raises(RuntimeError, match="broken sender"):
        run_pair(fail, lambda: stopped.wait(WITHIN), stop=stopped.set)
    assert stopped.is_set()


def test_an_interrupt_stops_both_sides_before_it_goes_on():
    waiting, stopped, ended = threading.Event(), threading.Event(), []

    def wait():
        waiting.set()
        stopped.wait(WITHIN)
        ended.append(True)

    def interrupt():
        waiting.wait(WITHIN)
        os.kill(os.getpid(), signal.SIGINT)
        stopped.wait(WITHIN)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_pair(interrupt, wait, stop=stopped.set)
    assert ended == [True, True]


def test_an_interrupt_before_both_sides_exist_runs_neither(monkeypatch):
    began = []
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)

    with pytest.raises(KeyboardInterrupt):
        run_pair(lambda: began.append("sender"), lambda: began.append("receiver"), stop=lambda: None)
    assert began == []


def test_each_side_runs_on_its_core_and_the_caller_stays_where_it_was():
    before = os.sched_getaffinity(0)
    core = min(before)

    sides = run_pair(lambda: os.sched_getaffinity(0), lambda: os.sched_getaffinity(0), stop=int, cores=(core, core))

    assert sides == ({core}, {core})
    assert os.sched_getaffinity(0) == before


def test_two_cores_are_the_first_two_allowed_or_none():
    allowed = sorted(os.sched_getaffinity(0))

    assert two_cores() == (tuple(allowed[:2]) if len(allowed) > 1 else None)


def test_a_process_that_is_held_on_one_core_has_no_pair(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})

    assert two_cores() is None

# SPDX-License-Identifier: BSD-2-Clause
"""Threads that wait for a ring which a kthread of another process serves, and the cores that both run on."""

import os
import threading

import pytest
from numba import config

from ptnetmap.abi.netmap.csb import nm_csb_ktoa
from ptnetmap.jit.block import Block, offsets
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import leave_core, sched_getcpu
from ptnetmap.jit.wait import SPINS, YIELDS
from ptnetmap.netmap import csb
from ptnetmap.netmap.kring import KIND_CSB, KIND_PIPE, kring

pytestmark = pytest.mark.interpreted
interpreted_only = pytest.mark.skipif(
    not config.DISABLE_JIT, reason="calls a piece of a kernel, which only interpreted Python can"
)
OTHER_CORE = 777
ENOUGH = 20


@kernel
def leave(core):
    leave_core(core)
    return sched_getcpu()


def in_a_thread(action):
    """Do something whose thread ends after it: nothing that it does to itself outlasts the test."""
    out = []
    thread = threading.Thread(target=lambda: out.append(action()))
    thread.start()
    thread.join()
    return out[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core to run on")
def test_a_thread_that_leaves_a_core_goes_on_on_another_and_may_still_run_anywhere():
    def try_once():
        before = os.sched_getaffinity(0)
        core = leave(1023)  # which no thread here is on: nothing happens
        moved = any(leave(core) != core for _ in range(ENOUGH))
        return moved, before == os.sched_getaffinity(0)

    assert in_a_thread(try_once) == (True, True)


def test_a_thread_that_is_bound_to_one_core_stays_there():
    def try_once():
        only = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {only})
        return leave(only) == only, os.sched_getaffinity(0) == {only}

    assert in_a_thread(try_once) == (True, True)


class Waiter:
    """A thread's view of a ring whose kthread runs on ``core``."""

    def __init__(self, monkeypatch, core):
        self.left = []
        monkeypatch.setattr(csb, "sched_getcpu", lambda: 3)
        monkeypatch.setattr(csb, "leave_core", self.left.append)
        monkeypatch.setattr(csb, "clock_ns", lambda _: 2 * csb.REST_NS)  # yields take no time, however busy the machine
        self.entry = Block(nm_csb_ktoa)
        self.kring = Block(kring)
        self.kring["kind"] = KIND_CSB
        self.kring["peer_tail_at"] = self.entry.address + offsets(nm_csb_ktoa)["hwtail"]
        self.entry.items.view("u4")[csb.CORE // 4] = core + 1

    def wait(self, attempts=SPINS + 1):
        for attempt in range(attempts):
            csb.relax_beside(self.kring.address, attempt)


@interpreted_only
def test_who_waits_again_and_again_on_its_kthreads_core_leaves_it(monkeypatch):
    waiter = Waiter(monkeypatch, core=3)
    for _ in range(ENOUGH):
        waiter.wait()
    assert waiter.left == [3]


@interpreted_only
def test_who_left_a_core_and_finds_itself_there_again_lets_it_be_for_a_while(monkeypatch):
    waiter = Waiter(monkeypatch, core=3)
    for now, times in ((0, 1), (csb.REST_NS - 1, 1), (csb.REST_NS, 2)):
        monkeypatch.setattr(csb, "clock_ns", lambda clock, now=now: now)
        for _ in range(ENOUGH):
            waiter.wait()
        assert waiter.left == [3] * times


@interpreted_only
def test_who_waits_on_another_core_than_its_kthread_stays(monkeypatch):
    waiter = Waiter(monkeypatch, core=OTHER_CORE)
    for _ in range(ENOUGH):
        waiter.wait()
    assert waiter.left == []


@interpreted_only
def test_who_waits_until_it_sleeps_stays(monkeypatch):
    waiter = Waiter(monkeypatch, core=3)
    for _ in range(ENOUGH):
        waiter.wait(SPINS + YIELDS + 1)
    assert waiter.left == []


@interpreted_only
@pytest.mark.parametrize("kind", [KIND_PIPE, None])
def test_who_waits_for_no_kthread_stays(monkeypatch, kind):
    waiter = Waiter(monkeypatch, core=3)
    if kind is None:
        waiter.kring = type("None", (), {"address": 0})
    else:
        waiter.kring["kind"] = kind
    for _ in range(ENOUGH):
        waiter.wait()
    assert waiter.left == []


@interpreted_only
def test_who_gets_a_core_back_late_leaves_it_and_not_again_for_a_while(monkeypatch):
    waiter = Waiter(monkeypatch, core=OTHER_CORE)
    clock = [csb.REST_NS + 1]
    monkeypatch.setattr(csb, "clock_ns", lambda _: clock[0])
    for late, times in ((csb.HOGGED_NS, 0), (csb.HOGGED_NS + 1, 1), (csb.REST_NS - 1, 1), (csb.HOGGED_NS + 1, 2)):

        def hogged(late=late):
            clock[0] += late

        monkeypatch.setattr(csb, "sched_yield", hogged)
        waiter.wait()
        assert waiter.left == [3] * times

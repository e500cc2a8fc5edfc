# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import select
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.errors import PortError
from ptnetmap.netmap.daemon import readiness
from ptnetmap.netmap.daemon.lifetime import IdleTimer, Stop
from ptnetmap.netmap.daemon.readiness import Outcome, Reporter, await_outcome

LOOKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.booleans()), min_size=1, max_size=30)


@given(seconds=st.integers(1, 20), looks=LOOKS)
def test_it_leaves_exactly_after_the_whole_time_without_clients_and_state(seconds, looks):
    timer, now, idle_since = IdleTimer(seconds), 0, None
    for passed, connections, keep in looks:
        now += passed
        if connections or keep:
            idle_since = None
        elif idle_since is None:
            idle_since = now
        left = timer.look(now, connections, keep)

        assert left == (None if idle_since is None else max(idle_since + seconds - now, 0))


@given(looks=LOOKS)
def test_no_time_means_never(looks):
    timer, now = IdleTimer(0), 0
    for passed, connections, keep in looks:
        now += passed
        assert timer.look(now, connections, keep) is None


def test_a_restarted_timer_counts_anew():
    timer = IdleTimer(10)
    timer.look(0, 0, False)
    assert timer.look(10, 0, False) == 0
    timer.restart()
    assert timer.look(10, 0, False) == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_and_afterwards_becomes_readable(number):
    before = signal.getsignal(number)
    with Stop() as stop:
        with pytest.raises(SystemExit):
            signal.raise_signal(number)
        stop.defer()
        signal.raise_signal(signal.SIGHUP)
        assert select.select([stop], [], [], 0)[0] == []
        for _ in range(2):
            signal.raise_signal(number)
            assert stop.requested
            assert select.select([stop], [], [], 0)[0] == [stop]
    assert signal.getsignal(number) == before


def test_more_requests_than_a_pipe_holds_are_one():
    with Stop() as stop:
        for _ in range(70_000):
            stop.request()
        assert stop.requested


def test_signals_that_the_starter_had_blocked_arrive():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with Stop() as stop:
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_all_files_that_the_hard_limit_allows_may_be_opened():
    code = (
        "import resource as r; from ptnetmap.netmap.daemon.lifetime import raise_open_files as raise_\n"
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1]; r.setrlimit(r.RLIMIT_NOFILE, (50, hard)); raise_()\n"
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Endless:
    """Patience that only counts."""

    def __init__(self):
        self.renewals = 0

    def wait_at_most(self):
        return 60.0

    def renew(self):
        self.renewals += 1


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda reporter: reporter.ready(), Outcome(pid=os.getpid())),
        (lambda reporter: reporter.failed(PortError(errno.EBUSY, "a\n  b")), Outcome(0, errno.EBUSY, "a\n  b")),
        (lambda reporter: (reporter.ready(), reporter.failed(KeyError())), Outcome(pid=os.getpid())),
    ],
    ids=["ready", "failed", "failed later"],
)
def test_what_the_daemon_reports_is_what_the_starter_learns(end, outcome, pipe):
    reading, writing = pipe
    end(Reporter(writing, None))

    assert await_outcome(reading, Endless()) == outcome


def test_a_pipe_that_ends_means_that_the_daemon_died(pipe):
    reading, writing = pipe
    os.write(writing, b"...")
    os.close(writing)

    assert await_outcome(reading, Endless()) == Outcome()


def test_signs_of_life_renew_the_starters_patience(pipe):
    reading, writing = pipe
    patience = Endless()
    os.write(writing, b"...R42")
    os.close(writing)

    assert await_outcome(reading, patience) == Outcome(pid=42)
    assert patience.renewals == 1


@pytest.mark.slow
def test_a_daemon_that_works_shows_it(pipe, monkeypatch):
    monkeypatch.setattr(readiness, "BEAT", 0.001)
    reading, writing = pipe
    reporter = Reporter(writing, None)
    while not select.select([reading], [], [], 0)[0]:
        sum(range(10_000))  # work

    assert os.read(reading, 1) == b"."
    reporter.ready()


def test_a_starter_that_went_away_is_no_reason_to_fail():
    reading, writing = os.pipe()
    reporter = Reporter(writing, None)
    os.close(reading)
    reporter.ready()

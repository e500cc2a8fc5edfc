# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.bench import trips
from ptnetmap.bench.frame import Result
from ptnetmap.bench.pair import run_pair
from ptnetmap.bench.pingpong import run_eventfds, run_lines
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block

SECONDS = 60.0  # a bound: the trips are over long before
TRIPS = 200

pytestmark = pytest.mark.interpreted


def open_descriptors():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def same_descriptors():
    """Check that as many descriptors are open afterwards as before."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.mark.parametrize("run", [run_eventfds, run_lines])
@pytest.mark.usefixtures("same_descriptors")
def test_all_round_trips_are_made_between_two_processes(run):
    result = run(SECONDS, most=TRIPS)

    assert isinstance(result, Result)
    assert (result.received, result.offered, result.dropped, result.bytes) == (TRIPS, TRIPS, 0, 0)
    assert 0 < result.median_ns <= result.p99_ns
    assert result.per_second == pytest.approx(TRIPS * 1e9 / result.nanoseconds)


@pytest.mark.parametrize("run", [run_eventfds, run_lines])
@pytest.mark.usefixtures("same_descriptors")
def test_a_run_without_time_is_an_error_and_leaves_nothing(run):
    with pytest.raises(PtnetmapError, match="no round trip") as refused:
        run(SECONDS, most=0)

    assert refused.value.errno == errno.EIO


def lead_through_lines(every, most, capacity):
    shared, found, samples = Block(trips.lines), Block(trips.figures), Block("i8", capacity)
    made = []

    def lead():
        made.append(
            trips.lead_lines(shared.address, every, most, trips.FOREVER, found.address, samples.address, capacity)
        )
        made.append(
            trips.lead_lines(shared.address, every, most, trips.FOREVER, found.address, samples.address, capacity)
        )
        shared["ping"] = trips.OVER

    def stop():
        shared["ping"] = trips.OVER

    _, followed = run_pair(lead, lambda: trips.follow_lines(shared.address), stop=stop)
    return made, followed, found["sampled"], samples.items


@pytest.mark.parametrize(("every", "sampled"), [(1, 20), (8, 3), (64, 1)])
def test_one_trip_in_so_many_is_timed_and_each_is_answered_once(every, sampled):
    made, followed, timed, samples = lead_through_lines(every, 20, 64)

    assert (made, followed, timed) == ([20, 20], 40, sampled)
    assert np.all(samples[:sampled] > 0)
    assert not samples[sampled:].any()


def test_only_the_last_times_are_kept():
    _, _, timed, samples = lead_through_lines(1, 20, 8)

    assert timed == 20
    assert np.all(samples > 0)


def test_idle_round_trips_are_no_more_than_there_are_rests():
    result = run_eventfds(0.05, idle_ms=5)

    assert 1 <= result.received <= 10


def test_a_leader_whose_descriptors_are_gone_ends_early():
    found, samples, word = Block(trips.figures), Block("i8", 8), Block("i8")
    ping = os.eventfd(0)
    os.close(ping)

    made = trips.lead_eventfds(ping, ping, word.address, 0, 5, trips.FOREVER, found.address, samples.address, 8)

    assert made == 0
    assert trips.follow_eventfds(ping, ping, word.address) == 0

# SPDX-License-Identifier: BSD-2-Clause
import os

import numpy as np
import pytest

from ptnetmap.bench import roofline
from ptnetmap.bench.cases import ROOFLINES, all_cases
from ptnetmap.bench.frame import rival
from ptnetmap.bench.lane import Lane
from ptnetmap.bench.pair import two_cores
from ptnetmap.jit.block import Block

interpreted = bool(os.environ.get("NUMBA_DISABLE_JIT"))
PACKETS = 3_000 if interpreted else 300_000


@pytest.mark.interpreted
@pytest.mark.parametrize("batch", [1, 7, 16, 256, 1024])
@pytest.mark.parametrize("copies", [False, True])
def test_every_packet_that_was_sent_arrives_with_its_length(batch, copies):
    result = Lane(60, batch, copies=copies).run(packets=PACKETS)

    assert (result.offered, result.received, result.dropped) == (PACKETS, PACKETS, 0)
    assert result.bytes == PACKETS * 60
    assert result.nanoseconds > 0


@pytest.mark.parametrize(("size", "copies"), ROOFLINES.values(), ids=ROOFLINES)
def test_a_run_that_is_pinned_to_two_cores_moves_the_same_and_leaves_the_caller_unpinned(size, copies):
    before = os.sched_getaffinity(0)

    result = Lane(size, 16, copies=copies).run(packets=10_000, cores=two_cores())

    assert (result.received, result.bytes) == (10_000, 10_000 * size)
    assert os.sched_getaffinity(0) == before


def test_a_run_with_a_time_limit_ends_and_loses_nothing():
    result = Lane(60, 16, copies=False).run(seconds=0.01)

    assert result.received == result.offered > 0


def test_a_run_without_any_limit_is_refused():
    with pytest.raises(ValueError, match="give packets or seconds"):
        Lane(60, 16, copies=False).run()


@pytest.mark.interpreted
def test_slots_are_written_near_copied_far_and_copied_back():
    shared = Block(roofline.ring)
    shared["total"] = -1

    assert roofline.send(shared.address, 4, 60, 6, roofline.FOREVER) == 6

    expected = np.array([[position | 60 << 32, 0] for position in range(6)], dtype="u8")
    assert np.array_equal(shared.items["near"][0][:6], expected)
    assert np.array_equal(shared.items["far"][0][:6], expected)
    assert (shared["head"], shared["total"], shared["tail"]) == (6, 6, 0)

    shared.items["near"][0][:6] = 0
    assert roofline.receive(shared.address, 2, 0, 0, 0) == 6

    assert np.array_equal(shared.items["near"][0][:6], expected)
    assert (shared["tail"], shared["bytes"]) == (6, 360)


@pytest.mark.interpreted
@pytest.mark.parametrize("lines", [1, 4, 24])
def test_whole_lines_of_each_frame_are_copied_and_nothing_else(lines):
    shared = Block(roofline.ring)
    shared["total"] = -1
    frames = Block("u1", 8 * roofline.BUFFER)
    source, destination = frames.items.reshape(2, 4, roofline.BUFFER)
    source[:] = np.random.default_rng(1).integers(1, 255, source.shape)
    roofline.send(shared.address, 1, 60, 3, roofline.FOREVER)

    roofline.receive(shared.address, 64, frames.address, frames.address + 4 * roofline.BUFFER, lines)

    expected = np.zeros_like(destination)
    expected[:3, : lines * roofline.LINE] = source[:3, : lines * roofline.LINE]
    assert np.array_equal(destination, expected)


def test_both_sides_give_up_when_they_are_stopped():
    shared = Block(roofline.ring)
    shared["total"], shared["stop"] = -1, 1

    assert roofline.receive(shared.address, 64, 0, 0, 0) == 0
    assert roofline.send(shared.address, 1024, 60, 5000, roofline.FOREVER) == 1024


def test_each_side_writes_a_cache_line_of_its_own():
    lines = {name: roofline.ring.fields[name][1] // roofline.LINE for name in ("head", "tail", "stop", "near")}

    assert lines == {"head": 0, "tail": 1, "stop": 2, "near": 3}
    assert roofline.ring.itemsize == 3 * roofline.LINE + 2 * roofline.SLOTS * roofline.SLOT


def test_every_case_is_compared_in_the_end_to_a_roofline_of_its_size():
    cases = all_cases()

    for case in cases:
        bound = case
        while bound.against is not None:
            bound = rival(bound, cases)
        if bound.name.startswith(("peer/", "processes/", "passthrough/beside_", "nic/")):
            continue  # DPDK is its own measure, where it is missing there is none, and neighbours are compared
        assert bound.name.startswith("roofline/")
        assert bound.size in (case.size, 0) or bound.name == "roofline/R_zc"  # 0: a round trip without a packet

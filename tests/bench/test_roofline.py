# SPDX-License-Identifier: BSD-2-Clause
import os
import shutil
import statistics
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.bench import roofline
from ptnetmap.bench.cases import ROOFLINES, all_cases
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


def test_every_case_is_compared_to_one_that_exists_and_is_a_roofline():
    cases = {(case.name, case.batch): case for case in all_cases()}

    rivals = [cases[case.against, case.batch] for case in cases.values() if case.against]
    assert all(rival.against is None for rival in rivals)


def test_the_interpreted_loops_move_the_same_packets():
    body = (
        "import sys, pytest; sys.exit(pytest.main(['-q', '-m', 'interpreted', '-p', 'no:cacheprovider', sys.argv[1]]))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}

    done = subprocess.run([sys.executable, "-c", body, __file__], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def from_c(tmp_path_factory):
    """Build the same loops with gcc: an object with ``send`` and ``receive``."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    import ctypes

    library = tmp_path_factory.mktemp("c") / "roofline.so"
    source = Path(__file__).with_name("roofline.c")
    flags = ["-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))  # its calls release the GIL
    for function in (loaded.send_packets, loaded.receive_packets):
        function.argtypes, function.restype = [ctypes.c_int64] * 5, ctypes.c_int64
    return types.SimpleNamespace(send=loaded.send_packets, receive=loaded.receive_packets)


@pytest.mark.gcc
@pytest.mark.parametrize("batch", [1, 16, 256])
@pytest.mark.parametrize(("size", "copies"), ROOFLINES.values(), ids=ROOFLINES)
def test_a_c_compiler_moves_the_same_packets(from_c, size, copies, batch, capsys):
    packets = 10_000_000 if batch > 1 and size == 60 else 1_000_000
    lane = Lane(size, batch, copies=copies)
    ours, theirs = [], []
    for _ in range(5):
        ours.append(lane.run(packets=packets))
        theirs.append(lane.run(packets=packets, loops=from_c))

    for result in ours + theirs:
        assert (result.received, result.dropped, result.bytes) == (packets, 0, packets * size)
    ratio = statistics.median(a.mpps / b.mpps for a, b in zip(ours, theirs, strict=True))
    rates = [statistics.median(result.mpps for result in results) for results in (ours, theirs)]
    with capsys.disabled():
        print(f" {rates[0]:.1f} Mpps, gcc {rates[1]:.1f}, ratio {ratio:.2f} ", end="")

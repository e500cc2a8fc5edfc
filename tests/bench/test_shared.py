# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import select
import signal
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.bench import cases, peers, shared, traffic
from ptnetmap.bench.circulate import circulate
from ptnetmap.bench.crowd import kill, open_many, rest
from ptnetmap.bench.ends import End
from ptnetmap.bench.pair import run_pair
from ptnetmap.bench.pingpong import RoundTrips
from ptnetmap.bench.remote import Remote
from ptnetmap.bench.shared_latency import Trip
from ptnetmap.bench.stage import Stage, stage
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

SECONDS = 0.2
WITHIN = 60.0  # a deadline for things that must happen, never for how fast
PACKETS = 512
FOREVER = 1 << 62

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _closed_afterwards():
    yield
    stage.close()


def is_gone(pid):
    """Wait until a process has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], WITHIN)[0])
    finally:
        os.close(process)


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [60, 1514])
@pytest.mark.parametrize("run", [shared.pipe, shared.vale])
def test_all_that_one_process_sends_comes_at_the_other(run, size):
    result = run(size, SECONDS, 16, None)

    assert result.received == result.offered > 0
    assert (result.dropped, result.bytes) == (0, size * result.received)
    assert result.nanoseconds > 0


@pytest.mark.parametrize("run", [shared.pipe_circulating, shared.vale_circulating])
def test_packets_go_round_between_two_processes_and_none_is_dropped(run):
    result = run(60, SECONDS, 64, None)

    assert result.received > 0
    assert (result.dropped, result.bytes) == (0, 60 * result.received)


def test_a_pair_goes_on_in_a_storm_of_kicks_and_the_storm_is_told_of():
    result = shared.storm.run(60, SECONDS, 16, None, kicks=True)

    assert result.received == result.offered > 0
    assert shared.storm.footnotes()[0].endswith(" kicks per second, median")


def held(rings):
    """The slots of some rings that are their user's."""
    return [(ring, (ring.head + i) % ring.num_slots) for ring in rings for i in range(ring.space())]


def test_packets_that_circulate_are_all_still_there_with_a_buffer_each():
    with Netmap() as nm, nm.open("netmap:round{1") as left, nm.open("netmap:round}1") as right:
        ring = left.tx_rings[0]
        for i in range(ring.num_slots):
            ring.buffer(i)[14:16].view("u2")[0] = i
        figures = Block(traffic.run)

        def turn(port, packets):
            rings = (port.rx_krings[0], port.tx_krings[0])
            made = circulate(*rings, scratch(), figures.address, 64, packets, 60, 0, deadline)
            figures["stop"] = 1
            return made

        deadline = 1  # has passed: after some rounds all ends
        came, _ = run_pair(lambda: turn(left, PACKETS), lambda: turn(right, 0), stop=lambda: turn(left, 0))
        for _ in range(2):  # the second time tells what the first one gave back
            for port in (left, right):
                port.rxsync()
                port.txsync()
        waiting = [slot for port in (left, right) for slot in held(port.rx_rings)]
        free = [slot for port in (left, right) for slot in held(port.tx_rings)]
        numbers = [int(ring.packet(i)[14:16].view("u2")[0]) for ring, i in waiting]
        buffers = [int(ring.slots["buf_idx"][i]) for ring, i in waiting + free]

    assert sorted(numbers) == list(range(PACKETS))
    assert len(buffers) == len(set(buffers))
    assert figures["received"] == came


def test_a_packet_that_a_switch_returns_gets_new_addresses():
    header = np.frombuffer(b"\x02\0\0\0\0\x07\x02\0\0\0\0\x08" + bytes(4), np.uint8)
    with Netmap() as nm, nm.open("vale0:a") as port, nm.open("vale0:b") as other:
        other.send([b"\xff" * 6 + b"\x02\0\0\0\0\x09" + b"\x88\xb5" + bytes(range(46))])
        figures = Block(traffic.run)
        rings = (port.rx_krings[0], port.tx_krings[0])
        circulate(*rings, scratch(), figures.address, 64, 0, 60, header.ctypes.data, 1)
        (frame,) = other.recv(timeout=WITHIN)

    assert frame == bytes(header[:12]) + b"\x88\xb5" + bytes(range(46))


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trip", [Trip("pipe"), Trip("vale"), Trip("pipe", idle_ms=1), Trip("pipe", spinning=True)])
def test_each_packet_is_answered_and_timed(trip):
    result = trip(SECONDS, 1, None)

    assert isinstance(result, RoundTrips)
    assert result.received == result.offered > 0
    assert 0 < result.median_ns <= result.p99_ns


# -- processes ---------------------------------------------------------------------------------------------------------


def test_the_processes_stay_for_the_next_run_and_end_with_the_stage():
    own = Stage()
    with own.ends() as ends:
        pids = [own.netmapd.pid, *(end.pid for end in ends)]
        directory = Path(own.netmapd.address).parent
    with own.ends() as again:
        assert again == ends

    own.close()

    assert all(is_gone(pid) for pid in pids)
    assert not directory.exists()


def test_after_the_death_of_an_end_a_run_fails_and_the_next_one_has_others():
    with stage.ends() as ends:
        pid = ends[0].pid
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(PtnetmapError) as failed:
        shared.pipe(60, SECONDS, 16, None)

    assert failed.value.errno == errno.ECHILD
    assert shared.pipe(60, SECONDS, 16, None).received > 0


def test_what_an_end_raises_is_raised_here_with_its_traceback():
    with pytest.raises(PtnetmapError, match="unrecognized flag") as failed, stage.ends() as (end, _):
        end.do("open", "vale0:no/such*port")

    assert "Traceback" in failed.value.__notes__[0]


def test_an_object_that_cannot_be_made_is_told_of_at_the_first_end():
    remote = Remote(End, "/nonexistent/socket", -1)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            remote.end()
    finally:
        remote.close()
    assert is_gone(remote.pid)


# -- netmapd, and the list ---------------------------------------------------------------------------------------------


def test_ports_that_have_moved_nothing_take_memory_for_their_rings_only():
    figures = {one.name.partition(": ")[2]: one for one in open_many(20)}

    assert figures["resident memory of regions per port"].reached
    assert figures["last to first"].limit is not None


def test_ports_that_rest_are_watched_for_what_netmapd_does():
    switches, ticks = rest(5, 0.1)

    assert (switches.limit, ticks.limit) == (0, 0)


def test_a_killed_process_is_timed_until_its_ports_are_gone():
    middle, worst = kill(1, 2)

    assert 0 < middle.value == worst.value
    assert middle.limit == worst.limit == 100


@pytest.mark.parametrize("reason", [None, "testpmd is not installed"])
def test_every_case_has_its_rival_and_every_floor_a_ratio(monkeypatch, reason):
    for module in (shared, peers):
        monkeypatch.setattr(module, "available", lambda: reason)

    known = cases.all_cases()

    names = {(case.name, case.batch) for case in known}
    assert [case.key for case in known if case.against and (case.against, case.batch) not in names] == []
    assert [case.key for case in known if case.floor is not None and case.against is None] == []
    assert len({case.key for case in known}) == len(known)
    assert any(case.name == "processes/vale_memif" for case in known) == (reason is None)

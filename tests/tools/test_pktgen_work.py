# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import numpy as np
import pytest

from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch
from ptnetmap.tools.pktgen import sequence, task
from ptnetmap.tools.pktgen.frame import make_frame
from ptnetmap.tools.pktgen.options import parse
from ptnetmap.tools.pktgen.report import Log
from ptnetmap.tools.pktgen.work import KERNELS, Work

pytestmark = pytest.mark.interpreted

PAIRS = {"pipe": ("netmap:p{1", "netmap:p}1"), "switch": ("vale0:a", "vale0:b")}
PLAIN = b"\xff" * 6 + bytes(54)


@pytest.fixture
def nm():
    with Netmap() as runtime:
        yield runtime
        assert [str(a) for a in runtime.audit() if not a.ok] == []


@pytest.fixture(params=PAIRS)
def names(request):
    return PAIRS[request.param]


@pytest.fixture
def pair(nm, names):
    with nm.open(names[0], tx_slots=64, rx_slots=64) as a, nm.open(names[1], tx_slots=64, rx_slots=64) as b:
        yield a, b


def make_work(port, function, *arguments, share=0):
    """One thread's work, to be called by the test itself."""
    options = parse(["-i", "vale0:x", "-f", function, *arguments])
    return Work(options, make_frame(options, 0), port, 0, header=0, share=share, log=Log())


def step(work):
    """Call a work's kernel once."""
    return KERNELS[work.options.function](work.task.address, scratch())


def received(port):
    return port.recv(1000, timeout=0)


@pytest.mark.parametrize(
    "arguments", [[], ["-s", "10.0.0.1-10.0.0.7"], ["-F", "3"], ["-o", "4"], ["-o", "9"], ["-I"]], ids=" ".join
)
def test_every_way_of_sending_puts_the_same_frame_on_the_ring(nm, arguments):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        work = make_work(a, "tx", *arguments, share=20)

        assert step(work) == task.DONE
        frames = received(b)
    text = b"INDIRECT" if "-I" in arguments else b"DIRECT"
    assert [frame[42:60] for frame in frames] == [(b"netmap pkt-gen " + text)[:18]] * 20
    assert frames[0] == first_frame(work)


def first_frame(work):
    """The template with its checksums, from a reference."""
    frame = bytearray(make_frame(work.options, 0).data)
    for at, start, end, pseudo in ((24, 14, 34, b""), (40, 34, len(frame), frame[26:34] + struct.pack(">HH", 17, 26))):
        data = bytes(pseudo + frame[start:end])
        total = sum(struct.unpack(f">{len(data) // 2}H", data))
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        frame[at : at + 2] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(frame)


def test_a_full_pipe_stops_its_sender_until_there_is_room(nm):
    with nm.open("netmap:p{1", tx_slots=64, rx_slots=64) as a, nm.open("netmap:p}1") as b:
        work = make_work(a, "tx", share=100)

        assert step(work) == task.FULL
        assert work.counts.packets == 63
        assert len(received(b)) == 63
        assert step(work) == task.DONE
        assert len(received(b)) == 37


def test_buffers_that_a_reader_exchanged_get_the_frame_again(nm):
    with nm.open("netmap:p{1", tx_slots=8, rx_slots=8) as a, nm.open("netmap:p}1", extra_bufs=4) as b:
        work = make_work(a, "tx", "-b", "4", share=18)
        first = None
        for _ in range(4):
            step(work)
            b.rxsync()
            ring = b.rx_rings[0]
            while ring.space():
                frame = bytes(ring.packet(ring.head))
                first = first or frame
                assert frame == first
                ring.buffer(ring.head)[:] = 0xEE
                ring.slots["flags"][ring.head] = 1  # NS_BUF_CHANGED
                ring.advance(1)
            b.rxsync()

        assert work.counts.packets == 18


def test_an_empty_ring_sends_its_receiver_to_sleep(pair):
    work = make_work(pair[1], "rx")

    assert step(work) == task.EMPTY
    pair[0].send([PLAIN] * 3)
    assert step(work) == task.EMPTY
    assert work.counts.packets == 3


def test_a_receiver_counts_packets_not_slots(pair):
    a, b = pair
    sender, receiver = make_work(a, "tx", "-F", "3", share=5), make_work(b, "rx")

    assert step(sender) == task.DONE
    step(receiver)
    assert (receiver.counts.packets, receiver.counts.bytes) == (5, 300)


def test_a_receiver_takes_no_more_than_it_is_asked_for(pair):
    pair[0].send([PLAIN] * 10)
    work = make_work(pair[1], "rx", share=7)

    assert step(work) == task.DONE
    assert work.counts.packets == 7
    assert len(received(pair[1])) == 3


@pytest.mark.parametrize("function", ["tx", "rx", "ping", "pong"])
def test_what_is_told_to_stop_stops(pair, function):
    work = make_work(pair[0], function)
    work.stop()

    assert step(work) == task.STOPPED


def test_a_paced_sender_returns_before_it_is_due(nm):
    with nm.open("vale0:a") as port:
        work = make_work(port, "tx", "-R", "1")

        assert step(work) == task.EARLY
        assert work.counts.packets == 1
        assert step(work) == task.EARLY
        assert work.counts.packets == 1


def test_a_ping_waits_for_its_reply_and_ignores_others(pair):
    a, b = pair
    asking, answering = make_work(a, "ping", share=2), make_work(b, "pong")

    assert step(asking) == task.EMPTY
    b.send([b"\xff" * 60])
    assert step(asking) == task.EMPTY
    assert asking.round_trips.count == 0
    assert step(answering) == task.EMPTY
    assert step(asking) == task.EMPTY
    assert asking.round_trips.count == 1
    assert step(answering) == task.EMPTY
    assert step(asking) == task.DONE
    trips = asking.round_trips
    assert trips.count == sum(trips.buckets) == 2
    assert 0 < trips.least <= trips.average


def test_a_pong_exchanges_the_addresses_only(pair):
    a, b = pair
    frame = bytes(range(12)) + b"\x88\xb5" + bytes(range(46))
    a.send([frame])

    step(make_work(b, "pong"))
    assert received(a) == [frame[6:12] + frame[:6] + frame[12:]]


def numbered(*numbers, flow=7):
    return [PLAIN[:42] + struct.pack(">II", number & 0xFFFFFFFF, flow) + bytes(10) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "gaps", "missing", "disorders"),
    [
        ([5, 6, 7], 0, 0, 0),
        ([5, 6, 9], 1, 2, 0),
        ([1, 2, 4, 3, 5], 1, 0, 1),
        ([1, 1], 0, 0, 1),
        ([-2, -1, 0, 1], 0, 0, 0),
        ([-2, 1], 1, 2, 0),
    ],
    ids=["none", "gap", "swapped", "twice", "wrap", "gap over the wrap"],
)
def test_gaps_and_disorder_are_found(pair, numbers, gaps, missing, disorders, capfd):
    pair[0].send(numbered(*numbers))
    work = make_work(pair[1], "rxseq", share=len(numbers))
    work.run()

    assert (work.task["gaps"], work.task["missing"], work.task["disorders"]) == (gaps, missing, disorders)
    assert work.counts.packets == len(numbers)
    log = capfd.readouterr().err
    assert log.count("Sequence GAP") == gaps
    assert log.count("Sequence OUT OF ORDER") == disorders


def test_streams_are_checked_apart(pair):
    a, b = [numbered(*range(start, start + 4), flow=flow) for start, flow in ((0, 1), (100, 2))]
    pair[0].send([frame for both in zip(a, b, strict=True) for frame in both])
    work = make_work(pair[1], "rxseq")

    assert step(work) == task.EMPTY
    assert (work.task["gaps"], work.task["disorders"], work.counts.packets) == (0, 0, 8)


def test_fragments_are_not_taken_for_numbered_packets(pair):
    sender, receiver = make_work(pair[0], "txseq", "-F", "2", "-l", "200", share=6), make_work(pair[1], "rxseq")

    assert step(sender) == task.DONE
    assert step(receiver) == task.EMPTY
    assert (receiver.counts.packets, receiver.task["gaps"], receiver.task["disorders"]) == (6, 0, 0)


def test_only_so_many_irregularities_are_told(pair, capfd):
    pair[0].send(numbered(*range(0, 60, 2)))
    work = make_work(pair[1], "rxseq", share=30)
    work.run()

    assert work.task["gaps"] == 29
    assert capfd.readouterr().err.count("Sequence GAP") == 10


def test_the_table_of_streams_is_as_large_as_it_says():
    table = Block(sequence.flow, sequence.FLOWS)

    assert table.items.nbytes == sequence.FLOWS * 24


def test_an_overwritten_ring_is_an_error(nm):
    with nm.open("netmap:p{1") as a, nm.open("netmap:p}1"):
        work = make_work(a, "tx", share=10)
        a.tx_rings[0].slots["buf_idx"][3] = 0
        a.tx_rings[0].slots["flags"][3] = 1

        with pytest.raises(PeerError, match="overwritten"):
            work.run()
        a.tx_rings[0].slots["buf_idx"][3] = 5


def test_a_closed_port_is_an_error(nm):
    port = nm.open("vale0:a")
    work = make_work(port, "rx")
    port.close()

    with pytest.raises(PortError) as refused:
        work.run()
    assert refused.value.errno == errno.EBADF


def test_space_is_the_least_that_a_receiver_found(pair):
    work = make_work(pair[1], "rx")

    assert work.take_space() == 0
    pair[0].send([PLAIN] * 3)
    step(work)
    assert work.take_space() == 3
    assert work.take_space() == 99999


def test_tasks_are_whole_words():
    assert all(field[0].itemsize % 8 == 0 for field in np.dtype(task.task).fields.values())

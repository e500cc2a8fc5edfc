# SPDX-License-Identifier: BSD-2-Clause
import argparse
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptnetmap
from ptnetmap.cli import replay as command
from ptnetmap.errors import PortError
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.pcap import CaptureFileError, PcapngWriter, PcapWriter, Record
from ptnetmap.tools.replay import BitRate, File, PacketRate, Player, Recorded, TopSpeed, chunks, replay
from ptnetmap.tools.replay.chunks import Ahead, prepare
from ptnetmap.tools.replay.schedule import NEVER, scaled

SECOND = 10**9


def times(schedule, ts, lengths=None, cut=()):
    """What a schedule says, asked for in chunks that end at the places ``cut``."""
    ts = np.array(ts, np.int64)
    lengths = np.full(len(ts), 60, np.int64) if lengths is None else np.array(lengths, np.int64)
    out = []
    edges = sorted({0, len(ts), *(place for place in cut if place < len(ts))})
    for start, end in pairwise(edges):
        out += schedule.due(ts[start:end], lengths[start:end]).tolist()
    return out


# -- schedules -------------------------------------------------------------------------------------------------------


def test_recorded_times_count_from_the_first_packet():
    assert times(Recorded(), [10 * SECOND + 7, 10 * SECOND + 9, 12 * SECOND + 7]) == [0, 2, 2 * SECOND]


@pytest.mark.parametrize(
    ("speed", "expected"), [(2, [0, 50, 100]), (Fraction(1, 2), [0, 200, 400]), (3, [0, 33, 66]), (0.25, [0, 400, 800])]
)
def test_speed_divides_recorded_times(speed, expected):
    assert times(Recorded(speed), [1000, 1100, 1200]) == expected


def test_a_packet_from_the_past_follows_at_once():
    assert times(Recorded(), [100, 150, 50, 0, 160], cut=[2]) == [0, 50, 50, 50, 60]


def test_the_next_pass_follows_after_the_mean_gap():
    schedule = Recorded()
    assert times(schedule, [100, 120, 160], cut=[1]) == [0, 20, 60]
    schedule.rewind()
    assert times(schedule, [100, 120, 160]) == [90, 110, 150]
    schedule.rewind()
    assert times(schedule, [100, 120, 160]) == [180, 200, 240]


def test_a_file_of_one_packet_or_of_one_time_can_be_repeated():
    for ts in ([5], [5, 5]):
        schedule = Recorded()
        for _ in range(3):
            assert times(schedule, ts) == [0] * len(ts)
            schedule.rewind()


def test_a_rate_spaces_packets_evenly_without_drift():
    assert times(PacketRate(3), [0] * 7, cut=[2, 5]) == [i * SECOND // 3 for i in range(7)]
    late = PacketRate(3)
    late._packets = 3 * 10**12  # 30,000 years later
    assert times(late, [0, 0])[0] == NEVER
    late._packets = 3 * 10**9
    assert times(late, [0, 0]) == [10**18, 10**18 + SECOND // 3]


@pytest.mark.parametrize(("rate", "gap"), [(Fraction("0.5"), 2 * SECOND), (Fraction("1.5"), Fraction(2, 3) * SECOND)])
def test_a_rate_may_be_a_fraction(rate, gap):
    assert times(PacketRate(rate), [0] * 4) == [int(i * gap) for i in range(4)]


def test_a_bit_rate_gives_each_packet_the_time_of_its_bits():
    assert times(BitRate(8000), [0] * 4, lengths=[1000, 500, 1, 9], cut=[1]) == [
        0,
        SECOND,
        3 * SECOND // 2,
        1501 * 10**6,
    ]


def test_top_speed_is_now():
    schedule = TopSpeed()
    assert times(schedule, [1, 2, 3]) == [0, 0, 0]
    schedule.rewind()
    assert times(schedule, [1]) == [0]


@pytest.mark.parametrize("make", [Recorded, PacketRate, BitRate])
@pytest.mark.parametrize("value", [0, -1, 0.001])
def test_a_rate_of_nothing_is_refused(make, value):
    with pytest.raises(ValueError, match=r"give 0\.01 or more"):
        make(value)


schedules = st.sampled_from(
    [
        lambda: Recorded(1),
        lambda: Recorded(Fraction(7, 3)),
        lambda: PacketRate(Fraction(17, 3)),
        lambda: BitRate(10**9),
        lambda: BitRate(Fraction("0.01")),
        TopSpeed,
    ]
)


@given(
    make=schedules,
    packets=st.lists(st.tuples(st.integers(-(2**61), 2**61), st.integers(1, 1 << 22)), min_size=1, max_size=30),
    cut=st.lists(st.integers(0, 30), max_size=5),
)
def test_how_a_file_is_cut_into_chunks_changes_no_time_and_times_never_decrease(make, packets, cut):
    ts, lengths = zip(*packets, strict=True)
    whole = times(make(), ts, lengths)
    assert times(make(), ts, lengths, cut) == whole
    assert whole == sorted(whole)
    assert 0 <= whole[0] <= whole[-1] <= NEVER


@given(
    start=st.integers(0, 2**70),
    steps=st.lists(st.integers(0, 2**62), min_size=1, max_size=10).map(sorted),
    factor=st.integers(1, 10**11),
    divisor=st.integers(1, 10**15),
)
def test_scaling_is_exact_whatever_the_size(start, steps, factor, divisor):
    expected = [min((start + step) * factor // divisor, NEVER) for step in steps]
    assert scaled(start, np.array(steps, np.int64), factor, divisor).tolist() == expected


# -- chunks -----------------------------------------------------------------------------------------------------------


def records(count, size=60, start=0):
    return [Record(bytes([i & 0xFF]) * (size + i % 7), start + 1000 * i, size + i % 7) for i in range(count)]


def contents(due):
    memory = due.chunk.memory.tobytes()
    base = due.chunk.memory.ctypes.data
    pairs = zip(due.chunk.addresses.tolist(), due.chunk.lengths.tolist(), strict=True)
    return [memory[address - base : address - base + length] for address, length in pairs]


def test_chunks_have_all_packets_in_order_and_are_bounded(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_PACKETS", 8)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 500)
    made = list(prepare(records(100), PacketRate(10**9), 2048, Counter()))
    assert [data for due in made for data in contents(due)] == [r.data for r in records(100)]
    assert [time for due in made for time in due.times.tolist()] == list(range(100))
    assert all(len(due.chunk) <= 8 and len(due.chunk.memory) < 500 + 67 for due in made)


def test_what_cannot_be_sent_is_counted_by_reason_and_once():
    skipped = Counter()
    given = [Record(b"a" * 100, 0, 200), Record(b"", 1, 60), Record(b"b" * 101, 2, 101), Record(b"c", 3, 1)]
    made = list(prepare(given, TopSpeed(), 100, skipped, loop=3))
    assert [contents(due) for due in made] == [[b"a" * 100, b"c"]] * 3
    assert made[0].chunk.cut.tolist() == [True, False]
    assert skipped == {"empty": 1, "longer than 100 bytes": 1}


class Counted(list):
    """Records that know how often they were read."""

    reads = 0

    def __iter__(self):
        self.reads += 1
        return super().__iter__()


@pytest.mark.parametrize(("kept", "reads"), [(1 << 20, 1), (100, 3)])
def test_a_small_file_is_read_once_for_all_passes(kept, reads, monkeypatch):
    monkeypatch.setattr(chunks, "KEPT", kept)
    source = Counted(records(5))
    made = list(prepare(source, Recorded(), 2048, Counter(), loop=3))
    assert [data for due in made for data in contents(due)] == 3 * [r.data for r in records(5)]
    assert [t for due in made for t in due.times.tolist()] == [1000 * i for i in range(15)]
    assert source.reads == reads


def test_limit_takes_the_first_packets_of_each_pass():
    made = list(prepare(records(9), TopSpeed(), 2048, Counter(), loop=2, limit=2))
    assert [data for due in made for data in contents(due)] == 2 * [r.data for r in records(2)]


def test_repeating_nothing_for_ever_ends():
    assert list(prepare([], TopSpeed(), 2048, Counter(), loop=None)) == []
    assert list(prepare(records(3), TopSpeed(), 10, Counter(), loop=None)) == []


def test_the_reader_is_ahead_by_a_window_and_no_more(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    monkeypatch.setattr(chunks, "WINDOW", 1000)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield Record(bytes(100), 0, 100)

    with Ahead(prepare(endless(), TopSpeed(), 2048, Counter())) as ahead:
        for i in range(50):
            assert ahead.get(None) is not None
            assert len(taken) <= i + 12


def test_what_the_reader_raises_comes_after_all_that_it_read():
    def failing():
        yield from records(3)
        raise CaptureFileError("damaged")

    with Ahead(prepare(failing(), TopSpeed(), 2048, Counter())) as ahead:
        assert contents(ahead.get(None)) == [r.data for r in records(3)]
        with pytest.raises(CaptureFileError, match="damaged"):
            ahead.get(None)


@pytest.mark.parametrize("writer", [PcapWriter, PcapngWriter])
def test_a_file_gives_its_ethernet_packets(writer, tmp_path):
    path = tmp_path / "file"
    with writer(path) as out:
        out.write(b"ethernet", 1)
        if writer is PcapngWriter:
            out.write(b"raw ip", 2, interface=out.add_interface("tun0", linktype=101))
    source = File(path)
    for _ in range(2):
        assert [r.data for r in source] == [b"ethernet"]
        assert source.other == (writer is PcapngWriter)


# -- the replay -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap() as runtime:
        yield runtime


@pytest.fixture
def pipe(nm):
    """A pipe whose other end is read by a thread, which gives what it got."""
    with nm.open("netmap:p{1", tx_slots=128, rx_slots=128) as tx, nm.open("netmap:p}1") as rx:
        received = []

        def read(count):
            while len(received) < count and (more := rx.recv(timeout=30)):
                received.extend(more)

        threads = []

        def start(count):
            threads.append(threading.Thread(target=read, args=(count,)))
            threads[0].start()

        def result():
            threads[0].join()
            return received + rx.recv(timeout=0)

        yield tx, start, result


@pytest.mark.interpreted
@pytest.mark.parametrize("schedule", [TopSpeed, Recorded, lambda: PacketRate(10**6), lambda: BitRate(10**9)])
def test_a_file_replayed_into_a_pipe_gives_identical_frames(pipe, schedule, tmp_path):
    tx, start, result = pipe
    given = records(700)
    path = tmp_path / "file"
    with PcapngWriter(path) as out:
        out.write_batch([r.data for r in given], [r.ts_ns for r in given])
    start(700)
    figures = replay(tx, File(path), schedule())
    assert result() == [r.data for r in given]
    assert (figures.packets, figures.bytes, figures.ended) == (700, sum(map(len, (r.data for r in given))), "done")
    assert (figures.skipped, figures.cut, figures.dropped) == ({}, 0, {})


@pytest.mark.interpreted
def test_nothing_is_sent_before_it_is_due(nm):
    with nm.open("netmap:p{1") as tx, nm.open("netmap:p}1") as rx:
        player = Player(tx, [Record(b"now", 0, 3), Record(b"in an hour", 3600 * SECOND, 10)])
        thread = threading.Thread(target=player.run)
        thread.start()
        assert rx.recv(timeout=30) == [b"now"]
        player.stop()
        thread.join()
        assert rx.recv(timeout=0) == []
        assert (player.figures.packets, player.figures.ended) == (1, "stopped")


@pytest.mark.interpreted
def test_a_packet_of_many_fragments_waits_for_room_for_all_of_them(pipe):
    tx, start, result = pipe
    given = [Record(bytes([i]) * 90_000, 0, 90_000) for i in range(9)]
    start(9)
    assert replay(tx, given, TopSpeed()).packets == 9
    assert result() == [r.data for r in given]


@pytest.mark.interpreted
def test_loop_count_and_limit_bound_a_replay(pipe):
    tx, start, result = pipe
    start(11)
    figures = replay(tx, records(9), TopSpeed(), loop=None, count=11, limit=4)
    assert result() == [r.data for r in (3 * records(4))[:11]]
    assert (figures.packets, figures.ended) == (11, "count")


@pytest.mark.interpreted
def test_packets_too_long_for_the_port_are_skipped_and_told(nm):
    with nm.open("netmap:p{1", tx_slots=4, rx_slots=4) as tx, nm.open("netmap:p}1") as rx:
        given = [Record(bytes(6144), 0, 9000), Record(bytes(6145), 0, 6145)]
        figures = replay(tx, given)
        assert [len(f) for f in rx.recv(timeout=0)] == [6144]
    assert (figures.packets, figures.skipped, figures.cut) == (1, {"longer than 6,144 bytes": 1}, 1)


@pytest.mark.interpreted
def test_what_the_port_drops_is_told(nm):
    with nm.open("vale0:a") as a, nm.open("vale0:b", rx_slots=8):
        frame = bytes.fromhex("ffffffffffff020000000001") + bytes(48)
        figures = replay(a, [Record(frame, 0, 60)] * 20, TopSpeed())
    assert (figures.packets, figures.dropped) == (20, {"no_room": 13})


@pytest.mark.interpreted
def test_a_damaged_file_is_replayed_up_to_the_damage(pipe, tmp_path):
    tx, start, result = pipe
    path = tmp_path / "file"
    with PcapWriter(path) as out:
        out.write_batch([r.data for r in records(5)], range(5))
    path.write_bytes(path.read_bytes()[:-1])
    start(4)
    player = Player(tx, File(path))
    with pytest.raises(CaptureFileError, match="was cut short"):
        player.run()
    assert result() == [r.data for r in records(4)]
    assert (player.figures.packets, player.figures.ended) == (4, "failed")


@pytest.mark.interpreted
def test_a_replay_can_be_stopped_although_nobody_reads(nm):
    with nm.open("netmap:p{1", tx_slots=8, rx_slots=8) as tx, nm.open("netmap:p}1"):
        player = Player(tx, records(100), TopSpeed())
        thread = threading.Thread(target=player.run)
        thread.start()
        while player.figures.packets < 7:
            pass
        player.stop()
        thread.join()
        assert (player.figures.packets, player.figures.ended) == (7, "stopped")


@pytest.mark.interpreted
def test_progress_is_told(pipe, monkeypatch):
    monkeypatch.setattr("ptnetmap.tools.replay.player._TELL", 0)
    tx, start, result = pipe
    start(3)
    told = []
    Player(tx, records(3), TopSpeed(), progress=told.append).run()
    result()
    assert told[-1] == 3


def test_a_port_that_cannot_send_is_refused(nm):
    with nm.open("vale0:a"), nm.open("vale0:a/R") as port, pytest.raises(PortError, match="0 TX rings are bound"):
        replay(port, records(1))
    with nm.open("vale0:a"), nm.open("vale0:a/r") as monitor, pytest.raises(PortError):
        replay(monitor, records(1))


# -- the command line -------------------------------------------------------------------------------------------------


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="ptnetmap")
    command.add_to(parser.add_subparsers())
    return parser.parse_args(["replay", *arguments])


@pytest.fixture
def run(nm, monkeypatch):
    """Run the program on ports of the test's runtime."""
    monkeypatch.setattr(ptnetmap, "open", nm.open, raising=False)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)

    def run(*arguments):
        options = parse(*arguments)
        return options.run(options)

    return run


@pytest.fixture
def file(tmp_path):
    """A file of five frames, one of them recorded short, and a packet that is no frame."""
    path = tmp_path / "file"
    with PcapngWriter(path) as out:
        out.write_batch([r.data for r in records(5)], [r.ts_ns for r in records(5)], lengths=[60, 61, 62, 63, 1500])
        out.write(b"raw ip", 2, interface=out.add_interface("tun0", linktype=101))
    return str(path)


@pytest.mark.parametrize(
    "pace",
    [[], ["--speed", "2.5"], ["--rate", "1M"], ["--bps", "1.5G"], ["-t"], ["-t", "--loop", "2", "-n", "5"]],
    ids=" ".join,
)
def test_the_program_sends_a_file_at_any_pace(nm, run, file, pace, capsys):
    with nm.open("netmap:p}1") as rx:
        assert run(file, "-i", "netmap:p{1", "--json", *pace) == 0
        assert rx.recv(timeout=0) == [r.data for r in records(5)]
    figures = json.loads(capsys.readouterr().out)
    assert figures.pop("seconds") >= 0
    assert figures.pop("pps") >= 0
    assert figures.pop("bps") >= 0
    assert figures == {
        "packets": 5,
        "bytes": 310,
        "skipped": {"not Ethernet": 1},
        "cut": 1,
        "dropped": {},
        "truncated": False,
        "ended": "count" if "-n" in pace else "done",
    }


def test_the_program_tells_what_was_not_sent_and_why(nm, run, file, capsys):
    with nm.open("netmap:p}1"):
        assert run(file, "-i", "netmap:p{1", "-t", "--limit", "5") == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0].partition(" in ")[0]) == ("", "5 packets, 310 bytes")
    assert "1 packets sent as short as they were recorded" in err


def test_a_file_cut_short_is_sent_and_refused_or_tolerated(nm, run, file, capsys):
    path = Path(file)
    path.write_bytes(path.read_bytes()[:-1])
    with nm.open("netmap:p}1") as rx:
        with pytest.raises(CaptureFileError, match="--tolerant"):
            run(file, "-i", "netmap:p{1", "-t")
        assert "5 packets, 310 bytes" in capsys.readouterr().err
        assert run(file, "-i", "netmap:p{1", "-t", "--tolerant", "-q") == 0
        assert capsys.readouterr() == ("", "")
        assert run(file, "-i", "netmap:p{1", "-t", "--tolerant") == 0
        assert "was cut short" in capsys.readouterr().err
        assert len(rx.recv(timeout=0)) == 15


def test_standard_input_cannot_be_repeated(run, capsys):
    assert run("-", "-i", "netmap:p{1", "--loop", "2") == 2
    assert "leave out --loop" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["f"], ["f", "-i", "p", "--rate", "0"], ["f", "-i", "p", "--rate", "1x"], ["f", "-i", "p", "-t", "--bps", "1"]],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("text", "value"), [("10k", 10_000), ("1.5M", 1_500_000), ("0.5", Fraction(1, 2)), ("2G", 2 * 10**9)]
)
def test_rates_may_have_suffixes(text, value):
    assert parse("f", "-i", "p", "--rate", text).rate == value


def test_help_shows_an_example_and_imports_nothing_heavy():
    body = (
        "import argparse, atexit, sys\n"
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\n"
        "from ptnetmap.cli import replay\n"
        "parser = argparse.ArgumentParser(prog='ptnetmap')\n"
        "replay.add_to(parser.add_subparsers())\n"
        "parser.parse_args(['replay', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert done.returncode == 0
    assert "ptnetmap replay" in done.stdout.partition("example")[2]
    assert not {"numba", "numpy", "rich", "llvmlite"} & set(done.stderr.split())


INTERRUPTED = """
import argparse, os, signal, sys
import ptnetmap
from ptnetmap.cli import replay
from ptnetmap.cli.outcome import conclude
from ptnetmap.tools.replay import player

nm = ptnetmap.Netmap()
ptnetmap.open = nm.open
reader = nm.open("netmap:p}1")
player._TELL = 0
inner = player.Player._tell
player.Player._tell = lambda self: self._packets and os.kill(os.getpid(), signal.SIGINT)
parser = argparse.ArgumentParser(prog="ptnetmap")
replay.add_to(parser.add_subparsers())
options = parser.parse_args(["replay", sys.argv[1], "-i", "netmap:p{1", "--speed", "0.01", "--loop", "0", "--json"])
sys.exit(conclude("ptnetmap", lambda: options.run(options)))
"""


def test_an_interrupt_ends_a_replay_with_its_figures_and_exit_code_130(file):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, file], capture_output=True, text=True, env=environment)
    assert done.returncode == 130, done.stderr
    assert json.loads(done.stdout)["ended"] == "stopped"

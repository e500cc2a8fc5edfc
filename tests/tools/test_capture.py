# SPDX-License-Identifier: BSD-2-Clause
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ptnetmap.errors import NameSyntaxError
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.pcap import CaptureFileError, PcapngWriter, PcapWriter, open_capture
from ptnetmap.tools.capture import Session, has_slots, is_monitor, monitor_name, plain_name, session

pytestmark = pytest.mark.interpreted


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap() as runtime:
        yield runtime


@pytest.fixture(params=[PcapngWriter, PcapWriter], ids=["pcapng", "pcap"])
def writer(request):
    return request.param


def frame(number, size=60):
    head = bytes.fromhex("ffffffffffff02000000000188b5") + number.to_bytes(4, "big")
    return head + bytes([number & 0xFF]) * (size - len(head))


def read(path):
    with open_capture(path) as capture:
        return list(capture)


def test_a_capture_has_the_frames_of_both_directions_in_order(nm, writer, tmp_path):
    path = tmp_path / "file"
    earliest = time.time_ns()
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:a/rt") as monitor, writer(path) as out:
        expected = []
        for i in range(60):
            sender = (a, b)[i % 2]
            sender.send(frame(i, 60 + i))
            expected.append((frame(i, 60 + i), sender is a))
        figures = Session(monitor, out, count=60).run()

    records = read(path)
    ways = [way if writer is PcapngWriter else None for _, way in expected]
    assert [(r.data, r.outbound) for r in records] == [
        (data, way) for (data, _), way in zip(expected, ways, strict=True)
    ]
    assert all(earliest - 1000 <= r.ts_ns <= time.time_ns() and r.length == len(r.data) for r in records)
    total = sum(len(data) for data, _ in expected)
    assert (figures.packets, figures.bytes, figures.missed, figures.ended) == (60, total, 0, "count")
    assert (figures.inbound, figures.outbound) == (30, 30)
    assert figures.file_bytes == path.stat().st_size


@pytest.mark.tshark
def test_tshark_sees_the_frames_that_went_over_the_switch(nm, writer, tmp_path):
    program = shutil.which("tshark")
    if program is None:
        pytest.skip("tshark is not installed (Debian: apt-get install tshark)")
    path = tmp_path / "file"
    frames = [frame(i, 60 + i) for i in range(100)]
    with nm.open("vale0:a") as a, nm.open("vale0:b"), nm.open("vale0:b/r") as monitor, writer(path) as out:
        a.send(frames)
        Session(monitor, out, count=100).run()

    fields = ["-e", "frame.len", "-e", "eth.src", "-e", "data.data"]
    done = subprocess.run(
        [program, "-n", "-r", str(path), "-T", "fields", *fields], capture_output=True, text=True, check=True
    )
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        [str(len(f)), "02:00:00:00:00:01", f[14:].hex()] for f in frames
    ]


def test_count_takes_exactly_so_many_and_leaves_the_rest(nm, tmp_path):
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, PcapWriter(tmp_path / "file") as out:
        a.send([frame(i) for i in range(20)])
        assert Session(monitor, out, count=7).run().packets == 7
        assert monitor.recv(timeout=0) == [frame(i) for i in range(7, 20)]
    assert [r.data for r in read(tmp_path / "file")] == [frame(i) for i in range(7)]


def test_a_stopped_capture_has_all_that_had_come(nm, tmp_path):
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, PcapWriter(tmp_path / "file") as out:
        a.send([frame(i) for i in range(20)])
        capturing = Session(monitor, out)
        capturing.stop()
        figures = capturing.run()
    assert (figures.packets, figures.ended) == (20, "stopped")


def test_time_ends_a_capture(nm, tmp_path):
    with nm.open("vale0:a"), nm.open("vale0:a/t") as monitor, PcapWriter(tmp_path / "file") as out:
        figures = Session(monitor, out, seconds=0.001).run()
    assert (figures.packets, figures.ended) == (0, "time")


def test_a_capture_ends_when_the_port_it_watches_is_closed(nm, tmp_path):
    with nm.open("vale0:keep"):
        watched = nm.open("vale0:a")
        with nm.open("vale0:a/t") as monitor, PcapWriter(tmp_path / "file") as out:
            watched.send([frame(i) for i in range(20)])
            watched.close()
            figures = Session(monitor, out).run()
    assert figures.ended == "closed"
    assert figures.packets + figures.missed == 20


def test_what_the_monitor_had_no_room_for_is_counted_and_told_in_the_file(nm, tmp_path):
    path = tmp_path / "file"
    with nm.open("vale0:a") as a, nm.open("vale0:a/t@conf:rx-slots=8") as monitor, PcapngWriter(path) as out:
        a.send([frame(i) for i in range(20)])
        figures = Session(monitor, out, count=7).run()
    assert (figures.packets, figures.missed) == (7, 13)
    assert [r.data for r in read(path)] == [frame(i) for i in range(7)]
    data = path.read_bytes()
    assert (20).to_bytes(8, "little") in data[-60:]
    assert (13).to_bytes(8, "little") in data[-60:]


def test_a_snaplen_cuts_packets_and_keeps_their_lengths(nm, writer, tmp_path):
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, writer(tmp_path / "file", snaplen=61) as out:
        a.send([frame(i, 60 + i) for i in range(5)])
        Session(monitor, out, count=5).run()
    assert [(r.data, r.length) for r in read(tmp_path / "file")] == [(frame(i, 60 + i)[:61], 60 + i) for i in range(5)]


@pytest.mark.parametrize("suffix", ["t", "tz"])
def test_a_packet_of_many_fragments_is_one_record(nm, writer, tmp_path, suffix):
    long = frame(1, 9000)
    with nm.open("vale0:a") as a, nm.open(f"vale0:a/{suffix}") as monitor, writer(tmp_path / "file") as out:
        a.send([frame(0), long, frame(2)])
        Session(monitor, out, count=3).run()
    assert [r.data for r in read(tmp_path / "file")] == [frame(0), long, frame(2)]


def test_all_rings_of_a_port_are_captured(nm, tmp_path):
    with (
        nm.open("vale0:a", tx_rings=3, rx_rings=2) as a,
        nm.open("vale0:a/t") as monitor,
        PcapngWriter(tmp_path / "file") as out,
    ):
        for i in range(12):
            a.send(frame(i), ring=i % 3)
        Session(monitor, out, count=12).run()
    by_ring = [
        [int.from_bytes(r.data[14:18], "big") for r in read(tmp_path / "file")][4 * i : 4 * i + 4] for i in range(3)
    ]
    assert by_ring == [list(range(i, 12, 3)) for i in range(3)]


def test_a_capture_larger_than_its_memory_goes_round(nm, writer, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(session, "CHUNK_PACKETS", 16)
    frames = [frame(i, 60 + i % 50) for i in range(900)]
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, writer(tmp_path / "file", snaplen=1000) as out:
        a.send(frames)
        assert Session(monitor, out, count=900).run().packets == 900
    assert [r.data for r in read(tmp_path / "file")] == frames


def test_a_capture_keeps_up_with_a_sender_that_another_thread_runs(nm, tmp_path):
    frames = [frame(i) for i in range(2000)]
    with (
        nm.open("vale0:a") as a,
        nm.open("vale0:a/t@conf:rx-slots=4096") as monitor,
        PcapngWriter(tmp_path / "f") as out,
    ):
        sender = threading.Thread(target=lambda: [a.send(frames[i : i + 20]) for i in range(0, 2000, 20)])
        sender.start()
        figures = Session(monitor, out, count=2000).run()
        sender.join()
    assert (figures.packets, figures.missed) == (2000, 0)
    assert [r.data for r in read(tmp_path / "f")] == frames


def test_a_file_that_cannot_be_written_ends_the_capture_with_the_reason(nm, tmp_path):
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, PcapWriter(tmp_path / "file") as out:
        a.send([frame(i) for i in range(20)])

        def fail(*_: object) -> None:
            raise CaptureFileError("the disk is full")

        out.write_in_place = fail
        with pytest.raises(CaptureFileError, match="the disk is full"):
            Session(monitor, out, count=100).run()


def test_progress_is_told_with_what_was_missed(nm, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_TELL", 0)
    told = []
    with nm.open("vale0:a") as a, nm.open("vale0:a/t@conf:rx-slots=8") as monitor, PcapWriter(tmp_path / "f") as out:
        a.send([frame(i) for i in range(20)])
        Session(monitor, out, count=7, progress=lambda *figures: told.append(figures)).run()
    assert told[-1] == (7, 13)


@pytest.mark.parametrize(
    ("name", "direction", "monitor"),
    [
        ("vale0:1", "both", "vale0:1/tr"),
        ("vale0:1", "rx", "vale0:1/r"),
        ("vale0:1", "tx", "vale0:1/t"),
        ("netmap:eth0-2", "both", "netmap:eth0-2/tr"),
        ("netmap:p{1/x@conf:rx-slots=64", "rx", "netmap:p{1/xr@conf:rx-slots=64"),
        ("vale0:1/rz", "both", "vale0:1/rz"),
    ],
)
def test_a_ports_monitor_is_named_after_it(name, direction, monitor):
    assert monitor_name(name, direction) == monitor
    assert is_monitor(monitor)
    assert plain_name("vale0:1-2/trz@conf:rx-slots=64") == "vale0:1-2"
    assert has_slots(monitor) == ("64" in name)


def test_what_is_no_port_name_is_refused():
    with pytest.raises(NameSyntaxError):
        monitor_name("eth0")


def test_a_buffer_always_holds_the_largest_packet(nm, tmp_path):
    with nm.open("vale0:a") as a, nm.open("vale0:a/t") as monitor, PcapngWriter(tmp_path / "file") as out:
        data = np.arange(63 * 2048, dtype=np.uint8)
        a.send(data)
        Session(monitor, out, count=1).run()
    assert read(tmp_path / "file")[0].data == data.tobytes()

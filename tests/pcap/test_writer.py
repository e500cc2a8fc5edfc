# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.pcap import CaptureFileError, PcapngWriter, PcapWriter, Record, open_capture

WRITERS = {"pcap": PcapWriter, "pcapng": PcapngWriter}
each_format = pytest.mark.parametrize("form", WRITERS)

frames = st.binary(max_size=200)
times = st.integers(0, (1 << 32) * 10**9 - 1)
packets = st.lists(st.tuples(frames, times, st.integers(0, 5000), st.sampled_from([None, False, True])), max_size=12)


def expected(packets, form, snaplen=0):
    """What a file with these packets has to give back: pcap knows no directions."""
    return [
        Record(data[:snaplen] if snaplen else data, ts, len(data) + more, 0, way if form == "pcapng" else None)
        for data, ts, more, way in packets
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("written") / "file"


def lay_out(packets, room, snaplen=0, spare=0):
    """Packets in a buffer of rubbish, as a program lays them out for a writer; and the arrays that go with it."""
    starts, at = [], room.before
    for data, *_ in packets:
        starts.append(at)
        at = room.next_start(at, len(data[:snaplen] if snaplen else data))
    buffer = np.full(at + spare + 8, 0xEE, np.uint8)
    for start, (data, *_) in zip(starts, packets, strict=True):
        buffer[start : start + len(data)] = np.frombuffer(data, np.uint8)
    columns = [
        starts,
        [len(data) for data, *_ in packets],
        [len(data) + more for data, _, more, _ in packets],
        [ts for _, ts, *_ in packets],
        [{None: 0, False: 1, True: 2}[way] for *_, way in packets],
    ]
    return buffer, [np.array(column, np.int64) for column in columns]


@each_format
@settings(max_examples=60, deadline=None)
@given(packets=packets, snaplen=st.sampled_from([0, 1, 64]))
def test_what_is_written_one_by_one_is_read_back(form, packets, snaplen, path):
    with WRITERS[form](path, snaplen=snaplen) as out:
        for data, ts, more, way in packets:
            out.write(data, ts, length=len(data) + more, outbound=way)
    with open_capture(path) as capture:
        assert list(capture) == expected(packets, form, snaplen)
    assert (out.packets, out.bytes) == (len(packets), path.stat().st_size)


@each_format
@settings(max_examples=60, deadline=None)
@given(packets=packets, spare=st.integers(0, 5))
def test_packets_written_in_place_give_the_same_file_as_one_by_one(form, packets, spare, path):
    with WRITERS[form](path) as out:
        buffer, columns = lay_out(packets, out.room, spare=spare)
        out.write_in_place(buffer, *columns)
        assert out.packets == len(packets)
    in_place = path.read_bytes()
    with WRITERS[form](path) as out:
        for data, ts, more, way in packets:
            out.write(data, ts, length=len(data) + more, outbound=way)
    assert in_place == path.read_bytes()


@each_format
@pytest.mark.parametrize("how", ["batch", "in place"])
def test_a_batch_is_one_system_call(form, how, path, read, monkeypatch):
    packets = [(bytes([i]) * 60, i, 0, None) for i in range(50)]
    with WRITERS[form](path) as out:
        calls = []
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append(len(data)) or real(fd, data))
        if how == "batch":
            out.write_batch([p[0] for p in packets], [p[1] for p in packets])
        else:
            buffer, columns = lay_out(packets, out.room)
            out.write_in_place(buffer, *columns)
    monkeypatch.undo()
    assert len(calls) == 1
    assert [r.data for r in read(path)] == [p[0] for p in packets]


@each_format
def test_a_killed_writer_leaves_all_batches_readable(form, path, read):
    out = WRITERS[form](path)
    assert read(path) == []
    out.write(b"abc", 1)
    assert [r.data for r in read(path)] == [b"abc"]
    out.write_batch([b"d", b"e"], [2, 3])
    assert [r.data for r in read(path)] == [b"abc", b"d", b"e"]
    out.close()


@each_format
def test_full_writes_a_megabyte_at_a_time_and_the_rest_at_the_end(form, path, read):
    with WRITERS[form](path, flush="full") as out:
        out.write(b"abc", 1)
        assert read(path) == []
        out.write(bytes(200_000), 1)
        for _ in range(5):
            out.write_batch([bytes(200_000)], [1])
        assert path.stat().st_size > 1_000_000
    assert len(read(path)) == 7


@each_format
def test_disk_works_on_files_and_on_pipes(form, path, read):
    with WRITERS[form](path, flush="disk") as out:
        out.write(b"abc", 1)
        assert len(read(path)) == 1
    fifo = path.with_name(f"fifo-{form}")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with WRITERS[form](fifo, flush="disk") as out:
        out.write(b"abc", 1)
    assert os.read(reader, 1000) == path.read_bytes()
    os.close(reader)


@each_format
def test_a_pipe_that_takes_parts_gets_everything(form, tmp_path, read):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received = []

    def drain():
        with fifo.open("rb") as file:
            received.append(file.read())

    thread = threading.Thread(target=drain)
    thread.start()
    with WRITERS[form](fifo) as out:
        os.set_blocking(out._fd, False)
        out.write_batch([bytes([i]) * 50_000 for i in range(20)], range(20))
    thread.join()
    assert [r.data for r in read(received[0])] == [bytes([i]) * 50_000 for i in range(20)]


@each_format
def test_a_reader_that_goes_away_is_a_broken_pipe(form, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    out = WRITERS[form](fifo)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        out.write(b"abc", 1)
    out.close()


def test_a_disk_that_is_full_says_how_much_was_written():
    with pytest.raises(
        CaptureFileError, match=r"/dev/full: cannot write it: No space left.*\n        0 packets"
    ) as raised:
        PcapWriter("/dev/full")
    assert raised.value.errno == errno.ENOSPC


def test_a_place_where_one_may_not_write_says_so(tmp_path):
    with pytest.raises(CaptureFileError, match="No such file or directory") as raised:
        PcapngWriter(tmp_path / "none" / "file")
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(CaptureFileError, match="null byte"):
        PcapWriter("a\0b")


@each_format
@pytest.mark.parametrize(
    ("data", "ts", "length", "number"),
    [
        (b"a", -1, None, "ERANGE"),
        (b"a", 1 << 64, None, "ERANGE"),
        (b"abc", 1, 2, "EMSGSIZE"),
        (b"", 1, 1 << 32, "EMSGSIZE"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_and_changes_nothing(form, data, ts, length, number, path, read):
    with WRITERS[form](path) as out:
        with pytest.raises(CaptureFileError) as raised:
            out.write(data, ts, length=length)
        assert raised.value.name == number
        assert (out.packets, read(path)) == (0, [])


def test_pcap_cannot_hold_times_after_2106(path):
    with PcapWriter(path) as out:
        buffer, columns = lay_out([(b"a", (1 << 32) * 10**9, 0, None)], out.room)
        with pytest.raises(CaptureFileError, match="cannot write the time"):
            out.write_in_place(buffer, *columns)


def test_a_pcapng_file_has_several_interfaces_if_described(path):
    with PcapngWriter(path, interface="vale0:1", snaplen=96) as out:
        second = out.add_interface("vale0:2", linktype=113)
        out.write(b"b", 2, interface=second)
        with pytest.raises(CaptureFileError, match="2 are described"):
            out.write(b"c", 3, interface=2)
    with open_capture(path) as capture:
        assert [(r.data, r.interface) for r in capture] == [(b"b", 1)]
        assert [(i.name, i.linktype, i.snaplen) for i in capture.interfaces] == [
            ("vale0:1", 1, 96),
            ("vale0:2", 113, 0),
        ]


# -- against another reader ----------------------------------------------------------------------------------------------


@pytest.mark.tshark
@each_format
@pytest.mark.parametrize("how", ["batch", "in place"])
def test_tshark_reads_what_was_written(form, how, tmp_path, tshark):
    path = tmp_path / "file"
    head = bytes.fromhex("ffffffffffff02000000000188b5")
    start = 1_700_000_000_123_456_789
    packets = [
        (head + bytes([i]) * (i + 46), start + 1_001 * i, i % 3 * 100, (None, False, True)[i % 3]) for i in range(40)
    ]
    with WRITERS[form](path) as out:
        if how == "batch":
            out.write_batch(
                [p[0] for p in packets],
                [p[1] for p in packets],
                lengths=[len(p[0]) + p[2] for p in packets],
                outbound=[p[3] for p in packets],
            )
        else:
            buffer, columns = lay_out(packets, out.room)
            out.write_in_place(buffer, *columns)
        if isinstance(out, PcapngWriter):
            out.statistics(received=50, dropped=10, ts_ns=start, started_ns=start)

    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "eth.dst", "frame.packet_flags_direction"]
    ways = {None: "0x00000000", False: "0x00000001", True: "0x00000002"}
    assert tshark(path, *fields) == [
        [
            f"{ts // 10**9}.{ts % 10**9:09}",
            str(len(data) + more),
            str(len(data)),
            "ff:ff:ff:ff:ff:ff",
            ways[way] if form == "pcapng" else "",
        ]
        for data, ts, more, way in packets
    ]


@pytest.mark.tshark
def test_tshark_sees_interface_names_and_statistics(tmp_path, tshark):
    path = tmp_path / "file"
    with PcapngWriter(path, interface="vale0:1") as out:
        out.write(bytes(60), 5)
        out.statistics(received=1, dropped=7, ts_ns=9, started_ns=1)
    assert tshark(path, "frame.interface_name") == [["vale0:1"]]

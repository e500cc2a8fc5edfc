# SPDX-License-Identifier: BSD-2-Clause
import io
import struct

import pytest

from ptnetmap.pcap import CaptureFileError, Record, open_capture

UNITS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}


def pcap(*packets, order="<", magic=0xA1B2C3D4, version=(2, 4), snaplen=65535, linktype=1):
    head = struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, linktype)
    parts = [struct.pack(order + "IIII", s, f, len(data), length) + data for s, f, data, length in packets]
    return head + b"".join(parts)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", UNITS)
def test_both_byte_orders_and_both_units_give_nanoseconds(order, magic, read):
    data = pcap((10, 999_999, b"abc", 3), (11, 1, b"", 90), order=order, magic=magic)

    assert read(data) == [
        Record(b"abc", 10_000_000_000 + 999_999 * UNITS[magic], 3),
        Record(b"", 11_000_000_000 + UNITS[magic], 90),
    ]


def test_the_interface_is_what_the_header_says(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pcap(snaplen=96, linktype=0xF000_0071))
    with open_capture(path) as capture:
        assert list(capture) == []
        (interface,) = capture.interfaces
    assert (capture.format, interface.linktype, interface.snaplen, interface.ticks) == ("pcap", 113, 96, 1_000_000)


@pytest.mark.parametrize("cut", range(1, 19))
def test_a_file_cut_short_gives_its_whole_packets_and_then_says_so(cut, read):
    whole = pcap((1, 0, b"first", 5), (2, 0, b"abc", 3))
    records = []
    with pytest.raises(CaptureFileError, match="was cut short") as raised:
        records.extend(open_capture(io.BytesIO(whole[:-cut])))

    assert [r.data for r in records] == [b"first"]
    assert (raised.value.truncated, raised.value.offset, raised.value.name) == (True, 45, "EBADMSG")
    assert read(whole[:-cut], tolerant=True) == records


def test_a_tolerated_cut_is_remembered(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pcap((1, 0, b"first", 5))[:-1])
    with open_capture(path, tolerant=True) as capture:
        assert (list(capture), capture.truncated) == ([], True)


def test_an_absurd_length_is_damage_and_not_memory(read):
    with pytest.raises(CaptureFileError, match="at offset 24: a packet of 4,294,967,295 bytes") as raised:
        read(pcap() + b"\xff" * 16, tolerant=True)
    assert not raised.value.truncated


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "it is empty"),
        (b"\xd4\xc3", "it has 2 bytes"),
        (b"\x1f\x8b\x08\0" * 8, "compressed with gzip\n.*zcat"),
        (b"\x28\xb5\x2f\xfd" * 8, "compressed with zstd"),
        (pcap()[:23], "it has 23 bytes"),
        (b"hello, world", "it begins with the bytes 68 65 6c 6c"),
        (b"\x34\xcd\xb2\xa1" * 8, "patched libpcap"),
        (pcap(version=(3, 0)), "version 3.0"),
    ],
)
def test_what_is_no_capture_is_named(data, found, read):
    with pytest.raises(CaptureFileError, match=found) as raised:
        read(data)
    assert "\n        " in str(raised.value)


def test_a_file_that_is_not_there_says_so_with_the_systems_errno(tmp_path, read):
    with pytest.raises(CaptureFileError, match="No such file") as raised:
        read(tmp_path / "none")
    assert raised.value.name == "ENOENT"
    with pytest.raises(CaptureFileError, match="Is a directory"):
        read(tmp_path)
    with pytest.raises(CaptureFileError, match="no file name"):
        read("a\0b")


def test_a_large_file_is_read_a_megabyte_at_a_time(tmp_path):
    path = tmp_path / "file"
    packet = bytes(1500)
    path.write_bytes(pcap(*[(i, 0, packet, 1500) for i in range(3000)]))
    seen = 0
    with open_capture(path) as capture:
        for record in capture:
            assert (record.ts_ns, record.data) == (seen * 10**9, packet)
            assert len(capture._source.data) < 2 << 20
            seen += 1
    assert seen == 3000

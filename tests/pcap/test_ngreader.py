# SPDX-License-Identifier: BSD-2-Clause
import io
import struct

import pytest

from ptnetmap.pcap import CaptureFileError, Interface, Record, open_capture


class Builder:
    """Writes blocks by the specification, in either byte order."""

    def __init__(self, order):
        self.order = order

    def pack(self, form, *values):
        return struct.pack(self.order + form, *values)

    def block(self, kind, body):
        size = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + size + body + size

    def options(self, *options):
        parts = [self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options]
        return b"".join(parts) + bytes(4) if parts else b""

    def section(self, *options, major=1, length=-1):
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, major, 0, length) + self.options(*options))

    def interface(self, *options, linktype=1, snaplen=0):
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + self.options(*options))

    def enhanced(self, data, ticks, *options, interface=0, length=None, captured=None):
        size = len(data) if captured is None else captured
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, size, length or len(data))
        return self.block(6, head + data + bytes(-len(data) % 4) + self.options(*options))

    def obsolete(self, data, ticks, *options, interface=0):
        head = self.pack("HHIIII", interface, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, head + data + bytes(-len(data) % 4) + self.options(*options))

    def simple(self, data, length):
        return self.block(3, self.pack("I", length) + data + bytes(-len(data) % 4))


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def b(request):
    return Builder(request.param)


NANO = (9, b"\x09")


def test_every_kind_of_packet_block_gives_its_record(b, read):
    data = (
        b.section((4, b"some program"))
        + b.interface(NANO, snaplen=4)
        + b.enhanced(b"abcde", 2**40 + 7, (1, b"a comment"), (2, b.pack("I", 1)), length=1000)
        + b.obsolete(b"xyz", 2**33, (2, b.pack("I", 0xFFFF0002)))
        + b.simple(b"wxyz", 60)
    )
    assert read(data) == [
        Record(b"abcde", 2**40 + 7, 1000, 0, False),
        Record(b"xyz", 2**33, 3, 0, True),
        Record(b"wxyz", 0, 60, 0, None),
    ]


def test_unknown_blocks_and_options_are_skipped(b, read):
    data = (
        b.section()
        + b.block(0x0BAD, b"what is this" * 3)
        + b.interface((2988, b"custom!"), NANO)
        + b.block(0x80000001, b"")
        + b.enhanced(b"abc", 5, (4711, bytes(9)))
        + b.block(5, bytes(12))
    )
    assert [r.data for r in read(data)] == [b"abc"]


def test_sections_may_differ_in_byte_order_and_have_interfaces_of_their_own(read):
    parts = []
    for order, name in (("<", b"little"), (">", b"big"), ("<", b"again")):
        b = Builder(order)
        parts += [b.section(), b.interface((2, name), NANO), b.interface(NANO), b.enhanced(name, 1, interface=0)]
    with open_capture(io.BytesIO(b"".join(parts))) as capture:
        records = list(capture)
    assert [(r.data, r.interface) for r in records] == [(b"little", 0), (b"big", 2), (b"again", 4)]
    assert [i.name for i in capture.interfaces] == ["little", "", "big", "", "again", ""]
    assert capture.format == "pcapng"


@pytest.mark.parametrize(
    ("options", "ticks", "ts_ns"),
    [
        ([], 1_500_000, 1_500_000_000),  # microseconds, if nothing is said
        ([(9, b"\x00")], 3, 3_000_000_000),
        ([(9, b"\x09")], 3, 3),
        ([(9, b"\x0c")], 5_999, 5),
        ([(9, b"\x8a")], 1536, 1_500_000_000),
        ([(9, b"\x7f")], 2**64 - 1, 0),
        ([(9, b"\x00")], 2**64 - 1, (2**64 - 1) * 10**9),
    ],
)
def test_times_are_in_the_interfaces_unit(b, options, ticks, ts_ns, read):
    assert read(b.section() + b.interface(*options) + b.enhanced(b"a", ticks))[0].ts_ns == ts_ns


def test_an_interfaces_offset_is_added(b, read):
    data = b.section() + b.interface(NANO, (14, b.pack("q", -2))) + b.enhanced(b"a", 5_000_000_001)
    assert read(data)[0].ts_ns == 3_000_000_001


def test_an_interface_is_what_its_description_says(b):
    data = b.section() + b.interface((2, b"eth0\0junk"), (14, b.pack("q", 9)), linktype=113, snaplen=77)
    with open_capture(io.BytesIO(data)) as capture:
        assert list(capture) == []
    assert capture.interfaces == [Interface(113, 77, "eth0", 1_000_000, 9)]


def test_a_file_cut_anywhere_gives_its_whole_packets(b, read):
    head = b.section() + b.interface(NANO)
    first = b.enhanced(b"first", 1)
    data = head + first + b.enhanced(b"second!", 2)
    for end in range(len(head), len(data)):
        expected = [b"first"] if end >= len(head) + len(first) else []
        assert [r.data for r in read(data[:end], tolerant=True)] == expected
        if end not in (len(head), len(head) + len(first)):
            with pytest.raises(CaptureFileError, match="was cut short") as raised:
                read(data[:end])
            assert raised.value.truncated
            assert raised.value.offset in (len(head), len(head) + len(first))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda b: b.pack("II", 6, 0xFFFFFFF0), "claims 4,294,967,280 bytes"),
        (lambda b: b.pack("II", 6, 8), "claims 8 bytes"),
        (lambda b: b.pack("II", 6, 13) + bytes(100), "claims 13 bytes"),
        (lambda b: b.pack("III", 9, 12, 16), "says 12 bytes at its beginning and 16 at its end"),
        (lambda b: b.enhanced(b"abc", 1, captured=1000), "a packet of 1,000 bytes in a block that has room for 4"),
        (lambda b: b.enhanced(b"abc", 1, interface=1), "interface 1, and 1 are described"),
        (lambda b: b.enhanced(b"abc", 1, interface=2**32 - 1), "interface 4294967295"),
        (lambda b: b.block(6, bytes(16)), "a body of 16 bytes"),
        (lambda b: b.block(2, bytes(16)), "a body of 16 bytes"),
        (lambda b: b.block(3, b""), "a body of 0 bytes"),
        (lambda b: b.simple(b"abc", 100), "a packet of 100 bytes in a block that has room for 4"),
        (lambda b: b.section() + b.simple(b"abc", 3), "no interface is described"),
        (lambda b: b.block(1, bytes(4)), "an interface description of 4 bytes"),
        (lambda b: b.block(1, bytes(8) + b.pack("HH", 2, 99)), "option 2 of 99 bytes does not fit"),
        (lambda b: b.section(major=2), "a section of version 2.0"),
        (lambda b: b.block(0x0A0D0D0A, bytes(16)), "byte order magic 00 00 00 00"),
        (lambda b: b.block(0x0A0D0D0A, b.pack("I", 0x1A2B3C4D)), "a section header of 4 bytes"),
    ],
)
def test_damage_is_told_with_its_place(b, damage, found, read):
    head = b.section() + b.interface()
    with pytest.raises(CaptureFileError, match=found) as raised:
        read(head + damage(b), tolerant=True)
    assert raised.value.offset >= len(head)
    assert f"at offset {raised.value.offset}" in str(raised.value)


def test_endless_interfaces_are_damage(b, read, monkeypatch):
    monkeypatch.setattr("ptnetmap.pcap.ngreader.MAX_INTERFACES", 10)
    with pytest.raises(CaptureFileError, match="more than 10 interfaces"):
        read(b.section() + b.interface() * 11)

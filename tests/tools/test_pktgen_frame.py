# SPDX-License-Identifier: BSD-2-Clause
import ipaddress
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.jit.block import Block
from ptnetmap.tools.pktgen import task
from ptnetmap.tools.pktgen.frame import make_frame
from ptnetmap.tools.pktgen.nullport import NullPort
from ptnetmap.tools.pktgen.options import parse
from ptnetmap.tools.pktgen.report import Log
from ptnetmap.tools.pktgen.transmit import transmit
from ptnetmap.tools.pktgen.work import Work

pytestmark = pytest.mark.interpreted


def internet_checksum(data):
    """RFC 1071, word by word."""
    total = 0
    for i in range(0, len(data), 2):
        total += int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def assert_whole(frame):
    """Lengths and checksums of an Ethernet frame with IPv4 or IPv6 and UDP are right."""
    if frame[12:14] == b"\x08\x00":
        ip, udp = frame[14:34], frame[34:]
        assert ip[0] == 0x45
        assert int.from_bytes(ip[2:4], "big") == len(frame) - 14
        assert internet_checksum(ip) == 0
        addresses = ip[12:20]
    else:
        ip, udp = frame[14:54], frame[54:]
        assert int.from_bytes(ip[4:6], "big") == len(udp)
        addresses = ip[8:40]
    assert int.from_bytes(udp[4:6], "big") == len(udp)
    assert udp[6:8] != b"\0\0"
    assert internet_checksum(addresses + struct.pack(">II", len(udp), 17) + udp) == 0


def frames(arguments, count, mac=0):
    """What ``count`` packets sent on a null port are."""
    options = parse(["-i", "null", "-f", "tx", "-b", "64", *arguments])
    port = NullPort(slots=1024)
    work = Work(options, make_frame(options, mac), port, 0, header=options.header, share=count, log=Log(quiet=True))
    scratch = Block("u8", 8)
    assert transmit(work.task.address, scratch.address) == task.DONE
    ring = port.tx_rings[0]
    return [bytes(ring.buffer(i)[: ring.slots["len"][i]]) for i in range(count)]


def fields(frame):
    """MAC addresses (source, destination), then source and destination as (address, port)."""
    version = 4 if frame[12:14] == b"\x08\x00" else 6
    at, size = (26, 4) if version == 4 else (22, 16)
    udp = 34 if version == 4 else 54
    addresses = [str(ipaddress.ip_address(frame[at + i * size : at + (i + 1) * size])) for i in (0, 1)]
    ports = struct.unpack(">HH", frame[udp : udp + 4])
    return frame[6:12].hex(), frame[:6].hex(), (addresses[0], ports[0]), (addresses[1], ports[1])


def test_the_default_packet_is_upstreams():
    (frame,) = frames([], 1, mac=0x020304050607)

    assert len(frame) == 60
    assert fields(frame) == ("020304050607", "ffffffffffff", ("10.0.0.1", 1234), ("10.1.0.1", 1234))
    assert frame[14:24] == bytes.fromhex("4510002e000040004011")
    assert frame[42:] == b"netmap pkt-gen DIR"
    assert_whole(frame)


@pytest.mark.parametrize("size", [42, 43, 60, 61, 200, 201, 1514])
@pytest.mark.parametrize("version", ["-4", "-6"])
def test_lengths_and_checksums_are_right_for_every_size(version, size):
    (frame,) = frames([version, "-l", str(max(size, 62) if version == "-6" else size)], 1)

    assert_whole(frame)


def test_a_packet_may_be_shorter_than_its_headers():
    assert [len(frame) for frame in frames(["-l", "16"], 2)] == [16, 16]


def test_the_payload_repeats_its_text():
    (frame,) = frames(["-l", "142"], 1)

    assert frame[42:] == (b"netmap pkt-gen DIRECT payload\n" * 4)[:100]


def test_ranges_turn_like_an_odometer_port_first():
    got = frames(["-s", "10.0.0.1:5-10.0.0.2:6", "-d", "10.1.0.1:7-10.1.0.2:7"], 9)

    sources = [(f"10.0.0.{a}", p) for a in (1, 2) for p in (5, 6)]
    expected = [(s, (f"10.1.0.{b}", 7)) for b in (1, 2) for s in sources]
    assert [fields(frame)[2:] for frame in got] == [*expected, expected[0]]
    for frame in got:
        assert_whole(frame)


def test_mac_ranges_turn_beside_the_addresses():
    got = frames(["-S", "02:00:00:00:00:ff-02:00:00:00:01:00", "-D", "06:00:00:00:00:00-06:00:00:00:00:01"], 5)

    macs = [("0200000000ff", "060000000000"), ("020000000100", "060000000000")]
    macs += [(source, "060000000001") for source, _ in macs]
    assert [fields(frame)[:2] for frame in got] == [*macs, macs[0]]


def test_ipv6_ranges_iterate_over_the_last_bits():
    got = frames(["-6", "-s", "[fd00::ffff]:9-fd00::1:0", "-l", "80"], 3)

    assert [fields(frame)[2] for frame in got] == [("fd00::ffff", 9), ("fd00::1:0", 9), ("fd00::ffff", 9)]
    for frame in got:
        assert_whole(frame)


def test_random_addresses_differ_and_keep_checksums_right():
    got = frames(["-z", "-Z", "-l", "64"], 20)

    assert len({fields(frame)[2:] for frame in got}) == 20
    for frame in got:
        assert_whole(frame)


def test_random_sizes_stay_in_their_limits():
    got = frames(["-l", "90", "-l", "43"], 200)

    sizes = {len(frame) for frame in got}
    assert sizes <= set(range(43, 91))
    assert len(sizes) > 20
    for frame in got:
        assert_whole(frame)


def test_numbered_packets_count_in_network_order():
    options = ["-f", "txseq", "-s", "10.0.0.1-10.0.0.3"]
    got = frames(options, 4)

    assert [int.from_bytes(frame[42:46], "big") for frame in got] == [0, 1, 2, 3]
    assert len({frame[46:50] for frame in got}) == 1
    for frame in got:
        assert_whole(frame)


def test_a_header_precedes_the_frame():
    got = frames(["-H", "12", "-s", "10.0.0.1-10.0.0.3"], 3)

    for frame in got:
        assert frame[:12] == bytes(12)
        assert len(frame) == 72
        assert_whole(frame[12:])


def test_rubbish_leaves_buffers_alone():
    assert frames(["-r", "-s", "10.0.0.1-10.0.0.3"], 3) == [bytes(60)] * 3


@pytest.mark.parametrize(
    ("arguments", "lengths"),
    [
        (["-F", "4", "-l", "62"], [15, 16, 15, 16]),
        (["-M", "25", "-l", "62"], [25, 25, 12]),
        (["-F", "3", "-M", "25", "-l", "62"], [25, 25, 12]),
        (["-l", "5000"], [2048, 2048, 904]),
    ],
    ids=["number", "size", "both", "buffers"],
)
def test_fragments_make_up_the_frame(arguments, lengths):
    options = parse(["-i", "null", "-f", "tx", *arguments])
    port = NullPort()
    work = Work(options, make_frame(options, 0), port, 0, header=0, share=2, log=Log(quiet=True))
    assert transmit(work.task.address, Block("u8", 8).address) == task.DONE

    ring = port.tx_rings[0]
    slots = ring.slots[: 2 * len(lengths)]
    assert slots["len"].tolist() == lengths * 2
    assert (slots["flags"] & 0x20 != 0).tolist() == ([True] * (len(lengths) - 1) + [False]) * 2
    parts = [bytes(ring.buffer(i)[: slots["len"][i]]) for i in range(len(lengths))]
    assert_whole(b"".join(parts))
    assert work.counts.packets == 2
    assert work.counts.bytes == 2 * sum(lengths)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_checksums_kept_up_with_equal_checksums_summed_anew(data):
    version = data.draw(st.sampled_from([4, 6]))
    generator = random.Random(data.draw(st.integers(0, 2**32)))

    def part():
        low = generator.randrange(0xFFFFFFFF - 8)
        port = generator.randrange(0xFFFF - 3)
        if version == 4:
            ends = [str(ipaddress.IPv4Address(low + i)) for i in (0, generator.randrange(8))]
        else:
            ends = [f"[{ipaddress.IPv6Address((0xFD << 120) + (low << 32 << 32) + low + i)}]" for i in (0, 5)]
        return f"{ends[0]}:{port}-{ends[1]}:{port + generator.randrange(4)}"

    least = 62 if version == 6 else 42
    sizes = sorted((data.draw(st.integers(least, 300)), data.draw(st.integers(least, 300))))
    arguments = [f"-{version}", "-s", part(), "-d", part(), "-l", str(sizes[1]), "-l", str(sizes[0])]
    arguments += data.draw(st.sampled_from([[], ["-z"], ["-Z"], ["-z", "-Z"]]))

    for frame in frames(arguments, 40):
        assert_whole(frame)


def test_compiled_sums_do_not_need_the_template_again():
    options = parse(["-i", "null", "-f", "tx"])

    assert make_frame(options, 0).udp_sums.dtype == np.int64
    assert not make_frame(options, 0).changes

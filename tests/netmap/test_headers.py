# SPDX-License-Identifier: BSD-2-Clause

import struct

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import virtio
from ptnetmap.jit.memory import load8

pytestmark = pytest.mark.interpreted

VNET = abi.NR_ACCEPT_VNET_HDR


def test_a_port_with_a_virtio_net_header_is_for_programs_that_expect_it(nm, refusal):
    with nm.open("vale0:a"):
        nm.set_header("vale0:a", 12)
        assert nm.header("vale0:a") == 12
        refusal("EIO", nm.open, "vale0:a", match="12 bytes")
        with nm.open("vale0:a", flags=abi.NR_ACCEPT_VNET_HDR):
            pass
        with nm.open("vale0:a/r"):  # the monitor itself has none
            pass


def test_header_lengths_are_0_10_and_12_and_belong_to_vale_ports(nm, refusal):
    with nm.open("vale0:a"), nm.open("netmap:p{1"):
        for length in (-1, 1, 11, 16):
            refusal("EINVAL", nm.set_header, "vale0:a", length)
        for name in ("netmap:p{1", "p{1", "nobody"):
            refusal("ENXIO", nm.set_header, name, 10)
            refusal("ENXIO", nm.header, name)


def header(length, **fields):
    """A virtio-net header of 10 or 12 bytes."""
    made = np.zeros(1, virtio.virtio_net_hdr_mrg_rxbuf)
    for name, value in fields.items():
        made[name] = value
    return made.tobytes()[:length]


@pytest.fixture
def with_headers(nm):
    """Open two ports with headers of given lengths."""
    opened = []

    def make(first, second):
        for name, length in (("vale0:a", first), ("vale0:b", second)):
            opened.append(nm.open(name, flags=VNET))
            nm.set_header(name, length)
        return opened[0], opened[1]

    yield make
    for port in opened:
        port.close()


@pytest.mark.parametrize("length", [10, 12])
def test_between_equal_headers_frames_pass_as_they_are(with_headers, frame, length):
    a, b = with_headers(length, length)
    odd = bytes(range(200, 200 + length))
    a.send(odd + frame())
    assert b.recv(timeout=0) == [odd + frame()]


def test_addresses_are_looked_up_behind_the_header(with_headers, nm, frame, arrivals):
    a, b = with_headers(12, 12)
    with nm.open("vale0:c", flags=VNET) as c:
        nm.set_header("vale0:c", 12)
        b.send(header(12) + frame(255, 2))
        arrivals([a, c])
        a.send(header(12) + frame(2, 1))
        assert arrivals([b, c]) == [[header(12) + frame(2, 1)], []]


@pytest.mark.parametrize(
    ("first", "second", "sent", "received"),
    [
        (10, 12, header(10, hdr_len=7), header(12, hdr_len=7, num_buffers=1)),
        (12, 10, header(12, hdr_len=7, num_buffers=3), header(10, hdr_len=7)),
        (0, 10, b"", header(10)),
        (0, 12, b"", header(12, num_buffers=1)),
        (10, 0, header(10), b""),
        (12, 0, header(12), b""),
    ],
)
def test_between_different_headers_they_are_translated_added_or_taken_away(
    with_headers, frame, first, second, sent, received
):
    a, b = with_headers(first, second)
    a.send([sent + frame(fill=i) for i in range(3)])
    assert b.recv(timeout=0) == [received + frame(fill=i) for i in range(3)]
    assert a.stats.drops == {}


def test_a_header_that_fills_the_first_fragment_has_the_frame_in_the_second(with_headers, frame):
    a, b = with_headers(12, 0)
    ring = a.tx_rings[0]
    for i, (part, flags) in enumerate(((header(12), abi.NS_MOREFRAG), (frame(), 0))):
        ring.buffer(i)[: len(part)] = np.frombuffer(part, np.uint8)
        ring.slots["len"][i], ring.slots["flags"][i] = len(part), flags
    ring.advance(2)
    a.txsync()
    assert b.recv(timeout=0) == [frame()]


@pytest.mark.parametrize("size", [0, 5, 12])
def test_a_frame_that_is_not_longer_than_its_header_is_dropped_and_counted(with_headers, size):
    a, b = with_headers(12, 0)
    a.send(bytes(size))
    assert b.recv(timeout=0) == []
    assert a.stats.drops == {"bad_header": 1}


def internet_checksum(data):
    words = struct.unpack(f"!{len(data + b'0') // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def tcp_packet(payload, checksum=0):
    """An Ethernet frame with IPv4 and TCP: PSH and FIN are set, sequence number 1000."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 7, 0, 64, 6, 0, b"\n\0\0\1", b"\n\0\0\2")
    ip = ip[:10] + struct.pack("!H", internet_checksum(ip) ^ 0xFFFF) + ip[12:]
    tcp = struct.pack("!HHIIBBHHH", 1234, 80, 1000, 0, 0x50, 0x19, 8192, checksum, 0)
    return bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]) + ip + tcp + payload


def pseudo_header(length):
    return internet_checksum(b"\n\0\0\1\n\0\0\2" + struct.pack("!HH", 6, length))


@pytest.mark.parametrize("length", [10, 12])
def test_a_large_tcp_packet_is_cut_into_finished_frames_for_a_port_without_header(with_headers, length):
    a, b = with_headers(length, 0)
    payload = bytes(i & 255 for i in range(9000))
    large = header(length, flags=1, gso_type=1, hdr_len=54, gso_size=1448, csum_start=34, csum_offset=16)
    a.send(large + tcp_packet(payload, pseudo_header(20 + len(payload))))
    frames = b.recv(timeout=0)
    assert b"".join(f[54:] for f in frames) == payload
    sequence = 1000
    for f in frames:
        assert len(f) <= 1514
        assert struct.unpack("!H", f[16:18])[0] == len(f) - 14
        assert internet_checksum(f[14:34]) == 0xFFFF
        assert internet_checksum(f[26:34] + struct.pack("!HH", 6, len(f) - 34) + f[34:]) == 0xFFFF
        assert struct.unpack("!I", f[38:42])[0] == sequence
        assert f[47] == (0x19 if f is frames[-1] else 0x10)
        sequence += len(f) - 54
    assert (a.stats.tx_packets, b.stats.truncated, a.stats.drops) == (1, 0, {})


def test_a_large_tcp_packet_passes_whole_to_a_port_with_the_same_header(with_headers):
    a, b = with_headers(12, 12)
    large = header(12, flags=1, gso_type=1, hdr_len=54, gso_size=1448, csum_start=34, csum_offset=16)
    packet = large + tcp_packet(bytes(20000))
    a.send(packet)
    assert b.recv(timeout=0) == [packet]


def test_an_unfinished_checksum_is_finished_for_a_port_without_header(with_headers):
    a, b = with_headers(12, 0)
    partial = header(12, flags=1, csum_start=34, csum_offset=16)
    a.send(partial + tcp_packet(b"hello", pseudo_header(25)))
    (received,) = b.recv(timeout=0)
    assert internet_checksum(received[26:34] + struct.pack("!HH", 6, 25) + received[34:]) == 0xFFFF


def lying_packet():
    return header(12, flags=1, csum_start=60000, csum_offset=16) + tcp_packet(b"hello")


def test_a_header_that_lies_costs_its_packet_only(with_headers, frame):
    a, b = with_headers(12, 0)
    a.send([header(12) + frame(fill=1), lying_packet(), header(12) + frame(fill=2)])
    assert b.recv(timeout=0) == [frame(fill=1), frame(fill=2)]
    assert a.stats.drops == {"bad_header": 1}


def test_a_packet_dropped_for_its_header_does_not_count_as_received(with_headers, frame):
    a, b = with_headers(12, 0)
    a.send([header(12) + frame(), lying_packet()])
    assert b.stats.rx_packets == 1


def test_a_port_that_joins_two_switches_has_its_header_on_both_sides(nm, frame):
    nm.create("v0")
    with nm.open("vale0:a") as a, nm.open("vale1:b") as b:
        nm.attach("vale0:v0")
        nm.set_header("vale0:v0", 10)
        nm.attach("vale1:v0")
        assert nm.header("vale1:v0") == 10
        a.send(frame(2, 1))
        assert b.recv(timeout=0) == [frame(2, 1)]
        nm.set_header("vale1:v0", 12)
        assert nm.header("vale0:v0") == 12
        b.send(frame(1, 2))
        assert a.recv(timeout=0) == [frame(1, 2)]


def test_a_lookup_sees_the_frame_behind_the_virtio_net_header_and_its_length(with_headers, nm, frame):
    a, b = with_headers(12, 12)
    seen = np.zeros(2, np.int64)

    def look(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            table[0] = lengths[i]
            table[1] = load8(packets[i] + 5)
            ports[i] = 1

    nm.switch("vale0").lookup = look, seen
    a.send(header(12) + frame(77, 1))
    assert seen.tolist() == [60, 77]
    assert len(b.recv(timeout=0)) == 1

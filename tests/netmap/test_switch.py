# SPDX-License-Identifier: BSD-2-Clause
import errno
import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import virtio
from ptnetmap.errors import LookupCompileError, PortError
from ptnetmap.examples.lookups import (
    balance_flows,
    balance_flows_table,
    block_ports,
    block_ports_table,
    static_macs,
    static_macs_table,
    vlan_trunk,
    vlan_trunk_table,
)
from ptnetmap.jit.block import Block
from ptnetmap.jit.memory import load8
from ptnetmap.netmap.learning import ENTRIES, ENTRY, mac_hash
from ptnetmap.netmap.lookup import BROADCAST, DROP, Lookup

pytestmark = pytest.mark.interpreted

compiled_only = pytest.mark.skipif(config.DISABLE_JIT, reason="an interpreted process compiles no lookups")
VNET = abi.NR_ACCEPT_VNET_HDR


@pytest.fixture
def three(nm):
    """Ports 0, 1 and 2 of a switch."""
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:c") as c:
        yield a, b, c


def arrivals(ports):
    return [port.recv(timeout=0) for port in ports]


# Learning --------------------------------------------------------------------------------------------------------------


def test_an_unknown_destination_floods_and_a_known_one_does_not(three, frame):
    a, b, c = three
    a.send(frame(2, 1))
    assert arrivals(three) == [[], [frame(2, 1)], [frame(2, 1)]]
    b.send(frame(1, 2))
    assert arrivals(three) == [[frame(1, 2)], [], []]
    c.send(frame(2, 3))
    assert arrivals(three) == [[], [frame(2, 3)], []]


def test_what_is_learned_can_be_asked(three, nm, frame):
    for i, port in enumerate(three):
        port.send(frame(255, i + 1))
    assert nm.switch("vale0").learned() == {f"02:00:00:00:00:0{i + 1}": i for i in range(3)}


def test_a_broadcast_goes_to_all_but_its_sender(three, frame):
    three[1].send(frame(255, 2))
    assert arrivals(three) == [[frame(255, 2)], [], [frame(255, 2)]]


def test_a_multicast_floods_and_a_multicast_source_is_not_learned(three, nm, frame):
    group = b"\x01\x00\x5e\x00\x00\x01" + frame()[6:]
    odd = frame()[:6] + b"\x03" + frame()[7:]
    three[0].send([group, odd])
    assert arrivals(three) == [[], [group, odd], [group, odd]]
    assert list(nm.switch("vale0").learned()) == ["02:00:00:00:00:01"]


def test_an_address_that_moves_is_followed(three, frame):
    a, b, c = three
    for port in (b, c):
        port.send(frame(255, 9))
    arrivals(three)
    a.send(frame(9, 1))
    assert arrivals(three) == [[], [], [frame(9, 1)]]


def test_an_address_learned_in_a_batch_is_known_to_the_rest_of_it(three, frame):
    a, b, c = three
    a.send([frame(1, 2), frame(2, 1), frame(2, 1)])
    # Address 2 is a's own from the first frame on: what goes to it goes nowhere.
    assert len(b.recv(timeout=0)) == len(c.recv(timeout=0)) == 1
    assert a.stats.drops == {"same_port": 2}


def test_unicasts_and_floods_of_one_batch_arrive_in_the_order_in_which_they_were_sent(three, frame):
    a, b, c = three
    b.send(frame(255, 2))
    arrivals(three)
    frames = [frame(2 if i % 3 else 255, 1, fill=i) for i in range(100)]
    a.send(frames)
    assert b.recv(timeout=0) == frames
    assert c.recv(timeout=0) == frames[::3]


def test_an_address_takes_the_table_entry_of_another_with_the_same_hash(three, nm, frame):
    if not config.DISABLE_JIT:
        pytest.skip("calls a piece of a kernel, which only interpreted Python can")
    a, b, c = three
    wanted = mac_hash(int.from_bytes(frame()[6:12], "little"))
    twin = next(
        mac
        for mac in (bytes([2, 1, 0, 0, n >> 8, n & 255]) for n in range(65536))
        if mac_hash(int.from_bytes(mac, "little")) == wanted
    )
    a.send(frame(255, 1))
    b.send(frame(255)[:6] + twin + frame()[12:])
    assert list(nm.switch("vale0").learned()) == [twin.hex(":")]
    arrivals(three)
    c.send(frame(1, 3))
    assert len(a.recv(timeout=0)) == len(b.recv(timeout=0)) == 1


def test_a_port_that_gets_a_number_again_does_not_inherit_its_predecessors_addresses(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:c") as c:
        with nm.open("vale0:b") as b:
            b.send(frame(255, 2))
            assert b.adapter.index == 2
        with nm.open("vale0:d") as d:
            assert d.adapter.index == 2
            assert nm.switch("vale0").learned() == {}
            arrivals([a, c])
            a.send(frame(2, 1))
            assert arrivals([c, d]) == [[frame(2, 1)]] * 2


def test_the_learning_table_holds_no_trace_of_a_port_that_has_gone(nm, frame):
    with nm.open("vale0:a"):
        with nm.open("vale0:b") as b:
            b.send([frame(255, i) for i in range(50)])
        assert not nm.switch("vale0")._learning_table[ENTRY : ENTRY + ENTRIES].any()


def test_a_flood_that_reaches_nobody_is_counted(nm, frame):
    with nm.open("vale0:a") as a:
        a.send(frame(255))
        assert a.stats.drops == {"no_reader": 1}


# Rings -----------------------------------------------------------------------------------------------------------------


def test_a_packet_keeps_its_ring_number_modulo_the_destinations_rings(nm, frame):
    with nm.open("vale0:a@conf:rings=4") as a, nm.open("vale0:b@conf:rings=3") as b:
        b.send(frame(255, 2))
        for ring in range(4):
            a.send([frame(2, 1, fill=ring)], ring=ring)
        b.rxsync()
        assert [r.space() for r in b.rx_rings] == [2, 1, 1]
        assert bytes(b.rx_rings[0].packet(1)) == frame(2, 1, fill=3)


def test_a_flood_goes_to_ring_0(nm, frame):
    with nm.open("vale0:a@conf:rings=4") as a, nm.open("vale0:b@conf:rings=4") as b:
        a.send(frame(255), ring=3)
        b.rxsync()
        assert [r.space() for r in b.rx_rings] == [1, 0, 0, 0]


def test_descriptors_can_take_one_ring_of_a_port_each(nm, frame):
    with (
        nm.open("vale0:a@conf:rings=2") as a,
        nm.open("vale0:b-0@conf:rings=2") as first,
        nm.open("vale0:b-1") as second,
    ):
        first.send(frame(255, 2))
        for ring in range(2):
            a.send(frame(2, 1, fill=ring), ring=ring)
        assert arrivals([first, second]) == [[frame(2, 1, fill=0)], [frame(2, 1, fill=1)]]
        second.close()
        a.send([frame(2, 1)], ring=1)
        assert a.stats.drops == {"no_reader": 1}


# Limits ----------------------------------------------------------------------------------------------------------------


def test_a_switch_has_254_ports_and_a_flood_reaches_them_all(nm, frame):
    ports = [nm.open(f"vale0:p{i}@conf:slots=4") for i in range(254)]
    with pytest.raises(PortError, match="254 ports") as refused:
        nm.open("vale0:one_more")
    assert refused.value.errno == errno.ENOMEM
    assert [index for _, _, index in nm.list()] == list(range(254))
    ports[253].send(frame(255))
    assert arrivals(ports[:253]) == [[frame(255)]] * 253
    ports[100].close()
    with nm.open("vale0:one_more") as again:
        assert again.adapter.index == 100


# Two switches joined ---------------------------------------------------------------------------------------------------


@pytest.fixture
def joined(nm):
    """Switches vale0 and vale1, each with an ordinary port, joined by a persistent port."""
    nm.create("v0")
    with nm.open("vale0:a") as a, nm.open("vale1:b") as b:
        nm.attach("vale0:v0")
        nm.attach("vale1:v0")
        yield a, b
        nm.detach("vale1:v0")
        nm.detach("vale0:v0")
        nm.delete("v0")


def test_frames_cross_a_port_that_joins_two_switches_both_ways(joined, frame):
    a, b = joined
    a.send([frame(2, 1, fill=i) for i in range(100)])
    assert b.recv(timeout=0) == [frame(2, 1, fill=i) for i in range(100)]
    b.send([frame(1, 2, fill=i) for i in range(100)])
    assert a.recv(timeout=0) == [frame(1, 2, fill=i) for i in range(100)]


def test_both_switches_learn_across_the_join(joined, nm, frame):
    a, b = joined
    a.send(frame(2, 1))
    b.send(frame(1, 2))
    assert nm.switch("vale0").learned() == {"02:00:00:00:00:01": 0, "02:00:00:00:00:02": 1}
    assert nm.switch("vale1").learned() == {"02:00:00:00:00:01": 1, "02:00:00:00:00:02": 0}


def test_chains_cross_a_join(joined, frame):
    a, b = joined
    a.send(frame(size=9000))
    assert b.recv(timeout=0) == [frame(size=9000)]


def test_more_frames_than_the_joining_ports_ring_holds_cross_it(joined, frame):
    a, b = joined
    for i in range(20):
        a.send([frame(2, 1, fill=i)] * 300)
        assert len(b.recv(1000, timeout=0)) == 300


def test_a_join_ends_when_it_is_detached(nm, frame):
    nm.create("v0")
    with nm.open("vale0:a") as a, nm.open("vale1:b") as b:
        nm.attach("vale0:v0")
        nm.attach("vale1:v0")
        nm.detach("vale1:v0")
        a.send(frame())
        assert b.recv(timeout=0) == []
        with nm.open("vale0:v0") as port:
            a.send(frame())
            assert port.recv(timeout=0) == [frame()]


def test_three_switches_in_a_row_pass_frames_from_end_to_end(nm, frame):
    for i in range(2):
        nm.create(f"v{i}")
        nm.attach(f"vale{i}:v{i}")
        nm.attach(f"vale{i + 1}:v{i}")
    with nm.open("vale0:a") as a, nm.open("vale2:b") as b:
        a.send(frame(2, 1))
        assert b.recv(timeout=0) == [frame(2, 1)]
        b.send(frame(1, 2))
        assert a.recv(timeout=0) == [frame(1, 2)]


def test_a_loop_of_two_switches_ends(nm, frame):
    for i in range(2):
        nm.create(f"v{i}", tx_slots=16, rx_slots=16)
        for switch in range(2):
            nm.attach(f"vale{switch}:v{i}")
    with nm.open("vale0:a", tx_slots=16, rx_slots=16) as a, nm.open("vale1:b", tx_slots=16, rx_slots=16) as b:
        assert a.send([frame(255, 1)]) == 1  # it comes back, however often the frame goes round
        assert b.recv(1, timeout=0) == [frame(255, 1)]
        for i in range(2):
            nm.detach(f"vale1:v{i}")
        b.recv(timeout=0)
        a.send(frame(255, 1, fill=1))
        assert b.recv(timeout=0) == []


# Virtio-net headers ----------------------------------------------------------------------------------------------------


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


def test_addresses_are_looked_up_behind_the_header(with_headers, nm, frame):
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


# Lookups ---------------------------------------------------------------------------------------------------------------


def test_a_switch_learns_until_it_is_told_otherwise_and_again_when_told_to(three, nm, frame):
    a, b, c = three
    switch = nm.switch("vale0")
    assert switch.lookup.name == "learning"
    switch.lookup = nowhere
    a.send(frame(255))
    assert arrivals(three) == [[], [], []]
    switch.lookup = None
    a.send(frame(255))
    assert arrivals(three) == [[], [frame(255)], [frame(255)]]
    assert b.stats.drops == c.stats.drops == {}


def nowhere(packets, lengths, source, table, ports, rings):
    return


def by_table(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = table[0]
        table[1] += 1


def test_a_lookups_table_is_read_and_written_in_place(three, nm, frame):
    table = np.array([1, 0], np.int64)
    nm.switch("vale0").lookup = by_table, table
    three[0].send([frame()] * 3)
    assert table.tolist() == [1, 3]
    nm.switch("vale0").lookup.table[0] = 2
    three[0].send([frame()] * 2)
    assert [len(x) for x in arrivals(three)] == [0, 3, 2]
    assert table.tolist() == [2, 5]


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8", "f8"])
def test_a_lookups_table_may_have_any_dtype(three, nm, frame, dtype):
    def first_entry(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = int(table[0])

    nm.switch("vale0").lookup = first_entry, np.array([2, 0], dtype)
    three[0].send(frame())
    assert arrivals(three) == [[], [], [frame()]]


def test_what_a_lookup_does_not_answer_is_dropped(three, nm, frame):
    nm.switch("vale0").lookup = nowhere
    three[0].send([frame()] * 3)
    assert three[0].stats.drops == {"filtered": 3}


def test_a_lookup_chooses_the_ring_too(nm, frame):
    def spread(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = 1
            rings[i] = load8(packets[i] + 14)

    with nm.open("vale0:a") as a, nm.open("vale0:b@conf:rings=4") as b:
        nm.switch("vale0").lookup = spread
        a.send([frame(fill=i) for i in range(6)])
        b.rxsync()
        assert [r.space() for r in b.rx_rings] == [2, 2, 1, 1]


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


def test_broken_frames_are_dropped_whatever_the_lookup_says(three, nm, frame):
    def everywhere(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = BROADCAST

    nm.switch("vale0").lookup = everywhere
    three[0].send([frame(), frame(size=13)])
    assert arrivals(three) == [[], [frame()], [frame()]]
    assert three[0].stats.drops == {"too_short": 1}


@pytest.mark.parametrize(
    "table", [[1, 2], np.zeros((2, 2)), np.zeros(8)[::2], np.frombuffer(b"12345678", np.int64)], ids=repr
)
def test_a_table_must_be_a_writable_contiguous_array_of_one_dimension(table):
    with pytest.raises(LookupCompileError, match="one-dimensional") as refused:
        Lookup(nowhere, table)
    assert refused.value.errno == errno.EINVAL


def test_a_lookup_with_other_arguments_is_refused_with_the_right_ones():
    with pytest.raises(LookupCompileError, match=r"def wrong\(packets, lengths, source, table, ports, rings\)"):
        Lookup(wrong)


def wrong(packet, port):
    return


def with_objects(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = {"a": 1}[str(object())]


@compiled_only
def test_a_lookup_that_cannot_be_compiled_says_why_and_where_in_its_own_lines():
    with pytest.raises(LookupCompileError) as refused:
        Lookup(with_objects)
    message = str(refused.value)
    line = with_objects.__code__.co_firstlineno + 2
    assert message.startswith("lookup with_objects cannot be compiled")
    assert f"{__file__} at line {line}" in message
    assert "no objects, strings or lists" in message
    assert len(message) < 800


@compiled_only
def test_a_lookup_that_cannot_be_compiled_leaves_the_old_one_in_place(three, nm, frame):
    switch = nm.switch("vale0")
    switch.lookup = by_table, np.array([1, 0])
    with pytest.raises(LookupCompileError):
        switch.lookup = with_objects
    assert switch.lookup.name == "by_table"
    three[0].send(frame())
    assert arrivals(three) == [[], [frame()], []]


def differs(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        # Compiled, an 8-bit integer that was widened: 300. Interpreted, NumPy's uint8 wraps.
        ports[i] = 1 if ports[i] + ports[i] > 300 else 2


@compiled_only
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_lookup_whose_compiled_and_interpreted_forms_differ_is_refused():
    with pytest.raises(LookupCompileError, match="differs from its interpreted twin") as refused:
        Lookup(differs)
    assert "port 1, interpreted 2" in str(refused.value)


def raises(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = table[len(table) + i]


@compiled_only
def test_a_lookup_that_indexes_out_of_its_table_is_refused():
    with pytest.raises(LookupCompileError, match=r"IndexError.*\n.*guard"):
        Lookup(raises, np.zeros(4096, np.int64)[:64].copy())


@compiled_only
def test_trying_a_lookup_does_not_touch_the_users_table():
    table = np.zeros(16, np.int64)
    Lookup(by_table, table)
    assert not table.any()


# The examples ----------------------------------------------------------------------------------------------------------


def answers(lookup, frames, source):
    """Ask a lookup, a function and its table, about frames, without a switch."""
    function, table = lookup
    block = Block(np.uint8, 2048 * max(1, len(frames)))
    for i, data in enumerate(frames):
        block.items[2048 * i : 2048 * i + len(data)] = np.frombuffer(data, np.uint8)
    packets = block.address + 2048 * np.arange(len(frames), dtype=np.int64)
    ports, rings = np.full(len(frames), DROP, np.uint8), np.zeros(len(frames), np.uint8)
    lengths = np.array([len(f) for f in frames], np.uint32)
    function(packets, lengths, source, table, ports, rings)
    return ports.tolist(), rings.tolist()


def mac(n):
    return f"02:00:00:00:00:{n:02x}"


def test_static_macs_know_their_ports_from_the_start_and_drop_the_unknown(three, nm, frame):
    nm.switch("vale0").lookup = static_macs, static_macs_table({mac(1): 0, mac(2): 1, mac(3): 2})
    three[0].send([frame(2, 1), frame(3, 1), frame(9, 1), frame(255, 1)])
    assert arrivals(three) == [[], [frame(2, 1), frame(255, 1)], [frame(3, 1), frame(255, 1)]]
    assert three[0].stats.drops == {"filtered": 1}


@given(st.dictionaries(st.binary(min_size=5, max_size=5), st.integers(0, 253), max_size=63))
@settings(max_examples=30, deadline=None)
def test_static_macs_find_every_address_of_their_table_and_no_other(known):
    macs = {b"\2" + m: port for m, port in known.items()}
    lookup = static_macs, static_macs_table({m.hex(":"): port for m, port in macs.items()}, 64)
    frames = [m + bytes(54) for m in macs] + [b"\4" + m[1:] + bytes(54) for m in macs]
    assert answers(lookup, frames, 0)[0] == [*macs.values(), *[DROP] * len(macs)]


def test_a_table_of_static_macs_is_never_full():
    with pytest.raises(ValueError, match="power of two"):
        static_macs_table({mac(i): 0 for i in range(4)}, 4)


def tagged(frame, vlan):
    return frame[:12] + struct.pack("!HH", 0x8100, 0xE000 | vlan) + frame[12:]


def test_a_vlan_trunk_passes_frames_to_the_port_of_their_vlan_and_back(three, nm, frame):
    trunk, ten, twenty = three
    nm.switch("vale0").lookup = vlan_trunk, vlan_trunk_table(0, {10: 1, 20: 2})
    trunk.send([tagged(frame(), 10), tagged(frame(), 20), tagged(frame(), 30), frame()])
    assert arrivals(three) == [[], [tagged(frame(), 10)], [tagged(frame(), 20)]]
    ten.send([tagged(frame(), 10), tagged(frame(), 20), frame()])
    assert arrivals(three) == [[tagged(frame(), 10)], [], []]
    assert (trunk.stats.drops, ten.stats.drops, twenty.stats.drops) == ({"filtered": 2}, {"filtered": 2}, {})


def udp(frame, source, destination, sport, dport, fragment=0):
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, fragment, 64, 17, 0) + addresses
    return (frame[:12] + b"\x08\x00" + ip + struct.pack("!HHHH", sport, dport, 20, 0)).ljust(60, b"\0")


@pytest.fixture
def balancer():
    return balance_flows, balance_flows_table(0, [1, 2, 3, 4])


def test_a_flow_has_one_worker_and_ring_in_either_direction(balancer, frame):
    there = [udp(frame(), "10.0.0.1", f"10.0.1.{i}", 1000 + i, 53) for i in range(200)]
    back = [udp(frame(), f"10.0.1.{i}", "10.0.0.1", 53, 1000 + i) for i in range(200)]
    assert answers(balancer, there, 0) == answers(balancer, back, 0) == answers(balancer, there, 0)


def test_flows_are_spread_over_all_workers_and_rings(balancer, frame):
    flows = [udp(frame(), "10.0.0.1", f"10.0.1.{i}", p, 53) for i in range(50) for p in range(1000, 1020)]
    ports, rings = answers(balancer, flows, 0)
    for seen, number, kinds in ((ports, 1000, {1, 2, 3, 4}), (rings, 1000, set(range(16)))):
        assert set(seen) == kinds
        assert max(seen.count(k) for k in kinds) < 2 * number / len(kinds)


def test_fragments_of_a_datagram_stay_together(balancer, frame):
    first = udp(frame(), "10.0.0.1", "10.0.0.9", 1, 2, fragment=0x2000)
    second = udp(frame(), "10.0.0.1", "10.0.0.9", 777, 999, fragment=185)
    assert len(set(zip(*answers(balancer, [first, second], 0), strict=True))) == 1


def test_ipv6_flows_are_spread_by_address_and_the_rest_goes_to_the_first_worker(balancer, frame):
    def ipv6(n):
        return frame()[:12] + b"\x86\xdd" + bytes(8) + bytes([0xFD]) + bytes(30) + bytes([n])

    assert set(answers(balancer, [ipv6(n) for n in range(100)], 0)[0]) == {1, 2, 3, 4}
    assert answers(balancer, [frame(), frame(size=14)], 0) == ([1, 1], [0, 0])


def test_workers_answer_through_the_uplink(three, nm, frame):
    nm.switch("vale0").lookup = balance_flows, balance_flows_table(0, [1, 2])
    for worker in three[1:]:
        worker.send(udp(frame(), "10.0.0.1", "10.0.0.2", 1, 2))
    assert [len(x) for x in arrivals(three)] == [2, 0, 0]


def test_blocked_ports_do_not_pass_and_everything_else_does(three, nm, frame):
    nm.switch("vale0").lookup = block_ports, block_ports_table([22, 53])
    good = [udp(frame(), "10.0.0.1", "10.0.0.2", 53, 80), frame(), frame(255)]
    bad = [
        udp(frame(), "10.0.0.1", "10.0.0.2", 80, 53),
        udp(frame(), "10.0.0.1", "10.0.0.2", 80, 80, fragment=1),
        udp(frame(), "10.0.0.1", "10.0.0.2", 80, 80)[:36],
    ]
    three[0].send([*bad, *good])
    assert arrivals(three) == [[], good, []]
    three[1].send(good[:1])
    three[2].send(good[:1])
    assert arrivals(three) == [good[:1], [], []]
    assert three[2].stats.drops == {"filtered": 1}


@compiled_only
@pytest.mark.parametrize(
    ("function", "table"),
    [
        (static_macs, static_macs_table({mac(0): 1, mac(2): 2})),
        (vlan_trunk, vlan_trunk_table(0, {i: i % 250 for i in range(4096)})),
        (balance_flows, balance_flows_table(0, [1, 2, 3])),
        (block_ports, block_ports_table(range(0, 65536, 2))),
    ],
)
def test_the_examples_compile_and_agree_with_their_twins(function, table):
    assert Lookup(function, table).name == function.__name__

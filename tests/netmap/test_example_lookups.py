# SPDX-License-Identifier: BSD-2-Clause

import socket
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config

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
from ptnetmap.netmap.lookup import DROP, Lookup

pytestmark = pytest.mark.interpreted

compiled_only = pytest.mark.skipif(config.DISABLE_JIT, reason="an interpreted process compiles no lookups")


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


def test_static_macs_know_their_ports_from_the_start_and_drop_the_unknown(three, nm, frame, arrivals):
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


def test_a_vlan_trunk_passes_frames_to_the_port_of_their_vlan_and_back(three, nm, frame, arrivals):
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


def test_workers_answer_through_the_uplink(three, nm, frame, arrivals):
    nm.switch("vale0").lookup = balance_flows, balance_flows_table(0, [1, 2])
    for worker in three[1:]:
        worker.send(udp(frame(), "10.0.0.1", "10.0.0.2", 1, 2))
    assert [len(x) for x in arrivals(three)] == [2, 0, 0]


def test_blocked_ports_do_not_pass_and_everything_else_does(three, nm, frame, arrivals):
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

# SPDX-License-Identifier: BSD-2-Clause
import errno
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import MemoryPoolError, NameSyntaxError, PeerError, PortError
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.tools.lb.balancer import Balancer
from ptnetmap.tools.lb.flow import flow
from ptnetmap.tools.lb.groups import Ends, Group, name_pipes, parse_group
from ptnetmap.tools.lb.report import Periods, summary

pytestmark = pytest.mark.interpreted

IN = "vale0:in@conf:slots=64"


def audited(runtime: Netmap) -> list[str]:
    return [str(a) for a in runtime.audit() if not a.ok]


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap(ring_num=80, if_num=40) as runtime:
        yield runtime
        assert audited(runtime) == []
        runtime.close()
        assert [str(a) for a in runtime.audit() if a.lost] == []


@pytest.fixture
def sender(nm):
    with nm.open("vale0:x@conf:slots=256") as port:
        yield port


def readers(nm, *names):
    return [nm.open(f"vale0:in}}{i}" if isinstance(i, int) else i) for i in names]


# -- frames ------------------------------------------------------------------------------------------------------------


def ethernet(kind, payload, tags=(), source=1, destination=2):
    macs = bytes([2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source])
    vlan = b"".join(tag.to_bytes(2, "big") + b"\x00\x07" for tag in tags)
    return macs + vlan + kind.to_bytes(2, "big") + payload


def ipv4(source, destination, payload=b"", protocol=17, fragment=0, options=0):
    head = bytearray(20 + 4 * options)
    head[0] = 0x45 + options
    head[2:4] = (len(head) + len(payload)).to_bytes(2, "big")
    head[6:8] = fragment.to_bytes(2, "big")
    head[8:10] = bytes([64, protocol])
    head[12:20] = source.to_bytes(4, "big") + destination.to_bytes(4, "big")
    return bytes(head) + payload


def ipv6(source, destination, payload=b"", following=17):
    head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([following, 64])
    return head + source.to_bytes(16, "big") + destination.to_bytes(16, "big") + payload


def ports(source, destination, size=8):
    return (source.to_bytes(2, "big") + destination.to_bytes(2, "big")).ljust(size, b"\0")


def udp(number, connection=None, size=60):
    """A frame of one of 16 connections, with its number in it."""
    connection = number % 16 if connection is None else connection
    payload = ports(1000 + connection, 53) + number.to_bytes(4, "big")
    return ethernet(0x0800, ipv4(0x0A000001, 0x0A000002, payload)).ljust(size, b"\xee")


def number_of(frame):
    return int.from_bytes(frame[42:46], "big")


def connection_of(frame):
    return int.from_bytes(frame[34:36], "big") - 1000


def flow_of(frame):
    memory = np.frombuffer(frame + bytes(64), np.uint8).copy()
    return flow(memory.ctypes.data, len(frame))


addresses4 = st.integers(0, 2**32 - 1)
addresses6 = st.integers(0, 2**128 - 1)
port_numbers = st.integers(0, 2**16 - 1)
tag_lists = st.lists(st.sampled_from([0x8100, 0x88A8, 0x9100]), max_size=3)


# -- flows -------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    addresses4,
    addresses4,
    port_numbers,
    port_numbers,
    st.sampled_from([6, 17, 33, 132, 136]),
    tag_lists,
    st.integers(0, 10),
)
def test_both_directions_of_a_connection_are_one_flow(a, b, p, q, protocol, tags, options):
    there = ethernet(0x0800, ipv4(a, b, ports(p, q), protocol, options=options), tags)
    back = ethernet(0x0800, ipv4(b, a, ports(q, p), protocol), (), source=2, destination=1)
    assert flow_of(there) == flow_of(back)
    assert flow_of(there)[1]


@settings(deadline=None)
@given(
    addresses6,
    addresses6,
    port_numbers,
    port_numbers,
    tag_lists,
    st.lists(st.sampled_from([0, 43, 60, 51]), max_size=3),
)
def test_both_directions_of_an_ipv6_connection_are_one_flow(a, b, p, q, tags, extensions):
    payload, following = ports(p, q), 6
    for kind in extensions:
        unit = bytes([following, 0 if kind != 51 else 1]) + bytes(6 if kind != 51 else 10)
        payload, following = unit + payload, kind
    there = ethernet(0x86DD, ipv6(a, b, payload, following), tags)
    back = ethernet(0x86DD, ipv6(b, a, ports(q, p), 6))
    assert flow_of(there) == flow_of(back)


@settings(deadline=None)
@given(addresses4, addresses4, port_numbers, port_numbers, st.sampled_from([0x2000, 0x0001, 0x2004, 0x3FFF]))
def test_all_fragments_of_a_datagram_are_one_flow_both_ways(a, b, p, q, fragment):
    first = ethernet(0x0800, ipv4(a, b, ports(p, q), fragment=0x2000))
    other = ethernet(0x0800, ipv4(b, a, ports(q + 1 & 0xFFFF, p), fragment=fragment))
    assert flow_of(first) == flow_of(other)


def test_all_fragments_of_an_ipv6_datagram_are_one_flow_and_a_whole_one_is_none():
    first = ethernet(0x86DD, ipv6(1, 2, b"\x11\0\0\x01\0\0\0\x07" + ports(5, 6), 44))
    second = ethernet(0x86DD, ipv6(1, 2, b"\x11\0\x01\x00\0\0\0\x07" + ports(99, 98), 44))
    whole = ethernet(0x86DD, ipv6(1, 2, b"\x11\0\0\0\0\0\0\x07" + ports(5, 6), 44))
    assert flow_of(first) == flow_of(second) != flow_of(whole)
    assert flow_of(whole) == flow_of(ethernet(0x86DD, ipv6(2, 1, ports(6, 5), 17)))


def test_ports_tell_connections_apart_and_other_protocols_have_none():
    assert flow_of(ethernet(0x0800, ipv4(1, 2, ports(5, 6)))) != flow_of(ethernet(0x0800, ipv4(1, 2, ports(5, 7))))
    assert flow_of(ethernet(0x0800, ipv4(1, 2, ports(5, 6), 1))) == flow_of(
        ethernet(0x0800, ipv4(1, 2, ports(5, 7), 1))
    )
    assert flow_of(ethernet(0x0800, ipv4(1, 2, ports(5, 6)))) != flow_of(ethernet(0x0800, ipv4(1, 2, ports(6, 5))))


def test_what_is_no_ip_goes_by_its_addresses():
    there = ethernet(0x0806, bytes(46))
    back = ethernet(0x0806, bytes(46), source=2, destination=1)
    assert flow_of(there) == flow_of(back)
    assert not flow_of(there)[1]
    assert flow_of(there) != flow_of(ethernet(0x0806, bytes(46), source=3))


@settings(deadline=None)
@given(st.binary(max_size=90), st.sampled_from([b"", b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\x00"]))
def test_any_bytes_have_a_flow_and_what_follows_them_does_not_count(tail, kind):
    frame = (bytes(12) + kind + tail) if kind else tail
    memory = np.frombuffer(frame + b"\xff" * 64, np.uint8).copy()
    number, _ = flow(memory.ctypes.data, len(frame))
    assert 0 <= number < 1 << 32
    assert flow_of(frame)[0] == number


def test_connections_are_spread_evenly():
    spread = Counter(
        flow_of(ethernet(0x0800, ipv4(0x0A000000 + i, 0xC0A80001, ports(1024 + i, 443))))[0] % 7 for i in range(3500)
    )
    assert all(400 < spread[pipe] < 600 for pipe in range(7))


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "group"),
    [("4", Group(4)), ("ids:3", Group(3, "ids")), ("ids:", Group(2, "ids")), ("vale1:x:5", Group(5, "vale1:x"))],
)
def test_groups_are_a_number_and_maybe_a_name(text, group):
    assert parse_group(text) == group


@pytest.mark.parametrize("text", [":3", "0", "x:0", "x:-1", "many", "257", ""])
def test_a_group_needs_pipes_and_a_name_before_the_colon(text):
    with pytest.raises(ValueError, match=r"number of pipes|missing name"):
        parse_group(text)


def test_pipes_are_named_after_the_port_and_groups_of_one_name_go_on_counting():
    plan = name_pipes("vale0:in@conf:slots=64", [Group(1), Group(2, "ids"), Group(1), Group(1, "netmap:ids")], 7)
    assert plan == [
        [Ends("vale0:in{0/xT@7", "vale0:in}0")],
        [Ends("netmap:ids{0/xT@7", "netmap:ids}0"), Ends("netmap:ids{1/xT@7", "netmap:ids}1")],
        [Ends("vale0:in{1/xT@7", "vale0:in}1")],
        [Ends("netmap:ids{2/xT@7", "netmap:ids}2")],
    ]
    assert [ends.theirs for ends in name_pipes("netmap:p}9", [Group(2)], 1)[0]] == ["netmap:p}0", "netmap:p}1"]


@pytest.mark.parametrize(("port", "groups"), [("netmap:p}1", [Group(2)]), ("vale0:a/rt", [Group(2)])])
def test_pipes_cannot_hang_where_packets_come_from(port, groups):
    with pytest.raises(PortError, match="-p NAME:2") as refused:
        name_pipes(port, groups, 1)
    assert refused.value.errno == errno.EINVAL


# -- spreading ---------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_connections_stay_together_and_in_order(nm, sender):
    with Balancer(IN, [Group(3)], opener=nm.open) as balancer:
        outputs = readers(nm, 0, 1, 2)
        where = defaultdict(set)
        got = defaultdict(list)
        for start in range(0, 400, 50):
            sender.send([udp(i, size=60 + i) for i in range(start, start + 50)])
            balancer.turn()
            for i, port in enumerate(outputs):
                for frame in port.recv(timeout=0):
                    number = number_of(frame)
                    assert frame == udp(number, size=60 + number)
                    where[connection_of(frame)].add(i)
                    got[connection_of(frame)].append(number)
            assert audited(nm) == []
        assert all(len(pipes) == 1 for pipes in where.values())
        assert len({next(iter(pipes)) for pipes in where.values()}) == 3
        assert got == {c: list(range(c, 400, 16)) for c in range(16)}
        figures = balancer.figures
        assert (figures.received, figures.packets, figures.dropped, figures.non_ip) == (400, 400, 0, 0)
        assert figures.received_bytes == figures.bytes == sum(60 + i for i in range(400))


def test_buffers_change_places_and_nothing_is_copied(nm, sender):
    with Balancer(IN, [Group(1)], opener=nm.open) as balancer:
        (reader,) = readers(nm, 0)
        received = int(balancer.port.rx_rings[0].slots["buf_idx"][0])
        sender.send(udp(1))
        balancer.turn()
        reader.rxsync()
        assert int(reader.rx_rings[0].slots["buf_idx"][0]) == received


def test_chains_of_fragments_pass_whole(nm, sender):
    with Balancer(IN, [Group(2)], opener=nm.open, extra_bufs=40) as balancer:
        outputs = readers(nm, 0, 1)
        frames = [udp(i, size=size) for i, size in enumerate((60, 5000, 9000, 2048, 2049, 60))]
        got = []
        for _ in range(40):
            assert sender.send(frames) == len(frames)
            balancer.turn()
            got = sorted((f for port in outputs for f in port.recv(timeout=0)), key=number_of)
            assert got == frames
        assert balancer.figures.dropped == 0


def test_a_full_pipe_loses_its_own_packets_only_and_they_are_counted(nm, sender):
    with Balancer(IN, [Group(2)], opener=nm.open) as balancer:
        outputs = readers(nm, 0, 1)
        sent = 0
        got = [[], []]
        for start in range(0, 480, 48):
            sender.send([udp(i) for i in range(start, start + 48)])
            sent += 48
            balancer.turn()
            got[1] += outputs[1].recv(timeout=0)
        one, other = balancer.figures.pipes
        assert (one.packets, other.dropped) == (63, 0)
        assert one.packets + one.dropped + other.packets == balancer.figures.received == sent
        assert len(got[1]) == other.packets
        assert len(outputs[0].recv(timeout=0)) == 63
        assert one.dropped_bytes == 60 * one.dropped


def test_extra_buffers_hold_what_does_not_fit(nm, sender):
    with Balancer(IN, [Group(1)], opener=nm.open, extra_bufs=100) as balancer:
        (reader,) = readers(nm, 0)
        for start in range(0, 150, 50):
            sender.send([udp(i) for i in range(start, start + 50)])
            balancer.turn()
        figures = balancer.figures
        assert (figures.pipes[0].backlog, figures.free_buffers, figures.dropped) == (87, 13, 0)
        assert audited(nm) == []
        got = []
        while len(got) < 150:
            got += reader.recv(timeout=0)
            balancer.turn()
        assert [number_of(f) for f in got] == list(range(150))
        assert (balancer.figures.packets, balancer.figures.free_buffers) == (150, 100)


def test_when_extra_buffers_are_used_up_the_longest_backlog_loses_its_oldest(nm, sender):
    with Balancer(IN, [Group(2)], opener=nm.open, extra_bufs=30) as balancer:
        stuck, slow = (next(c for c in range(16) if flow_of(udp(0, c))[0] % 2 == i) for i in (0, 1))
        outputs = readers(nm, 0, 1)
        for start in (0, 50):
            sender.send([udp(i, stuck) for i in range(start, start + 50)])
            balancer.turn()
        one, other = balancer.figures.pipes
        assert (one.packets, one.backlog, one.dropped) == (63, 30, 7)
        for start in (200, 238):
            sender.send([udp(i, slow) for i in range(start, start + 38)])
            balancer.turn()
        one, other = balancer.figures.pipes
        assert (one.backlog, one.dropped, other.backlog, other.dropped) == (17, 20, 13, 0)
        assert audited(nm) == []
        first = outputs[1].recv(timeout=0)
        balancer.turn()
        assert [number_of(f) for f in first + outputs[1].recv(timeout=0)] == list(range(200, 276))
        first = outputs[0].recv(timeout=0)
        balancer.turn()
        assert [number_of(f) for f in first + outputs[0].recv(timeout=0)] == [*range(63), *range(83, 100)]


def test_each_group_of_a_chain_gets_everything(nm, sender):
    with Balancer(IN, [Group(2), Group(3, "ids"), Group(1)], opener=nm.open) as balancer:
        ends = readers(nm, 0, 1, "netmap:ids}0", "netmap:ids}1", "netmap:ids}2", 2)
        groups = [ends[:2], ends[2:5], ends[5:]]
        got = [[], [], []]
        for start in range(0, 400, 20):
            sender.send([udp(i, size=60 + 7 * i) for i in range(start, start + 20)] if start < 320 else [])
            for group, outputs in enumerate(groups):
                balancer.turn()
                for port in outputs:
                    got[group] += port.recv(timeout=0)
            assert audited(nm) == []
        frames = {i: udp(i, size=60 + 7 * i) for i in range(320)}
        for seen in got:
            assert {number_of(f): f for f in seen} == frames
            assert len(seen) == len(frames)
            for connection in range(16):
                numbers = [number_of(f) for f in seen if connection_of(f) == connection]
                assert numbers == sorted(numbers)
        assert [p.group for p in balancer.figures.pipes] == [0, 0, 1, 1, 1, 2]
        assert balancer.figures.packets == 3 * balancer.figures.received


def test_the_next_group_gets_a_packet_as_soon_as_it_has_been_read(nm, sender):
    with Balancer(IN, [Group(1), Group(1)], opener=nm.open) as balancer:
        first, second = readers(nm, 0, 1)
        sender.send(udp(1))
        balancer.turn()
        assert second.recv(timeout=0) == []
        assert first.recv(timeout=0) == [udp(1)]
        balancer.turn()
        assert second.recv(timeout=0) == [udp(1)]


def test_what_a_reader_writes_into_its_slots_does_not_reach_the_next_group(nm, sender):
    with Balancer(IN, [Group(1), Group(1)], opener=nm.open) as balancer:
        first, second = readers(nm, 0, 1)
        sender.send([udp(1, size=5000), udp(2)])
        balancer.turn()
        first.rxsync()
        ring = first.rx_rings[0]
        ring.slots["len"][:4] = 7
        ring.slots["flags"][:4] = abi.NS_MOREFRAG
        ring.slots["ptr"][:4] = 12345
        ring.advance(4)
        first.rxsync()
        balancer.turn()
        assert second.recv(timeout=0) == [udp(1, size=5000), udp(2)]


def test_a_reader_that_loses_buffers_harms_its_own_pipe_only(sender):
    with (
        Netmap(ring_num=80, if_num=40) as lax,
        lax.open("vale0:x") as x,
        Balancer(IN, [Group(2)], opener=lax.open) as balancer,
    ):
        outputs = readers(lax, 0, 1)
        got = []
        for start in range(0, 600, 40):
            x.send([udp(i) for i in range(start, start + 40)])
            balancer.turn()
            outputs[0].rxsync()
            ring = outputs[0].rx_rings[0]
            ring.slots["buf_idx"][:] = 0xFFFFFF
            ring.release_to(ring.tail)
            outputs[0].rxsync()
            got += [number_of(f) for f in outputs[1].recv(timeout=0)]
        expected = [i for i in range(600) if flow_of(udp(i))[0] % 2 == 1]
        assert got == expected


def test_packets_without_data_and_slots_without_buffers_are_counted_and_passed_over():
    with Netmap() as lax, lax.open("vale0:x") as x, Balancer(IN, [Group(1)], opener=lax.open) as balancer:
        (reader,) = readers(lax, 0)
        x.send([udp(i) for i in range(5)])
        balancer.port.rxsync()
        slots = balancer.port.rx_rings[0].slots
        slots["buf_idx"][1], slots["len"][2], slots["len"][3] = 1 << 20, 0, 3000
        balancer.turn()
        assert [number_of(f) for f in reader.recv(timeout=0)] == [0, 4]
        figures = balancer.figures
        assert (figures.received, figures.bad, figures.empty) == (2, 2, 1)


def test_backlogs_are_given_back_at_the_end_and_counted_as_lost(nm, sender):
    with nm.open("vale0:in@conf:slots=64") as keep:
        with Balancer("vale0:in@conf:slots=64", [Group(1)], opener=nm.open, extra_bufs=80) as balancer:
            for start in (0, 50):
                sender.send([udp(i) for i in range(start, start + 50)])
                balancer.turn()
            assert balancer.figures.pipes[0].backlog == 37
        assert (balancer.figures.packets, balancer.figures.dropped) == (63, 37)
        assert [str(a) for a in nm.audit() if not a.ok or a.lost] == []
        assert keep.extra_bufs == 0


def test_a_reader_that_comes_later_gets_what_waits_for_it(nm, sender):
    with Balancer(IN, [Group(1)], opener=nm.open, extra_bufs=10) as balancer:
        sender.send([udp(i) for i in range(50)])
        balancer.turn()
        (reader,) = readers(nm, 0)
        assert [number_of(f) for f in reader.recv(timeout=0)] == list(range(50))
        reader.close()
        sender.send([udp(i) for i in range(50, 60)])
        balancer.turn()
        (reader,) = readers(nm, 0)
        assert [number_of(f) for f in reader.recv(timeout=0)] == list(range(50, 60))


def test_a_balancer_goes_on_where_another_one_ended(nm, sender):
    with nm.open("vale0:in@conf:slots=64"):
        with Balancer(IN, [Group(1), Group(1)], opener=nm.open) as balancer:
            first, second = readers(nm, 0, 1)
            sender.send([udp(i) for i in range(20)])
            balancer.turn()
        with Balancer(IN, [Group(1), Group(1)], opener=nm.open) as balancer:
            sender.send([udp(i) for i in range(20, 30)])
            balancer.turn()
            assert [number_of(f) for f in first.recv(timeout=0)] == list(range(30))
            balancer.turn()
            assert [number_of(f) for f in second.recv(timeout=0)] == list(range(20, 30))


def test_several_rings_are_received_from(nm, sender):
    with (
        nm.open("vale0:y@conf:slots=64,tx-rings=4") as wide,
        Balancer("vale0:in@conf:slots=64,rx-rings=4", [Group(1)], opener=nm.open) as balancer,
    ):
        (reader,) = readers(nm, 0)
        for ring in range(4):
            wide.send([udp(10 * ring + i) for i in range(10)], ring=ring)
        balancer.turn()
        assert sorted(number_of(f) for f in reader.recv(timeout=0)) == list(range(40))


def test_a_sleeping_balancer_wakes_for_packets_and_for_room_and_ends_when_told(nm):
    with (
        nm.open("netmap:p{in@conf:slots=16") as source,
        Balancer("netmap:p}in", [Group(1), Group(1)], opener=nm.open, extra_bufs=4000) as balancer,
    ):
        first, second = readers(nm, "netmap:p}0", "netmap:p}1")
        running = threading.Thread(target=balancer.run)
        running.start()
        numbers = list(range(300))
        feeder = threading.Thread(target=source.send, args=([udp(i) for i in numbers],))
        feeder.start()
        got = [[], []]
        while len(got[0]) < 300:
            got[0] += first.recv(20, timeout=30)
        while len(got[1]) < 300:
            got[1] += second.recv(20, timeout=30)
        feeder.join(30)
        balancer.stop()
        running.join(30)
        assert not running.is_alive()
        assert [[number_of(f) for f in seen] for seen in got] == [numbers, numbers]


def test_an_overwritten_ring_ends_the_balancer_and_is_named():
    with Netmap() as lax, Balancer(IN, [Group(2)], opener=lax.open) as balancer:
        balancer.port.rx_rings[0].head = 9
        with pytest.raises(PeerError, match="RX ring 0"):
            balancer.run()
    with Netmap() as lax, Balancer(IN, [Group(2)], opener=lax.open) as balancer:
        balancer.pipes[1].tx_rings[0].cur = 64
        with pytest.raises(PeerError, match=r"in\{1.*TX ring 0"):
            balancer.run()


def test_what_cannot_be_opened_leaves_nothing_behind(nm):
    with pytest.raises(NameSyntaxError):
        Balancer("eth0", opener=nm.open)
    with pytest.raises(MemoryPoolError, match="_num="):
        Balancer("vale0:in", [Group(200)], opener=nm.open)
    with nm.open("vale0:a"), nm.open("vale1:b{0"), pytest.raises(PortError, match="mem_id"):
        Balancer("vale0:a", [Group(1, "vale1:b")], opener=nm.open)
    with nm.open("vale0:in{0"), pytest.raises(PortError) as refused:
        Balancer("vale0:in", [Group(1)], opener=nm.open)
    assert refused.value.errno == errno.EBUSY
    with pytest.raises(PortError, match="nothing can be received"):
        Balancer("vale0:in/T", [Group(1)], opener=nm.open)
    with pytest.raises(PortError, match="use 1 to 256"):
        Balancer("vale0:in", [], opener=nm.open)
    assert nm.list() == []


def test_lines_have_totals_and_rates_since_the_line_before(nm, sender):
    with Balancer(IN, [Group(2)], opener=nm.open, extra_bufs=5) as balancer:
        periods = Periods(IN, balancer.figures, 10.0)
        sender.send([udp(i, size=100) for i in range(60)])
        balancer.turn()
        lines = [json.loads(line) for line in periods.lines(balancer.figures, 10.5, 1700000000.25)]
        again = [json.loads(line) for line in periods.lines(balancer.figures, 11.5, 1700000001.25)]
        report = summary(IN, balancer.figures, 1.5)
    assert [line["output_ring"] for line in lines] == [0, 1, None]
    assert lines[0]["interface"] == "vale0:in}0"
    assert lines[2] == {
        "ts": 1700000000.25,
        "interface": IN,
        "output_ring": None,
        "packets_received": 60,
        "packets_forwarded": 60,
        "packets_dropped": 0,
        "non_ip_packets": 0,
        "data_forward_rate_Mbps": 0.096,
        "data_drop_rate_Mbps": 0.0,
        "packet_forward_rate_kpps": 0.12,
        "packet_drop_rate_kpps": 0.0,
        "free_buffer_slots": 5,
    }
    assert (again[2]["packets_forwarded"], again[2]["packet_forward_rate_kpps"]) == (60, 0.0)
    assert [pipe["packets_forwarded"] for pipe in report["pipes"]] == [line["packets_forwarded"] for line in lines[:2]]


# -- the invariant -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.lists(st.tuples(st.integers(0, 7), st.integers(60, 5000)), max_size=8)),
            st.tuples(st.just("turn"), st.none()),
            st.tuples(st.just("read"), st.tuples(st.integers(0, 3), st.integers(1, 9))),
        ),
        max_size=40,
    ),
    st.integers(0, 12),
    st.sampled_from([(4,), (2, 2), (1, 3), (1, 2, 1)]),
)
def test_packets_buffers_and_order_are_conserved(steps, extra, shape):
    with (
        Netmap(ring_num=80, if_num=40) as nm,
        nm.open("vale0:x@conf:slots=64") as x,
        Balancer("vale0:in@conf:slots=8", [Group(n) for n in shape], opener=nm.open, extra_bufs=extra) as balancer,
    ):
        outputs = readers(nm, *range(4))
        group_of = [group for group, n in enumerate(shape) for _ in range(n)]
        got = [[] for _ in shape]
        sent = {}

        def read(i, most=None):
            got[group_of[i]] += outputs[i].recv(most, timeout=0) if most else outputs[i].recv(timeout=0)

        for action, argument in steps:
            if action == "send":
                frames = [udp(len(sent) + i, *what) for i, what in enumerate(argument)]
                sent.update((number_of(f), f) for f in frames)
                x.send(frames, timeout=0)
            elif action == "turn":
                balancer.turn()
            else:
                read(*argument)
            assert audited(nm) == []
        before = -1
        while (total := sum(map(len, got))) != before or balancer.figures.free_buffers < extra:
            before = total
            for _ in shape:
                balancer.turn()
                for i in range(4):
                    read(i)
        figures = balancer.figures
        assert figures.free_buffers == extra
        came = figures.received
        for group, seen in enumerate(got):
            mine = [p for p in figures.pipes if p.group == group]
            assert sum(p.packets + p.dropped for p in mine) == came
            came = sum(p.packets for p in mine)
            assert len(seen) == came
            assert all(sent[number_of(f)] == f for f in seen)
            for connection in range(8):
                numbers = [number_of(f) for f in seen if connection_of(f) == connection]
                assert numbers == sorted(set(numbers))
        balancer.close()
        assert [str(a) for a in nm.audit() if not a.ok or a.lost] == []

# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from numba import config

from ptnetmap.errors import PortError
from ptnetmap.netmap.learning import ENTRIES, ENTRY, mac_hash
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted


def test_what_is_learned_is_forgotten_after_the_ageing_time(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:c") as c:
        switch = nm.switch("vale0")
        assert switch.ageing == 300
        b.send(frame(255, 2))
        assert switch.learned() == {"02:00:00:00:00:02": 1}
        switch._learning_table[8 + 1024 :] -= 301  # the seconds of last use: as if they had passed
        assert switch.learned() == {}
        c.recv(timeout=0)
        a.send(frame(2, 1))
        assert c.recv(timeout=0) == [frame(2, 1)]
        switch.ageing = 0
        assert switch.learned()["02:00:00:00:00:02"] == 1
        a.send(frame(2, 1))
        assert c.recv(timeout=0) == []


def test_an_ageing_time_is_no_negative_number(nm, refusal):
    with nm.open("vale0:a"):
        refusal("EINVAL", setattr, nm.switch("vale0"), "ageing", -1)


def test_a_runtimes_ageing_time_is_that_of_its_switches():
    with Netmap(ageing=5) as nm, nm.open("vale0:a"):
        assert nm.switch("vale0").ageing == 5


def test_an_unknown_destination_floods_and_a_known_one_does_not(three, frame, arrivals):
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


def test_a_broadcast_goes_to_all_but_its_sender(three, frame, arrivals):
    three[1].send(frame(255, 2))
    assert arrivals(three) == [[frame(255, 2)], [], [frame(255, 2)]]


def test_a_multicast_floods_and_a_multicast_source_is_not_learned(three, nm, frame, arrivals):
    group = b"\x01\x00\x5e\x00\x00\x01" + frame()[6:]
    odd = frame()[:6] + b"\x03" + frame()[7:]
    three[0].send([group, odd])
    assert arrivals(three) == [[], [group, odd], [group, odd]]
    assert list(nm.switch("vale0").learned()) == ["02:00:00:00:00:01"]


def test_an_address_that_moves_is_followed(three, frame, arrivals):
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


def test_unicasts_and_floods_of_one_batch_arrive_in_the_order_in_which_they_were_sent(three, frame, arrivals):
    a, b, c = three
    b.send(frame(255, 2))
    arrivals(three)
    frames = [frame(2 if i % 3 else 255, 1, fill=i) for i in range(100)]
    a.send(frames)
    assert b.recv(timeout=0) == frames
    assert c.recv(timeout=0) == frames[::3]


def test_an_address_takes_the_table_entry_of_another_with_the_same_hash(three, nm, frame, arrivals):
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


def test_a_port_that_gets_a_number_again_does_not_inherit_its_predecessors_addresses(nm, frame, arrivals):
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


def test_descriptors_can_take_one_ring_of_a_port_each(nm, frame, arrivals):
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


def test_a_switch_has_254_ports_and_a_flood_reaches_them_all(nm, frame, arrivals):
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


def mac(n):
    return f"02:00:00:00:00:{n:02x}"

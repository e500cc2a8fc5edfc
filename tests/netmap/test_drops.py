# SPDX-License-Identifier: BSD-2-Clause

import numpy as np
import pytest

import ptnetmap

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize("size", [0, 1, 13])
def test_a_frame_without_an_ethernet_header_is_dropped_and_counted(switch, frame, size):
    a, b = switch
    a.send([frame(), frame(size=size), frame()])
    assert b.recv(timeout=0) == [frame()] * 2
    assert a.stats.drops == {"too_short": 1}


def test_a_frame_of_14_bytes_is_a_frame(switch, frame):
    a, b = switch
    a.send(frame(size=14))
    assert b.recv(timeout=0) == [frame(size=14)]


def test_a_full_port_loses_packets_which_both_sides_count(switch, frame):
    a, b = switch
    assert a.send([frame(fill=i) for i in range(20)]) == 20
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7)]
    assert a.stats.drops == {"no_room": 13}
    assert (b.stats.missed, b.stats.rx_packets, a.stats.tx_packets) == (13, 7, 20)


def test_drops_by_the_lookups_answer_have_a_reason_each(switch, nm, frame):
    a, b = switch

    def answer(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = table[i]

    nm.switch("vale0").lookup = answer, np.array([1, 0, 77, ptnetmap.DROP, *[0] * 1020], np.int64)
    a.send([frame()] * 4)
    assert b.recv(timeout=0) == [frame()]
    assert a.stats.drops == {"same_port": 1, "no_port": 1, "filtered": 1}
    assert a.stats.dropped == 3


def test_a_port_whose_rx_rings_nobody_has_bound_is_no_reader(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b/T"):
        a.send(frame())
        assert a.stats.drops == {"no_reader": 1}


def test_stats_count_packets_and_bytes_of_both_sides(pair, frame):
    tx, rx = pair
    tx.send([frame(), frame(size=100)])
    rx.recv(timeout=0)
    assert (tx.stats.tx_packets, tx.stats.tx_bytes) == (2, 160)
    assert (rx.stats.rx_packets, rx.stats.rx_bytes) == (2, 160)
    assert tx.stats.drops == {}


def test_a_lossless_port_holds_its_sender_back_and_loses_nothing(patient, frame, meanwhile):
    a, b = patient
    sent = meanwhile(a.send, [frame(fill=i % 251) for i in range(500)])
    received = []
    while len(received) < 500:
        received += b.recv(timeout=30)
    assert sent() == 500
    assert received == [frame(fill=i % 251) for i in range(500)]
    assert (a.stats.drops, b.stats.missed) == ({}, 0)


def test_what_a_lossless_port_cannot_take_waits_in_the_ring_and_counts_as_accepted(patient, frame):
    a, b = patient
    assert a.send([frame(fill=i) for i in range(20)], timeout=0) == 14
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7)]
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7, 14)]


def fill_up(a, frame):
    """Send until the destination is full and the sender's ring too."""
    assert a.send([frame()] * 20, timeout=0) == 14


def test_a_sender_held_back_goes_on_when_the_lossless_port_closes(patient, frame, meanwhile, wait_until_asleep):
    a, b = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    b.close()
    assert sent() == 1
    assert a.tx_rings[0].space() == 7
    assert (a.stats.tx_packets, a.stats.drops.keys() - {"no_reader"}) == (15, set())


def test_a_sender_held_back_goes_on_when_the_port_stops_being_lossless(patient, frame, meanwhile, wait_until_asleep):
    a, b = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    b.lossless = False
    assert sent() == 1
    assert a.stats.drops == {"no_room": 8}


def test_a_sender_held_back_goes_on_when_the_switch_changes_its_mind(patient, nm, frame, meanwhile, wait_until_asleep):
    a, _ = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    nm.switch("vale0").lookup = lambda packets, lengths, source, table, ports, rings: None
    assert sent() == 1
    assert a.stats.drops == {"filtered": 8}


def test_a_lossless_port_is_an_ordinary_one_when_it_is_opened_again(nm):
    nm.create("v0")
    with nm.open("netmap:v0", lossless=True) as port:
        assert port.lossless
    with nm.open("netmap:v0") as port:
        assert not port.lossless


def test_a_lossless_and_a_lossy_port_get_a_flood_according_to_their_kind(nm, frame):
    with (
        nm.open("vale0:a", tx_slots=16) as a,
        nm.open("vale0:b", rx_slots=4) as lossy,
        nm.open("vale0:c", rx_slots=8, lossless=True) as lossless,
    ):
        frames = [frame(255, fill=i) for i in range(12)]
        a.send(frames, timeout=0)
        assert lossless.recv(timeout=0) == frames[:7]
        assert lossy.recv(timeout=0) == frames[:3]
        a.txsync()
        assert lossless.recv(timeout=0) == frames[7:]

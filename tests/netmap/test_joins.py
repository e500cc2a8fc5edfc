# SPDX-License-Identifier: BSD-2-Clause

import pytest

pytestmark = pytest.mark.interpreted


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

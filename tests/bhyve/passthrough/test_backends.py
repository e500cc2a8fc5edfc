# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.bhyve.passthrough.port import port_name

CSB = 0x100000
FRONT_ENDS = ("ptnet", "virtio-net")


def start(machine, front, place):
    guest = machine.ptnet(place) if front == "ptnet" else machine.virtio_net(place)
    assert guest.create(CSB + 0x10000 * int(place)) == 0
    return guest


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("ptvale1:1", "vale1:1"),
        ("ptnetmap:ix0", "netmap:ix0"),
        ("ptnetmap:x{1", "netmap:x{1"),
        ("ptnetmap:x}1", "netmap:x}1"),
        ("ptvale2{1", "netmap:vale2{1"),
        ("ptvale1:1{2", "vale1:1{2"),
    ],
)
def test_a_backend_names_a_port(backend, name):
    assert port_name(backend) == name


@pytest.mark.parametrize("front", FRONT_ENDS)
@pytest.mark.parametrize(
    ("backend", "other"),
    [
        ("ptvale2{1", "netmap:vale2}1"),
        ("ptnetmap:x{1", "netmap:x}1"),
        ("ptnetmap:x}1", "netmap:x{1"),
        ("ptvale1:1", "vale1:2"),
    ],
)
def test_guest_and_process_exchange_packets(machine, peer, frame, patiently, front, backend, other):
    guest = start(machine({"3": "ptnetmap-memdev", "4": f"{front},{backend}"}), front, "4")
    host = peer(other)
    for i in range(100):
        guest.tx[0].send([frame(1, i & 255)])
        assert host.recv(timeout=30) == [frame(1, i & 255)]
        host.send([frame(2, i & 255)], timeout=30)
        assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i & 255)]


@pytest.mark.parametrize("fronts", [("ptnet", "ptnet"), ("virtio-net", "ptnet")])
@pytest.mark.parametrize("backends", [("ptnetmap:x{1", "ptnetmap:x}1"), ("ptvale1:1", "ptvale1:2")])
def test_two_guests_exchange_packets(machine, frame, patiently, fronts, backends):
    one = start(machine({"3": "ptnetmap-memdev", "4": f"{fronts[0]},{backends[0]}"}), fronts[0], "4")
    two = start(machine({"3": "ptnetmap-memdev", "4": f"{fronts[1]},{backends[1]}"}), fronts[1], "4")
    for i in range(100):
        one.tx[0].send([frame(1, i & 255)])
        assert patiently(two.rx[0].receive, "a frame") == [frame(1, i & 255)]
        two.tx[0].send([frame(2, i & 255)])
        assert patiently(one.rx[0].receive, "a frame") == [frame(2, i & 255)]


@pytest.mark.parametrize("front", FRONT_ENDS)
def test_a_full_pipe_holds_a_guest_back_and_loses_nothing(machine, peer, frame, patiently, front):
    guest = start(machine({"3": "ptnetmap-memdev", "4": f"{front},ptnetmap:x{{1"}), front, "4")
    sent = 0

    def fill():
        nonlocal sent
        sent += guest.tx[0].send(frame(1, (sent + i) & 255) for i in range(100))
        return guest.tx[0].space() == 0

    patiently(fill, "a full ring")
    assert sent == guest.tx[0].n - 1
    host = peer("netmap:x}1")
    got = []
    patiently(lambda: got.extend(host.recv(timeout=0)) or len(got) == sent, "all frames")
    assert got == [frame(1, i & 255) for i in range(sent)]
    patiently(lambda: guest.tx[0].space(), "space")


@pytest.mark.parametrize("front", FRONT_ENDS)
@pytest.mark.parametrize("begins", ["guest", "process"])
def test_a_pipe_goes_on_when_its_end_changes_hands(machine, peer, frame, patiently, front, begins):
    other = peer("netmap:x}1")
    for turn in range(4):
        if (turn % 2 == 0) == (begins == "guest"):
            one = machine({"3": "ptnetmap-memdev", "4": f"{front},ptnetmap:x{{1"})
            guest = start(one, front, "4")
            for i in range(7):
                guest.tx[0].send([frame(1, i)])
                assert other.recv(timeout=30) == [frame(1, i)]
                other.send([frame(2, i)])
                assert patiently(guest.rx[0].receive, "a frame") == [frame(2, i)]
            patiently(lambda guest=guest: guest.rx[0].get("hwcur") == guest.rx[0].get("head"), "what was given back")
            one.close()
        else:
            mine = peer("netmap:x{1")
            for i in range(5):
                mine.send([frame(3, i)])
                assert other.recv(timeout=30) == [frame(3, i)]
                other.send([frame(4, i)])
                assert mine.recv(timeout=30) == [frame(4, i)]
            mine.close()


def test_a_port_that_somebody_has_is_refused_to_ptnet_in_bhyves_words(machine, peer):
    peer("vale1:1")
    with pytest.raises(Exception, match=r"net backend initialization failed: ptvale1:1\n.*bound by") as refused:
        machine({"4": "ptnet,ptvale1:1"})
    assert refused.value.errno == errno.EBUSY

# SPDX-License-Identifier: BSD-2-Clause
import errno
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap.bridge.session import Bridge, Figures, same_memory
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted

SHARED = "vale1:b@share=vale0:a"
APART = "vale1:b"


def audited(runtime: Netmap) -> list[str]:
    return [str(a) for a in runtime.audit() if not a.ok]


@pytest.fixture
def nm() -> Iterator[Netmap]:
    with Netmap() as runtime:
        yield runtime
        assert audited(runtime) == []
        runtime.close()
        assert [str(a) for a in runtime.audit() if a.lost] == []


@pytest.fixture(params=[(SHARED, False), (SHARED, True), (APART, False)], ids=["swap", "-c", "copy"])
def joined(request, nm):
    """Two switches with a bridge between them: a program on each, and the bridge."""
    second, copy = request.param
    few = "@conf:slots=16"
    with (
        nm.open("vale0:x" + few) as x,
        nm.open("vale0:a" + few) as a,
        nm.open(second + few) as b,
        nm.open("vale1:y" + few) as y,
    ):
        bridge = Bridge(a, b, copy=copy)
        assert bridge.zero_copy == (second == SHARED and not copy)
        yield x, y, bridge
        bridge.close()


def frame(number, size=60):
    head = bytes.fromhex("ffffffffffff02000000000188b5") + number.to_bytes(4, "big")
    return (head + bytes([number & 0xFF]) * size)[:size]


def test_packets_pass_both_ways_in_order_and_unchanged(joined):
    x, y, bridge = joined
    there = [frame(i, 60 + i) for i in range(9)]
    back = [frame(1000 + i, 200 - i) for i in range(7)]
    for _ in range(8):  # round the rings, so that swapped buffers come back
        x.send(there)
        y.send(back)
        bridge.turn()
        assert (y.recv(timeout=0), x.recv(timeout=0)) == (there, back)
    assert bridge.figures(0) == Figures(8 * 9, 8 * sum(map(len, there)))
    assert bridge.figures(1) == Figures(8 * 7, 8 * sum(map(len, back)))


def test_chains_of_fragments_pass_whole(joined):
    x, y, bridge = joined
    frames = [frame(i, size) for i, size in enumerate((9000, 60, 2048, 2049, 8000, 64))]
    x.send(frames)
    bridge.turn()
    assert y.recv(timeout=0) == frames
    assert bridge.figures(0).packets == len(frames)


def test_buffers_change_places_where_memory_is_shared(nm):
    with nm.open("vale0:x") as x, nm.open("vale0:a") as a, nm.open(SHARED) as b:
        bridge = Bridge(a, b)
        received, free = int(a.rx_rings[0].slots["buf_idx"][0]), int(b.tx_rings[0].slots["buf_idx"][0])
        x.send([frame(1)])
        bridge.turn()
        assert (int(b.tx_rings[0].slots["buf_idx"][0]), int(a.rx_rings[0].slots["buf_idx"][0])) == (received, free)
        assert int(a.rx_rings[0].slots["flags"][0]) & abi.NS_BUF_CHANGED
        bridge.close()


def test_two_runtimes_do_not_share_memory_though_their_ids_are_equal(nm):
    with Netmap() as other, nm.open("vale0:a") as a, other.open("vale0:a") as b:
        assert a.mem_id == b.mem_id
        assert not same_memory(a, b)


def test_loopback_sends_back_what_comes(nm):
    with nm.open("vale0:x") as x, nm.open("vale0:a") as a:
        bridge = Bridge(a, a)
        frames = [frame(i, 60 + 700 * i) for i in range(6)]
        x.send(frames)
        bridge.turn()
        assert x.recv(timeout=0) == frames
        assert bridge.zero_copy
        bridge.close()


def test_a_full_pipe_holds_the_bridge_back_and_nothing_is_lost(nm):
    with (
        nm.open("netmap:p{1@conf:slots=16") as sender,
        nm.open("netmap:p}1") as a,
        nm.open("netmap:p{2@conf:slots=8") as b,
        nm.open("netmap:p}2") as reader,
    ):
        bridge = Bridge(a, b, burst=3)
        frames = [frame(i, size) for i, size in enumerate((60, 5000, 60, 9000, 60, 60))]
        assert bridge.zero_copy
        got = []
        sender.send(frames)
        while len(got) < len(frames):
            bridge.turn()
            got += reader.recv(1, timeout=0)
            assert audited(nm) == []
        assert got == frames
        bridge.close()


def test_a_chain_longer_than_the_other_ring_is_dropped_and_counted(nm):
    with (
        nm.open("netmap:p{1@conf:slots=16") as sender,
        nm.open("netmap:p}1") as a,
        nm.open("netmap:p{2@conf:slots=4") as b,
        nm.open("netmap:p}2") as reader,
    ):
        bridge = Bridge(a, b)
        sender.send([frame(1, 2048 * 4), frame(2), frame(3, 2048 * 3)])
        bridge.turn()
        got = reader.recv(timeout=0)
        bridge.turn()
        assert got + reader.recv(timeout=0) == [frame(2), frame(3, 2048 * 3)]
        assert bridge.figures(0) == Figures(2, 60 + 3 * 2048, too_long=1)
        bridge.close()


def test_an_endless_chain_goes_and_what_follows_comes(nm):
    """A pipe shows whole packets only, so the chain is written into the bridge's own ring, as a hostile peer would."""
    with nm.open("vale0:x") as x, nm.open("vale0:a", rx_slots=8) as a, nm.open("vale1:b") as b, nm.open("vale1:y") as y:
        bridge = Bridge(a, b)
        x.send([frame(i) for i in range(7)])
        a.rxsync()
        a.rx_rings[0].slots["flags"][:7] |= abi.NS_MOREFRAG
        bridge.turn()
        x.send([frame(8), frame(9)])
        bridge.turn()
        assert y.recv(timeout=0) == [frame(9)]  # the first of these ended the chain
        assert bridge.figures(0) == Figures(1, 60, too_long=1)
        bridge.close()


def test_an_unfinished_chain_waits_for_its_end(nm):
    with nm.open("vale0:x") as x, nm.open("vale0:a") as a, nm.open("vale1:b") as b, nm.open("vale1:y") as y:
        bridge = Bridge(a, b)
        x.send([frame(1), frame(2)])
        a.rxsync()
        a.rx_rings[0].slots["flags"][1] |= abi.NS_MOREFRAG
        bridge.turn()
        assert y.recv(timeout=0) == [frame(1)]
        x.send([frame(3)])
        bridge.turn()
        assert y.recv(timeout=0) == [frame(2) + frame(3)]
        bridge.close()


@pytest.mark.parametrize(("field", "value"), [("buf_idx", 1), ("buf_idx", 1 << 30), ("len", 2049)])
def test_slots_that_name_no_buffer_are_dropped_and_counted(field, value):
    with (
        Netmap() as lax,
        lax.open("vale0:x") as x,
        lax.open("vale0:a") as a,
        lax.open(SHARED) as b,
        lax.open("vale1:y") as y,
    ):
        bridge = Bridge(a, b)
        x.send([frame(i) for i in range(3)])
        a.rxsync()
        a.rx_rings[0].slots[field][1] = value
        bridge.turn()
        assert y.recv(timeout=0) == [frame(0), frame(2)]
        assert bridge.figures(0) == Figures(2, 120, bad=1)
        bridge.close()


def test_a_tx_slot_without_a_buffer_is_passed_over():
    with (
        Netmap() as lax,
        lax.open("vale0:x") as x,
        lax.open("vale0:a") as a,
        lax.open(SHARED) as b,
        lax.open("vale1:y") as y,
    ):
        bridge = Bridge(a, b)
        b.tx_rings[0].slots["buf_idx"][2] = 0xFFFFFFFF
        frames = [frame(0), frame(1, 5000), frame(2)]
        x.send(frames)
        bridge.turn()
        assert y.recv(timeout=0) == frames
        bridge.close()


def test_an_overwritten_ring_ends_the_bridge_and_is_named():
    with Netmap() as lax, lax.open("vale0:a") as a, lax.open("vale1:b") as b:
        bridge = Bridge(a, b)
        b.rx_rings[0].head = 5
        with pytest.raises(PeerError, match=r"vale1:b RX ring 0"):
            bridge.run()
        bridge.close()


def test_a_closed_port_ends_the_bridge(nm):
    a, b = nm.open("vale0:a"), nm.open("vale1:b")
    bridge = Bridge(a, b)
    b.close()
    with pytest.raises(PortError) as refused:
        bridge.run()
    assert refused.value.errno == errno.EBADF
    bridge.close()


def test_a_monitor_can_be_bridged_one_way(nm):
    with (
        nm.open("vale0:x") as x,
        nm.open("vale0:a"),
        nm.open("vale0:a/r") as monitor,
        nm.open("vale1:b") as b,
        nm.open("vale1:y") as y,
    ):
        bridge = Bridge(monitor, b)
        x.send([frame(1)])
        bridge.turn()
        assert y.recv(timeout=0) == [frame(1)]
        bridge.close()
        with pytest.raises(PortError, match="neither has RX rings"):
            Bridge(monitor, monitor)


def test_rings_are_joined_by_number(nm):
    with nm.open("vale0:a@conf:rings=4") as a, nm.open("vale1:b@conf:rings=2") as b:
        bridge = Bridge(a, b)
        pairs = [(rx[1][-9:], tx[1][-9:]) for way, rx, tx in bridge._joined if way == 0]
        assert pairs == [(f"RX ring {i}", f"TX ring {i % 2}") for i in range(4)]
        bridge.close()


def test_a_sleeping_bridge_wakes_for_packets_and_for_room_and_ends_when_told(nm):
    with (
        nm.open("netmap:p{1@conf:slots=8") as sender,
        nm.open("netmap:p}1") as a,
        nm.open("netmap:p{2@conf:slots=4") as b,
        nm.open("netmap:p}2") as reader,
    ):
        bridge = Bridge(a, b)
        thread = threading.Thread(target=bridge.run)
        thread.start()
        got = []
        frames = [frame(i) for i in range(60)]
        feeder = threading.Thread(target=sender.send, args=(frames,))
        feeder.start()
        while len(got) < len(frames):
            got += reader.recv(2, timeout=30)
        assert got == frames
        reader.send([frame(7)])
        assert sender.recv(timeout=30) == [frame(7)]
        feeder.join(30)
        bridge.stop()
        thread.join(30)
        assert not thread.is_alive()
        bridge.close()


def test_a_lossless_destination_holds_the_bridge_back(nm):
    with (
        nm.open("vale0:x@conf:slots=64") as x,
        nm.open("vale0:a@conf:slots=64", lossless=True) as a,
        nm.open(APART + "@conf:slots=8") as b,
        nm.open("vale1:y@conf:slots=8", lossless=True) as y,
    ):
        bridge = Bridge(a, b)
        thread = threading.Thread(target=bridge.run)
        thread.start()
        x.send([frame(i) for i in range(60)], timeout=0)
        got = []
        while len(got) < 60:
            got += y.recv(3, timeout=30)
        assert got == [frame(i) for i in range(60)]
        bridge.stop()
        thread.join(30)
        assert not thread.is_alive()
        bridge.close()


def test_a_quiet_bridge_says_so(nm, monkeypatch):
    monkeypatch.setattr("ptnetmap.netmap.bridge.session.QUIET", 1)
    with nm.open("vale0:a") as a, nm.open("vale1:b") as b:
        told = []

        def quiet():
            told.append(1)
            bridge.stop()

        bridge = Bridge(a, b, quiet=quiet)
        bridge.run()
        assert told == [1]
        bridge.close()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["there", "back", "turn", "read"]), st.lists(st.integers(60, 6000), max_size=6)),
        max_size=30,
    ),
    st.integers(1, 8),
    st.booleans(),
)
def test_packets_and_buffers_are_conserved(steps, burst, copy):
    with (
        Netmap() as nm,
        nm.open("netmap:p{1@conf:slots=8") as x,
        nm.open("netmap:p}1") as a,
        nm.open("netmap:p{2@conf:slots=6") as b,
        nm.open("netmap:p}2") as y,
    ):
        bridge = Bridge(a, b, burst=burst, copy=copy)
        sent, got = {"there": [], "back": []}, {"there": [], "back": []}
        number = 0
        for action, sizes in steps:
            if action == "turn":
                bridge.turn()
            elif action == "read":
                got["there"] += y.recv(timeout=0)
                got["back"] += x.recv(timeout=0)
            else:
                frames = [frame(number + i, size) for i, size in enumerate(sizes)]
                number += len(frames)
                port = x if action == "there" else y
                sent[action] += frames[: port.send(frames, timeout=0)]
            assert audited(nm) == []
        for _ in range(100):
            bridge.turn()
            got["there"] += y.recv(timeout=0)
            got["back"] += x.recv(timeout=0)
        assert got == sent
        bridge.close()

# SPDX-License-Identifier: BSD-2-Clause
import errno

import numpy as np
import pytest

from ptnetmap.errors import PeerError

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize("kind", ["bytes", "list", "generator", "array", "row", "memoryview", "arrays"])
def test_send_takes_frames_in_any_form(switch, frame, kind):
    a, b = switch
    one = np.frombuffer(frame(), np.uint8)
    given = {
        "bytes": (frame(), 1),
        "memoryview": (memoryview(frame()), 1),
        "row": (one, 1),
        "list": ([frame(), bytearray(frame())], 2),
        "generator": ((frame() for _ in range(3)), 3),
        "array": (np.stack([one] * 4), 4),
        "arrays": ([one, one], 2),
    }
    frames, count = given[kind]
    assert a.send(frames) == count
    assert b.recv(timeout=0) == [frame()] * count


@pytest.mark.parametrize("given", [5, [5], "text", ["text"], np.zeros((2, 2, 2), np.uint8), np.zeros(60)])
def test_send_refuses_what_is_no_frame(switch, given, refusal):
    refusal("EINVAL", switch[0].send, given, match="cannot send")


def test_a_long_list_is_sent_in_as_many_rounds_as_it_takes(small, frame, meanwhile):
    tx, rx = small
    sent = meanwhile(tx.send, (frame(fill=i % 251) for i in range(3000)))
    received = []
    while len(received) < 3000:
        received += rx.recv(timeout=30)
    assert sent() == 3000
    assert received == [frame(fill=i % 251) for i in range(3000)]


def test_sender_to_a_full_pipe_waits_until_the_timeout_and_says_how_many_went(small, frame):
    tx, rx = small
    assert tx.send([frame(fill=i) for i in range(10)], timeout=0) == 7
    assert tx.send(frame(), timeout=0.001) == 0
    assert rx.recv(timeout=0) == [frame(fill=i) for i in range(7)]


def test_sender_to_a_full_pipe_blocks_and_loses_nothing(small, frame, meanwhile):
    tx, rx = small
    sent = meanwhile(tx.send, [frame(fill=i) for i in range(20)])
    received = []
    while len(received) < 20:
        received += rx.recv(3, timeout=30)
    assert sent() == 20
    assert received == [frame(fill=i) for i in range(20)]


def test_recv_waits_for_the_first_frame_only(small, frame, meanwhile):
    tx, rx = small
    received = meanwhile(rx.recv, timeout=30)
    tx.send([frame()] * 2)
    assert 1 <= len(received()) <= 2


def test_recv_returns_nothing_after_its_timeout(small):
    assert small[1].recv(timeout=0) == []
    assert small[1].recv(timeout=0.001) == []


def test_recv_of_at_most_no_frames_takes_none(small, frame):
    tx, rx = small
    tx.send(frame())
    assert rx.recv(0) == []
    assert rx.recv(1) == [frame()]


def test_inject_puts_a_frame_without_a_sync_until_the_ring_is_full(small, frame):
    tx, rx = small
    assert [tx.inject(frame(fill=i)) for i in range(8)] == [True] * 7 + [False]
    assert rx.recv(timeout=0) == []
    tx.txsync()
    assert len(rx.recv(timeout=0)) == 7


def test_dispatch_shows_frames_in_place_and_releases_them(small, frame):
    tx, rx = small
    tx.send([frame(fill=i) for i in range(5)])
    seen = []
    assert rx.dispatch(lambda header, data: seen.append((header.ring, header.length, bytes(data))), 3) == 3
    assert seen == [(0, 60, frame(fill=i)) for i in range(3)]
    assert rx.dispatch(lambda *_: None) == 2
    assert rx.dispatch(lambda *_: None) == 0


def test_recv_into_fills_an_array_and_leaves_what_does_not_fit(small, frame, refusal):
    tx, rx = small
    tx.send([frame(fill=1), frame(fill=2), frame(fill=3, size=200)])
    out = np.zeros(150, np.uint8)
    data, lengths = rx.recv_into(out, timeout=0)
    assert (bytes(data), lengths.tolist()) == (frame(fill=1) + frame(fill=2), [60, 60])
    refusal("EMSGSIZE", rx.recv_into, out, timeout=0, match="200 bytes")
    assert rx.recv(timeout=0) == [frame(fill=3, size=200)]


@pytest.mark.parametrize("out", [np.zeros(100), np.zeros(200, np.uint8)[::2]])
def test_recv_into_needs_a_contiguous_array_of_bytes(small, out, refusal):
    refusal("EINVAL", small[1].recv_into, out, timeout=0)


def test_a_port_can_be_iterated_until_it_is_closed(small, frame, meanwhile):
    tx, rx = small
    frames = iter(rx)
    tx.send([frame(), frame(fill=1)])
    assert next(frames) == frame()
    assert next(frames) == frame(fill=1)
    rest = meanwhile(list, frames)
    rx.close()
    assert rest() == []


def test_frames_are_spread_over_the_rings_that_have_room(nm, frame):
    with nm.open("netmap:p{1@conf:rings=2,slots=4") as tx, nm.open("netmap:p}1") as rx:
        assert tx.send([frame()] * 10, timeout=0) == 6
        assert [r.space() for r in tx.tx_rings] == [0, 0]
        assert len(rx.recv(timeout=0)) == 6


def test_one_ring_can_be_chosen_to_send_on(nm, frame):
    with nm.open("netmap:p{1@conf:rings=2") as tx, nm.open("netmap:p}1") as rx:
        tx.send([frame()] * 3, ring=1)
        rx.rxsync()
        assert [r.space() for r in rx.rx_rings] == [0, 3]


def test_a_peer_error_is_raised_for_a_tx_slot_that_names_no_buffer(lax, frame):
    with lax.open("vale0:a") as a:
        a.tx_rings[0].slots["buf_idx"][0] = 0
        with pytest.raises(PeerError) as refused:
            a.send(frame())
        assert refused.value.errno == errno.EFAULT

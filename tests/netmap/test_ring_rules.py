# SPDX-License-Identifier: BSD-2-Clause
# The rules of rings, as upstream's txsync and rxsync prologues and ring reinit have them, on a pipe of 8 slots.
import errno
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.port import POLLERR, POLLIN, POLLOUT
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted

SLOTS = 8


@pytest.fixture
def pipe(lax):
    """A pipe of 8 slots: its sender, and its receiver. What tests do to the rings is not always recoverable."""
    with lax.open("netmap:p{1", tx_slots=SLOTS, rx_slots=SLOTS) as tx, lax.open("netmap:p}1") as rx:
        yield tx, rx


@dataclass(frozen=True)
class Indices:
    """A ring's indices, those of its user and those of the runtime."""

    head: int
    cur: int
    tail: int
    hwcur: int
    hwtail: int


def of(port, direction):
    ring = (port.tx_rings if direction == abi.TX else port.rx_rings)[0]
    state = (port.adapter.tx if direction == abi.TX else port.adapter.rx)[0]
    return Indices(ring.head, ring.cur, ring.tail, state.block["hwcur"], state.block["hwtail"])


def tx_of(port):
    return of(port, abi.TX)


def rx_of(port):
    return of(port, abi.RX)


def test_a_fresh_tx_ring_is_all_its_users_but_for_one_slot(pipe):
    assert tx_of(pipe[0]) == Indices(head=0, cur=0, tail=7, hwcur=0, hwtail=7)
    assert pipe[0].tx_rings[0].space() == SLOTS - 1


def test_a_fresh_rx_ring_is_empty(pipe):
    assert rx_of(pipe[1]) == Indices(head=0, cur=0, tail=0, hwcur=0, hwtail=0)
    assert pipe[1].rx_rings[0].empty()


def test_fresh_slots_have_a_whole_buffer_each_and_no_flags(pipe):
    slots = pipe[0].tx_rings[0].slots
    assert (slots["len"] == 2048).all()
    assert (slots["flags"] == 0).all()
    assert (slots["ptr"] == 0).all()
    assert len(set(slots["buf_idx"].tolist())) == SLOTS
    assert slots["buf_idx"].min() >= 2


def test_nothing_moves_before_a_sync(pipe, frame):
    tx, rx = pipe
    tx.inject(frame())
    rx.rxsync()
    assert rx.rx_rings[0].empty()
    tx.txsync()
    assert rx.rx_rings[0].empty()
    rx.rxsync()
    assert rx.rx_rings[0].space() == 1


def test_a_sync_moves_hwcur_to_head_and_tail_to_hwtail(pipe, frame):
    tx, rx = pipe
    tx.send([frame()] * 5)
    assert tx_of(tx) == Indices(head=5, cur=5, tail=7, hwcur=5, hwtail=7)
    assert len(rx.recv(3, timeout=0)) == 3
    assert rx_of(rx) == Indices(head=3, cur=3, tail=5, hwcur=3, hwtail=5)
    tx.txsync()
    assert tx_of(tx) == Indices(head=5, cur=5, tail=2, hwcur=5, hwtail=2)


def test_a_tail_that_the_user_overwrote_is_put_back_silently(pipe, frame):
    tx, rx = pipe
    tx.tx_rings[0].header["tail"] = 3
    tx.txsync()
    assert tx_of(tx).tail == 7
    tx.send(frame())
    rx.rx_rings[0].header["tail"] = 6
    rx.rxsync()
    assert rx_of(rx).tail == 1
    assert (tx.stats.reinits, rx.stats.reinits) == (0, 0)


def test_cur_may_run_ahead_of_head_and_is_where_poll_waits(pipe, frame):
    tx, rx = pipe
    tx.send([frame()] * 3)
    ring = rx.rx_rings[0]
    assert rx.poll(POLLIN, 0) == POLLIN
    ring.cur = 3
    assert rx.poll(POLLIN, 0) == 0, "only more than these three are to wake it"
    assert (ring.head, ring.tail) == (0, 3)
    tx.send(frame())
    assert rx.poll(POLLIN, 0) == POLLIN
    assert rx.stats.reinits == 0


# What a sync accepts ---------------------------------------------------------------------------------------------------


def steps(start, end):
    return (end - start) % SLOTS


@given(head=st.integers(0, SLOTS - 1), cur=st.integers(0, SLOTS - 1), sent=st.integers(0, 7), read=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_tx_sync_accepts_head_and_cur_between_the_last_head_and_tail_only(head, cur, sent, read):
    with Netmap() as nm, nm.open("netmap:p{1", tx_slots=SLOTS, rx_slots=SLOTS) as tx, nm.open("netmap:p}1") as rx:
        tx.send([bytes(60)] * sent)
        rx.recv(min(read, sent), timeout=0)
        tx.txsync()
        ring, before = tx.tx_rings[0], tx_of(tx)
        ring.head, ring.cur = head, cur
        allowed = steps(sent, head) <= steps(sent, cur) <= steps(sent, before.tail)
        tx.txsync()
        assert tx.stats.reinits == (0 if allowed else 1)
        assert tx_of(tx) == replace(before, head=head, cur=cur, hwcur=head if allowed else before.hwcur)


@given(head=st.integers(0, SLOTS - 1), cur=st.integers(0, SLOTS - 1), sent=st.integers(0, 7), read=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_an_rx_sync_accepts_head_and_cur_between_hwcur_and_hwtail_only(head, cur, sent, read):
    with Netmap() as nm, nm.open("netmap:p{1", tx_slots=SLOTS, rx_slots=SLOTS) as tx, nm.open("netmap:p}1") as rx:
        tx.send([bytes(60)] * sent)
        rx.rxsync()
        rx.recv(min(read, sent), timeout=0)
        ring, before = rx.rx_rings[0], rx_of(rx)
        ring.head, ring.cur = head, cur
        allowed = steps(before.hwcur, head) <= steps(before.hwcur, cur) <= steps(before.hwcur, before.hwtail)
        rx.rxsync()
        assert rx.stats.reinits == (0 if allowed else 1)
        assert rx_of(rx) == replace(before, head=head, cur=cur, hwcur=head if allowed else before.hwcur)


# Ring reinit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["head", "cur"])
@pytest.mark.parametrize("value", [SLOTS, 0xFFFFFFFF])
def test_an_index_outside_a_tx_ring_resets_head_and_cur_to_hwcur_and_tail_to_hwtail(pipe, frame, field, value):
    tx, rx = pipe
    tx.send([frame()] * 3)
    setattr(tx.tx_rings[0], field, value)
    tx.tx_rings[0].header["tail"] = 1
    tx.txsync()
    assert tx_of(tx) == Indices(head=3, cur=3, tail=7, hwcur=3, hwtail=7)
    assert tx.stats.reinits == 1
    assert len(rx.recv(timeout=0)) == 3


@pytest.mark.parametrize("field", ["head", "cur"])
def test_an_index_outside_an_rx_ring_resets_head_and_cur_to_hwcur_and_tail_to_hwtail(pipe, frame, field):
    tx, rx = pipe
    tx.send([frame()] * 3)
    rx.recv(1, timeout=0)
    setattr(rx.rx_rings[0], field, SLOTS)
    rx.rxsync()
    assert rx_of(rx) == Indices(head=1, cur=1, tail=3, hwcur=1, hwtail=3)
    assert len(rx.recv(timeout=0)) == 2


def test_a_tail_outside_the_ring_alone_is_no_reinit(pipe):
    tx, _ = pipe
    tx.tx_rings[0].header["tail"] = 0xFFFFFFFF
    tx.txsync()
    assert tx_of(tx).tail == 7
    assert tx.stats.reinits == 0


def test_indices_in_range_but_out_of_order_are_left_as_they_are(pipe, frame):
    tx, rx = pipe
    tx.send([frame()] * 3)
    ring = tx.tx_rings[0]
    ring.head, ring.cur = 1, 1
    tx.txsync()
    assert tx_of(tx) == Indices(head=1, cur=1, tail=7, hwcur=3, hwtail=7)
    assert len(rx.recv(timeout=0)) == 3


def test_the_same_bad_indices_never_get_past_a_second_sync(pipe, frame):
    # Not as upstream, where rhead, rcur and rtail take the bad values: see kring.reinit.
    tx, _ = pipe
    tx.send([frame()] * 3)
    ring = tx.tx_rings[0]
    ring.head, ring.cur = 1, 1
    for reinits in (1, 2, 3):
        tx.txsync()
        assert tx.stats.reinits == reinits
        assert tx_of(tx).hwcur == 3
    block = tx.adapter.tx[0].block
    assert (block["rhead"], block["rcur"], block["rtail"]) == (3, 3, 7)
    ring.head = ring.cur = 3
    tx.txsync()
    assert tx.stats.reinits == 3


def test_a_reinit_empties_slots_that_name_no_buffer_and_lengths_that_no_buffer_holds(pipe):
    tx, _ = pipe
    ring = tx.tx_rings[0]
    before = ring.slots.copy()
    total = tx.adapter.allocator.geometry.buf_pool.objtotal
    ring.slots[1] = (0, 60, 0, 0)
    ring.slots[2] = (1, 60, 0, 0)
    ring.slots[3] = (total, 60, 0, 0)
    ring.slots["len"][4] = 2049
    ring.slots["len"][5] = 2048
    ring.head = SLOTS
    tx.txsync()
    after = ring.slots
    assert after["buf_idx"].tolist() == [*before["buf_idx"][:1], 0, 0, 0, *before["buf_idx"][4:]]
    assert after["len"].tolist() == [2048, 0, 0, 0, 0, 2048, 2048, 2048]
    # A slot with buf_idx 0 is the empty one, not one that names a wrong buffer.
    assert tx.adapter.tx[0].counters()["bad_slot"] == 3


def test_a_reinit_repairs_slots_even_if_no_index_is_out_of_range(pipe, frame):
    tx, _ = pipe
    tx.send([frame()] * 3)
    ring = tx.tx_rings[0]
    ring.slots["buf_idx"][7] = 1
    ring.head = 1
    tx.txsync()
    assert ring.slots["buf_idx"][7] == 0


def test_a_sync_that_finds_nothing_wrong_with_the_indices_does_not_look_at_unreleased_slots(pipe):
    tx, _ = pipe
    tx.tx_rings[0].slots["buf_idx"][4] = 1
    tx.txsync()
    assert tx.tx_rings[0].slots["buf_idx"][4] == 1


@pytest.mark.parametrize(("events", "direction"), [(POLLOUT, abi.TX), (POLLIN, abi.RX)])
def test_poll_reports_an_error_for_an_overwritten_ring_and_is_fine_again_after_it(pipe, frame, events, direction):
    tx, rx = pipe
    tx.send(frame())
    port = tx if direction == abi.TX else rx
    ring = (port.tx_rings if direction == abi.TX else port.rx_rings)[0]
    ring.head = SLOTS
    assert port.poll(events, 0) & POLLERR
    assert port.poll(events, 0) == events


def test_a_sync_of_an_overwritten_ring_raises_nothing(pipe):
    tx, rx = pipe
    tx.tx_rings[0].head = rx.rx_rings[0].head = SLOTS
    tx.txsync()
    rx.rxsync()


def test_send_refuses_to_wait_for_a_ring_whose_indices_make_no_sense(pipe, frame):
    tx, rx = pipe
    tx.send([frame()] * 3)
    ring = tx.tx_rings[0]
    ring.head = ring.cur = 1
    with pytest.raises(PeerError, match="set both to 3") as refused:
        tx.send(frame())
    assert refused.value.errno == errno.EIO
    ring.head = ring.cur = 3
    assert tx.send(frame()) == 1
    assert len(rx.recv(timeout=0)) == 4


# A bad slot in the middle of good ones ---------------------------------------------------------------------------------


def test_a_pipe_passes_a_bad_slot_as_an_empty_packet_and_counts_it(pipe, frame):
    tx, rx = pipe
    for _ in range(3):
        tx.inject(frame())
    tx.tx_rings[0].slots["buf_idx"][1] = 0xFFFFFFFF
    tx.txsync()
    rx.rxsync()
    assert rx.rx_rings[0].slots["len"][:3].tolist() == [60, 0, 60]
    assert rx.rx_rings[0].slots["buf_idx"][1] == 0
    assert tx.stats.drops == {"bad_slot": 1}
    assert len(rx.recv(timeout=0)) == 2


def test_a_switch_drops_a_bad_slot_and_counts_it(lax, frame):
    with lax.open("vale0:a") as a, lax.open("vale0:b") as b:
        for _ in range(4):
            a.inject(frame())
        a.tx_rings[0].slots["buf_idx"][1] = 1
        a.tx_rings[0].slots["len"][2] = 2049
        a.txsync()
        assert len(b.recv(timeout=0)) == 2
        assert a.stats.drops == {"bad_slot": 2}


def test_a_bad_slot_of_the_reader_costs_the_reader_one_packet(lax, frame):
    with lax.open("vale0:a") as a, lax.open("vale0:b") as b:
        b.rx_rings[0].slots["buf_idx"][1] = 0xFFFFFFFF
        a.send([frame(fill=i) for i in range(3)])
        assert b.recv(timeout=0) == [frame(fill=0), frame(fill=2)]
        assert b.stats.truncated == 1
        assert a.stats.drops == {}

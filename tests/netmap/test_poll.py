# SPDX-License-Identifier: BSD-2-Clause

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.port import POLLERR, POLLIN, POLLOUT

pytestmark = pytest.mark.interpreted


def test_a_sync_stamps_an_rx_ring_only_if_its_flag_asks_and_poll_always(small):
    rx = small[1]
    ring = rx.rx_rings[0]
    rx.rxsync()
    assert ring.ts == 0
    ring.flags = abi.NR_TIMESTAMP
    rx.rxsync()
    stamped = ring.ts
    assert stamped > 1_600_000_000
    ring.flags = 0
    rx.rxsync()
    assert ring.ts == stamped
    ring.header["ts_sec"] = 0
    rx.poll(POLLIN, 0)
    assert ring.ts >= stamped


def test_poll_tells_what_holds(small, frame):
    tx, rx = small
    assert tx.poll(POLLOUT, 0) == POLLOUT
    assert rx.poll(POLLIN, 0) == 0
    tx.send(frame())
    assert rx.poll(POLLIN | POLLOUT, 0) == POLLIN | POLLOUT
    assert rx.poll(POLLIN) == POLLIN


def test_a_full_pipe_is_not_writable_until_its_reader_has_read(small, frame):
    tx, rx = small
    tx.send([frame()] * 7)
    assert tx.poll(POLLOUT, 0) == 0
    rx.recv(1, timeout=0)
    assert tx.poll(POLLOUT, 0) == POLLOUT


def test_a_vale_port_is_always_writable(switch, frame):
    a, _ = switch
    a.send([frame()] * 50)
    assert a.poll(POLLOUT, 0) == POLLOUT


def test_polling_to_read_sends_what_is_pending(small, frame):
    tx, rx = small
    tx.inject(frame())
    assert tx.poll(POLLIN, 0) == 0
    assert rx.recv(timeout=0) == [frame()]


def test_polling_to_read_sends_nothing_if_asked_not_to(nm, frame):
    with nm.open("netmap:p{1", flags=abi.NR_NO_TX_POLL) as tx, nm.open("netmap:p}1") as rx:
        tx.inject(frame())
        tx.poll(POLLIN, 0)
        assert rx.recv(timeout=0) == []
        assert tx.poll(POLLOUT, 0) == POLLOUT
        assert rx.recv(timeout=0) == [frame()]


def test_poll_wakes_up_when_a_packet_comes(small, frame, meanwhile, wait_until_asleep):
    tx, rx = small
    ready = meanwhile(rx.poll, POLLIN)
    wait_until_asleep(rx)
    tx.send(frame())
    assert ready() == POLLIN


def test_poll_wakes_up_when_there_is_room(small, frame, meanwhile, wait_until_asleep):
    tx, rx = small
    tx.send([frame()] * 7)
    ready = meanwhile(tx.poll, POLLOUT)
    wait_until_asleep(tx)
    rx.recv(1, timeout=0)
    assert ready() == POLLOUT


def test_poll_reports_an_error_after_a_reinit(small):
    tx, _ = small
    tx.tx_rings[0].head = 8
    assert tx.poll(POLLOUT, 0) & POLLERR
    assert tx.poll(POLLOUT, 0) == POLLOUT

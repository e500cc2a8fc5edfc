# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.errors import PortError
from ptnetmap.netmap.port import POLLERR, POLLIN

pytestmark = pytest.mark.interpreted


def test_a_monitor_whose_ring_has_gone_reports_an_error(nm):
    with nm.open("vale0:keep"):
        watched = nm.open("vale0:a")
        with nm.open("vale0:a/rt") as monitor:
            watched.close()
            assert monitor.poll(POLLIN, 0) == POLLERR
            with pytest.raises(PortError) as refused:
                monitor.recv(timeout=0)
            assert refused.value.errno == errno.EIO


def test_a_waiting_monitor_is_woken_when_its_ring_goes(nm, meanwhile, wait_until_asleep):
    watched = nm.open("vale0:a")
    with nm.open("vale0:a/r") as monitor:
        ready = meanwhile(monitor.poll, POLLIN)
        wait_until_asleep(monitor)
        watched.close()
        assert ready() == POLLERR


def test_a_monitor_cannot_send(nm, frame):
    with nm.open("vale0:a"), nm.open("vale0:a/t") as monitor:
        with pytest.raises(PortError) as refused:
            monitor.txsync()
        assert refused.value.errno == errno.EIO
        with pytest.raises(PortError):
            monitor.send(frame())


@pytest.mark.parametrize("name", ["vale0:a/r", "netmap:v0/t", "netmap:p{1/r", "netmap:eth0/t"])
def test_only_what_is_open_can_be_monitored(nm, name, refusal):
    nm.create("v0")
    refusal("EINVAL", nm.open, name, match="cannot monitor")
    assert nm.list() == []


def test_a_monitor_has_its_parents_shape_and_one_tx_ring(nm):
    with (
        nm.open("vale0:a@conf:tx-rings=2,rx-rings=3,tx-slots=64,rx-slots=128"),
        nm.open("vale0:a/rt") as both,
        nm.open("vale0:a-1/r") as one,
    ):
        assert (len(both.tx_rings), len(both.rx_rings)) == (1, 3)
        assert (both.tx_rings[0].num_slots, both.rx_rings[0].num_slots) == (64, 128)
        assert [r.ringid for r in one.rx_rings] == [1]


def test_a_full_monitor_misses_frames_and_holds_nobody_back(nm, frame):
    with (
        nm.open("vale0:a") as a,
        nm.open("vale0:b") as b,
        nm.open("vale0:b/r@conf:slots=8") as copies,
        nm.open("vale0:b/rz@conf:slots=8") as originals,
    ):
        frames = [frame(fill=i) for i in range(20)]
        a.send(frames)
        assert b.recv(timeout=0) == frames
        assert copies.recv(timeout=0) == frames[:7]
        assert originals.recv(timeout=0) == frames[:7]
        assert (copies.stats.missed, originals.stats.missed) == (13, 13)


@pytest.mark.parametrize("first_to_go", [0, 1])
def test_zero_copy_monitors_of_one_port_form_a_chain(nm, frame, first_to_go):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:b/rz") as m, nm.open("vale0:b/rz") as n:
        a.send(frame(fill=1))
        assert [p.recv(timeout=0) for p in (b, m, n)] == [[frame(fill=1)]] * 3
        monitors = [m, n]
        monitors.pop(first_to_go).close()
        a.send(frame(fill=2))
        assert [p.recv(timeout=0) for p in (b, *monitors)] == [[frame(fill=2)]] * 2

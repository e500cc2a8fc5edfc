# SPDX-License-Identifier: BSD-2-Clause
"""Ports of network interfaces that a netmapd of the test's own has, on veth pairs in the test's namespace."""

import errno
import os
import signal
import subprocess
import sys

import pytest

import ptnetmap
from ptnetmap.errors import PortError

pytestmark = pytest.mark.root


def test_frames_pass_both_ways_between_a_process_and_an_interface(netmapd, peer, frame, gather):
    frames = [frame(255, 1, 60, i) for i in range(200)]
    with ptnetmap.open("netmap:va", tx_slots=32, rx_slots=32) as port:
        for i in range(0, 200, 20):
            assert port.send(frames[i : i + 20], timeout=30) == 20
            assert peer.recv(20) == frames[i : i + 20]
            for one in frames[i : i + 20]:
                peer.send(one)
            assert gather(port, 20) == frames[i : i + 20]
        assert (port.stats.tx_packets, port.stats.rx_packets, port.stats.dropped) == (200, 200, 0)


def test_a_frame_wakes_a_process_whose_kthread_sleeps(netmapd, peer, frame, meanwhile, wait_until_asleep):
    with ptnetmap.open("netmap:va") as port:
        for fill in range(3):
            received = meanwhile(port.recv, timeout=60)
            wait_until_asleep(port)
            peer.send(frame(255, 1, 60, fill))
            assert received() == [frame(255, 1, 60, fill)]


def test_two_processes_share_a_ports_rings_and_the_last_one_to_close_detaches(
    netmapd, peer, frame, programs, eventually
):
    first = ptnetmap.open("netmap:va/R")
    second = ptnetmap.open("netmap:va/T")
    assert first.mem_id == second.mem_id
    peer.send(frame(255, 1, 60, 1))
    assert first.recv(timeout=30) == [frame(255, 1, 60, 1)]
    first.close()
    assert len(programs("va")) == 1
    second.send([frame(255, 1, 60, 2)], timeout=30)
    assert peer.recv(1) == [frame(255, 1, 60, 2)]
    second.close()
    eventually(lambda: programs("va") == [])


def test_a_client_that_is_killed_gives_the_interface_back(netmapd, peer, frame, programs, eventually):
    code = "import ptnetmap, time; p = ptnetmap.open('netmap:va'); print('open', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
            assert len(programs("va")) == 1
        finally:
            os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: programs("va") == [])
    with ptnetmap.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]


def test_a_netmapd_that_is_killed_leaves_no_program_behind(netmapd, programs, eventually):
    with ptnetmap.open("netmap:va"):
        assert len(programs("va")) == 1
        signal.pidfd_send_signal(netmapd, signal.SIGKILL)
        eventually(lambda: programs("va") == [])


def test_an_interface_that_goes_is_an_error_of_its_ports_and_netmapd_goes_on(
    netmapd, veth, frame, meanwhile, wait_until_asleep
):
    with ptnetmap.open("netmap:va") as port:
        received = meanwhile(port.recv)
        wait_until_asleep(port)
        veth("link del va")
        with pytest.raises(PortError, match="va has gone") as gone:
            received()
        assert gone.value.errno == errno.ENXIO
        with pytest.raises(PortError, match="va has gone"):
            port.send([frame(255, 1)], timeout=30)
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b:
        a.send([frame(255, 1)])
        assert b.recv(timeout=30) == [frame(255, 1)]


def test_what_cannot_be_opened_is_refused_with_the_reason(netmapd, refusal):
    refusal("ENXIO", ptnetmap.open, "netmap:nobody0", match="no port or network interface")
    with ptnetmap.Netmap() as nm, nm.open("netmap:va"):
        refusal("EBUSY", ptnetmap.open, "netmap:va", match="of somebody else")


def test_buffers_go_on_to_a_pipe_of_another_process(netmapd, peer, frame):
    with (
        ptnetmap.open("netmap:va") as port,
        ptnetmap.open("netmap:va{1") as master,
        ptnetmap.open("netmap:va}1") as slave,
    ):
        assert port.mem_id == master.mem_id
        peer.send(frame(255, 1, 60, 3))
        port.poll(timeout=30)
        source, target = port.rx_rings[0], master.tx_rings[0]
        index = int(source.slots[source.head]["buf_idx"])
        source.slots[source.head]["buf_idx"] = target.slots[target.head]["buf_idx"]
        target.slots[target.head]["buf_idx"] = index
        target.slots[target.head]["len"] = 60
        source.advance(1)
        target.advance(1)
        master.txsync()
        port.rxsync()
        assert slave.recv(timeout=30) == [frame(255, 1, 60, 3)]

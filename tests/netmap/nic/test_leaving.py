# SPDX-License-Identifier: BSD-2-Clause
"""What is left of a port when its process, its namespace or its interface's abilities go."""

import os
import signal
import subprocess
import sys

import pytest

from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.root
_OPEN = """if True:
    import ptnetmap, time
    port = ptnetmap.Netmap(nic_mode="{mode}").open("netmap:va")
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
def test_a_killed_process_lets_go_of_interface_and_namespace(peer, programs, frame, eventually, mode):
    with subprocess.Popen([sys.executable, "-c", _OPEN.format(mode=mode)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
        finally:
            os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: programs("va") == [])
    with Netmap(nic_mode=mode) as nm, nm.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]


@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
def test_an_interface_that_is_moved_to_another_namespace_is_gone(veth, eventually, refusal, mode):
    with (
        Netmap(nic_mode=mode) as nm,
        nm.open("netmap:va") as port,
        subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo in; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
    ):
        assert other.stdout.readline() == b"in\n"
        veth(f"link set va netns {other.pid}")
        eventually(lambda: port.adapter.is_gone)
        refusal("ENXIO", port.send, [bytes(60)], match="va has gone")
        other.stdin.close()


@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
def test_a_change_of_mtu_under_an_open_port_breaks_nothing(veth, peer, frame, mode):
    with Netmap(nic_mode=mode) as nm, nm.open("netmap:va") as port:
        for mtu in (1000, 1500):
            veth(f"link set va mtu {mtu}")
            peer.send(frame(255, 1, 60, 1))
            assert port.recv(timeout=30) == [frame(255, 1, 60, 1)]
            assert port.send([frame(255, 1, 60, 2)], timeout=30) == 1
            assert peer.recv(1) == [frame(255, 1, 60, 2)]


def test_an_interface_whose_driver_refuses_native_xdp_is_opened_all_the_same(namespace, peer_of, frame):
    namespace("link add va mtu 9000 type veth peer name vb mtu 9000", "link set va up", "link set vb up")
    peer = peer_of("vb")
    with Netmap() as nm, nm.open("netmap:va") as port:
        peer.send(frame(255, 1))
        assert port.recv(timeout=30) == [frame(255, 1)]

# SPDX-License-Identifier: BSD-2-Clause
"""What happens to an interface while frames come and go on it, and to its runtime in the middle of that."""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ptnetmap.abi import ethtool
from ptnetmap.errors import PortError
from ptnetmap.netmap.runtime import Netmap
from tests.netmap.nic.conftest import WITHIN

pytestmark = pytest.mark.root
_SCHANNELS = 0x3D
_AGAIN = 10
QUEUES = "numtxqueues 2 numrxqueues 2"


def set_channels(count):
    """What ``ethtool -L va rx COUNT tx COUNT`` does."""
    wanted = np.zeros(1, ethtool.ethtool_channels)
    wanted["cmd"], wanted["rx_count"], wanted["tx_count"] = _SCHANNELS, count, count
    request = np.zeros(1, ethtool.ifreq)
    request["ifr_name"], request["ifr_data"] = b"va", wanted.ctypes.data
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, contextlib.suppress(OSError):
        fcntl.ioctl(control, ethtool.SIOCETHTOOL, bytearray(request.tobytes()))  # refused while XDP has the queue


EVENTS = {
    "mtu": lambda ip: ip("link set va mtu 1000", "link set va mtu 1500"),
    "down": lambda ip: ip("link set va down", "link set va up"),
    "carrier": lambda ip: ip("link set vb down", "link set vb up"),
    "queues": lambda ip: (set_channels(1), set_channels(2)),
}


@pytest.fixture
def queues(namespace):
    """The pair ``va``, ``vb`` with two queues each, both up."""
    namespace(f"link add va {QUEUES} type veth peer name vb {QUEUES}", "link set va up", "link set vb up")
    return namespace


@contextlib.contextmanager
def repeated(action):
    """Do something again and again beside the block; that the interface is down or gone meanwhile ends nothing."""
    over = threading.Event()

    def run():
        while not over.is_set():
            with contextlib.suppress(OSError, PortError):
                action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def exchange(port, peer, frame, number):
    """One frame each way, past whatever else is on its way.

    Each is sent until it comes: the kernel drops frames for a while after an interface has come up.
    """
    there, back = frame(255, 1, 60, number), frame(255, 2, 60, number)
    deadline = time.monotonic() + WITHIN
    peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # that its interface was down is told once
    while there not in port.recv(timeout=0.01):
        assert time.monotonic() < deadline, "nothing comes from the interface"
        peer.send(there)
    found = False
    while not found:
        assert time.monotonic() < deadline, "nothing goes to the interface"
        port.send([back], timeout=WITHIN)
        while not found and select.select([peer.socket], [], [], 0.01)[0]:
            found = peer.recv(1) == [back]


def under_traffic(port, peer, frame):
    """Frames both ways, for as long as the block goes on."""
    both = contextlib.ExitStack()
    noise = [frame(255, 3, 60, 9)] * 16
    both.enter_context(repeated(lambda: peer.send(noise[0])))
    both.enter_context(repeated(lambda: port.send(noise, timeout=0)))
    both.enter_context(repeated(lambda: port.recv(timeout=0)))
    return both


@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_port_goes_on_whatever_its_interface_does_under_traffic(queues, peer_of, frame, event, mode):
    with Netmap(nic_mode=mode) as nm, nm.open("netmap:va") as port:
        peer = peer_of("vb")
        with under_traffic(port, peer, frame):
            for _ in range(_AGAIN):
                EVENTS[event](queues)
        exchange(port, peer, frame, 1)
        assert all(audit.ok for audit in nm.audit())


@pytest.mark.parametrize("event", EVENTS)
def test_a_switch_goes_on_whatever_its_uplink_does_under_traffic(queues, peer_of, frame, event):
    with Netmap() as nm:
        nm.attach("vale0:va")
        with nm.open("vale0:x") as port:
            peer = peer_of("vb")
            with under_traffic(port, peer, frame):
                for _ in range(_AGAIN):
                    EVENTS[event](queues)
            exchange(port, peer, frame, 1)
        nm.detach("vale0:va")


@pytest.mark.parametrize("how", ["link del va", "link set va netns {}"])
@pytest.mark.parametrize("mode", ["xdp", "af_packet"])
def test_an_interface_that_goes_under_traffic_takes_only_its_port_along(veth, peer_of, frame, eventually, how, mode):
    with (
        Netmap(nic_mode=mode) as nm,
        subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo in; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other,
    ):
        assert other.stdout.readline() == b"in\n"
        port, peer = nm.open("netmap:va"), peer_of("vb")
        with under_traffic(port, peer, frame):
            veth(how.format(other.pid))
            eventually(lambda: port.adapter.is_gone)
        port.close()
        other.stdin.close()
        other.wait()
        assert nm.audit() == []
        veth("link add va type veth peer name vc", "link set va up", "link set vc up")
        with nm.open("netmap:va") as port:
            exchange(port, peer_of("vc"), frame, 2)


def test_an_uplink_that_goes_under_traffic_leaves_the_switch_to_the_others(veth, peer_of, frame, eventually):
    with Netmap() as nm:
        nm.attach("vale0:va")
        with nm.open("vale0:x") as port, nm.open("vale0:y") as other:
            with under_traffic(port, peer_of("vb"), frame):
                veth("link del va")
                eventually(lambda: nm._uplinks["vale0:va"].failure is not None)
            while other.recv(timeout=0):  # what it had no room for was lost, not the switch
                pass
            assert port.send([frame(255, 1, 60, 7)], timeout=30) == 1
            assert frame(255, 1, 60, 7) in other.recv(timeout=30)
        nm.detach("vale0:va")


_BUSY = """if True:
    import ptnetmap, threading
    nm = ptnetmap.Netmap(nic_mode="{mode}")
    {open}
    print("open", flush=True)
    while True:
        port.send([bytes.fromhex("ffffffffffff02000000000188b5") + bytes(46)] * 16, timeout=1)
        port.recv(timeout=0)
"""
OPENED = {
    "host": ("xdp", "port = nm.open('netmap:va*')"),
    "packet": ("af_packet", "port = nm.open('netmap:va')"),
    "uplink": ("xdp", "nm.attach('vale0:va', host=True); port = nm.open('vale0:x')"),
    "packet uplink": ("af_packet", "nm.attach('vale0:va'); port = nm.open('vale0:x')"),
}


def links():
    """Interfaces, with how often they are promiscuous, and whether a program is attached."""
    found = json.loads(subprocess.check_output(["ip", "-json", "-details", "link", "show"]))
    return [(one["ifname"], one["promiscuity"], "xdp" in one) for one in found]


@pytest.mark.parametrize("what", OPENED)
def test_a_process_killed_under_traffic_leaves_the_interface_as_it_was(veth, peer_of, frame, eventually, what):
    mode, code = OPENED[what]
    peer = peer_of("vb")
    before = links()
    for _ in range(2):
        with (
            subprocess.Popen(
                [sys.executable, "-c", _BUSY.format(mode=mode, open=code)], stdout=subprocess.PIPE
            ) as process,
            repeated(lambda: peer.send(frame(255, 3, 60, 9))),
        ):
            try:
                assert process.stdout.readline() == b"open\n"
                assert (links() == before) == (what == "packet"), "a packet socket on its own changes nothing"
            finally:
                os.kill(process.pid, signal.SIGKILL)
        eventually(lambda: links() == before)

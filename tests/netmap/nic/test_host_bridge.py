# SPDX-License-Identifier: BSD-2-Clause
"""``bridge netmap:va netmap:va^``: the stack on one side, its network on the other, and every frame through netmap."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading

import pytest

from ptnetmap.netmap.nic.interface import find_interface, let_frames_be_complete

pytestmark = pytest.mark.root

HERE, THERE = "10.9.0.1", "10.9.0.2"


@pytest.fixture
def here(elsewhere):
    """Make sockets in this namespace; a peer's kernel is at the other end of ``va``."""
    elsewhere.run(lambda: let_frames_be_complete("vb"))

    def make(*arguments):
        made = socket.socket(*arguments)
        made.settimeout(30)
        return made

    return make


@pytest.fixture
def through_netmap(program, read_until, here):
    """Run the bridge between the interface and its stack. With -v it says so much that only short tests may ask for it."""

    @contextlib.contextmanager
    def run(*ports, options=()):
        arguments = [argument for port in ports for argument in ("-i", port)]
        with program("bridge", "-w", "0", *arguments, *options) as bridge:
            read_until(bridge, "Ready to go")
            yield bridge

    return run


def checksum(data):
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(make, count=3, size=1000):
    """Send echo requests to the peer; return how many of its answers have the bytes that were sent."""
    with make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        for sequence in range(count):
            body = struct.pack("!HH", os.getpid() & 0xFFFF, sequence) + os.urandom(size)
            raw.sendto(struct.pack("!BBH", 8, 0, checksum(b"\x08\0\0\0" + body)) + body, (THERE, 0))
            while True:
                got = raw.recv(65536)
                if got[20] == 0 and got[24:28] == body[:4]:
                    break
            assert got[28:] == body[4:]
    return count


def transfer(sender, receiver, octets):
    """Send bytes through a pair of connected sockets; return whether they arrive as they were."""
    piece = os.urandom(1 << 20)
    sent, got = hashlib.sha256(), hashlib.sha256()

    def send():
        for _ in range(octets >> 20):
            sent.update(piece)
            sender.sendall(piece)
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    while data := receiver.recv(1 << 20):
        got.update(data)
    thread.join()
    return sent.digest() == got.digest()


@pytest.fixture
def connected(elsewhere, here):
    """Connect a TCP socket of this namespace with one of the peer's."""

    @contextlib.contextmanager
    def connect():
        with elsewhere.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((THERE, 5001))
            listener.listen()
            with here(socket.AF_INET, socket.SOCK_STREAM) as near:
                near.connect((THERE, 5001))
                far, _ = listener.accept()
                with far:
                    far.settimeout(30)
                    yield near, far

    return connect


def packets_each_way(bridge, read_until):
    """End the bridge; return how many packets went one way and the other."""
    bridge.send_signal(signal.SIGINT)
    return [int(read_until(bridge, " packets, ").split(": ")[1].split()[0]) for _ in range(2)]


def test_the_host_pings_through_the_bridge_and_every_packet_passes_it(through_netmap, read_until, here, eventually):
    with through_netmap("netmap:va", "netmap:va^", options=["-v"]) as bridge:
        assert ping(here) == 3
        there_and_back = packets_each_way(bridge, read_until)
        assert min(there_and_back) >= 4  # three answers, three questions, and who has the address
    eventually(lambda: find_interface(outside()) is None)
    assert ping(here) == 3


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("way", ["from the host", "to the host"])
def test_a_tcp_transfer_through_the_bridge_arrives_as_it_was_sent(through_netmap, connected, copy, way):
    with through_netmap("netmap:va", "netmap:va^", options=["-c"] if copy else []), connected() as (near, far):
        assert transfer(*((near, far) if way == "from the host" else (far, near)), 32 << 20)


def test_a_connection_stays_when_the_bridge_comes_and_goes(through_netmap, connected):
    with connected() as (near, far):
        for opened in (False, True, False):
            with through_netmap("netmap:va", "netmap:va^") if opened else contextlib.nullcontext():
                for sender, receiver in ((near, far), (far, near)):
                    message = os.urandom(20_000)
                    sender.sendall(message)
                    got = b""
                    while len(got) < len(message):
                        got += receiver.recv(65536)
                    assert got == message


def test_one_name_alone_is_the_interface_and_its_host(through_netmap, read_until, here):
    with through_netmap("netmap:va", options=["-v"]) as bridge:
        assert ping(here) == 3
        assert min(packets_each_way(bridge, read_until)) >= 4


def test_the_host_goes_on_through_a_switch_that_has_its_interface_and_itself(
    program, connected, here, netmapd, eventually
):
    def control(*words):
        with program("vale_ctl", *words) as told:
            out, err = told.communicate(timeout=60)
            assert told.returncode == 0, (out, err)
            return out

    control("-h", "vale0:va")
    assert "vale0:va^" in control("--list")
    assert ping(here) == 3
    with connected() as (near, far):
        assert transfer(near, far, 8 << 20)
        assert transfer(far, near, 0)
    control("-d", "vale0:va")
    assert "vale0:va" not in control("--list")
    eventually(lambda: find_interface(outside()) is None)
    assert ping(here) == 3


def outside():
    return f"nmhost{find_interface('va').index}"


def settings():
    """Return what the namespace's interfaces, addresses and routes are."""

    def ask(what):
        return json.loads(subprocess.run(["ip", "-json", *what], check=True, capture_output=True, text=True).stdout)

    interfaces = {
        one["ifname"]: (one["address"], one["mtu"], sorted(one["flags"]), one["addr_info"]) for one in ask(["addr"])
    }
    return interfaces, ask(["route", "show", "table", "all"])


def test_the_host_keeps_its_addresses_and_routes_and_after_kill_9_nothing_is_left(
    through_netmap, netmapd, here, eventually
):
    before = settings()
    with through_netmap("netmap:va", "netmap:va^"):
        interfaces, routes = settings()
        *_, addresses = interfaces.pop(outside())
        assert addresses == []
        assert (interfaces, routes) == before
        signal.pidfd_send_signal(netmapd, signal.SIGKILL)
        eventually(lambda: settings() == before)
        assert ping(here) == 3


def test_host_rings_can_be_opened_again_at_once_after_kill_9(program, read_until, here, netmapd, nm):
    with program("bridge", "-w", "0", "-i", "netmap:va", "-i", "netmap:va^") as bridge:
        read_until(bridge, "Ready to go")
        signal.pidfd_send_signal(netmapd, signal.SIGKILL)
        with nm.open("netmap:va^") as port:
            with here(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.sendto(b"to the host ring", (THERE, 9))
            assert port.recv(timeout=30)

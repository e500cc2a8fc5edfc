# SPDX-License-Identifier: BSD-2-Clause
# Network interfaces as ports of a switch, on veth pairs in a network namespace of the test's own.
import contextlib
import ctypes
import errno
import os
import struct
import subprocess
import time
from collections import Counter

import pytest

from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.nic import offloads
from ptnetmap.netmap.runtime import Netmap
from tests.netmap.nic.conftest import WITHIN, ip

pytestmark = pytest.mark.root
OURS = 0x88B5
_CLONE_NEWNET = 0x40000000
_SOL_PACKET, _PACKET_AUXDATA, _VLAN_VALID = 263, 8, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


def mac(number):
    return bytes([2, 0, 0, 0, 0, number])


BROADCAST = b"\xff" * 6


def frame(to, source, number, size=60, vlan=None):
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    head = to + source + tag + OURS.to_bytes(2, "big") + number.to_bytes(4, "big")
    return head + bytes(size - len(head))


@pytest.fixture(params=[Netmap, Host], ids=["embedded", "daemon"])
def netmap(namespace, request):
    with request.param() as made:
        yield made


@pytest.fixture
def pairs(namespace):
    """Make pairs of which ``b`` ends are peers of switch ports ``a``."""

    def make(*names):
        for name in names:
            namespace(
                f"link add {name} type veth peer name {name}p",
                f"link set {name} up",
                f"link set {name}p up",
            )

    return make


@contextlib.contextmanager
def in_another_namespace(interface):
    """Enter a new network namespace with ``interface`` in it, as this thread's, for a while; run ``ip`` there."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.unshare(_CLONE_NEWNET) == 0
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        assert _libc.setns(here, _CLONE_NEWNET) == 0
        try:
            ip(f"link set {interface} netns /proc/{os.getpid()}/fd/{there}")
            assert _libc.setns(there, _CLONE_NEWNET) == 0
            yield ip
        finally:
            os.close(there)
    finally:
        assert _libc.setns(here, _CLONE_NEWNET) == 0
        os.close(here)


def is_ours(one):
    return OURS.to_bytes(2, "big") in (one[12:14], one[16:18])


def with_tag(peer):
    """The next frame at a peer, and the VLAN tag that the kernel tells beside it where it belongs."""
    peer.socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    one, beside, _, _ = peer.socket.recvmsg(65536, 128)
    for level, kind, value in beside:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value)
            if status & _VLAN_VALID:
                one = one[:12] + struct.pack("!HH", tpid, tci) + one[12:]
    return one


def ours(peer, count):
    """The next frames of our EtherType at a peer: an interface that comes up has something to say, too."""
    got = []
    while len(got) < count:
        got += [one for one in [with_tag(peer)] if is_ours(one)]
    return got


def arrives(gather, port, expected):
    """Receive until a frame of ours comes; it must be the one expected."""
    while True:
        found = [one for one in gather(port, 1) if is_ours(one)]
        if found:
            assert found == [expected]
            return


@pytest.mark.parametrize("size", [60, 1514])
def test_frames_pass_between_an_interface_and_a_port_of_the_same_switch(netmap, pairs, peer_of, gather, size):
    pairs("va")
    assert netmap.attach("vale0:va") == 0
    with netmap.open("vale0:x") as port:
        peer = peer_of("vap")
        for number in range(20):
            peer.send(frame(mac(9), mac(1), number, size))  # not the interface's address
            assert gather(port, 1) == [frame(mac(9), mac(1), number, size)]
            port.send(frame(mac(1), mac(2), number, size))
            assert ours(peer, 1) == [frame(mac(1), mac(2), number, size)]
        assert ("vale0:va", 0, 0) in netmap.list()
        counted = netmap.named("vale0:va")
        assert counted.tx[0].counters()["packets"] == counted.rx[0].counters()["received"] == 20
        assert netmap.detach("vale0:va") == 0
        assert all(name != "vale0:va" for name, _, _ in netmap.list())
    with netmap.open("netmap:va"):
        pass


def test_an_interface_is_attached_once_and_nobody_else_has_it(netmap, pairs):
    pairs("va")
    netmap.attach("vale0:va")
    for attempt in (
        lambda: netmap.attach("vale0:va"),
        lambda: netmap.attach("vale1:va"),
        lambda: netmap.open("netmap:va"),
        lambda: netmap.open("vale0:va"),
    ):
        with pytest.raises(PtnetmapError) as refusal:
            attempt()
        assert refusal.value.errno == errno.EBUSY
    assert netmap.list() == [("vale0:va", 0, 0)]


def test_an_interface_that_somebody_has_open_is_refused(netmap, pairs):
    pairs("va")
    with netmap.open("netmap:va"):
        with pytest.raises(PortError) as refusal:
            netmap.attach("vale0:va")
        assert refusal.value.errno == errno.EBUSY
    assert netmap.list() == []
    netmap.attach("vale0:va")


def test_a_detached_interface_has_no_program_and_is_not_promiscuous(netmap, pairs, programs):
    pairs("va")
    netmap.attach("vale0:va")
    assert len(programs("va")) == 1
    assert "promiscuity 1" in subprocess.check_output(["ip", "-d", "link", "show", "va"], text=True)
    netmap.detach("vale0:va")
    assert programs("va") == []
    assert "promiscuity 0" in subprocess.check_output(["ip", "-d", "link", "show", "va"], text=True)


def test_an_interface_that_was_down_goes_on_when_it_is_up(netmap, namespace, pairs, peer_of, gather):
    pairs("va")
    netmap.attach("vale0:va")
    with netmap.open("vale0:x") as port:
        namespace("link set va down", "link set va up")
        peer = peer_of("vap")
        deadline = time.monotonic() + WITHIN
        while not (got := port.recv(timeout=0.01)):  # the kernel drops frames for a while after it came up
            assert time.monotonic() < deadline
            peer.send(frame(mac(2), mac(1), 1))
        assert set(got) == {frame(mac(2), mac(1), 1)}
        port.send(frame(mac(1), mac(2), 2))
        assert ours(peer, 1) == [frame(mac(1), mac(2), 2)]


def test_an_interface_that_goes_leaves_the_others_alone(netmap, namespace, pairs, peer_of, gather, eventually):
    pairs("va", "vb")
    netmap.attach("vale0:va")
    netmap.attach("vale0:vb")
    namespace("link del va")
    eventually(lambda: netmap._uplinks["vale0:va"].failure is not None)
    assert netmap._uplinks["vale0:va"].failure.errno == errno.ENXIO
    with netmap.open("vale0:x") as port:
        peer_of("vbp").send(frame(BROADCAST, mac(1), 1))
        assert gather(port, 1) == [frame(BROADCAST, mac(1), 1)]
    netmap.detach("vale0:va")
    pairs("va")
    netmap.attach("vale0:va")


def test_offloads_that_spoil_frames_are_refused_with_the_command_that_turns_them_off(monkeypatch):
    flags = offloads.ethtool.ETH_FLAG_RXVLAN | offloads.ethtool.ETH_FLAG_LRO
    monkeypatch.setattr(offloads, "driver_of", lambda name: "real")
    monkeypatch.setattr(offloads, "_value", lambda name, command: flags)
    with pytest.raises(PortError, match="ethtool -K eth9 rxvlan off lro off"):
        offloads.check_offloads("eth9")


def test_a_veth_is_attached_with_a_warning_about_its_other_end(netmap, pairs, caplog):
    pairs("va")
    netmap.attach("vale0:va")
    assert "ethtool -K PEER tx off txvlan off" in caplog.text


def test_a_switch_delivers_what_a_linux_bridge_delivers(netmap, namespace, pairs, peer_of, gather):
    """Each frame waits for where it must come, so that what is learnt is the same; a last broadcast ends each list."""
    sent = [
        (0, BROADCAST, 1, None),
        (1, mac(1), 2, None),
        (2, mac(9), 3, None),  # nobody has said that address
        (0, mac(3), 1, None),
        (1, mac(3), 2, 100),
        (2, BROADCAST, 3, 100),
        (0, bytes.fromhex("01005e000001"), 1, None),
        (1, mac(1), 1, None),  # the address has moved to where it is sent from, and to
        (2, mac(1), 3, None),
        (0, mac(0), 2, 4000),
    ]

    def delivered(ends):
        """Send all; end each with a broadcast from each port, and list what comes at each port."""
        got = [Counter() for _ in ends]
        frames = [(at, frame(to, mac(source), n, vlan=vlan)) for n, (at, to, source, vlan) in enumerate(sent)]
        for step, (at, one) in enumerate(frames):
            ends[at].send(one)
            mark = frame(BROADCAST, mac(50 + at), 1000 + step)
            ends[at].send(mark)  # in order, so what was before it has come to all
            for other, end in enumerate(ends):
                while other != at:
                    (came,) = ours(end, 1)
                    if came == mark:
                        break
                    got[other][came] += 1
        return got

    three = ("va", "vb", "vc")
    pairs(*three)
    namespace("link add sw0 type bridge stp_state 0 mcast_snooping 0", "link set sw0 up")
    namespace(*(f"link set {name} master sw0" for name in three))
    peers = [peer_of(f"{name}p") for name in three]
    expected = delivered(peers)
    namespace("link del sw0")
    for name in three:
        netmap.attach(f"vale0:{name}")
    assert delivered(peers) == expected
    assert sum(sum(one.values()) for one in expected) > len(sent)


def test_switches_are_joined_by_vxlan_devices_of_the_kernel(netmap, namespace, pairs, gather):
    namespace("link add ua type veth peer name ub")
    far = Netmap()
    name = "vale0:vx"
    try:
        namespace("addr add 192.0.2.1/24 dev ua", "link set ua up")
        namespace("link add vx type vxlan id 7 local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev ua", "link set vx up")
        netmap.attach(name)
        with in_another_namespace("ub") as run:
            run("addr add 192.0.2.2/24 dev ub", "link set ub up")
            run("link add vx type vxlan id 7 local 192.0.2.2 remote 192.0.2.1 dstport 4789 dev ub", "link set vx up")
            far.attach(name)
        with netmap.open("vale0:a") as near, far.open("vale0:b") as there:
            for number in range(10):
                near.send(frame(mac(2), mac(1), number))
                arrives(gather, there, frame(mac(2), mac(1), number))
                there.send(frame(mac(1), mac(2), number))
                arrives(gather, near, frame(mac(1), mac(2), number))
    finally:
        far.close()


@pytest.mark.parametrize("runtime", [Netmap, Host], ids=["embedded", "daemon"])
def test_a_runtime_that_is_closed_gives_an_interface_and_its_host_back(pairs, programs, runtime):
    pairs("va")
    with runtime() as netmap:
        assert netmap.attach("vale0:va", host=True) == 0
        assert [name for name, _, _ in netmap.list()] == ["vale0:va", "vale0:va^"]
        with pytest.raises(PortError) as refusal:
            netmap.attach("vale0:va", host=True)
        assert refusal.value.errno == errno.EBUSY
    assert programs("va") == []
    with Netmap() as another:
        another.attach("vale1:va", host=True)


def test_somebody_elses_program_keeps_an_interface_off_the_switch(netmap, pairs, programs):
    pairs("va")
    with Netmap() as other, other.open("netmap:va"):
        (number,) = programs("va")
        for host in (False, True):
            with pytest.raises(PortError, match=f"XDP program {number} of somebody else") as refusal:
                netmap.attach("vale0:va", host=host)
            assert refusal.value.errno == errno.EBUSY
            assert netmap.list() == []
        assert programs("va") == [number]
    netmap.attach("vale0:va")


def test_a_switch_has_the_frames_of_every_queue_of_its_uplink(netmap, namespace, gather):
    queues = "numtxqueues 2 numrxqueues 2"
    namespace(f"link add va {queues} type veth peer name vb {queues}", "link set va up", "link set vb up")
    netmap.attach("vale0:va")
    with netmap.open("vale0:x") as port, netmap.open("netmap:vb") as far:
        for queue in range(2):
            sent = frame(BROADCAST, mac(1), queue)
            far.send([sent], ring=queue, timeout=30)
            assert gather(port, 1) == [sent]
        port.send([frame(mac(1), mac(2), 9)], timeout=30)
        assert gather(far, 1) == [frame(mac(1), mac(2), 9)]

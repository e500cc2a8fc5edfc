# SPDX-License-Identifier: BSD-2-Clause
# Tap devices as ports of a switch, in a network namespace of the test's own.
import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.abi import virtio
from ptnetmap.bench.tcp import SEGMENT, Stream
from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.tapdevice import is_tap, open_tap
from tests.netmap.daemon.conftest import Daemon
from tests.netmap.test_offload import Flow

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may"),
]

_CLONE_NEWNET = 0x40000000
_PACKET_VNET_HDR = 15
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def own_network():
    """A network namespace for this thread, and what it makes there, until the test ends."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert _libc.unshare(_CLONE_NEWNET) == 0
    yield
    assert _libc.setns(before, _CLONE_NEWNET) == 0
    os.close(before)


@pytest.fixture
def host(own_network):
    netmap = Host()
    yield netmap
    netmap.close()


@pytest.fixture
def kernel():
    """Make the kernel's side of a tap device: a socket for packets, of which those with our EtherType are received."""
    opened = []

    def side(device, kind=0x88B5):
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        one.bind((device, kind))
        one.settimeout(30)
        opened.append(one)
        return one

    yield side
    for one in opened:
        one.close()


def received(port, count):
    """The next frames of our EtherType that a port gets: an interface that comes up has something to say, too."""
    frames = []
    deadline = time.monotonic() + 30
    while len(frames) < count:
        assert time.monotonic() < deadline, f"{len(frames)} of {count} frames"
        frames += [one for one in port.recv(timeout=0.1) if one[12:14] == b"\x88\xb5"]
    return frames


def descriptors():
    """What this process has open, sorted; the directory that is being read is not."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(one.readlink()))
    return sorted(found)


@pytest.mark.parametrize("size", [60, 1514])
def test_frames_pass_between_a_tap_device_and_a_port_of_the_same_switch(host, kernel, frame, size):
    assert host.attach("vale0:tap3") == 0
    with host.open("vale0:a") as port:
        wire = kernel("tap3")
        for number in range(20):
            wire.send(frame(255, 1, size, number))
            assert received(port, 1) == [frame(255, 1, size, number)]
            port.send(frame(1, 2, size, number))
            assert wire.recv(2048) == frame(1, 2, size, number)
        assert ("vale0:tap3", 0, 0) in host.list()
        assert host.detach("vale0:tap3") == 0
    assert "tap3" not in [name for _, name in socket.if_nameindex()]


def test_two_tap_devices_on_a_switch_exchange_frames_whose_owner_is_learnt(host, kernel, frame):
    for number in range(3):
        host.attach(f"vale0:tap{number}")
    sides = [kernel(f"tap{number}") for number in range(3)]
    sides[1].send(frame(255, 2, 60, 1))
    for side in (sides[0], sides[2]):
        assert side.recv(2048) == frame(255, 2, 60, 1)
    sides[0].send(frame(2, 1, 60, 2))
    assert sides[1].recv(2048) == frame(2, 1, 60, 2)
    sides[1].send(frame(255, 2, 60, 3))  # had the one before gone to all, it would have come before this
    assert sides[2].recv(2048) == frame(255, 2, 60, 3)


def test_what_the_kernel_does_not_take_unfinished_is_finished_for_it(host, kernel):
    flow = Flow(tcp=False)
    payload = bytes(range(250)) * 16
    host.attach("vale0:tap4")
    wire = kernel("tap4", 0x0800)
    with host.open("vale0:a") as port:
        host.set_header("vale0:a", 12)
        whole = flow.frame(payload, partial=True)
        port.send(flow.partial_header(virtio.VIRTIO_NET_HDR_GSO_UDP_L4, 1000) + whole)
        datagrams = [wire.recv(2048) for _ in range(4)]
    assert b"".join(one[flow.head :] for one in datagrams) == payload
    assert [struct.unpack_from("!H", one, flow.transport_at + 4)[0] for one in datagrams] == [1008] * 4


def test_what_the_kernel_sends_unfinished_is_finished_for_a_port_without_headers(host, kernel):
    flow = Flow()
    payload = bytes(range(250)) * 16
    host.attach("vale0:tap4")
    wire = kernel("tap4", 0x0800)
    wire.setsockopt(263, _PACKET_VNET_HDR, 1)
    with host.open("vale0:a") as port:
        header = flow.partial_header(virtio.VIRTIO_NET_HDR_GSO_TCPV4, 1000, size=10)
        wire.send(header + flow.frame(payload, partial=True))
        segments = []
        deadline = time.monotonic() + 30
        while len(segments) < 4 and time.monotonic() < deadline:
            segments += [one for one in port.recv(timeout=0.1) if one[12:14] == b"\x08\x00"]
    assert b"".join(one[flow.head :] for one in segments) == payload


def test_tcp_passes_whole_between_namespaces_while_the_kernel_offloads():
    stream = Stream()
    try:
        whole, cut = (stream.run(offloads, 0.2, 1, None) for offloads in (True, False))
        counted = [port.adapter.tx[0].counters()["packets"] for port in stream._ports]
    finally:
        stream.close()
    assert whole.received > 0
    assert whole.dropped == cut.dropped == 0
    assert cut.received <= sum(counted) < whole.received + cut.received + sum(counted[1:])
    assert whole.bytes >= SEGMENT


@pytest.mark.parametrize(
    ("name", "number"),
    [("vale0:nobody", errno.ENXIO), ("tap1", errno.EINVAL), ("vale0:tapname-too-long-for-linux", errno.EINVAL)],
)
def test_what_cannot_be_attached_is_refused_and_leaves_nothing(host, name, number):
    deadline = time.monotonic() + 30
    before: list[str] = []
    left = None
    while left != before:  # threads may be opening theirs, of this host and of other tests'
        assert time.monotonic() < deadline, f"what was open: {before}; what is open: {left}"
        before = descriptors()
        with pytest.raises(PtnetmapError) as refusal:
            host.attach(name)
        left = descriptors()
        assert refusal.value.errno == number
        assert host.list() == []


def test_a_tap_device_is_known_by_its_driver(own_network):
    assert not is_tap("lo")
    assert not is_tap("nobody0")
    assert is_tap("tap9")
    fd = open_tap("any7")
    assert is_tap("any7")
    os.close(fd)
    assert not is_tap("any7")


def test_a_tap_device_is_attached_once(host):
    host.attach("vale0:tap1")
    with pytest.raises(PortError) as refusal:
        host.attach("vale0:tap1")
    assert refusal.value.errno == errno.EBUSY
    with pytest.raises(PtnetmapError) as refusal:
        host.attach("vale1:tap1")
    assert refusal.value.errno == errno.EBUSY
    with pytest.raises(PortError) as refusal:
        host.open("vale0:tap1")
    assert refusal.value.errno == errno.EBUSY


def test_netmapd_keeps_an_attached_tap_device_without_clients_and_gives_it_back(own_network, tmp_path, frame, kernel):
    daemon = Daemon(tmp_path)
    try:
        census = daemon.census()
        body = {"reg": {"nr_mode": abi.NR_REG_ALL_NIC}}
        with daemon.raw() as client:
            answer = client.greet().request(abi.NETMAP_REQ_VALE_ATTACH, "vale0:tap5", **body)
            assert answer.errno == 0, answer.text
            refused = client.request(abi.NETMAP_REQ_VALE_ATTACH, "vale1:tap5", **body)
            assert (refused.name, "in use" in refused.text) == ("EBUSY", True)
        wire = kernel("tap5")
        with daemon.raw() as client:
            assert client.greet().request(abi.NETMAP_REQ_VALE_DETACH, "vale0:tap5").errno == 0
            wire.close()
        daemon.settles_at(census)
    finally:
        daemon.stop()

# SPDX-License-Identifier: BSD-2-Clause
# virtio-net on a tap device, in a network namespace of the test's own; the interface's other side is a packet socket.
import ctypes
import logging
import os
import socket

import pytest

from ptnetmap.abi import virtio_pci as abi
from tests.bhyve.passthrough.test_plain_net import HEADER, Guest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may"),
]

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def own_network():
    """A network namespace for this thread, and what it makes there, until the test ends."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert _libc.unshare(_CLONE_NEWNET) == 0
    yield
    assert _libc.setns(before, _CLONE_NEWNET) == 0
    os.close(before)


def ours(used):
    """The frames among what a driver got that a test has sent: an interface that comes up has something to say, too."""
    return [one.data for one in used if one.data[24:26] == b"\x88\xb5"]


@pytest.fixture
def net(own_network, machine):
    return machine({"4": "virtio-net,tap7"})


@pytest.fixture
def wire(net):
    """The kernel's side of the interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as opened:
        opened.bind(("tap7", 0x88B5))
        opened.settimeout(30)
        yield opened


def test_a_tap_device_is_made_and_brought_up_and_goes_with_its_machine(net):
    assert "tap7" in [name for _, name in socket.if_nameindex()]
    guest = Guest(net)
    assert guest.driver.read_config(6, 2) == b"\1\0"
    assert not guest.driver.features & abi.VIRTIO_NET_F_HOST_UFO
    assert guest.driver.features & abi.VIRTIO_NET_F_HOST_TSO4
    net.close()
    assert "tap7" not in [name for _, name in socket.if_nameindex()]


def test_frames_pass_between_a_driver_and_a_tap_device(net, wire, frame, patiently):
    guest = Guest(net)
    guest.post(*[2048] * 100)
    for number in range(30):
        guest.tx.send([HEADER, frame(1, number)])
        guest.driver.kick(1)
        assert wire.recv(2048) == frame(1, number)
        wire.send(frame(2, number))
        [received] = patiently(lambda: ours(guest.rx.reap()), "a frame")
        assert received == bytes(10) + b"\1\0" + frame(2, number)
        assert len(patiently(guest.tx.reap, "the sent chain")) == 1


def test_a_packet_that_is_sent_whole_passes_to_a_tap_device_with_its_header(net, wire, frame):
    guest = Guest(net)
    whole = frame(1, 7) + bytes(range(256)) * 30
    for at in (700, 5000):
        guest.tx.send([HEADER, whole[:at], whole[at:]])
        guest.driver.kick(1)
        assert wire.recv(65536) == whole


def test_long_frames_arrive_whatever_buffers_there_are_and_short_ones_among_them(net, wire, frame, patiently):
    guest = Guest(net)
    sizes = [1514, 1514, 60, 1514, 600, 1514, 1514, 60, 700, 1514, 1400]
    sent = [frame(2, number) + bytes([number]) * (size - 60) for number, size in enumerate(sizes)]
    used = []

    def packets():
        """Chains, put together as their headers say."""
        used.extend(guest.rx.reap())
        found, left = [], list(used)
        while left:
            chains = int.from_bytes(left[0].data[10:12], "little")
            found.append(b"".join(one.data for one in left[:chains]))
            del left[:chains]
        return [data[12:] for data in found if data[24:26] == b"\x88\xb5"]

    guest.post(*[2048] * 3)
    for data in sent:
        wire.send(data)
    for lengths in ([2048], [4096], [512], [1024], [100, 2000], [2048], [300], [1000], [1526], *[[2048]] * 20):
        guest.rx.post(lengths)
        guest.driver.kick(0)
    patiently(lambda: len(packets()) == len(sent), "all of them")
    assert packets() == sent


def test_what_comes_before_there_are_buffers_waits_for_them(net, wire, frame, patiently):
    guest = Guest(net)
    for number in range(10):
        wire.send(frame(2, number))
    received = []

    def has(count):
        used = guest.rx.reap()
        guest.post(*[2048] * len(used))
        received.extend(ours(used))
        return len(received) == count

    guest.post(2048, 2048)
    patiently(lambda: has(10), "all of them")
    assert [data[12:] for data in received] == [frame(2, number) for number in range(10)]


def test_a_tap_device_in_use_leaves_the_link_down(net, machine, caplog):
    with caplog.at_level(logging.WARNING):
        other = machine({"4": "virtio-net,tap7"})
    assert "net backend initialization failed: tap7" in caplog.text
    assert "in use" in caplog.text
    assert Guest(other).driver.read_config(6, 2) == b"\0\0"

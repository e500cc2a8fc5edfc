# SPDX-License-Identifier: BSD-2-Clause
# virtio-net on a port of a switch: a driver's queues, served by a real netmapd.
import select

import pytest

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import ConfigError

RX, TX = 0, 1
HEADER = bytes(12)


class Guest:
    """A driver of a virtio-net device, with buffers posted."""

    def __init__(self, machine, place="4", **options):
        self.device = machine.device(place)
        self.driver = MockDriver(self.device, machine.host.memory)
        self.driver.start(**options)
        self.rx, self.tx = self.driver.queues[RX], self.driver.queues[TX]

    def post(self, *lengths):
        for length in lengths:
            self.rx.post([length])
        self.driver.kick(RX)

    def send(self, *packets):
        for packet in packets:
            self.tx.send([packet])
        self.driver.kick(TX)


@pytest.fixture
def net(machine):
    return machine({"4": "virtio-net,vale1:1"})


def test_packets_pass_between_a_driver_and_a_process(net, peer, frame, patiently):
    host = peer("vale1:2")
    guest = Guest(net)
    guest.post(*[2048] * 4)
    guest.send(HEADER + frame(1))
    assert host.recv(timeout=30) == [frame(1)]
    host.send([frame(2, 7)])
    [used] = patiently(guest.rx.reap, "a frame")
    assert used.data == bytes(10) + b"\1\0" + frame(2, 7)
    [sent] = patiently(guest.tx.reap, "the sent chain")
    assert sent.length == 0


@pytest.mark.parametrize(("ours", "theirs"), [("netmap:x{1", "netmap:x}1"), ("netmap:y}1", "netmap:y{1")])
def test_a_back_end_may_be_a_pipes_end(machine, peer, frame, patiently, ours, theirs):
    host = peer(theirs)
    guest = Guest(machine({"4": f"virtio-net,{ours}"}))
    guest.post(*[2048] * 8)
    for number in range(8):
        guest.send(HEADER + frame(1, number))
        assert host.recv(timeout=30) == [frame(1, number)]
        host.send([frame(2, number)])
        [used] = patiently(guest.rx.reap, "a frame")
        assert used.data[12:] == frame(2, number)
        [_] = patiently(guest.tx.reap, "the sent chain")


def test_a_full_pipe_holds_its_guest_back_and_loses_nothing(machine, peer, frame, patiently):
    host = peer("netmap:z}1", rx_slots=64)
    guest = Guest(machine({"4": "virtio-net,netmap:z{1"}))
    sent = [HEADER + frame(1, number) for number in range(200)]
    guest.send(*sent)
    received = []
    while len(received) < 200:
        received += host.recv(timeout=30)
    assert received == [packet[12:] for packet in sent]
    assert len(patiently(guest.tx.reap, "sent chains")) > 0


def test_the_link_goes_down_with_netmapd(net, netmapd, patiently):
    guest = Guest(net)
    assert guest.driver.read_config(6, 2) == b"\1\0"
    netmapd.end(9)
    net.device("4").served._heard()
    assert guest.driver.read_config(6, 2) == b"\0\0"
    guest.send(HEADER + bytes(60))
    assert not guest.driver.needs_reset


@pytest.mark.parametrize("text", ["mtu=67", "mtu=x", "mtu=65522"])
def test_an_impossible_mtu_is_refused(machine, text):
    with pytest.raises(ConfigError, match="cannot be"):
        machine({"4": f"virtio-net,vale1:1,{text}"})


def test_the_device_has_the_mtu_that_is_asked_for_and_the_offloads_of_a_switch(machine):
    guest = Guest(machine({"4": "virtio-net,vale1:1,mtu=9000"}))
    assert guest.driver.read_config(10, 2) == (9000).to_bytes(2, "little")
    for feature in (abi.VIRTIO_NET_F_MTU, abi.VIRTIO_NET_F_HOST_TSO4, abi.VIRTIO_NET_F_GUEST_CSUM):
        assert guest.driver.features & feature


def test_a_queue_that_is_not_in_memory_fails_the_device_and_a_reset_mends_it(net, peer, frame):
    guest = Guest(net)
    host = peer("vale1:2")
    queue = guest.driver.queues[TX]
    queue.descriptors[0] = (1 << 40, 100, 0, 0)
    queue.offer(0)
    guest.driver.kick(TX)
    guest.driver.start()
    guest.send(HEADER + frame(1, 1))
    assert host.recv(timeout=30) == [frame(1, 1)]


def told(net, guest):
    """Wait until netmapd says that a queue has broken, as the event loop does, and let the device hear it."""
    served = net.device("4").served
    assert select.select([served.port.trouble], [], [], 30)[0], "netmapd says nothing"
    served._troubled()
    assert guest.driver.needs_reset


@pytest.mark.parametrize("index", [RX, TX])
def test_a_driver_that_breaks_a_queue_has_to_reset_the_device_and_may_go_on_then(
    net, netmapd, peer, frame, patiently, caplog, index
):
    host, sender = peer("vale1:2"), peer("vale1:3")
    guest = Guest(net)
    guest.post(*[2048] * 4)
    guest.send(HEADER + frame(1, 1))
    assert host.recv(timeout=30) == [frame(1, 1)]
    sender.recv(timeout=30)
    queue = guest.driver.queues[index]
    queue.avail_head["idx"] = (int(queue.avail_head["idx"][0]) + 10_000) & 0xFFFF
    guest.driver.kick(index)
    sender.send([frame(255, 2)])  # others go on; and who sends to a receive queue looks at it
    assert host.recv(timeout=30) == [frame(255, 2)]
    told(net, guest)
    assert f"broken queue {index}" in caplog.text
    assert not net.device("4").served.port.running
    guest.driver.start()
    guest.post(*[2048] * 4)
    guest.send(HEADER + frame(2, 3))
    assert host.recv(timeout=30) == [frame(2, 3)]
    host.send([frame(1, 4)])
    [used] = patiently(guest.rx.reap, "a frame")
    assert used.data[12:] == frame(1, 4)
    assert net.device("4").served.port.counters(index)["bad_index"] == 1
    assert netmapd.stats("vale1:1")["tx" if index == TX else "rx"]["bad_slot"] == 1


def test_nothing_is_written_to_a_guest_after_its_driver_has_reset_the_device(net, peer, frame):
    host, other = peer("vale1:2", lossless=True), peer("vale1:3")
    guest = Guest(net)
    for number in range(20):
        guest.post(*[2048] * 8)
        host.send([frame(255, number)] * 4)
        guest.driver.status = 0
        before = guest.driver.queues[RX].memory.read(guest.driver.queues[RX].used, 4)
        host.send([frame(255, number)] * 4)
        assert guest.driver.queues[RX].memory.read(guest.driver.queues[RX].used, 4) == before
        received = []
        while len(received) < 8:
            received += other.recv(timeout=30)
        assert received == [frame(255, number)] * 8
        guest.driver.start()
        guest.rx, guest.tx = guest.driver.queues[RX], guest.driver.queues[TX]

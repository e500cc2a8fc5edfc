# SPDX-License-Identifier: BSD-2-Clause
# virtio-net on a port of a switch: a driver's queues, served by a real netmapd.
import pytest

from ptnetmap.bhyve.virtio.mock import MockDriver

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

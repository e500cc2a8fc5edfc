# SPDX-License-Identifier: BSD-2-Clause
# virtio-net with several pairs of queues, on a switch of a real netmapd.
import asyncio

import pytest

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import ConfigError
from tests.bhyve.passthrough.conftest import Machine

OK, ERR = bytes([abi.VIRTIO_NET_OK]), bytes([abi.VIRTIO_NET_ERR])
HEADER = bytes(12)
PAIRS = 3
MQ = abi.VIRTIO_NET_F_MQ
ALL = (1 << 64) - 1
SET_PAIRS = bytes([abi.VIRTIO_NET_CTRL_MQ, abi.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET])


def frame(source, destination, fill=0):
    """A frame of 60 bytes from one station to another."""
    return (bytes([2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source]) + b"\x88\xb5" + bytes([fill]) * 60)[:60]


class Guest:
    """A driver of a device with several pairs; ``control`` is where it has its commands."""

    def __init__(self, machine, features=ALL, *, place="4", buffers=8, **options):
        self.machine = machine
        self.device = machine.device(place)
        self.driver = MockDriver(self.device, machine.host.memory, **options)
        self.start(features, buffers)

    def start(self, features=ALL, buffers=8):
        self.driver.start(features)
        self.control = 2 * PAIRS if self.driver.features & MQ else 2
        for index in range(0, self.control, 2):
            for _ in range(buffers):
                self.queue(index).post([2048])
            self.driver.kick(index)

    def queue(self, index):
        return self.driver.queues[index]

    def ask(self, *pieces):
        """Give a command."""
        self.queue(self.control).send(pieces, [1])
        self.driver.kick(self.control)

    def answer(self):
        """What came of it."""
        return [used.data for used in self.queue(self.control).reap()]

    def use(self, pairs):
        self.ask(SET_PAIRS, pairs.to_bytes(2, "little"))
        return self.answer() == [OK]

    def send(self, pair, packet):
        self.queue(2 * pair + 1).send([HEADER + packet])
        self.driver.kick(2 * pair + 1)

    def received(self, pair):
        return [used.data[12:] for used in self.queue(2 * pair).reap()]

    @property
    def running(self):
        return set(self.device.served.port.running)


@pytest.fixture
def make_guest(machine):
    """Make a guest on a port of the switch."""

    def make(port=1, features=ALL, **options):
        return Guest(machine({"4": f"virtio-net,vale1:{port},queues={PAIRS}"}), features, **options)

    return make


@pytest.fixture(params=["legacy", "modern"])
def guest(request, make_guest):
    return make_guest(legacy=request.param == "legacy")


def test_the_device_tells_how_many_pairs_there_are_and_has_a_vector_for_each_queue(guest):
    assert guest.driver.features & MQ
    assert guest.driver.read_config(8, 2) == PAIRS.to_bytes(2, "little")
    assert [queue.size for queue in guest.driver.queues] == [1024] * 2 * PAIRS + [64]
    assert len(guest.device.msix.vectors) == 2 * PAIRS + 2
    vectors = [queue.vector for queue in guest.device.queues]
    assert vectors == list(range(1, 2 * PAIRS + 2))


def test_one_pair_offers_no_more(machine):
    one = machine({"4": "virtio-net,vale1:1,queues=1"})
    driver = MockDriver(one.device("4"), one.host.memory)
    driver.start()
    assert not driver.features & MQ
    assert (driver.read_config(8, 2), len(driver.queues)) == (b"\1\0", 3)


def test_pairs_start_and_stop_as_the_driver_says(guest):
    assert guest.running == {0, 1}
    assert guest.use(PAIRS)
    assert guest.running == set(range(2 * PAIRS))
    assert guest.use(2)
    assert guest.running == {0, 1, 2, 3, 5}
    assert guest.use(PAIRS)
    assert guest.running == set(range(2 * PAIRS))
    assert guest.use(1)
    assert guest.running == {0, 1, 3, 5}
    guest.start()
    assert guest.running == {0, 1}
    guest.driver.status = 0
    assert guest.running == set()


def test_all_pairs_send_and_each_receives_what_its_like_has_sent(make_guest, patiently):
    one, other = make_guest(1), make_guest(2)
    assert one.use(PAIRS)
    assert other.use(PAIRS)
    one.send(0, frame(1, 9))
    assert patiently(lambda: other.received(0), "a frame to nobody") == [frame(1, 9)]
    assert len(patiently(one.queue(1).reap, "a sent chain")) == 1
    for number in range(5):
        for pair in range(PAIRS):
            other.send(pair, frame(2, 1, number))
            assert patiently(lambda pair=pair: one.received(pair), "a frame") == [frame(2, 1, number)]
            one.send(pair, frame(1, 2, number))
            assert patiently(lambda pair=pair: other.received(pair), "a frame") == [frame(1, 2, number)]
            for guest in (one, other):
                queue = guest.queue(2 * pair + 1)
                assert len(patiently(queue.reap, "a sent chain")) == 1
                guest.queue(2 * pair).post([2048])
                guest.driver.kick(2 * pair)


def test_each_queue_has_its_own_interrupt(make_guest, patiently):
    one, other = make_guest(1), make_guest(2)
    assert one.use(PAIRS)
    assert other.use(PAIRS)
    interrupts = one.machine.host.interrupts

    def told():
        """The queues whose vector came; each has the one after its number."""
        interrupts.poll()
        return {data - 0x41 for _, data in interrupts.messages}

    one.send(2, frame(1, 9))
    patiently(lambda: told() == {one.control, 5}, "a command's interrupt, and a sent frame's")
    interrupts.messages.clear()
    other.send(2, frame(2, 1))
    assert patiently(told, "a frame's") == {4}


def test_what_a_pair_has_is_sent_when_it_stops_and_frames_come_to_the_others(make_guest, peer, patiently):
    guest, other = make_guest(1), make_guest(2)
    host = peer("vale1:3")
    assert guest.use(PAIRS)
    assert other.use(PAIRS)
    guest.send(2, frame(1, 3))
    assert host.recv(timeout=30) == [frame(1, 3)]
    assert guest.use(1)
    guest.send(2, frame(1, 3, 1))
    assert host.recv(timeout=30) == [frame(1, 3, 1)]
    other.send(2, frame(2, 1, 2))
    assert patiently(lambda: guest.received(0), "a frame") == [frame(2, 1, 2)]
    assert guest.use(PAIRS)
    other.send(2, frame(2, 1, 3))
    assert patiently(lambda: guest.received(2), "a frame") == [frame(2, 1, 3)]


@pytest.mark.parametrize("pairs", [b"\0\0", bytes([PAIRS + 1, 0]), b"\1\1", b"\xff\xff", b"\2", b"\2\0\0", b""])
def test_pairs_that_cannot_be_are_refused(guest, pairs):
    assert guest.use(2)
    before = guest.running
    guest.ask(SET_PAIRS, *([pairs] if pairs else []))
    assert guest.answer() == [ERR]
    assert guest.running == before


def test_a_pair_that_is_not_set_up_is_refused(make_guest):
    guest = make_guest(legacy=True)
    guest.driver.bar_write(0, abi.VIRTIO_PCI_QUEUE_SEL, 2, 3)
    guest.driver.bar_write(0, abi.VIRTIO_PCI_QUEUE_PFN, 4, 0)
    assert not guest.use(PAIRS)
    assert not guest.use(2)
    assert guest.running == {0, 1}


def test_a_pair_that_cannot_be_served_fails_the_device(make_guest, peer):
    guest, host = make_guest(), peer("vale1:3")
    guest.device.queues[3].desc = 1 << 40  # as if it were in memory that only we know
    assert not guest.use(PAIRS)
    assert guest.driver.needs_reset
    assert guest.running == set()
    guest.start()
    assert guest.use(PAIRS)
    guest.send(1, frame(1, 3))
    assert host.recv(timeout=30) == [frame(1, 3)]


def test_a_device_without_netmapd_still_answers(make_guest, netmapd):
    guest = make_guest()
    netmapd.end(9)
    assert guest.use(PAIRS)
    assert guest.device.served.lost
    assert guest.driver.read_config(6, 2) == b"\0\0"
    guest.start()
    assert guest.use(2)


# --- a driver that knows of one pair: its third queue is the control queue


@pytest.mark.parametrize("legacy", [True, False])
def test_a_driver_of_one_pair_has_its_commands_in_the_third_queue(make_guest, peer, legacy):
    guest = make_guest(features=~MQ, legacy=legacy)
    host = peer("vale1:3")
    assert (guest.control, guest.running) == (2, {0, 1})
    guest.ask(b"\1\1", bytes.fromhex("020000000007"))
    assert guest.answer() == [OK]
    assert guest.driver.read_config(0, 6) == bytes.fromhex("020000000007")
    assert not guest.use(1)
    guest.send(0, frame(1, 3))
    assert host.recv(timeout=30) == [frame(1, 3)]


def test_a_queue_of_which_nobody_knows_carries_nothing(make_guest):
    guest = make_guest(features=~MQ)
    last = 2 * PAIRS
    guest.queue(last).send([SET_PAIRS, b"\2\0"], [1])
    guest.driver.kick(last)
    assert guest.driver.needs_reset


def test_the_third_queue_changes_hands_with_the_driver(make_guest, peer, patiently):
    guest, host = make_guest(features=~MQ), peer("vale1:3")
    other = make_guest(2)
    assert other.use(PAIRS)
    for _ in range(3):
        guest.start(ALL)
        assert guest.use(2)
        guest.send(1, frame(1, 3))
        assert host.recv(timeout=30) == [frame(1, 3)]
        other.send(1, frame(2, 1))
        assert patiently(lambda: guest.received(1), "a frame") == [frame(2, 1)]
        guest.start(~MQ)
        guest.ask(b"\0\0", b"\1")
        assert guest.answer() == [OK]


def test_the_third_queue_changes_hands_where_an_event_loop_serves(netmapd, make_host, peer, patiently):
    loop = asyncio.new_event_loop()
    host = make_host(vm=True)
    host.loop = loop
    machine = Machine(host, {"4": f"virtio-net,vale1:1,queues={PAIRS}"})
    port = peer("vale1:3")

    def turn(condition):
        def once():
            loop.run_until_complete(asyncio.sleep(0))
            return condition()

        return patiently(once, "an answer")

    try:
        guest = Guest(machine)
        for features in (~MQ, ALL, ~MQ, ALL):
            guest.start(features)
            guest.ask(b"\0\0", b"\1")
            assert turn(guest.answer) == [OK]
            if features == ALL:
                guest.ask(SET_PAIRS, b"\2\0")
                assert turn(guest.answer) == [OK]
                for number in range(20):  # the loop takes no kick of the second pair's
                    port.send([frame(3, 1, number)])
                    assert turn(lambda: guest.received(0)) == [frame(3, 1, number)]
                    guest.queue(0).post([2048])
                    guest.driver.kick(0)
                    guest.send(1, frame(1, 3, number))
                    assert port.recv(timeout=30) == [frame(1, 3, number)]
    finally:
        machine.close()
        loop.close()


# --- options


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("vale1:1,queues=0", "give 1 to 16"),
        ("vale1:1,queues=17", "give 1 to 16"),
        ("vale1:1,queues=x", "give 1 to 16"),
        ("tap7,queues=2", "only a port of a switch"),
        ("netmap:x{1,queues=2", "only a port of a switch"),
        ("ptvale1:1,queues=2", "only a port of a switch"),
    ],
)
def test_impossible_numbers_of_pairs_are_refused(machine, text, what):
    with pytest.raises(ConfigError, match=what):
        machine({"4": f"virtio-net,{text}"})


def test_sixteen_pairs_can_be_had(machine):
    one = machine({"4": "virtio-net,vale1:1,queues=16"})
    driver = MockDriver(one.device("4"), one.host.memory)
    driver.start()
    assert len(driver.queues) == 33
    driver.queues[32].send([SET_PAIRS, b"\x10\0"], [1])
    driver.kick(32)
    assert [used.data for used in driver.queues[32].reap()] == [OK]
    assert len(one.device("4").served.port.running) == 32

# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio_console as abi
from ptnetmap.bhyve.devices.console.console import BUSY, INPUT, LIMIT
from ptnetmap.bhyve.devices.virtio_console import MAX_NAME, MAX_PORTS, PIECE, QUEUE_SIZE, VirtioConsole
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import Buffer, MockDriver
from ptnetmap.errors import ConfigError

DEADLINE = 20
BUFFER = 256
CONTROL_RX, CONTROL_TX = 2, 3
READY, ADD, PORT_READY, OPEN, NAME = 0, 1, 3, 6, 7


def queues(port):
    """The numbers of a port's queues: to the driver, to the device."""
    return (2 * port + 2, 2 * port + 3) if port else (0, 1)


class Pair:
    """A device with a driver, and clients of its sockets; ``turn`` lets the event loop run once."""

    def __init__(self, host, directory, count=2, *, legacy=False, features=(1 << 64) - 1, start=True):
        self.host = host
        host.loop = asyncio.new_event_loop()
        self.paths = [directory / f"port{number}" for number in range(count)]
        text = ",".join(f"org.test.{number}={path}" for number, path in enumerate(self.paths))
        self.device = VirtioConsole(host, Function(0, 5, 0), VirtioConsole.parse_options(text))
        self.driver = MockDriver(self.device, host.memory, legacy=legacy, span=0x20000)
        self.clients = []
        self.features = features
        if start:
            self.start()

    def start(self):
        """Start the driver, with buffers in all queues to it, and let it get ready for all ports."""
        self.driver.start(self.features)
        for index in [CONTROL_RX, *(queues(port)[0] for port in range(len(self.paths)))]:
            for _ in range(8):
                self.driver.queues[index].post([BUFFER])
            self.driver.kick(index)
        self.turn()

    def turn(self, rounds=4):
        for _ in range(rounds):
            self.host.loop.call_soon(self.host.loop.stop)
            self.host.loop.run_forever()

    def until(self, condition):
        deadline = self.host.loop.time() + DEADLINE
        while not condition():
            assert self.host.loop.time() < deadline
            self.turn()

    def say(self, port, event, value):
        """Send a control message."""
        self.send(CONTROL_TX, struct.pack("<IHH", port, event, value))

    def send(self, index, *pieces):
        self.driver.queues[index].send(pieces)
        self.driver.kick(index)
        self.turn()
        self.driver.queues[index].reap()

    def heard(self):
        """What the driver has been told since, as (port, event, value, rest); its buffers go back."""
        return [(*struct.unpack("<IHH", data[:8]), data[8:]) for data in self.got(CONTROL_RX)]

    def got(self, index):
        """The chains that came back in a queue to the driver; as many buffers are offered again."""
        data = [used.data for used in self.driver.queues[index].reap()]
        for _ in data:
            self.driver.queues[index].post([BUFFER])
        self.driver.kick(index)
        self.turn()
        return data

    def open(self, port):
        """Let the guest get ready, and open a port; nothing is left to hear."""
        self.say(0, READY, 1)
        self.say(port, PORT_READY, 1)
        self.say(port, OPEN, 1)
        self.heard()

    def connect(self, port):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.paths[port]))
        client.setblocking(False)
        self.clients.append(client)
        self.until(lambda: self.device.ports[port].console.is_connected)
        return client

    def close(self):
        for client in self.clients:
            client.close()
        self.device.close()
        self.device.close()
        self.host.loop.close()


def received(pair, client, count):
    """Exactly so many bytes from a client's socket."""
    data = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError):
            data.extend(client.recv(1 << 20))
        return len(data) >= count

    pair.until(read)
    assert len(data) == count
    return bytes(data)


@pytest.fixture
def make_pair(make_host, tmp_path):
    pairs = []

    def make(*arguments, **more):
        pairs.append(Pair(make_host(), tmp_path, *arguments, **more))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()
        assert all(route.closed for route in pair.host.interrupts.routes)


@pytest.fixture(params=["legacy", "modern"])
def pair(request, make_pair):
    return make_pair(legacy=request.param == "legacy")


# --- what it says of itself


def test_it_is_found_under_bhyves_name_and_ids(pair):
    assert DEVICES["virtio-console"] is VirtioConsole
    assert (pair.driver.config(0, 4), pair.driver.config(0x2C, 4)) == (0x1003_1AF4, 0x0003_1AF4)
    assert pair.driver.config(8, 4) >> 24 == 7


def test_it_has_two_queues_for_each_port_and_two_for_control(pair):
    config = np.frombuffer(pair.driver.read_config(0, 12), abi.virtio_console_config)[0]
    assert config["max_nr_ports"] == 2
    assert [queue.max_size for queue in pair.device.queues] == [QUEUE_SIZE] * 6
    assert pair.driver.offered() & 0b111 == abi.VIRTIO_CONSOLE_F_MULTIPORT


def test_only_our_user_can_reach_a_ports_socket(pair):
    assert stat.S_IMODE(pair.paths[0].stat().st_mode) == 0o600


def test_sockets_are_gone_with_the_device(pair):
    pair.device.close()
    assert not any(path.exists() for path in pair.paths)


# --- the conversation


def test_a_driver_that_is_ready_hears_of_all_ports(pair):
    pair.say(0, READY, 1)
    assert pair.heard() == [(0, ADD, 1, b""), (1, ADD, 1, b"")]


def test_a_driver_that_could_not_get_ready_hears_nothing(pair):
    pair.say(0xFFFFFFFF, READY, 0)
    assert pair.heard() == []
    assert not pair.driver.needs_reset


def test_a_port_that_the_driver_is_ready_for_has_a_name(pair):
    pair.say(1, PORT_READY, 1)
    assert pair.heard() == [(1, NAME, 1, b"org.test.1")]


def test_the_guest_hears_when_a_client_comes_and_goes(pair):
    pair.open(1)
    client = pair.connect(1)
    assert pair.heard() == [(1, OPEN, 1, b"")]
    client.close()
    pair.until(lambda: not pair.device.ports[1].console.is_connected)
    assert pair.heard() == [(1, OPEN, 0, b"")]


def test_a_client_that_was_there_first_is_told_of_with_the_name(pair):
    pair.connect(0)
    assert pair.heard() == []
    pair.say(0, PORT_READY, 1)
    assert pair.heard() == [(0, NAME, 1, b"org.test.0"), (0, OPEN, 1, b"")]


def test_what_the_driver_has_no_room_to_hear_waits_and_no_more_is_heard_of_it(make_pair):
    pair = make_pair(start=False)
    pair.driver.start()
    for _ in range(3):
        pair.driver.queues[CONTROL_TX].send([struct.pack("<IHH", 0, READY, 1)])
    pair.driver.kick(CONTROL_TX)
    pair.turn()
    assert len(pair.driver.queues[CONTROL_TX].reap()) == 1
    for count in (1, 5):
        for _ in range(count):
            pair.driver.queues[CONTROL_RX].post([BUFFER])
        pair.driver.kick(CONTROL_RX)
        pair.turn()
        assert [used.data for used in pair.driver.queues[CONTROL_RX].reap()] == [
            struct.pack("<IHH", port, ADD, 1) for port in ([0] if count == 1 else [1, 0, 1, 0, 1])
        ]
    assert len(pair.driver.queues[CONTROL_TX].reap()) == 2


# --- bytes


@pytest.mark.parametrize("port", [0, 1])
def test_bytes_go_both_ways(pair, port):
    pair.open(port)
    client = pair.connect(port)
    pair.send(queues(port)[1], b"hello ", b"host")
    assert received(pair, client, 10) == b"hello host"
    client.send(b"hello guest")
    pair.until(lambda: pair.driver.queues[queues(port)[0]].used_head["idx"][0])
    assert pair.got(queues(port)[0]) == [b"hello guest"]


def test_a_driver_without_control_messages_has_port_0(make_pair):
    pair = make_pair(features=~abi.VIRTIO_CONSOLE_F_MULTIPORT)
    client = pair.connect(0)
    pair.send(1, b"plain")
    assert received(pair, client, 5) == b"plain"
    client.send(b"console")
    pair.until(lambda: pair.driver.queues[0].used_head["idx"][0])
    assert pair.got(0) == [b"console"]
    pair.send(CONTROL_TX, b"?")
    pair.send(queues(1)[1], b"?")
    assert not pair.driver.needs_reset


def test_more_than_a_buffer_is_spread_over_the_next_ones(pair):
    pair.open(1)
    client = pair.connect(1)
    data = os.urandom(3 * BUFFER + 7)
    client.send(data)
    pair.until(lambda: pair.driver.queues[4].used_head["idx"][0] == 4)
    pieces = pair.got(4)
    assert (b"".join(pieces), [len(piece) for piece in pieces]) == (data, [BUFFER] * 3 + [7])


def test_a_client_waits_until_the_guest_opens_the_port(pair):
    client = pair.connect(1)
    client.send(b"early")
    pair.turn()
    assert pair.got(4) == []
    pair.open(1)
    assert pair.got(4) == [b"early"]


def test_a_client_is_held_back_while_the_guest_takes_nothing_and_nothing_is_lost(make_pair):
    pair = make_pair()
    pair.open(1)
    client = pair.connect(1)
    sent, data = 0, bytearray()
    stream = bytes(range(251)) * 4000

    def send():
        nonlocal sent
        try:
            while sent < len(stream):
                sent += client.send(stream[sent : sent + 8192])
        except BlockingIOError:
            return True
        return False

    pair.until(lambda: send() and len(pair.device.ports[1].console._input) >= INPUT)
    assert send()
    assert sent < len(stream)
    assert len(pair.device.ports[1].console._input) <= 2 * INPUT
    while len(data) < len(stream):
        send()
        pair.turn()
        data += b"".join(pair.got(4))
    assert bytes(data) == stream


def offer_the_same(pair, index, data, count):
    """Offer bytes in so many chains, which all lie in the same place."""
    queue = pair.driver.queues[index]
    place = queue.allocate(len(data))
    pair.host.memory.write(place, data)
    for _ in range(count):
        queue.add([Buffer(place, len(data))])
    pair.driver.kick(index)


def test_the_guest_is_held_back_while_the_client_takes_nothing_and_nothing_is_lost(pair):
    pair.open(1)
    client = pair.connect(1)
    data = os.urandom(60000)
    offer_the_same(pair, 5, data, 40)
    pair.turn(100)
    assert len(pair.driver.queues[5].reap()) < 40
    assert len(pair.device.ports[1].console._output) <= BUSY + PIECE
    assert received(pair, client, 40 * len(data)) == data * 40
    assert pair.device.ports[1].console.lost == 0


def test_a_guest_that_is_held_back_holds_up_no_other_port(pair):
    for port in (0, 1):
        pair.open(port)
    pair.connect(1)
    other = pair.connect(0)
    offer_the_same(pair, 5, bytes(60000), 40)
    pair.turn(100)
    pair.send(1, b"other")
    assert received(pair, other, 5) == b"other"


def test_a_held_back_guest_goes_on_when_its_client_leaves(pair):
    pair.open(1)
    client = pair.connect(1)
    offer_the_same(pair, 5, bytes(60000), 40)
    pair.turn(100)
    client.close()
    pair.until(lambda: pair.driver.queues[5].used_head["idx"][0] == 40)


def test_a_second_client_waits_until_the_first_has_left(pair):
    pair.open(0)
    first = pair.connect(0)
    second = pair.connect(0)
    first.close()
    pair.until(lambda: pair.heard() == [(0, OPEN, 0, b""), (0, OPEN, 1, b"")] or not pair.turn())
    pair.send(1, b"second")
    assert received(pair, second, 6) == b"second"


# --- a driver that begins anew, or breaks a rule


def is_usable(pair):
    """Whether all works for a driver that begins anew and behaves; its client may get older bytes first."""
    pair.start()
    pair.open(0)
    pair.send(1, b"still here")
    data = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError):
            data.extend(pair.clients[0].recv(1 << 20))
        return data.endswith(b"still here")

    pair.until(read)
    return not pair.driver.needs_reset


def test_a_reset_forgets_buffers_and_conversation_and_keeps_clients(pair):
    pair.connect(0)
    pair.open(0)
    pair.driver.status = 0
    pair.turn()
    ours = bytes(pair.host.memory.read(0x10000, 0x20000))
    pair.clients[0].send(b"while nobody drives")
    pair.turn(20)
    assert pair.host.memory.read(0x10000, 0x20000) == ours
    pair.start()
    assert pair.heard() == []
    pair.open(0)
    pair.until(lambda: pair.driver.queues[0].used_head["idx"][0])
    assert pair.got(0) == [b"while nobody drives"]


@pytest.mark.parametrize(
    "message", [b"\0", bytes(7), struct.pack("<IHH", 2, OPEN, 1), struct.pack("<IHH", 2**32 - 1, 3, 1)]
)
def test_a_control_message_that_is_cut_or_about_no_port_needs_a_reset(pair, message):
    pair.connect(0)
    pair.send(CONTROL_TX, message)
    assert pair.driver.needs_reset
    assert pair.device.error.errno == errno.EINVAL
    assert is_usable(pair)


@pytest.mark.parametrize("event", [1, 2, 4, 5, 7, 8, 0xFFFF])
def test_messages_that_only_devices_send_or_later_standards_have_change_nothing(pair, event):
    pair.send(CONTROL_TX, struct.pack("<IHH", 99, event, 1))
    assert pair.heard() == []
    assert not pair.driver.needs_reset


@pytest.mark.parametrize("index", [0, 4, CONTROL_RX])
def test_bytes_sent_in_a_queue_to_the_driver_need_a_reset(pair, index):
    pair.connect(0)
    pair.driver.queues[index].send([b"?"], [BUFFER])
    for _ in range(8):
        pair.say(0, READY, 1)
    pair.driver.kick(index)
    pair.turn()
    assert pair.driver.needs_reset
    assert is_usable(pair)


def test_a_buffer_too_short_for_a_name_needs_a_reset(make_pair):
    pair = make_pair(start=False)
    pair.connect(0)
    pair.driver.start()
    pair.driver.queues[CONTROL_RX].post([17])
    pair.driver.kick(CONTROL_RX)
    pair.say(0, PORT_READY, 1)
    assert pair.driver.needs_reset
    assert is_usable(pair)


def test_a_huge_chain_that_nobody_reads_is_passed_on_in_turns(pair):
    pair.open(1)
    queue = pair.driver.queues[5]
    queue.add([Buffer(0, 8 << 20)] * 16)
    pair.driver.kick(5)
    pair.turn(4)
    assert queue.used_head["idx"][0] == 0
    pair.until(lambda: queue.used_head["idx"][0] == 1)
    assert len(pair.device.ports[1].console._output) <= LIMIT


steps = st.lists(
    st.one_of(
        st.tuples(st.just("control"), st.integers(0, 3), st.integers(0, 8), st.integers(0, 2)),
        st.tuples(st.just("raw"), st.integers(0, 5), st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("offer"), st.integers(0, 5), st.sampled_from([1, 8, 20, 300])),
        st.tuples(st.just("connect"), st.integers(0, 1)),
        st.tuples(st.just("leave")),
        st.tuples(st.just("client"), st.binary(min_size=1, max_size=2000)),
        st.tuples(st.just("reset")),
        st.tuples(st.just("start")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_driver_and_any_clients_leave_a_device_that_works(make_host, tmp_path_factory, steps):
    pair = Pair(make_host(), tmp_path_factory.mktemp("any"))
    try:
        for step in steps:
            act(pair, *step)
        for client in pair.clients:
            client.close()
        pair.clients.clear()
        pair.until(lambda: not any(port.console.is_connected for port in pair.device.ports))
        pair.driver.status = 0
        pair.connect(0)
        assert is_usable(pair)
    finally:
        pair.close()


def act(pair, what, *arguments):
    """One step of a driver or client that does what it likes; a driver's queue may be full."""
    with contextlib.suppress(ValueError, MemoryError):
        match what, *arguments:
            case "control", port, event, value:
                pair.say(port, event, value)
            case "raw", index, data:
                pair.send(index, data)
            case "offer", index, length:
                pair.driver.queues[index].post([length])
                pair.driver.kick(index)
            case "connect", port:
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                pair.clients.append(client)
                with contextlib.suppress(BlockingIOError):
                    client.connect(str(pair.paths[port]))
            case ("leave",):
                if pair.clients:
                    pair.clients.pop().close()
            case "client", data:
                if pair.clients:
                    with contextlib.suppress(OSError):
                        pair.clients[-1].send(data)
            case ("reset",):
                pair.driver.status = 0
            case ("start",):
                pair.start()
    pair.turn()


# --- the command line


def test_ports_are_numbered_in_the_order_in_which_they_are_given():
    assert VirtioConsole.parse_options("a=/x,modern=false,b=/y=z") == {
        "port.0.name": "a",
        "port.0.path": "/x",
        "modern": "false",
        "port.1.name": "b",
        "port.1.path": "/y=z",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "0 ports"),
        ("a", "the port a has no path"),
        ("a=", "the port a has no path"),
        ("=/x", "the port 0 has no name"),
        ("a={0}/x,a={0}/y", "two ports are called a"),
        ("a\x1b={0}/x", "cannot be a port's name"),
        (f"{'a' * (MAX_NAME + 1)}={{0}}/x", "cannot be a port's name"),
        (",".join(f"p{n}={{0}}/{n}" for n in range(MAX_PORTS + 1)), f"{MAX_PORTS + 1} ports"),
        ("a={0}/missing/x", "cannot listen on"),
        (f"a={{0}}/{'x' * 120}", "give a path of up to 107 bytes"),
        ("a={0}/x,legacy=false,modern=false", "no registers"),
    ],
)
def test_a_port_that_cannot_be_is_refused_and_leaves_nothing(host, tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        VirtioConsole(host, Function(0, 5, 0), VirtioConsole.parse_options(text.format(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_somebody_listens_on_is_left_to_them(host, tmp_path):
    path = tmp_path / "x"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match="end what listens there") as refused:
            VirtioConsole(host, Function(0, 5, 0), VirtioConsole.parse_options(f"a={path}"))
    assert refused.value.errno == errno.EADDRINUSE
    assert path.exists()

# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
import socket
import stat
import struct

import numpy as np
import pytest

from ptnetmap.abi import virtio_console as abi
from ptnetmap.bhyve.devices.console.console import BUSY, INPUT
from ptnetmap.bhyve.devices.virtio_console import MAX_NAME, MAX_PORTS, PIECE, QUEUE_SIZE, VirtioConsole
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError
from tests.bhyve.devices.console_pair import (
    ADD,
    BUFFER,
    CONTROL_RX,
    CONTROL_TX,
    NAME,
    OPEN,
    PORT_READY,
    READY,
    offer_the_same,
    queues,
    received,
)

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

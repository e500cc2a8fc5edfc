# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices.console.console import LIMIT
from ptnetmap.bhyve.virtio.mock import Buffer
from tests.bhyve.devices.console_pair import (
    BUFFER,
    CONTROL_RX,
    CONTROL_TX,
    NAME,
    OPEN,
    PORT_READY,
    READY,
    Pair,
)


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
    client = pair.connect(0)
    pair.open(0)
    pair.driver.status = 0
    client.send(b"while nobody drives")
    pair.turn(20)
    pair.driver.start()
    pair.driver.queues[CONTROL_RX].post([BUFFER])
    pair.say(0, PORT_READY, 1)
    pair.say(0, OPEN, 1)
    assert pair.device.control.ports[0].guest_open
    assert pair.driver.queues[0].used_head["idx"][0] == 0, "the first driver's buffers were used"

    pair.start()
    pair.turn(20)
    assert pair.heard() == [], "nobody has said that the port is ready"
    assert pair.got(0) == [], "nobody has said that the port is open"
    pair.open(0)
    assert pair.got(0) == [b"while nobody drives"]


def test_a_reset_forgets_what_was_half_sent(pair):
    client = pair.connect(1)
    pair.open(1)
    queue = pair.driver.queues[5]
    place = queue.allocate(60_000)
    pair.host.memory.write(place, b"o" * 60_000)
    for _ in range(10):
        queue.add([Buffer(place, 60_000)] * 3)
    pair.driver.kick(5)
    pair.turn(100)
    pair.driver.status = 0
    pair.start()
    pair.open(1)
    pair.send(5, b"new")
    data = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError):
            data.extend(client.recv(1 << 20))
        return data.endswith(b"new")

    pair.until(read)
    assert data.count(b"o") + len(b"new") == len(data) < 10 * 180_000


def test_a_driver_that_is_ready_once_more_hears_once_more_who_is_there(pair):
    pair.connect(1)
    for _ in range(2):
        pair.say(1, PORT_READY, 1)
        assert pair.heard() == [(1, NAME, 1, b"org.test.1"), (1, OPEN, 1, b"")]


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

# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import os
import select
import threading

import pytest

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap.vhost import PROTOCOL_FEATURES, Channel, FrontEnd, MemoryRegion, message

OWN = 1 << 5 | 1 << 32
PROTOCOL = abi.VHOST_USER_F_PROTOCOL_FEATURES
REGION = MemoryRegion(0, 1 << 20, 1 << 40, 0)


@pytest.fixture
def backend(pair, script):
    """Serve the other end of a front-end's socket by a thread, until that is closed; ``script`` has the device."""
    channel = Channel(pair[1])
    ended = []

    def serve():
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        try:
            while True:
                poll.poll()
                while (got := channel.receive()) is not None:
                    reply = script.connection.receive(*got)
                    if reply is not None:
                        channel.send(*reply)
        except PeerError as error:
            ended.append(error)
        finally:
            channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield ended
    pair[0].close()
    thread.join()


@pytest.fixture
def front(pair, backend):
    with FrontEnd(pair[0], timeout=60) as made:
        yield made


@pytest.fixture
def agreed(front):
    """Agree on everything, acknowledgements too: what was asked is done when a method returns."""
    front.set_owner()
    assert front.get_features() & PROTOCOL
    assert front.get_protocol_features() == PROTOCOL_FEATURES
    front.set_protocol_features(PROTOCOL_FEATURES)
    front.set_features(OWN | PROTOCOL)
    return front


@contextlib.contextmanager
def opened(count=1):
    fds = [os.memfd_create("memory") for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def test_a_queue_is_handed_over_served_and_taken_back(agreed, script):
    with opened() as fds, opened(3) as files:
        agreed.set_memory([REGION], fds)
        agreed.set_vring_num(1, 256)
        agreed.set_vring_base(1, 7)
        agreed.set_vring_addr(1, REGION.user, REGION.user + 0x1000, REGION.user + 0x2000, log=0x5000)
        agreed.set_vring_call(1, files[0])
        agreed.set_vring_err(1, files[1])
        agreed.set_vring_enable(1, True)
        agreed.set_vring_kick(1, files[2])
        setup = script.device.running[1]
        assert (setup.size, setup.base, setup.desc, setup.avail, setup.used) == (256, 7, 0, 0x1000, 0x2000)
        assert (setup.log, setup.enabled) == (0x5000, True)
        ours = [os.fstat(fd) for fd in files]
        assert [os.fstat(fd) for fd in (setup.call, setup.error, setup.kick)] == ours
        script.device.bases[1] = 300
        assert agreed.get_vring_base(1) == 300
        assert script.device.running == {}


def test_a_queue_without_descriptors_is_polled(agreed, script):
    with opened() as fds:
        agreed.set_memory([REGION], fds)
    agreed.set_vring_num(0, 2)
    agreed.set_vring_addr(0, REGION.user, REGION.user + 0x1000, REGION.user + 0x2000)
    agreed.set_vring_call(0, None)
    agreed.set_vring_kick(0, None)
    setup = script.device.running[0]
    assert (setup.kick, setup.call, setup.error, setup.log) == (-1, -1, -1, None)


def test_all_that_a_back_end_can_be_asked_is_answered(agreed, script):
    assert agreed.get_queue_num() == 2
    assert agreed.get_max_mem_slots() == 8
    agreed.set_status(11)
    assert agreed.get_status() == 11
    assert agreed.get_config(1, 4) == b"\1\2\3\4"
    agreed.set_mtu(9000)
    agreed.send_rarp(b"\x02\0\0\0\0\x01")
    with opened(2) as fds:
        agreed.set_log_base(fds[0], 4096)
        agreed.set_log_fd(fds[1])
        agreed.add_memory(REGION, fds[0])
    agreed.remove_memory(REGION)
    fd, inflight = agreed.get_inflight(2, 256)
    agreed.set_inflight(fd, inflight)
    os.close(fd)
    agreed.reset_device()
    assert [call[0] for call in script.calls()] == [
        "set_features",
        "get_config",
        "set_mtu",
        "send_rarp",
        "set_log",
        "set_log_event",
        "set_memory",
        "set_memory",
        "make_inflight",
        "set_inflight",
        "reset",
    ]


def test_a_refusal_is_an_error_with_the_back_ends_errno_and_the_connection_goes_on(agreed):
    with pytest.raises(PortError, match="the back-end refused SET_VRING_NUM") as caught:
        agreed.set_vring_num(0, 3)
    assert caught.value.errno == errno.EINVAL
    with opened() as fds, pytest.raises(PortError, match="refused SET_LOG_BASE"):
        agreed.set_log_base(fds[0], 0)
    with pytest.raises(PortError, match="refused GET_CONFIG"):
        agreed.get_config(0, 100)
    assert agreed.get_queue_num() == 2


def test_without_acknowledgements_a_refusal_ends_the_connection(front, backend):
    front.set_vring_num(7, 256)
    with pytest.raises(PeerError, match="the other side has gone") as caught:
        front.get_features()
    assert caught.value.errno == errno.ECONNRESET
    assert "cannot take SET_VRING_NUM: there is no queue 7" in str(backend[0])


def test_what_cannot_be_sent_is_not(front):
    with pytest.raises(ValueError, match="1 regions with 0 descriptors"):
        front.set_memory([REGION], [])
    with pytest.raises(ValueError, match="5 bytes"):
        front.send_rarp(b"12345")


class TestStrangeBackEnds:
    @pytest.fixture
    def peer(self, pair):
        return Channel(pair[1])

    @pytest.fixture
    def front(self, pair):
        with FrontEnd(pair[0], timeout=60) as made:
            yield made

    def test_one_that_goes_is_an_error(self, front, peer):
        peer.close()
        with pytest.raises(PeerError, match="the other side has gone") as caught:
            front.get_features()
        assert caught.value.errno == errno.ECONNRESET

    def test_one_that_is_silent_is_an_error(self, pair):
        with FrontEnd(pair[0], timeout=0) as front, pytest.raises(PeerError, match="does nothing for 0 s") as caught:
            front.get_features()
        assert caught.value.errno == errno.ETIMEDOUT

    @pytest.mark.parametrize(
        "reply",
        [
            message.encode(abi.VHOST_USER_GET_FEATURES, bytes(8)),
            message.encode(abi.VHOST_USER_GET_QUEUE_NUM, bytes(8), abi.VHOST_USER_REPLY),
            message.encode(abi.VHOST_USER_GET_FEATURES, bytes(9), abi.VHOST_USER_REPLY),
            bytes(12),
        ],
    )
    def test_one_that_answers_something_else_is_an_error(self, front, peer, reply):
        peer.send(reply, [os.eventfd(0)])
        with pytest.raises(PeerError) as caught:
            front.get_features()
        assert caught.value.errno == errno.EPROTO

    def test_descriptors_that_were_not_asked_for_are_closed(self, front, peer):
        peer.send(message.encode(abi.VHOST_USER_GET_FEATURES, bytes(8), abi.VHOST_USER_REPLY), [os.eventfd(0)])
        assert front.get_features() == 0

    @pytest.mark.parametrize("count", [0, 2])
    def test_memory_for_buffers_in_flight_has_one_descriptor(self, front, peer, count):
        payload = message.INFLIGHT.encode(message.Inflight(1, 0, 1, 1))
        fds = [os.eventfd(0) for _ in range(count)]
        peer.send(message.encode(abi.VHOST_USER_GET_INFLIGHT_FD, payload, abi.VHOST_USER_REPLY), fds)
        with pytest.raises(PeerError, match=f"{count} file descriptors"):
            front.get_inflight(1, 1)

    def test_another_queue_than_the_one_stopped_is_an_error(self, front, peer):
        payload = message.STATE.encode(message.VringState(1, 5))
        peer.send(message.encode(abi.VHOST_USER_GET_VRING_BASE, payload, abi.VHOST_USER_REPLY))
        with pytest.raises(PeerError, match="queue 1 for queue 0"):
            front.get_vring_base(0)

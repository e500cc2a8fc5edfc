# SPDX-License-Identifier: BSD-2-Clause
import array
import errno
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import Channel, message


def send(socket_, data, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    assert socket_.sendmsg([data], rights) == len(data)


def give(socket_, data, count):
    """Send descriptors that are closed here."""
    fds = [os.eventfd(0) for _ in range(count)]
    send(socket_, data, fds)
    for fd in fds:
        os.close(fd)


def close(fds):
    for fd in fds:
        os.close(fd)


@pytest.fixture
def channel(pair):
    made = Channel(pair[0])
    yield made
    made.close()


@pytest.fixture
def peer(pair):
    return pair[1]


OWNER = message.encode(abi.VHOST_USER_SET_OWNER, b"")


def test_a_message_arrives_with_its_descriptors(channel, peer):
    give(peer, message.encode(5, b"payload", abi.VHOST_USER_NEED_REPLY), 8)
    got = channel.receive()
    assert got[:3] == (5, 9, b"payload")
    assert len(got.fds) == 8
    assert not any(os.get_inheritable(fd) for fd in got.fds)
    close(got.fds)
    assert channel.receive() is None


def test_messages_that_arrive_together_keep_their_descriptors_apart(channel, peer):
    for number in range(3):
        give(peer, message.encode(number, bytes(number)), number)
    got = [channel.receive() for _ in range(3)]
    assert [(one.request, len(one.payload), len(one.fds)) for one in got] == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    for one in got:
        close(one.fds)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 40))
def test_messages_arrive_in_whatever_pieces(sizes, piece):
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    sent = [(number, bytes([number]) * size) for number, size in enumerate(sizes)]
    data = b"".join(message.encode(*one) for one in sent)
    got = []
    for at in range(0, len(data), piece):
        theirs.sendall(data[at : at + piece])
        while (one := channel.receive()) is not None:
            got.append((one.request, one.payload))
    channel.close()
    theirs.close()
    assert got == sent


def test_descriptors_wait_for_the_rest_of_their_message(channel, peer):
    data = message.encode(5, b"payload")
    give(peer, data[:5], 2)
    assert channel.receive() is None
    give(peer, data[5:14], 1)
    assert channel.receive() is None
    send(peer, data[14:])
    got = channel.receive()
    assert got.payload == b"payload"
    assert len(got.fds) == 3
    close(got.fds)


def test_descriptors_of_half_a_message_are_closed_with_the_channel(channel, peer):
    give(peer, OWNER[:-1], 8)
    assert channel.receive() is None
    channel.close()


@pytest.mark.parametrize("pieces", [[9], [5, 5], [8, 1], [30]])
def test_more_descriptors_than_a_message_may_have_are_refused(channel, peer, pieces):
    for number, count in enumerate(pieces):
        give(peer, OWNER[number : number + 1], count)
    with pytest.raises(PeerError, match="not all of its file descriptors") as caught:
        channel.receive()
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    ("data", "code"), [(b"GET / HTTP/1.1\r\n", errno.EPROTO), (b"\1\0\0\0\1\0\0\0\0\0\1\0", errno.EMSGSIZE)]
)
def test_what_is_no_message_is_refused_and_its_descriptors_are_closed(channel, peer, data, code):
    give(peer, data, 3)
    with pytest.raises(PeerError, match="cannot read a message") as caught:
        channel.receive()
    assert caught.value.errno == code


@pytest.mark.parametrize("part", [b"", OWNER[:3]])
def test_the_end_of_the_connection_is_an_error(channel, peer, part):
    send(peer, part)
    peer.close()
    with pytest.raises(PeerError, match="the other side has gone") as caught:
        channel.receive()
    assert caught.value.errno == errno.ECONNRESET


def test_a_reply_goes_out_with_its_descriptors_which_are_closed_here(channel, peer):
    fd = os.eventfd(7)
    channel.send(OWNER, [fd])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    data, fds, _, _ = socket.recv_fds(peer, 100, 8)
    assert data == OWNER
    assert os.eventfd_read(fds[0]) == 7
    close(fds)


def test_replying_to_nobody_is_an_error(channel, peer):
    peer.close()
    with pytest.raises(PeerError, match="the other side has gone") as caught:
        channel.send(OWNER, [os.eventfd(0)])
    assert caught.value.errno == errno.ECONNRESET


def test_whoever_reads_no_replies_is_an_error(channel):
    with pytest.raises(PeerError, match="does not read what it is sent") as caught:  # noqa: PT012
        while True:
            channel.send(OWNER, [os.eventfd(0)])
    assert caught.value.errno == errno.EAGAIN

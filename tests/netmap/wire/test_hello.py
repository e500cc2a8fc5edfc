# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.error import ProtocolMismatchError, WireError
from ptnetmap.netmap.wire.frame import HELLO, MAGIC, PROTOCOL, Frame
from ptnetmap.netmap.wire.hello import Hello, greet, greeted, hello_frame, mismatch, read_hello

CLIENT = Hello("0.3", generation=7)
DAEMON = Hello("0.4", generation=2**63, features=0b101)


def other_protocol(hello, protocol, error=0, more=b"", text=b""):
    """What a later version of the protocol might send: more in its hello, reserved bits with a meaning."""
    argument = frames.encode(hello_frame(hello))[24:] + more
    return struct.pack("<IHHIIII", MAGIC, protocol, 5, HELLO, error, len(argument), 6) + argument + text


def test_client_and_netmapd_learn_who_the_other_is():
    greeting = greet(frames.encode(hello_frame(CLIENT)), DAEMON)

    assert greeting.client == CLIENT
    assert greeted(frames.encode(greeting.frame), CLIENT, "/run/s") == DAEMON


def test_a_client_of_another_protocol_gets_the_daemons_version_in_a_frame_it_can_read():
    greeting = greet(other_protocol(Hello("9.9"), 2, more=b"new"), DAEMON, "/run/s")

    assert greeting.client is None
    assert greeting.frame.error == errno.EPROTONOSUPPORT
    assert read_hello(frames.encode(greeting.frame)) == (DAEMON, PROTOCOL)
    assert greeting.complaint == (
        "netmapd at /run/s is version 0.4 and speaks protocol 1, "
        "this client is version 9.9 and speaks 2: restart netmapd or upgrade"
    )


def test_a_daemon_of_another_protocol_ends_in_a_sentence_for_the_user():
    answer = other_protocol(Hello("9.9"), 2, errno.EPROTONOSUPPORT, b"more", b"\xff not even text")

    with pytest.raises(ProtocolMismatchError) as caught:
        greeted(answer, CLIENT, "/run/s")
    assert str(caught.value) == (
        "netmapd at /run/s is version 9.9 and speaks protocol 2, "
        "this client is version 0.3 and speaks 1: restart netmapd or upgrade"
    )
    assert (caught.value.protocol, caught.value.version) == (2, "9.9")


def test_a_daemon_that_does_not_say_its_version_is_of_an_unknown_one():
    answer = struct.pack("<IHHIIII", MAGIC, 3, 0, HELLO, errno.EPROTONOSUPPORT, 0, 0)

    with pytest.raises(ProtocolMismatchError, match="version unknown and speaks protocol 3"):
        greeted(answer, CLIENT, "/run/s")


def test_both_sides_print_the_same_sentence():
    assert mismatch("s", DAEMON, 2, CLIENT, 1) == mismatch("s", DAEMON, 2, CLIENT, 1)
    assert "version unknown" in mismatch("s", DAEMON, 2, None, 1)


def test_a_refused_client_gets_the_reason():
    answer = frames.encode(frames.refusal(HELLO, PortError(errno.EACCES, "not your netmapd")))

    with pytest.raises(PortError, match="not your netmapd"):
        greeted(answer, CLIENT, "/run/s")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n" + bytes(64),
        frames.encode(Frame(abi.NIOCREGIF, bytes(60))),
        struct.pack("<IHHIIII", MAGIC, 2, 0, HELLO, 0, 8, 0) + bytes(8),
    ],
)
def test_what_is_no_hello_is_refused_as_no_protocol(data):
    with pytest.raises(WireError) as caught:
        greet(data, DAEMON)
    assert caught.value.errno == errno.EPROTO


@pytest.mark.parametrize("hello", [Hello("x" * 48), Hello("a\0b"), Hello("1", generation=1 << 64), Hello("1", abi=-1)])
def test_a_hello_that_does_not_fit_is_refused(hello):
    with pytest.raises(WireError) as caught:
        hello_frame(hello)
    assert caught.value.errno == errno.EINVAL

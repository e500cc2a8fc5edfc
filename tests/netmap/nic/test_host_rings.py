# SPDX-License-Identifier: BSD-2-Clause
"""Host rings: what the stack sends on an interface, and what it receives there, on veths in namespaces of the test's own."""

import socket

import pytest

pytestmark = pytest.mark.root

HERE, THERE = "10.9.0.1", "10.9.0.2"
NEIGHBOUR = bytes.fromhex("020000000002")


@pytest.fixture
def host(veth):
    """Give ``va`` an address, and a neighbour that is nowhere; a UDP socket there."""
    veth(f"addr add {HERE}/24 dev va", f"neigh add {THERE} lladdr 02:00:00:00:00:02 dev va")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((HERE, 7))
        made.settimeout(30)
        yield made


def answer(frame):
    """Return a UDP packet with source and destination exchanged, and without a checksum."""
    turned = bytearray(frame)
    turned[0:6], turned[6:12] = frame[6:12], frame[0:6]
    turned[26:30], turned[30:34] = frame[30:34], frame[26:30]
    turned[34:36], turned[36:38] = frame[36:38], frame[34:36]
    turned[40:42] = b"\0\0"
    return bytes(turned)


def test_what_the_stack_sends_comes_to_the_host_ring_and_what_is_sent_there_is_received(nm, host, peer):
    with nm.open("netmap:va^") as port:
        host.sendto(b"question", (THERE, 9))
        [frame] = port.recv(timeout=30)
        assert (frame[:6], frame[42:]) == (NEIGHBOUR, b"question")
        port.send([answer(frame)], timeout=30)
        assert host.recvfrom(100) == (b"question", (THERE, 9))
        assert not peer.waits()

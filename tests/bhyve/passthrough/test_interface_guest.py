# SPDX-License-Identifier: BSD-2-Clause
"""Real guests to which a network interface is passed through: one end of a veth pair, in a namespace of the test's own."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.bench.stage import OwnNetmapd
from tests.bhyve.passthrough.test_guests import DEADLINE, FRONTS, guest, numbered_frames, numbers_in
from tests.netmap.nic import conftest as interfaces

namespace, veth, peer_of, peer = interfaces.namespace, interfaces.veth, interfaces.peer_of, interfaces.peer

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which only root may"),
]


@pytest.fixture
def netmapd(veth):
    own = OwnNetmapd()
    yield own
    own.close()


@pytest.mark.parametrize("front", FRONTS)
def test_what_a_guest_sends_by_an_interface_leaves_there_in_order(netmapd, peer, front):
    count = 2000
    with guest(netmapd, "ptnetmap:va", front, function="tx", count=count, length=128, numbered="") as sender:
        frames = list(iter_ours(peer, count))
        assert sender.end(DEADLINE)["packets"] == count
    got = np.frombuffer(b"".join(frames), np.uint8).reshape(count, 128)
    assert (numbers_in(got) == np.arange(count)).all()


def iter_ours(peer, count):
    """The next frames that are a guest's pkt-gen's, by their length."""
    while count:
        [data] = peer.recv(1)
        if len(data) == 128:
            count -= 1
            yield data


@pytest.mark.parametrize("front", FRONTS)
def test_what_comes_in_at_an_interface_reaches_the_guest(netmapd, peer, front):
    count = 500
    frames = [frame.tobytes() for frame in numbered_frames(0, 50)]
    ended = threading.Event()

    def send():
        while not ended.is_set():
            for frame in frames:
                peer.send(frame)
            ended.wait(0.01)

    with guest(netmapd, "ptnetmap:va", front, function="rx", count=count) as receiver:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            figures = receiver.end(DEADLINE)
        finally:
            ended.set()
            sender.join()
    assert (figures["packets"], figures["bytes"]) == (count, 100 * count)


BROADCAST = b"\xff" * 6
OURS = b"\x88\xb5"
END = 100
"""Bytes of the last frame; the others have 60."""


def mac(number):
    return bytes([2, 0, 0, 0, 0, number])


# Which end sends, to whom, as whom: to all, to a known address, to one that nobody has said, to one that has moved.
SENT = [
    (0, BROADCAST, mac(1)),
    (1, mac(1), mac(2)),
    (0, mac(9), mac(1)),
    (0, mac(2), mac(1)),
    (1, BROADCAST, mac(1)),
    (0, mac(1), mac(3)),
    (1, bytes.fromhex("01005e000001"), mac(2)),
    (0, mac(2), mac(3)),
]


def send_all(peers):
    """Send the frames, each after a broadcast of the last one's sender has reached the other end; then the long one."""
    for step, (at, to, source) in enumerate(SENT):
        mark = (BROADCAST + mac(50 + at) + OURS + bytes([step])).ljust(60, b"\0")
        for frame in ((to + source + OURS).ljust(60, b"\1"), mark):
            peers[at].send(frame)
        while peers[1 - at].recv(1) != [mark]:
            pass
    peers[0].send((BROADCAST + mac(50) + OURS).ljust(END, b"\0"))


def test_a_guest_gets_what_a_linux_bridge_gives_its_third_port(netmapd, namespace, peer_of):
    namespace("link add vc type veth peer name vd", "link set vc up", "link set vd up")
    namespace("link add vg type veth peer name vh", "link set vg up", "link set vh up")
    peers, third = [peer_of("vb"), peer_of("vd")], peer_of("vh")
    namespace("link add sw0 type bridge stp_state 0 mcast_snooping 0", "link set sw0 up")
    namespace(*(f"link set {name} master sw0" for name in ("va", "vc", "vg")))
    send_all(peers)
    lengths = []
    while END not in lengths:
        lengths += [len(frame) for frame in third.recv(1) if frame[12:14] == OURS]
    assert len(SENT) < len(lengths) < 2 * len(SENT) + 1, "some are for others"
    namespace("link del sw0")

    environment = {**os.environ, "NETMAP_SOCKET": netmapd.address}
    for name in ("va", "vc"):
        command = [sys.executable, "-m", "ptnetmap.cli.vale_ctl", "-a", f"vale0:{name}"]
        subprocess.run(command, env=environment, check=True, timeout=60)
    with guest(netmapd, "ptvale0:g", "ptnet", function="rx", count=len(lengths), quiet=60_000) as receiver:
        send_all(peers)
        figures = receiver.end(DEADLINE)
    assert (figures["packets"], figures["bytes"]) == (len(lengths), sum(lengths)), "the last was the long one"

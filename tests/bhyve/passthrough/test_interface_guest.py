# SPDX-License-Identifier: BSD-2-Clause
"""Real guests to which a network interface is passed through: one end of a veth pair, in a namespace of the test's own."""

import os
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

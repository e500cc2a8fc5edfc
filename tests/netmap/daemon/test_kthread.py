# SPDX-License-Identifier: BSD-2-Clause
"""Kthreads whose rounds are made by hand, so that what happens between two steps happens exactly there."""

import os
import socket
import subprocess
import time

import pytest
from numba import config

from ptnetmap.jit.memory import store64
from ptnetmap.netmap import kthread as loop
from ptnetmap.netmap import names
from ptnetmap.netmap.batch import OFFSET
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.kthreads import KThread, KThreads
from ptnetmap.netmap.scratch import Scratch
from ptnetmap.netmap.wire.registration import Registration

pytestmark = [
    pytest.mark.interpreted,
    pytest.mark.skipif(not config.DISABLE_JIT, reason="calls a piece of a kernel, which only interpreted Python can"),
]

SPIN = 5
SLOTS = 64
FRAME = bytes.fromhex("ffffffffffff0200000000010800") + bytes(46)


class ByHand(KThread):
    """A kthread without a thread."""

    def _run(self):
        self.batch = Scratch()
        store64(self.batch.address + OFFSET["kthread"], self.address)

    def stop(self):
        self._thread.join()

    def rounds(self, count):
        for _ in range(count):
            loop.take_kicks(self.address, 0)
            loop.serve_all(self.address, self.batch.address)


class Two(KThreads):
    def __init__(self):
        self.spin = SPIN
        self.threads = [ByHand(0, None, SPIN), ByHand(1, None, SPIN)]
        for thread in self.threads:
            thread._thread.join()

    def remove(self, services):
        for gone in services:
            gone.ring.block["service"] = 0


class User:
    """A port as its process sees it: rings in the region, indices in the CSB."""

    def __init__(self, host, name):
        parsed = names.parse(name)
        self.port = host.bind(Registration(parsed, parsed.conf, parsed.flags, 0))
        self.exposure = host.exposure(self.port.adapter)
        self.tx, self.rx = self.port.rings
        self.told = self.exposure._atok.items
        self.services = [self.exposure.services[ring.address] for ring in self.port.rings]

    def release(self, count):
        """Put frames in the next slots of the TX ring, and release them."""
        ring = self.port.tx_rings[0]
        head = int(self.told["head"][0])
        for i in range(count):
            slot = (head + i) % SLOTS
            ring.buffer(slot)[: len(FRAME)] = list(FRAME)
            ring.slots["len"][slot] = len(FRAME)
        self.told["cur"][0] = self.told["head"][0] = (head + count) % SLOTS

    def kick(self):
        os.eventfd_write(self.services[0].kickfd, 1)

    def take_all(self):
        self.told["cur"][1] = self.told["head"][1] = self.rx.block["hwtail"]

    def pending(self):
        return (int(self.told["head"][0]) - self.tx.block["hwcur"]) % SLOTS

    def served(self):
        words = self.exposure._ktoa.items.view("u4").reshape(len(self.told), -1)
        return int(words[0][4])


@pytest.fixture
def host():
    with Host(Two) as made:
        yield made


@pytest.fixture
def ends(host):
    """A sender served by kthread 0, and a lossless receiver by kthread 1, which has taken as much as it can."""
    sender, receiver = User(host, f"vale0:a@conf:slots={SLOTS}"), User(host, f"vale0:b@conf:slots={SLOTS}")
    receiver.port.lossless = True
    assert (sender.exposure.kthread, receiver.exposure.kthread) == (0, 1)
    first, second = host.kthreads.threads
    sender.release(SLOTS - 2)
    first.rounds(4)
    sender.release(10)
    first.rounds(3)
    assert sender.pending() == 9, "one more fitted"
    return sender, receiver, first, second


def test_room_made_just_before_a_sender_is_parked_is_not_missed(ends):
    sender, receiver, first, second = ends
    second.rounds(2)
    receiver.take_all()
    second.rounds(3)
    first.rounds(4 * SPIN)
    assert sender.pending() == 0


def test_a_head_released_while_a_ring_is_stuck_is_answered(ends):
    sender, _, first, _ = ends
    assert sender.served() == sender.told["head"][0], "all that could be done about it has been"
    sender.release(3)
    first.rounds(4 * SPIN)
    assert sender.pending() == 12
    assert sender.served() == sender.told["head"][0]


def test_a_user_who_goes_once_round_during_a_sync_is_served_again(host, monkeypatch):
    user = User(host, f"vale0:a@conf:slots={SLOTS}")
    User(host, f"vale0:b@conf:slots={SLOTS}")
    first = host.kthreads.threads[0]
    real = loop.txsync

    def meanwhile(k, batch):
        monkeypatch.setattr(loop, "txsync", real)
        user.release(20)  # after the kthread has looked, before it syncs
        return real(k, batch)

    user.release(10)
    monkeypatch.setattr(loop, "txsync", meanwhile)
    first.rounds(1)
    assert user.pending() == 0
    user.release(SLOTS - 20)  # the head is where it was when the kthread looked
    first.rounds(2 * SPIN)
    assert user.pending() == 0


# -- network interfaces


@pytest.fixture
def interface():
    """A veth pair: the port of one end, which kthread 0 serves and has parked, and a packet socket on the other."""
    subprocess.run(["ip", "link", "add", "ka", "type", "veth", "peer", "name", "kb"], check=True)
    try:
        for name in ("ka", "kb"):
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        with Host(Two) as host, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as peer:
            peer.bind(("kb", 0))
            user = User(host, f"netmap:ka@conf:slots={SLOTS}")
            kthread = host.kthreads.threads[0]
            kthread.rounds(4 * SPIN)
            yield user, kthread, peer
    finally:
        subprocess.run(["ip", "link", "del", "ka"], check=True)


def watched(user):
    return [service.block["watched"] for service in user.services]


def active(user):
    return [service.block["active"] for service in user.services]


@pytest.mark.root
def test_an_interface_is_watched_only_while_its_ring_is_parked(interface):
    user, kthread, peer = interface
    assert (active(user), watched(user)) == ([0, 0], [0, 1]), "what sends has nothing to wait for"
    assert not loop.hears_interface(kthread.address)
    deadline = time.monotonic() + 30
    peer.send(FRAME)
    while user.rx.block["hwtail"] == 0:
        assert time.monotonic() < deadline
        kthread.rounds(1)
    assert (active(user), watched(user)) == ([0, 1], [0, 0])
    assert loop.hears_interface(kthread.address)
    kthread.rounds(2 * SPIN)
    assert (active(user), watched(user)) == ([0, 0], [0, 1])


@pytest.mark.root
def test_nobody_waits_on_a_socket_that_sends(interface):
    user, kthread, _ = interface
    for _ in range(2 * SPIN):
        user.release(1)
        user.kick()
        kthread.rounds(2)
    assert (active(user), watched(user)) == ([1, 1], [0, 0])
    assert user.pending() == 0
    kthread.rounds(4 * SPIN)
    assert (active(user), watched(user)) == ([0, 0], [0, 1])


@pytest.mark.root
def test_a_ring_that_is_parked_while_it_is_taken_off_is_not_watched(interface):
    user, kthread, _ = interface
    receiver = user.services[1]
    user.rx.wake()
    kthread.rounds(1)
    loop.unwatch_news(receiver.address)  # as the control thread does
    receiver.block["leaving"] = 1
    kthread.rounds(4 * SPIN)
    assert (active(user), watched(user)) == ([0, 0], [0, 0])

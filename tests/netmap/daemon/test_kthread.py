# SPDX-License-Identifier: BSD-2-Clause
"""Kthreads whose rounds are made by hand, so that what happens between two steps happens exactly there."""

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

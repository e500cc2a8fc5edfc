# SPDX-License-Identifier: BSD-2-Clause
# The packed layout of a virtqueue, against a driver that follows virtio 1.2 §2.8, and against the split layout.
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio as abi
from ptnetmap.errors import PeerError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.batch import BATCH_PACKETS
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_available, queue_suppress_kicks, queue_wants_interrupt
from ptnetmap.netmap.queuestate import STATE_BROKEN, STATE_RUNNING, start_virtqueue, stop_virtqueue, virtqueue
from ptnetmap.testing import MockDriver, PackedDriver
from tests.netmap.test_virtqueue import Batch, collect, cut, deliver

pytestmark = pytest.mark.interpreted

WRITE, INDIRECT = abi.VIRTQ_DESC_F_WRITE, abi.VIRTQ_DESC_F_INDIRECT


class Side:
    """A packed ring's driver, and the device's side."""

    def __init__(self, size=8, *, in_order=False, packed=True, memory=1 << 20, **options):
        self.driver = PackedDriver(size, memory=memory, in_order=in_order) if packed else MockDriver(size)
        self.block = Block(virtqueue)
        self.queue = self.block.address
        self.driver.start(self.block.items[0], **options)

    def violations(self):
        names = ("bad_chain", "bad_address", "too_long", "bad_index")
        return {name: self.block[name] for name in names if self.block[name]}


@pytest.fixture
def scratch():
    return Batch()


@pytest.fixture(params=[False, True], ids=["any order", "in order"])
def in_order(request):
    return request.param


def test_chains_come_in_order_and_go_back_when_they_are_completed(scratch, in_order):
    side = Side(in_order=in_order)
    sent = [side.driver.send([b"a", bytes([n])], indirect=n == 1) for n in range(3)]
    assert collect(side, scratch) == [[b"a", b"\0"], [b"a", b"\1"], [b"a", b"\2"]]
    assert side.driver.reap() == []
    assert complete_virtqueue(side.queue, scratch.address, 2) == 2
    assert [used.head for used in side.driver.reap()] == sent[:2]
    assert collect(side, scratch) == [[b"a", b"\2"]]
    assert complete_virtqueue(side.queue, scratch.address, 1) == 1
    assert [used.head for used in side.driver.reap()] == sent[2:]
    assert queue_available(side.queue) == 0


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.lists(
                st.tuples(
                    st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 65535), max_size=3), st.booleans()
                ),
                max_size=4,
            ),
            st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=3), max_size=3),
        ),
        max_size=12,
    ),
    in_order=st.booleans(),
    mergeable=st.booleans(),
)
def test_both_layouts_move_the_same_packets_round_the_ring(steps, in_order, mergeable):
    results = []
    for packed in (True, False):
        scratch = Batch()
        header = {"header": 12, "mergeable": True} if mergeable else {}
        sender = Side(16, in_order=in_order, packed=packed)
        receiver = Side(16, packed=packed, **header)
        moved = []
        for packets, posts in steps:
            for data, cuts, indirect in packets:
                try:
                    sender.driver.send(cut(data, cuts), indirect=indirect)
                except ValueError:
                    break
            for lengths in posts:
                try:
                    receiver.driver.post(lengths)
                except ValueError:
                    break
            _, collected = collect_virtqueue(sender.queue, scratch.address, BATCH_PACKETS)
            done, delivered, octets = deliver_virtqueue(receiver.queue, scratch.address, 0, collected, 0, 1514)
            assert complete_virtqueue(sender.queue, scratch.address, done) == done
            back = [used.length for used in sender.driver.reap()]
            got = [(used.length, used.data) for used in receiver.driver.reap()]
            moved.append((collected, done, delivered, octets, back, got))
        assert sender.driver.intact()
        assert receiver.driver.intact()
        results.append(moved)
    assert results[0] == results[1]


def test_in_order_one_used_descriptor_stands_for_a_batch(scratch):
    side = Side(16, in_order=True)
    sent = [side.driver.send([b"x"]) for _ in range(10)]
    collect(side, scratch)
    complete_virtqueue(side.queue, scratch.address, 10)
    both = abi.VIRTQ_PACKED_AVAIL | abi.VIRTQ_PACKED_USED
    assert int(np.count_nonzero(side.driver.ring["flags"] & both == both)) == 1
    assert [used.head for used in side.driver.reap()] == sent


def test_a_bad_chain_costs_that_chain_only_however_many_descriptors_it_has(scratch):
    side = Side(16)
    bad = side.driver.add([(side.driver.gpa, 1, 0), (0, 10, 0), (side.driver.gpa, 1, 0)])
    side.driver.send([b"good"])
    assert collect(side, scratch) == []
    assert side.driver.reap() == [(bad, 0, b"")]
    assert collect(side, scratch) == [[b"good"]]
    assert side.violations() == {"bad_address": 1}


@pytest.mark.parametrize(
    "table", [[(1, WRITE)], [(0, 0)], [(1, INDIRECT)], [(1, 0)] * 65], ids=["direction", "empty", "nested", "too many"]
)
def test_a_bad_table_costs_its_chain(scratch, table):
    side = Side(16)
    number = side.driver.add([(side.driver.gpa, length, flags) for length, flags in table], indirect=True)
    assert collect(side, scratch) == []
    assert side.driver.reap() == [(number, 0, b"")]
    assert sum(side.violations().values()) == 1


def test_a_chain_without_an_end_breaks_the_queue(scratch):
    side = Side(4)
    side.driver.send([b"x"] * 4)
    side.driver.ring["flags"] |= abi.VIRTQ_DESC_F_NEXT
    assert collect(side, scratch) == []
    assert side.block["state"] == STATE_BROKEN
    assert side.violations() == {"bad_index": 1}


def test_a_chain_that_is_not_all_there_breaks_the_queue(scratch):
    side = Side(8)
    side.driver.send([b"x"])
    side.driver.ring["flags"][0] |= abi.VIRTQ_DESC_F_NEXT
    assert collect(side, scratch) == []
    assert side.block["state"] == STATE_BROKEN


def test_a_packet_of_many_chains_is_seen_at_once(scratch):
    side = Side(8, header=12, mergeable=True)
    for _ in range(3):
        side.driver.post([20])
    assert deliver(side, scratch, [[bytes(40)]]) == 1
    used = side.driver.reap()
    assert [one.length for one in used] == [20, 20, 12]
    assert used[0].data[10:12] == b"\3\0"


def test_a_packet_that_lacks_chains_leaves_the_ring_as_it_was(scratch):
    side = Side(8, header=12, mergeable=True)
    side.driver.post([20])
    before = side.driver.ring.tobytes()
    assert deliver(side, scratch, [[bytes(40)]]) == 0
    assert side.driver.ring.tobytes() == before
    side.driver.post([40])
    assert deliver(side, scratch, [[bytes(40)]]) == 1
    assert [one.length for one in side.driver.reap()] == [20, 32]


def test_a_queue_goes_on_where_it_stood_with_its_wrap_counters(scratch):
    side = Side(4)
    for number in range(11):
        side.driver.send([bytes([number])])
        assert collect(side, scratch) == [[bytes([number])]]
        complete_virtqueue(side.queue, scratch.address, 1)
        side.driver.reap()
        last, used = stop_virtqueue(side.block.items[0])
        place, wrap = side.driver.used_position
        assert last == used == place | wrap << 15
        side.driver.start(side.block.items[0], last_avail=last, used_idx=used)
    assert side.block["state"] == STATE_RUNNING


def test_interrupts_and_kicks_are_asked_for_by_the_rings_of_wishes(scratch):
    side = Side(8)
    side.driver.want_interrupts(False)
    assert not queue_wants_interrupt(side.queue)
    side.driver.want_interrupts(True)
    assert queue_wants_interrupt(side.queue)
    assert queue_suppress_kicks(side.queue, 1) == 0
    assert not side.driver.wants_kicks
    side.driver.send([b"x"])
    assert queue_suppress_kicks(side.queue, 0) == 1
    assert side.driver.wants_kicks


def test_with_the_event_index_one_interrupt_comes_when_a_place_has_passed(scratch):
    side = Side(4, event_idx=True)
    wanted = []
    for number in range(20):
        if number % 3 == 0:
            place, wrap = side.driver.used_position
            place += 1
            if place >= 4:
                place, wrap = place - 4, wrap ^ 1
            side.driver.want_interrupt_at(place, wrap)
        side.driver.send([b"x"])
        collect(side, scratch)
        complete_virtqueue(side.queue, scratch.address, 1)
        side.driver.reap()
        wanted.append(bool(queue_wants_interrupt(side.queue)))
    assert wanted == [number % 3 == 1 for number in range(20)]


def test_a_packed_ring_may_have_any_size_and_its_positions_are_inside():
    driver = PackedDriver(12)
    block = Block(virtqueue)
    driver.start(block.items[0])
    with pytest.raises(PeerError, match="positions"):
        driver.start(block.items[0], last_avail=12)
    with pytest.raises(PeerError, match="power of two"):
        start_virtqueue(block.items[0], size=12, desc=0, avail=0, used=0, regions=[])


def test_packets_that_forge_descriptors_reach_no_further_than_once_round_the_ring(scratch):
    side = Side(4)
    driver = side.driver
    # A guest may place its buffers on its ring: what it receives, which another guest may choose, then offers
    # descriptors while the device is at work, and memory behind the ring looks like more of it.
    ring = driver.allocate(64 * 40)

    def offers(mark, count):
        return np.array([(ring, 64, 0, mark | WRITE)] * count, abi.pvirtq_desc).tobytes()

    driver.write(ring, offers(abi.VIRTQ_PACKED_AVAIL, 4) + offers(abi.VIRTQ_PACKED_USED, 4 * 39))
    driver.start(side.block.items[0], desc=ring)
    behind = driver.read(ring + 64, 64 * 39)
    # The last chain's packet offers the whole ring once more, for the next way round.
    packets = [[offers(abi.VIRTQ_PACKED_AVAIL, 4)]] * 3 + [[offers(abi.VIRTQ_PACKED_USED, 4)]] * 17
    assert deliver(side, scratch, packets) == 4
    assert driver.read(ring + 64, 64 * 39) == behind
    assert max(side.block["last_avail"], side.block["used_idx"]) < 4


@settings(max_examples=150, deadline=None)
@given(data=st.data(), mergeable=st.booleans(), in_order=st.booleans(), size=st.integers(1, 9))
def test_garbage_touches_nothing_outside_and_never_hangs(data, mergeable, in_order, size):
    scratch = Batch()
    side = Side(size, in_order=in_order, header=12 if mergeable else 0, mergeable=mergeable, memory=8192)
    driver = side.driver
    end = driver.gpa + driver.memory
    address = st.one_of(
        st.integers(driver.gpa - 64, driver.gpa + 2048), st.integers(end - 64, end + 64), st.integers(0, 2**64 - 1)
    )
    length = st.one_of(st.integers(0, 128).map(lambda n: n * 16), st.integers(0, 2**32 - 1))
    marks = st.sampled_from([0, abi.VIRTQ_PACKED_AVAIL, abi.VIRTQ_PACKED_USED])
    flags = st.builds(lambda kind, mark: kind | mark, st.integers(0, 7), marks)
    descriptor = st.tuples(address, length, st.integers(0, 65535), flags)
    # Last in the memory, where a step too far is seen.
    ring = end - 16 * size
    wraps = st.integers(0, 1)
    last, used = (
        data.draw(st.builds(lambda place, wrap: place | wrap << 15, st.integers(0, size - 1), wraps)) for _ in "au"
    )
    driver.start(side.block.items[0], desc=ring, last_avail=last, used_idx=used)
    words = data.draw(st.lists(descriptor, min_size=size, max_size=size))
    garbage = np.array(words, abi.pvirtq_desc).tobytes()
    driver.write(ring, garbage)
    scratch.fill([[garbage]] * 4)
    sources = scratch.block.items.copy()
    guest = driver.regions[0]
    for _ in range(8):
        records, packets = collect_virtqueue(side.queue, scratch.address, BATCH_PACKETS)
        assert packets <= size
        item = scratch.block.items[0]
        for a, n in zip(item["address"][:records], item["length"][:records], strict=True):
            assert guest.host <= int(a) < int(a) + int(n) <= guest.host + guest.size
        complete_virtqueue(side.queue, scratch.address, min(packets, 1))
        scratch.block.items[:] = sources
        assert 0 <= deliver_virtqueue(side.queue, scratch.address, 0, 4, 0, 1514)[0] <= 4
        assert driver.intact()
        assert max(side.block["last_avail"], side.block["used_idx"]) < size
        assert queue_available(side.queue) in (0, 1)


def scenario():
    """A digest of all that some rounds leave behind in both drivers' memory, host addresses aside."""
    random = np.random.default_rng(2)
    scratch = Batch()
    trace = hashlib.sha256()
    sender = Side(24, in_order=True, event_idx=True)
    receiver = Side(40, header=12, mergeable=True, event_idx=True)
    for step in range(60):
        for _ in range(int(random.integers(1, 4))):
            pieces = [random.bytes(int(random.integers(1, 300))) for _ in range(int(random.integers(1, 4)))]
            sender.driver.send(pieces, indirect=bool(random.integers(2)))
        while receiver.driver.outstanding < 16:
            receiver.driver.post([int(random.integers(1, 400)), 200], indirect=bool(random.integers(2)))
        sender.driver.add([(step % 2, 1, 0)] * 2)  # nobody's memory
        receiver.driver.want_interrupt_at(step % 40, step // 40)
        for _ in range(6):
            records, packets = collect_virtqueue(sender.queue, scratch.address, 1 + step % 5)
            done = deliver_virtqueue(receiver.queue, scratch.address, 0, packets, 0, 1514)[0]
            completed = complete_virtqueue(sender.queue, scratch.address, done)
            told = bool(queue_wants_interrupt(receiver.queue)), bool(queue_wants_interrupt(sender.queue))
            trace.update(f"{records} {packets} {done} {completed} {told}".encode())
        trace.update(repr((sender.driver.reap(), receiver.driver.reap())).encode())
        trace.update(repr(queue_suppress_kicks(receiver.queue, step % 2)).encode())
    for side in (sender, receiver):
        assert side.driver.intact()
        trace.update(side.driver.read(side.driver.gpa, side.driver.memory))
    return f"{trace.hexdigest()} {[(s.block['packets'], s.violations()) for s in (sender, receiver)]}"


def test_the_interpreted_kernels_do_exactly_what_the_compiled_ones_do():
    code = "from tests.netmap import test_packedqueue; print(test_packedqueue.scenario())"
    results = []
    for disable in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"NUMBA_DISABLE_JIT": disable},
            capture_output=True,
            text=True,
            check=True,
        )
        results.append(run.stdout.strip())
    assert results[0] == results[1]

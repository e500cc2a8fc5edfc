# SPDX-License-Identifier: BSD-2-Clause

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.block import Block, view
from ptnetmap.netmap.batch import BATCH_PACKETS, MAX_FRAGMENTS, batch
from ptnetmap.netmap.collect import DROPPED
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_available, queue_suppress_kicks, queue_wants_interrupt
from ptnetmap.netmap.queuestate import (
    COUNTERS,
    STATE_BROKEN,
    STATE_RUNNING,
    Region,
    start_virtqueue,
    stop_virtqueue,
    virtqueue,
)
from ptnetmap.testing import MockDriver

NEXT, WRITE, INDIRECT = abi.VIRTQ_DESC_F_NEXT, abi.VIRTQ_DESC_F_WRITE, abi.VIRTQ_DESC_F_INDIRECT
VIOLATIONS = ("bad_chain", "bad_address", "too_long", "no_buffer", "bad_index")


class Side:
    """A driver and the device's side of its queue."""

    def __init__(self, size=8, *, memory=1 << 18, index=0, **options):
        self.driver = MockDriver(size, memory=memory, index=index)
        self.block = Block(virtqueue)
        self.queue = self.block.address
        self.driver.start(self.block.items[0], **options)

    def counts(self, *names):
        return {name: self.block[name] for name in names or COUNTERS}

    def violations(self):
        return {name: n for name, n in self.counts(*VIOLATIONS).items() if n}


class Batch:
    """The scratch between a collect and a delivery, and the packets in it."""

    def __init__(self):
        self.block = Block(batch)
        self.address = self.block.address
        self.numbers = Block(np.uint16, BATCH_PACKETS)
        self.numbers.items[:] = np.arange(BATCH_PACKETS)
        self.sources = []

    def fill(self, packets):
        self.sources = []
        record = 0
        for number, pieces in enumerate(packets):
            self.block.items["first"][0, number] = record
            self.block.items["fragments"][0, record] = len(pieces)
            for piece in pieces:
                source = Block(np.uint8, max(len(piece), 1))
                source.items[: len(piece)] = np.frombuffer(piece, np.uint8)
                self.sources.append(source)
                self.block.items["address"][0, record] = source.address
                self.block.items["length"][0, record] = len(piece)
                record += 1

    def packets(self, count):
        item = self.block.items[0]
        out = []
        for number in range(count):
            record = int(item["first"][number])
            out.append(
                [
                    view(int(item["address"][r]), np.uint8, int(item["length"][r]), self).tobytes()
                    for r in range(record, record + int(item["fragments"][record]))
                ]
            )
        return out


@pytest.fixture
def scratch():
    return Batch()


def collect(side, scratch, limit=BATCH_PACKETS):
    _, packets = collect_virtqueue(side.queue, scratch.address, limit)
    return scratch.packets(packets)


def deliver(side, scratch, packets):
    scratch.fill(packets)
    return deliver_virtqueue(side.queue, scratch.address, scratch.numbers.address, len(packets), 0, 1514)[0]


def cut(data, cuts):
    """Split data at the given fractions of 2**16."""
    edges = sorted({0, len(data), *(c * len(data) >> 16 for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# From the driver.


def test_a_collected_packet_has_the_bytes_of_its_chain_in_place(scratch):
    side = Side()
    first = side.driver.send([b"header", b"a frame"])
    second = side.driver.send([b"x" * 1500], indirect=True)
    records, packets = collect_virtqueue(side.queue, scratch.address, BATCH_PACKETS)
    assert (records, packets) == (3, 2)
    assert scratch.packets(2) == [[b"header", b"a frame"], [b"x" * 1500]]
    item = scratch.block.items[0]
    assert [int(item["slot"][item["first"][p]]) for p in range(2)] == [first, second]
    assert not item["flags"][:3].any()
    guest = side.driver.regions[0]
    assert all(guest.host <= int(a) < guest.host + guest.size for a in item["address"][:3])


def test_chains_stay_the_devices_until_they_are_completed(scratch):
    side = Side()
    heads = [side.driver.send([bytes([n])]) for n in range(5)]
    assert len(collect(side, scratch)) == 5
    assert side.driver.poll() == 0
    assert complete_virtqueue(side.queue, scratch.address, 2) == 2
    assert [used.head for used in side.driver.reap()] == heads[:2]
    assert collect(side, scratch) == [[bytes([n])] for n in (2, 3, 4)]
    assert complete_virtqueue(side.queue, scratch.address, 9) == 3
    assert complete_virtqueue(side.queue, scratch.address, 3) == 0
    assert [(used.head, used.length) for used in side.driver.reap()] == [(head, 0) for head in heads[2:]]
    assert side.counts("packets", "bytes") == {"packets": 5, "bytes": 5}


def test_a_batch_ends_at_the_packet_that_reaches_its_limit(scratch):
    side = Side(16)
    for _ in range(4):
        side.driver.send([b"1", b"2", b"3"])
    assert collect_virtqueue(side.queue, scratch.address, 4) == (6, 2)
    assert collect_virtqueue(side.queue, scratch.address, 0) == (0, 0)


def test_a_batch_never_overflows_its_scratch(scratch):
    side = Side(256, memory=1 << 21)
    for _ in range(256):
        side.driver.send([b"."] * MAX_FRAGMENTS, indirect=True)
    records, packets = collect_virtqueue(side.queue, scratch.address, 1 << 20)
    assert (records, packets) == (BATCH_PACKETS, BATCH_PACKETS // MAX_FRAGMENTS)


def test_direct_descriptors_may_end_in_a_table(scratch):
    side = Side()
    driver = side.driver
    table = driver.allocate(64) + 8  # any alignment will do
    driver.write(table, np.array([(driver.gpa, 2, NEXT, 1), (driver.gpa, 3, 0, 0)], abi.virtq_desc).tobytes())
    driver.add([(driver.gpa, 1, 0), (table, 32, INDIRECT)])
    assert [len(piece) for piece in collect(side, scratch)[0]] == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    packets=st.lists(
        st.tuples(st.binary(min_size=1, max_size=3000), st.lists(st.integers(0, 65535), max_size=6), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=5),
    mergeable=st.booleans(),
    index=st.integers(0, 65535),
)
def test_packets_pass_from_driver_to_driver_unchanged_however_they_are_cut(packets, lengths, mergeable, index):
    scratch = Batch()
    sender = Side(64, index=index)
    receiver = Side(64, index=65535 - index, header=12 if mergeable else 0, mergeable=mergeable)
    for data, cuts, indirect in packets:
        sender.driver.send(cut(data, cuts), indirect=indirect)
    for number in range(12):
        receiver.driver.post(lengths, indirect=number % 2 == 1)
    _, collected = collect_virtqueue(sender.queue, scratch.address, BATCH_PACKETS)
    assert collected == len(packets)
    done = deliver_virtqueue(receiver.queue, scratch.address, scratch.numbers.address, collected, 0, 1514)[0]
    assert complete_virtqueue(sender.queue, scratch.address, done) == done
    assert len(sender.driver.reap()) == done

    used = receiver.driver.reap()
    room = sum(lengths)
    for data, _, _ in packets[:done]:
        if mergeable:
            data = bytes(10) + (-(-(12 + len(data)) // room)).to_bytes(2, "little") + data
        chains = -(-len(data) // room)
        if chains > 1 and not mergeable:
            assert used.pop(0).length == 0
            continue
        received = b"".join(used.pop(0).data for _ in range(chains))
        assert received == data
    assert used == []
    left = packets[done:]
    assert not left or (mergeable and receiver.counts("no_buffer") == {"no_buffer": 1})
    assert sender.driver.intact()
    assert receiver.driver.intact()


def test_indices_wrap_at_16_bits(scratch):
    sender, receiver = Side(8, index=65530), Side(8, index=65534)
    for number in range(100):
        sender.driver.send([b"%d" % number])
        receiver.driver.post([8])
        assert collect(sender, scratch) == [[b"%d" % number]]
        assert deliver_virtqueue(receiver.queue, scratch.address, scratch.numbers.address, 1, 0, 1514)[0] == 1
        assert complete_virtqueue(sender.queue, scratch.address, 1) == 1
        assert [used.data for used in receiver.driver.reap()] == [b"%d" % number]
        assert len(sender.driver.reap()) == 1
    assert stop_virtqueue(sender.block.items[0]) == (94, 94)
    assert stop_virtqueue(receiver.block.items[0]) == (98, 98)


# To the driver.


def test_a_packet_is_written_across_all_descriptors_of_a_chain(scratch):
    side = Side()
    side.driver.post([3, 1, 100])
    assert deliver(side, scratch, [[b"ab", b"", b"cdefgh"]]) == 1
    assert side.driver.reap() == [(0, 8, b"abcdefgh")]
    assert side.counts("packets", "bytes") == {"packets": 1, "bytes": 8}


def test_delivery_stops_where_the_buffers_end(scratch):
    side = Side()
    for _ in range(2):
        side.driver.post([64])
    assert deliver(side, scratch, [[b"0"], [b"1"], [b"2"]]) == 2
    assert [used.data for used in side.driver.reap()] == [b"0", b"1"]
    assert side.violations() == {"no_buffer": 1}


def test_a_packet_that_does_not_fit_is_dropped_and_its_chain_returned_empty(scratch):
    side = Side()
    side.driver.post([4])
    side.driver.post([4])
    assert deliver(side, scratch, [[b"too long"], [b"fits"]]) == 2
    assert side.driver.reap() == [(0, 0, b""), (1, 4, b"fits")]
    assert side.violations() == {"too_long": 1}
    assert side.counts("packets") == {"packets": 1}


def test_a_mergeable_packet_fills_as_many_chains_as_it_needs(scratch):
    side = Side(header=12, mergeable=True)
    for lengths in ([5, 5], [1, 9], [10], [22]):
        side.driver.post(lengths)
    packet = bytes(range(13))
    assert deliver(side, scratch, [[packet[:3], packet[3:]], [bytes(10)]]) == 2
    used = side.driver.reap()
    assert [u.length for u in used] == [10, 10, 5, 22]
    assert b"".join(u.data for u in used[:3]) == bytes(10) + b"\3\0" + packet


def test_num_buffers_is_set_even_where_one_chain_is_all_there_can_be(scratch):
    side = Side(header=12)
    side.driver.post([11, 20])
    deliver(side, scratch, [[bytes(2)]])
    assert side.driver.reap()[0].data == bytes(10) + b"\1\0" + bytes(2)


def test_a_mergeable_packet_waits_for_all_its_chains(scratch):
    side = Side(header=12, mergeable=True)
    side.driver.post([64])
    assert deliver(side, scratch, [[bytes(88)]]) == 0
    assert side.driver.poll() == 0
    side.driver.post([64])
    assert deliver(side, scratch, [[bytes(88)]]) == 1
    assert [used.length for used in side.driver.reap()] == [64, 36]


def test_a_mergeable_packet_larger_than_the_whole_queue_is_dropped(scratch):
    side = Side(4, header=12, mergeable=True)
    for _ in range(4):
        side.driver.post([16])
    assert deliver(side, scratch, [[bytes(88)]]) == 1
    assert [used.length for used in side.driver.reap()] == [0] * 4
    assert side.violations() == {"too_long": 1}


def test_a_mergeable_packet_takes_no_more_chains_than_a_packet_has_fragments(scratch):
    side = Side(128, header=12, mergeable=True)
    for _ in range(MAX_FRAGMENTS + 1):
        side.driver.post([1])
    assert deliver(side, scratch, [[bytes(MAX_FRAGMENTS - 11)]]) == 1
    assert [used.length for used in side.driver.reap()] == [0] * MAX_FRAGMENTS
    assert side.violations() == {"too_long": 1}


# Drivers that break the rules. Each case is (what it does, the counter it is counted under).


def loop(driver, write):
    head = driver.add([(driver.gpa, 1, write)] * 2)
    driver.descriptors["flags"][(head + 1) % driver.size] |= NEXT
    driver.descriptors["next"][(head + 1) % driver.size] = head


def next_out_of_range(driver, write):
    head = driver.add([(driver.gpa, 1, write)] * 2)
    driver.descriptors["next"][head] = driver.size


def head_out_of_range(driver, write):
    driver.offer(0xFFFF)


def too_many_descriptors(driver, write):
    driver.add([(driver.gpa, 1, write)] * (MAX_FRAGMENTS + 1), indirect=True)


def table_in_table(driver, write):
    driver.add([(driver.allocate(16), 16, INDIRECT)], indirect=True)


def table_that_goes_on(driver, write):
    driver.add([(driver.allocate(16), 16, INDIRECT), (driver.gpa, 1, write)])


def table_of_half_a_descriptor(driver, write):
    driver.add([(driver.allocate(32), 24, INDIRECT)])


def empty_table(driver, write):
    driver.add([(driver.allocate(16), 0, INDIRECT)])


def next_outside_its_table(driver, write):
    head = driver.add([(driver.gpa, 1, write)] * 2, indirect=True)
    table = int(driver.descriptors["addr"][head])
    driver.write(table + 14, b"\2\0")


def table_outside(driver, write):
    driver.add([(driver.gpa + driver.memory - 16, 32, INDIRECT)])


def empty_buffer(driver, write):
    driver.add([(driver.gpa, 0, write)])


def wrong_direction(driver, write):
    driver.add([(driver.gpa, 1, write), (driver.gpa, 1, write ^ WRITE)])


def wraps(driver, write):
    driver.add([(2**64 - 16, 32, write)])


def wraps_signed(driver, write):
    driver.add([(2**63 - 16, 32, write)])


def before_memory(driver, write):
    driver.add([(driver.gpa - 1, 2, write)])


def past_memory(driver, write):
    driver.add([(driver.gpa + driver.memory - 1, 2, write)])


def past_4_gib(driver, write):
    driver.add([(driver.gpa, 0xFFFFFFFF, write)])


def at_zero(driver, write):
    driver.add([(0, 1, write)])


RULES = [
    (loop, "bad_chain"),
    (next_out_of_range, "bad_chain"),
    (head_out_of_range, "bad_chain"),
    (too_many_descriptors, "too_long"),
    (table_in_table, "bad_chain"),
    (table_that_goes_on, "bad_chain"),
    (table_of_half_a_descriptor, "bad_chain"),
    (empty_table, "bad_chain"),
    (next_outside_its_table, "bad_chain"),
    (table_outside, "bad_address"),
    (empty_buffer, "bad_chain"),
    (wrong_direction, "bad_chain"),
    (wraps, "bad_address"),
    (wraps_signed, "bad_address"),
    (before_memory, "bad_address"),
    (past_memory, "bad_address"),
    (past_4_gib, "bad_address"),
    (at_zero, "bad_address"),
]
rules = pytest.mark.parametrize(("violate", "reason"), RULES, ids=[rule.__name__ for rule, _ in RULES])


@rules
def test_a_bad_chain_costs_its_sender_that_chain_only(scratch, violate, reason):
    side = Side(16)
    before = side.driver.send([b"before"])
    violate(side.driver, 0)
    after = side.driver.send([b"after"])

    assert collect(side, scratch) == [[b"before"]]
    assert complete_virtqueue(side.queue, scratch.address, 1) == 1
    assert collect(side, scratch) == [[b"after"]]
    assert complete_virtqueue(side.queue, scratch.address, 1) == 1
    used = side.driver.reap()
    assert [used[0].head, used[2].head] == [before, after]
    assert [u.length for u in used] == [0, 0, 0]
    assert side.violations() == {reason: 1}
    assert side.block["state"] == STATE_RUNNING
    assert side.driver.intact()


@rules
def test_a_bad_chain_costs_its_receiver_that_chain_only(scratch, violate, reason):
    side = Side(16)
    side.driver.post([8])
    violate(side.driver, WRITE)
    side.driver.post([8])
    dropped = reason == "too_long"  # as any packet that finds a chain too long or too short

    assert deliver(side, scratch, [[b"first"], [b"second"], [b"third"]][: 3 if dropped else 2]) == (3 if dropped else 2)
    used = side.driver.reap()
    assert [u.data for u in used] == [b"first", b"", b"third" if dropped else b"second"]
    assert used[1].length == 0
    assert side.violations() == {reason: 1}
    assert side.driver.intact()


@rules
def test_a_bad_chain_takes_those_of_the_same_mergeable_packet_with_it(scratch, violate, reason):
    side = Side(16, header=12, mergeable=True)
    side.driver.post([20])
    violate(side.driver, WRITE)
    for _ in range(2):
        side.driver.post([20])
    deliver(side, scratch, [[bytes(18)], [bytes(18)]][: 2 if reason == "too_long" else 1])
    assert [u.length for u in side.driver.reap()] == [0, 0, 20, 10]
    assert side.violations() == {reason: 1}
    assert side.driver.intact()


@pytest.mark.parametrize("jump", [17, 1000, 65535])
def test_an_index_that_jumps_breaks_the_queue_until_it_is_started_again(scratch, jump):
    side = Side(16)
    side.driver.send([b"never"])
    side.driver.avail_head["idx"] = jump
    assert collect(side, scratch) == []
    assert deliver(side, scratch, [[b"x"]]) == 0
    assert queue_available(side.queue) == 0
    assert queue_suppress_kicks(side.queue, 0) == 0
    assert not queue_wants_interrupt(side.queue)
    assert side.block["state"] == STATE_BROKEN
    assert side.violations() == {"bad_index": 1}
    assert side.driver.poll() == 0

    side.driver.avail_head["idx"] = 0
    side.driver.start(side.block.items[0])
    side.driver.send([b"again"])
    assert collect(side, scratch) == [[b"again"]]
    assert side.counts("bad_index") == {"bad_index": 1}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), index=st.integers(0, 65535), mergeable=st.booleans())
def test_garbage_touches_nothing_outside_and_never_hangs(data, index, mergeable):
    scratch = Batch()
    side = Side(8, memory=8192, index=index, header=12 if mergeable else 0, mergeable=mergeable)
    driver = side.driver
    end = driver.gpa + driver.memory
    address = st.one_of(
        st.integers(driver.gpa - 64, driver.gpa + 2048), st.integers(end - 64, end + 64), st.integers(0, 2**64 - 1)
    )
    length = st.one_of(st.integers(0, 128).map(lambda n: n * 16), st.integers(0, 2**32 - 1))
    descriptor = st.tuples(address, length, st.integers(0, 7), st.integers(0, 9))
    for place, value in enumerate(data.draw(st.lists(descriptor, min_size=8, max_size=8))):
        driver.descriptors[place] = value
    for head in data.draw(st.lists(st.integers(0, 9), max_size=8)):
        driver.offer(head)
    outside = Block(np.uint8, 64)
    scratch.fill([[outside.items.tobytes()]] * 4)
    sources = scratch.block.items.copy()
    guest = driver.regions[0]
    for _ in range(8):
        records, packets = collect_virtqueue(side.queue, scratch.address, BATCH_PACKETS)
        item = scratch.block.items[0]
        for a, n, flags in zip(*(item[name][:records] for name in ("address", "length", "flags")), strict=True):
            if flags & DROPPED:  # for its header: nothing is left of it
                assert n == 0
                continue
            assert guest.host <= int(a) < int(a) + int(n) <= guest.host + guest.size
        complete_virtqueue(side.queue, scratch.address, min(packets, 1))
        scratch.block.items[:] = sources
        assert 0 <= deliver_virtqueue(side.queue, scratch.address, scratch.numbers.address, 4, 0, 1514)[0] <= 4
        assert driver.intact()
    assert side.block["last_avail"] == side.block["used_idx"]


def test_buffers_may_lie_in_any_region_but_in_one_only(scratch):
    side = Side()
    driver = side.driver
    (whole,) = driver.regions
    half = whole.size // 2
    regions = [
        Region(whole.guest + half, half, whole.host + half),
        Region(whole.guest, half, whole.host),
        Region(0, 4096, whole.host + half),
    ]
    driver.start(side.block.items[0], regions=regions)
    driver.write(driver.gpa + half, b"second")
    driver.write(driver.gpa + half - 5, b"first")
    driver.add([(driver.gpa + half - 5, 5, 0), (driver.gpa + half, 6, 0), (0, 6, 0)])
    driver.add([(driver.gpa + half - 1, 2, 0)])
    assert collect(side, scratch) == [[b"first", b"second", b"second"]]
    complete_virtqueue(side.queue, scratch.address, 1)
    assert collect(side, scratch) == []
    assert side.violations() == {"bad_address": 1}


# Notifications, start and stop.


def test_the_driver_says_whether_it_wants_interrupts():
    side = Side()
    assert queue_wants_interrupt(side.queue)
    side.driver.want_interrupts(False)
    assert not queue_wants_interrupt(side.queue)


def test_wanting_kicks_again_tells_of_chains_that_came_without_one(scratch):
    side = Side(index=7)
    assert side.driver.wants_kicks
    assert queue_suppress_kicks(side.queue, 1) == 0
    assert not side.driver.wants_kicks
    side.driver.send([b"quiet"])
    collect(side, scratch)
    complete_virtqueue(side.queue, scratch.address, 1)
    assert not side.driver.wants_kicks
    assert side.driver.poll() == 1
    side.driver.send([b"unseen"])
    assert queue_suppress_kicks(side.queue, 0) == 1
    assert side.driver.wants_kicks
    assert side.driver.poll() == 1


def test_a_stopped_queue_is_not_touched(scratch):
    for side in (Side(), Side()):
        side.driver.send([b"x"])
        collect(side, scratch)
        assert stop_virtqueue(side.block.items[0]) == (0, 0)
        memory = side.driver.read(side.driver.gpa, 4096)
        assert complete_virtqueue(side.queue, scratch.address, 1) == 0
        assert collect(side, scratch) == []
        assert deliver(side, scratch, [[b"x"]]) == 0
        assert queue_suppress_kicks(side.queue, 1) == 0
        assert not queue_wants_interrupt(side.queue)
        assert side.driver.read(side.driver.gpa, 4096) == memory


def test_a_queue_never_started_is_not_followed(scratch):
    queue = Block(virtqueue)
    assert collect_virtqueue(queue.address, scratch.address, 10) == (0, 0)
    assert deliver_virtqueue(queue.address, scratch.address, scratch.numbers.address, 1, 0, 1514)[0] == 0
    assert not queue_wants_interrupt(queue.address)


@pytest.mark.parametrize(
    ("error", "geometry"),
    [
        (PeerError, {"size": 0}),
        (PeerError, {"size": 6}),
        (PeerError, {"size": 65536}),
        (PeerError, {"desc": 0x1000_0008}),
        (PeerError, {"avail": 0x1000_0001}),
        (PeerError, {"used": 0x1000_0002}),
        (PeerError, {"desc": 0}),
        (PeerError, {"avail": 0x1000_0000 + (1 << 18) - 20}),
        (PeerError, {"used": 2**64 - 4}),
        (PortError, {"regions": [Region(0, 4096, 4096)] * 33}),
        (PortError, {"regions": [Region(0, 0, 4096)]}),
        (PortError, {"regions": [Region(2**63 - 1, 4096, 4096)]}),
        (PortError, {"header": 11}),
        (PortError, {"mergeable": True}),
    ],
)
def test_an_impossible_queue_is_refused_and_changes_nothing(error, geometry):
    side = Side()
    before = side.block.items.tobytes()
    with pytest.raises(error, match=r"^virtqueue: .*\n        "):
        side.driver.start(side.block.items[0], **geometry)
    assert side.block.items.tobytes() == before


def test_start_needs_no_mock_driver():
    driver = MockDriver()
    queue = Block(virtqueue)
    start_virtqueue(
        queue.items[0], size=4, desc=driver.desc, avail=driver.avail, used=driver.used, regions=driver.regions
    )
    assert queue["state"] == STATE_RUNNING


def scenario():
    """A digest of everything that an hour in the life of two queues leaves behind, host addresses aside."""
    random = np.random.default_rng(1)
    scratch = Batch()
    sender, receiver = Side(32, index=65500), Side(32, index=10, header=12, mergeable=True)
    trace = hashlib.sha256()
    for step in range(60):
        for _ in range(int(random.integers(1, 4))):
            pieces = [random.bytes(int(random.integers(1, 300))) for _ in range(int(random.integers(1, 4)))]
            sender.driver.send(pieces, indirect=bool(random.integers(2)))
            receiver.driver.post([int(random.integers(1, 700)), 200], indirect=bool(random.integers(2)))
        rule, _ = RULES[step % len(RULES)]
        if rule is not head_out_of_range:
            rule(sender.driver, 0)
            rule(receiver.driver, WRITE)
        for _ in range(4):
            records, packets = collect_virtqueue(sender.queue, scratch.address, 1 + step % 5)
            done = deliver_virtqueue(receiver.queue, scratch.address, scratch.numbers.address, packets, 0, 1514)[0]
            completed = complete_virtqueue(sender.queue, scratch.address, done)
            trace.update(f"{records} {packets} {done} {completed}".encode())
        trace.update(repr((sender.driver.reap(), receiver.driver.reap())).encode())
        more = queue_suppress_kicks(receiver.queue, step % 2), queue_suppress_kicks(sender.queue, 0)
        trace.update(repr(more).encode())
        receiver.driver.want_interrupts(step % 3 == 0)
        trace.update(str(bool(queue_wants_interrupt(receiver.queue))).encode())
    for side in (sender, receiver):
        assert side.driver.intact()
        trace.update(repr(side.counts()).encode())
        trace.update(side.driver.read(side.driver.gpa, side.driver.memory))
    return trace.hexdigest() + " " + repr((sender.counts(), receiver.counts()))


def test_the_interpreted_kernels_do_exactly_what_the_compiled_ones_do():
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        pytest.skip("the kernels of this process are interpreted; run without NUMBA_DISABLE_JIT=1 to compare")
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['scenario']())"
    interpreted = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert interpreted.stdout.strip() == scenario()

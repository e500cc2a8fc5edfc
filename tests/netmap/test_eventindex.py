# SPDX-License-Identifier: BSD-2-Clause
# Which kicks and interrupts the event index leaves of a split queue's (virtio 1.2 §2.7.7, §2.7.10).
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.jit.block import Block
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuering import queue_available, queue_suppress_kicks, queue_wants_interrupt
from ptnetmap.netmap.queuestate import virtqueue
from ptnetmap.testing import MockDriver
from tests.netmap.test_virtqueue import Batch

pytestmark = pytest.mark.interpreted


class Side:
    """A split queue with the event index, its driver, and scratch for a batch."""

    def __init__(self, size=8, index=0):
        self.driver = MockDriver(size, index=index, event_idx=True)
        self.block = Block(virtqueue)
        self.queue = self.block.address
        self.driver.start(self.block.items[0])
        self.scratch = Batch()

    def serve(self, packets):
        _, collected = collect_virtqueue(self.queue, self.scratch.address, packets)
        return complete_virtqueue(self.queue, self.scratch.address, collected)


@pytest.mark.parametrize("index", [0, 65533], ids=["start", "wrap"])
def test_a_device_that_waits_for_more_chains_than_there_are_is_kicked_for_the_next(index):
    side = Side(index=index)
    for _ in range(3):
        side.driver.send([b"there"])
    side.driver.kicks()
    assert queue_suppress_kicks(side.queue, 0) == 3
    side.driver.send([b"more"])
    assert side.driver.kicks() == 1


def test_a_device_that_wants_no_kicks_gets_at_most_the_one_that_it_asked_for():
    side = Side()
    queue_suppress_kicks(side.queue, 0)
    queue_suppress_kicks(side.queue, 1)
    for _ in range(8):
        side.driver.send([b"x"])
    assert side.driver.kicks() <= 1
    side.serve(8)
    side.driver.reap()
    for _ in range(8):
        side.driver.send([b"x"])
    assert side.driver.kicks() == 0


def test_a_driver_is_interrupted_when_the_element_it_waits_for_was_used():
    side = Side(index=65530)
    for _ in range(8):
        side.driver.send([b"x"])
    side.driver.want_interrupt_after(4)
    seen = []
    for _ in range(8):
        side.serve(1)
        seen.append(bool(queue_wants_interrupt(side.queue)))
    assert seen == [False] * 4 + [True] + [False] * 3


def test_an_element_in_the_middle_of_a_batch_is_told_of_once():
    side = Side()
    for _ in range(8):
        side.driver.send([b"x"])
    side.driver.want_interrupt_after(2)
    side.serve(6)
    assert queue_wants_interrupt(side.queue)
    assert not queue_wants_interrupt(side.queue)
    side.serve(2)
    assert not queue_wants_interrupt(side.queue)


def test_an_index_that_jumps_while_the_device_asks_for_kicks_breaks_the_queue():
    side = Side()
    side.driver.avail_head["idx"] = 100
    assert queue_suppress_kicks(side.queue, 0) == 0
    assert side.block["bad_index"] == 1


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=30),
    index=st.sampled_from([0, 65520, 32760]),
)
def test_neither_side_sleeps_over_news(steps, index):
    """Both sides sleep once they have said so and found nothing; whoever makes news must then wake the other."""
    side = Side(index=index)
    driver = side.driver
    asleep = False
    for sent, served, sleep in steps:
        for _ in range(min(sent, 8 - driver.outstanding)):
            driver.send([b"x"])
            if driver.kicks():
                asleep = False
        assert not asleep or queue_available(side.queue) == 0
        driver.want_interrupt_after(0)
        if side.serve(served):
            assert queue_wants_interrupt(side.queue)
            driver.reap()
        if sleep:
            asleep = queue_suppress_kicks(side.queue, 0) == 0
    assert driver.intact()
    assert np.uint16(side.block["last_avail"]) == side.block["used_idx"]

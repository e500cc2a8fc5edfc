# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.abi import virtio
from ptnetmap.bhyve.virtio.mock import Buffer, MockQueue
from ptnetmap.bhyve.virtio.queue import Queue
from ptnetmap.errors import GuestError
from ptnetmap.vmm.memory import GuestMemory

BASE = 0x10000
SIZE = 8
WRITE = virtio.VIRTQ_DESC_F_WRITE
NEXT = virtio.VIRTQ_DESC_F_NEXT
INDIRECT = virtio.VIRTQ_DESC_F_INDIRECT


@pytest.fixture
def memory():
    with GuestMemory(1 << 20) as memory:
        yield memory


@pytest.fixture
def mock(memory):
    return MockQueue(memory, BASE, SIZE, limit=1 << 19)


@pytest.fixture
def queue(memory, mock):
    queue = Queue(memory, 3, 256)
    queue.size, queue.desc, queue.avail, queue.used = mock.size, mock.desc, mock.avail, mock.used
    queue.indirect = True
    queue.start()
    yield queue
    queue.stop()


@pytest.mark.parametrize("indirect", [False, True])
def test_a_chain_is_two_streams_of_bytes_however_it_is_cut(queue, mock, indirect):
    head = mock.send([b"ab", b"cde", b"f"], [1, 4], indirect=indirect)
    chain = queue.take()
    assert (chain.head, chain.readable_bytes, chain.writable_bytes) == (head, 6, 5)
    assert [chain.read(*slice_) for slice_ in [(6,), (99,), (2, 1), (3, 4), (1, 6)]] == [
        b"abcdef",
        b"abcdef",
        b"bc",
        b"ef",
        b"",
    ]
    assert chain.write(b"123456789") == 5
    assert chain.write(b"XY", 3) == 2
    queue.put(chain, 5)
    assert mock.reap() == [(head, 5, b"123XY")]


def test_chains_return_in_any_order(queue, mock):
    heads = [mock.post([4]) for _ in range(3)]
    chains = [queue.take() for _ in range(3)]
    for chain in reversed(chains):
        chain.write(bytes([chain.head] * 4))
        queue.put(chain, 4)
    assert mock.reap() == [(head, 4, bytes([head] * 4)) for head in reversed(heads)]


def test_the_indices_wrap_at_65536(queue, mock):
    start = 65536 - SIZE
    mock.avail_head["idx"] = start
    queue.start(start, start)
    for number in range(3 * SIZE):
        mock.descriptors[number % SIZE] = (mock.desc, 1, WRITE, 0)
        mock.offer(number % SIZE)
        queue.put(queue.take(), number)
    assert (queue.last_avail, queue.used_idx) == (2 * SIZE, 2 * SIZE)
    assert int(mock.used_head["idx"][0]) == 2 * SIZE
    assert mock.used_entries.tolist() == [(i, 2 * SIZE + i) for i in range(SIZE)]


def test_a_queue_can_go_on_where_another_server_left_it(queue, mock):
    mock.avail_head["idx"] = 65535
    queue.start(65535, 65535)
    mock.post([4])
    queue.put(queue.take(), 0)
    assert (queue.state.last_avail, queue.state.used_idx, int(mock.used_head["idx"][0])) == (0, 0, 0)


def test_the_state_says_all_that_another_server_needs(queue, mock):
    mock.post([4])
    queue.take()
    queue.vector = 2
    state = queue.state
    assert (state.index, state.size, state.enabled, state.vector) == (3, SIZE, True, 2)
    assert (state.desc, state.avail, state.used) == (mock.desc, mock.avail, mock.used)
    assert (state.last_avail, state.used_idx, state.event_idx, state.indirect) == (1, 0, False, True)


@pytest.mark.parametrize(
    ("part", "value", "number"),
    [
        ("size", 0, errno.EINVAL),
        ("size", 3, errno.EINVAL),
        ("size", 512, errno.EINVAL),
        ("desc", BASE + 8, errno.EINVAL),
        ("avail", BASE + 1, errno.EINVAL),
        ("used", BASE + 2, errno.EINVAL),
        ("desc", (1 << 20) - 16, errno.EFAULT),
        ("avail", (1 << 20) - 4, errno.EFAULT),
        ("used", (1 << 64) - 4, errno.EFAULT),
    ],
)
def test_an_impossible_geometry_leaves_the_queue_as_it_was(queue, mock, part, value, number):
    mock.post([1])
    setattr(queue, part, value)
    with pytest.raises(GuestError) as caught:
        queue.start()
    assert caught.value.errno == number
    assert "virtqueue 3" in str(caught.value)
    queue.size, queue.desc, queue.avail, queue.used = mock.size, mock.desc, mock.avail, mock.used
    assert queue.take() is not None


RAM = 1 << 20


@pytest.mark.parametrize(
    "descriptors",
    [
        [(BASE, 0, 0, 0)],
        [(RAM, 1, 0, 0)],
        [(RAM - 1, 2, 0, 0)],
        [((1 << 64) - 1, 2, 0, 0)],
        [(BASE, 0xFFFFFFFF, WRITE, 0)],
        [(BASE, 1, NEXT, SIZE)],
        [(BASE, 1, NEXT, 0xFFFF)],
        [(BASE, 1, NEXT, 0)],
        [(BASE, 1, NEXT, 1), (BASE, 1, NEXT, 0)],
        [(BASE, 1, WRITE | NEXT, 1), (BASE, 1, 0, 0)],
        [(BASE, 16, INDIRECT | NEXT, 1), (BASE, 1, 0, 0)],
        [(BASE, 17, INDIRECT, 0)],
        [(BASE, 8, INDIRECT, 0)],
        [(RAM - 16, 32, INDIRECT, 0)],
        [(BASE, 16, INDIRECT, 0)],  # this descriptor again: a table in a table
    ],
)
def test_a_chain_that_breaks_a_rule_changes_nothing(queue, mock, memory, descriptors):
    for place, descriptor in enumerate(descriptors):
        mock.descriptors[place] = descriptor
    mock.offer(0)
    before = memory.read(0, RAM)
    for _ in range(2):
        with pytest.raises(GuestError):
            queue.take()
    after = bytearray(memory.read(0, RAM))
    after[mock.used : mock.used + 2] = before[mock.used : mock.used + 2]  # the flag that asks for no kicks
    assert bytes(after) == before
    assert (queue.last_avail, queue.used_idx) == (0, 0)


def test_a_table_needs_to_be_negotiated(queue, mock):
    queue.indirect = False
    mock.post([4], indirect=True)
    with pytest.raises(GuestError):
        queue.take()


def test_a_chain_may_end_with_a_table(queue, mock):
    table = mock.allocate(32)
    entries = mock.view(table, virtio.virtq_desc, 2)
    entries[0] = (BASE + 0x8000, 3, NEXT, 1)
    entries[1] = (BASE + 0x9000, 5, WRITE, 0)
    mock.descriptors[0] = (BASE + 0x7000, 2, NEXT, 1)
    mock.descriptors[1] = (table, 32, INDIRECT | WRITE, 0)  # its WRITE means nothing
    mock.offer(0)
    chain = queue.take()
    assert chain.readable == [(BASE + 0x7000, 2), (BASE + 0x8000, 3)]
    assert chain.writable == [(BASE + 0x9000, 5)]


def test_a_table_of_a_thousand_and_more_is_refused(queue, mock):
    mock.add([Buffer(BASE, 1)] * 1024, indirect=True)
    assert len(queue.take().readable) == 1024
    mock.add([Buffer(BASE, 1)] * 1025, indirect=True)
    with pytest.raises(GuestError):
        queue.take()


@pytest.mark.parametrize("jump", [SIZE + 1, 0x8000, 0xFFFF])
def test_an_index_that_jumps_is_refused(queue, mock, jump):
    mock.avail_head["idx"] = jump
    with pytest.raises(GuestError):
        queue.take()


def test_no_more_chains_are_out_than_the_queue_has_entries(queue, mock):
    mock.descriptors[0] = (BASE, 1, 0, 0)
    for _ in range(SIZE):
        mock.offer(0)
        assert queue.take() is not None
    assert queue.take() is None
    mock.offer(0)
    with pytest.raises(GuestError):
        queue.take()


def test_a_stopped_queue_touches_nothing(queue, mock, memory):
    mock.post([4])
    chain = queue.take()
    queue.stop()
    before = memory.read(0, RAM)
    queue.put(chain, 4)
    assert (queue.take(), queue.available(), queue.wants_interrupt(), queue.enabled) == (None, 0, False, False)
    assert memory.read(0, RAM) == before


def test_a_driver_is_asked_for_kicks_only_while_nothing_waits(queue, mock):
    assert int(mock.used_head["flags"][0]) == 0
    mock.post([1])
    queue.take()
    assert int(mock.used_head["flags"][0]) == virtio.VIRTQ_USED_F_NO_NOTIFY
    assert queue.take() is None
    assert int(mock.used_head["flags"][0]) == 0


def test_the_event_index_asks_for_a_kick_at_the_next_chain(queue, mock):
    queue.event_idx = True
    for number in range(3):
        mock.post([1])
        queue.take()
        assert queue.take() is None
        assert int(mock.avail_event[0]) == number + 1
    assert int(mock.used_head["flags"][0]) == 0


def test_a_driver_that_wants_no_interrupt_gets_none(queue, mock):
    for flags, wanted in ((virtio.VIRTQ_AVAIL_F_NO_INTERRUPT, False), (0, True)):
        mock.avail_head["flags"] = flags
        mock.post([1])
        queue.put(queue.take(), 0)
        assert queue.wants_interrupt() is wanted
        assert not queue.wants_interrupt()


@pytest.mark.parametrize(
    ("event", "returned", "wanted"), [(0, 1, True), (2, 2, False), (2, 3, True), (0xFFFF, 3, False)]
)
def test_the_event_index_says_at_which_chain_to_interrupt(queue, mock, event, returned, wanted):
    queue.event_idx = True
    mock.used_event[0] = event
    for _ in range(returned):
        mock.post([1])
        queue.put(queue.take(), 0)
    assert queue.wants_interrupt() is wanted


@pytest.mark.parametrize("size", [0, 3, 65536, -1])
def test_a_queue_has_a_power_of_two_of_entries(memory, size):
    with pytest.raises(ValueError, match="power of two"):
        Queue(memory, 0, size)

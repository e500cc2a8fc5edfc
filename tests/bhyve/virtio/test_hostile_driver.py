# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci, virtio
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.device import VirtioDevice
from ptnetmap.bhyve.virtio.mock import MockDriver

SIZE = 8
RAM = 1 << 18
RINGS = 0x10000
TABLES = 0x20000
BUFFERS = 0x28000
ENTRIES = 4
WRITE, NEXT, INDIRECT = virtio.VIRTQ_DESC_F_WRITE, virtio.VIRTQ_DESC_F_NEXT, virtio.VIRTQ_DESC_F_INDIRECT


class Filler(VirtioDevice):
    """Reads all and fills all that it is offered, up to a page of either."""

    name = "virtio-filler"
    virtio_id = abi.VIRTIO_ID_CONSOLE
    class_code = pci.PCIC_OTHER << 16
    queue_sizes = (SIZE,)

    def handle(self, queue, chain):
        chain.read(4096)
        self.complete(queue, chain, chain.write(b"\xee" * min(chain.writable_bytes, 4096)))


@pytest.fixture
def make_pair(make_host):
    """Make a device and a started driver, in a machine of their own."""

    def make(legacy=False, event_idx=True):
        device = Filler(make_host(RAM), Function(0, 3, 0), {})
        driver = MockDriver(device, device.host.memory, legacy=legacy, base=RINGS, span=0x10000)
        driver.start(0xFFFFFFFFFFFFFFFF if event_idx else ~abi.VIRTIO_F_EVENT_IDX)
        return device, driver

    return make


def quickly(examples):
    """Settings for tests that make their machines themselves."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


addresses = st.one_of(
    st.integers(BUFFERS, RAM - 200),
    st.sampled_from(
        [TABLES, TABLES + 16, TABLES + 64, BUFFERS, RAM - 16, RAM - 1, RAM, 3 << 30, 4 << 30, 2**63, 2**64 - 1]
    ),
)
lengths = st.sampled_from([16, 32, 64, 1, 100, 4096, 17, 0, 0x80000000, 0xFFFFFFFF])
flags = st.sampled_from([0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | WRITE, NEXT | INDIRECT, 0xFFFF, 8])
nexts = st.integers(0, SIZE)
descriptors = st.tuples(addresses, lengths, flags, nexts)


def table(entries):
    """Mostly chains from one entry to the next, of good buffers; then again anything."""
    good = st.tuples(
        st.integers(BUFFERS, RAM - 200), st.sampled_from([16, 1, 100]), st.sampled_from([WRITE | NEXT, NEXT, WRITE, 0])
    )
    indirect = st.just((TABLES, ENTRIES * 16, INDIRECT, 0))
    return st.tuples(
        *(st.one_of(good.map(lambda start, i=i: (*start, i + 1)), indirect, descriptors) for i in range(entries))
    ).map(list)


def walk(direct, nested, head):
    """The standard's rules, in one go: the writable buffers of a chain, or None for one that breaks a rule."""
    table, position, inside, seen, ends = direct, head, False, set(), []
    while True:
        if position >= len(table) or position in seen:
            return None
        seen.add(position)
        address, length, flag, following = table[position]
        if not length or address + length > RAM:
            return None
        if flag & INDIRECT:
            start, odd = divmod(address - TABLES, 16)
            if inside or flag & NEXT or length % 16 or odd or start < 0:
                return None
            # What lies after the tables that a test fills is zeroes: descriptors of nothing.
            table = (nested[start:] + [(0, 0, 0, 0)] * (length // 16))[: length // 16]
            position, inside, seen = 0, True, set()
            continue
        ends.append((bool(flag & WRITE), address, length))
        if not flag & NEXT:
            break
        position = following
    if [write for write, _, _ in ends] != sorted(write for write, _, _ in ends):
        return None
    return [(address, length) for write, address, length in ends if write]


def is_usable(device, driver):
    """Whether the device works for a driver that begins anew and behaves."""
    driver.start()
    driver.queues[0].post([5, 6])
    driver.kick(0)
    [used] = driver.queues[0].reap()
    return not driver.needs_reset and used.data == b"\xee" * 11


@quickly(60)
@given(
    direct=table(SIZE),
    nested=table(ENTRIES),
    head=st.integers(0, SIZE),
    legacy=st.booleans(),
)
@example([(BUFFERS, 16, WRITE | NEXT, i + 1 if i < 7 else 0) for i in range(SIZE)], [(0, 0, 0, 0)] * ENTRIES, 0, False)
@example([(TABLES, 64, INDIRECT, 0)] * SIZE, [(BUFFERS, 16, WRITE | NEXT, 1)] * ENTRIES, 0, False)
@example([(TABLES, 64, INDIRECT, 0)] * SIZE, [(TABLES, 64, INDIRECT, 0)] * ENTRIES, 0, True)
def test_a_chain_gets_what_it_offers_or_the_device_needs_a_reset(make_pair, direct, nested, head, legacy):
    device, driver = make_pair(legacy)
    queue = driver.queues[0]
    memory = device.host.memory
    for table, where in ((direct, queue.descriptors), (nested, queue.view(TABLES, virtio.virtq_desc, ENTRIES))):
        for place, descriptor in enumerate(table):
            where[place] = descriptor
    offered = walk(direct, nested, head)
    before = bytearray(memory.read(0, RAM))
    queue.offer(head)
    before[queue.avail : queue.used] = memory.read(queue.avail, queue.used - queue.avail)
    driver.kick(0)

    assert driver.needs_reset == (offered is None)
    assert bool(device.error) == (offered is None)
    assert int(queue.used_head["idx"][0]) == (offered is not None)
    after = bytearray(memory.read(0, RAM))
    room = 4096
    for address, length in offered or ():
        size = min(length, room)
        before[address : address + size] = b"\xee" * size
        room -= size
    used = slice(queue.used, queue.used + virtio.virtq_used_size(SIZE))
    before[used] = after[used]
    assert after == before
    assert is_usable(device, driver)
    device.close()
    device.host.close()


@quickly(60)
@given(data=st.data(), event_idx=st.booleans())
def test_a_driver_that_writes_anything_anywhere_harms_only_itself(make_pair, data, event_idx):
    device, driver = make_pair(event_idx=event_idx)
    queue = driver.queues[0]
    for _ in range(data.draw(st.integers(1, 6))):
        match data.draw(st.sampled_from(["descriptor", "index", "entry", "rings", "offer", "used", "place", "status"])):
            case "descriptor":
                # In the rings too: the device writes over its own queue then.
                anywhere = st.one_of(addresses, st.integers(queue.desc, queue.used + 70))
                fields = data.draw(st.tuples(anywhere, lengths, flags, nexts))
                queue.descriptors[data.draw(st.integers(0, SIZE - 1))] = fields
            case "index":
                queue.avail_head["idx"] = data.draw(st.integers(0, 0xFFFF))
            case "entry":
                queue.avail_entries[data.draw(st.integers(0, SIZE - 1))] = data.draw(st.integers(0, 0xFFFF))
            case "rings":
                start = data.draw(st.integers(queue.desc, queue.used + 70))
                device.host.memory.write(start, data.draw(st.binary(max_size=40)))
            case "offer":
                queue.offer(data.draw(st.integers(0, SIZE)))
            case "used":
                queue.used_head["idx"] = data.draw(st.integers(0, 0xFFFF))
            case "place":
                queue_register = data.draw(
                    st.sampled_from(["queue_size", "queue_desc", "queue_driver", "queue_device"])
                )
                driver.write(queue_register, data.draw(st.integers(0, 2**64 - 1)) & 0xFFFF_FFFF_FFFF_FFFF)
            case "status":
                driver.status = data.draw(st.integers(0, 255))
        driver.kick(0)
    assert is_usable(device, driver)
    device.close()
    device.host.close()


@quickly(60)
@given(
    accesses=st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([0, 2]),
            st.one_of(
                st.integers(0, 31),
                st.sampled_from([0x1000, 0x2000, 0x2004, 0x3000, 0x3002, 0x3004, 0x3FF8]),
                st.integers(0, 63),
            ),
            st.sampled_from([1, 2, 4, 8]),
            st.one_of(st.integers(0, 16), st.integers(0, 2**64 - 1)),
        ),
        max_size=30,
    ),
    config=st.lists(st.tuples(st.integers(0, 63), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)), max_size=10),
)
def test_any_access_to_any_register_is_taken(make_pair, accesses, config):
    device, driver = make_pair()
    for write, bar, offset, size, value in accesses:
        if offset + size > device.bars[bar].size:
            continue
        if write:
            device.bar_write(bar, offset, size, value & ((1 << 8 * size) - 1))
        else:
            assert 0 <= device.bar_read(bar, offset, size) < 1 << 8 * size
    for word, size, value in config:
        device.config_write(0x40 + word * 4 % 192 & -size, size, value & ((1 << 8 * size) - 1))
        assert 0 <= device.config_read(0x40 + word * 4 % 192 & -size, size) < 1 << 8 * size
    assert is_usable(device, driver)
    device.close()
    device.host.close()

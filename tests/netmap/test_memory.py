# SPDX-License-Identifier: BSD-2-Clause
import errno
import os
from mmap import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import MemoryPoolError, PortError
from ptnetmap.netmap.allocator import MAX_ID, Allocator, AllocatorTable, ObjectPool
from ptnetmap.netmap.geometry import global_geometry, make_pool, private_geometry
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted

# Pools -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pool():
    return ObjectPool(make_pool("buf", 2048, 64), reserved=2)


def test_a_pool_gives_its_lowest_free_objects_first(pool):
    assert pool.allocate(3, "x") == [2, 3, 4]
    pool.release([3])
    assert pool.allocate(2, "x") == [3, 5]


def test_a_pool_that_has_too_few_objects_gives_none(pool):
    pool.allocate(60, "x")
    with pytest.raises(MemoryPoolError) as refused:
        pool.allocate(3, "three things")
    assert pool.available == 2
    assert refused.value.errno == errno.ENOMEM


def test_the_error_of_an_empty_pool_names_what_was_asked_what_is_left_and_the_knob(pool):
    with pytest.raises(MemoryPoolError) as refused:
        pool.allocate(63, "three things")
    assert str(refused.value) == (
        "netmap: cannot allocate three things: buf pool exhausted "
        "(asked for 63 objects of 2,048 bytes, 62 of 64 are free)\n"
        "        use fewer slots, rings or extra buffers, or open the first port of the region with more buffers (buf_num=)"
    )


@given(st.lists(st.integers(-3, 70), max_size=30), st.integers(0, 62))
@settings(max_examples=50)
def test_releasing_numbers_that_are_reserved_free_or_out_of_range_frees_nothing_else(numbers, taken):
    pool = ObjectPool(make_pool("buf", 2048, 64), reserved=2)
    pool.allocate(taken, "x")
    mine = {i for i in numbers if 2 <= i < taken + 2}
    assert pool.release(numbers) == len(mine)
    assert pool.available == 62 - taken + len(mine)


def test_allocator_ids_grow_skip_those_in_use_and_never_are_zero_or_the_global_one():
    table = AllocatorTable(global_geometry())
    shape = private_geometry(1, 1, 64, 64)
    first = table.create(shape)
    assert first.id == 2
    table._last = MAX_ID - 1
    assert [table.create(shape).id for _ in range(3)] == [MAX_ID, 3, 4]


def test_an_allocator_has_memory_while_it_has_users_only():
    allocator = Allocator(5, private_geometry(1, 1, 64, 64))
    assert not allocator.active
    with pytest.raises(MemoryPoolError, match="no port uses it"):
        _ = allocator.region
    allocator.retain()
    allocator.retain()
    allocator.bufs.allocate(10, "x")
    allocator.drop()
    assert allocator.active
    allocator.drop()
    assert not allocator.active
    allocator.retain()
    assert allocator.bufs.available == allocator.geometry.buf_pool.objtotal - 2


# The region, byte by byte ----------------------------------------------------------------------------------------------


@pytest.fixture
def shared_view():
    """Map a port's region once more through its memfd, as another process would."""
    maps = []

    def view(port):
        maps.append(mmap(os.dup(port.region_fd), port.memsize))
        return maps[-1]

    yield view
    for mapping in maps:
        mapping.close()


def test_a_default_vale_ports_region_has_upstreams_size(nm):
    with nm.open("vale0:a") as port:
        assert port.memsize == 42_369_024 == os.fstat(port.region_fd).st_size


def test_a_region_can_neither_shrink_nor_grow(nm):
    with nm.open("vale0:a") as port:
        for size in (port.memsize - 4096, port.memsize + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(port.region_fd, size)


def test_netmap_if_and_rings_lie_where_a_c_program_looks_for_them(nm, shared_view):
    with nm.open("vale0:a@conf:tx-rings=2,rx-rings=3,tx-slots=64,rx-slots=128") as port:
        raw = shared_view(port)
        at = port.nifp_offset
        nifp = np.frombuffer(raw, abi.netmap_if, 1, at)[0]
        assert nifp["ni_name"] == b"vale0:a"
        assert (nifp["ni_version"], nifp["ni_flags"]) == (14, abi.NI_PRIV_MEM)
        assert (nifp["ni_tx_rings"], nifp["ni_rx_rings"]) == (2, 3)
        assert (nifp["ni_host_tx_rings"], nifp["ni_host_rx_rings"]) == (1, 1)
        offsets = np.frombuffer(raw, np.int64, 7, at + 56).tolist()
        # NIC TX rings, the host TX ring (nobody's: 0), NIC RX rings, the host RX ring.
        assert [bool(o) for o in offsets] == [True, True, False, True, True, True, False]
        geometry = private_geometry(2, 3, 64, 128)
        for place, (direction, number, slots, rings) in {
            0: (0, 0, 64, port.tx_rings),
            1: (0, 1, 64, port.tx_rings),
            3: (1, 0, 128, port.rx_rings),
            4: (1, 1, 128, port.rx_rings),
            5: (1, 2, 128, port.rx_rings),
        }.items():
            ring_at = at + offsets[place]
            assert ring_at == rings[number].offset
            header = np.frombuffer(raw, abi.ring, 1, ring_at)[0]
            assert (header["dir"], header["ringid"], header["num_slots"]) == (direction, number, slots)
            assert header["nr_buf_size"] == 2048
            assert ring_at + header["buf_ofs"] == geometry.buf_offset


def test_a_buffer_is_found_from_a_rings_buf_ofs_and_the_slots_index(nm, shared_view, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        a.send(frame(fill=7))
        b.rxsync()
        raw = shared_view(b)
        ring_at = b.rx_rings[0].offset
        buf_ofs = int.from_bytes(raw[ring_at : ring_at + 8], "little", signed=True)
        buf_idx = int.from_bytes(raw[ring_at + 256 : ring_at + 260], "little")
        length = int.from_bytes(raw[ring_at + 260 : ring_at + 262], "little")
        start = ring_at + buf_ofs + 2048 * buf_idx
        assert raw[start : start + length] == frame(fill=7)


def test_what_another_mapping_writes_is_what_is_sent(nm, shared_view, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        raw = shared_view(a)
        ring_at = a.tx_rings[0].offset
        start = ring_at + int(a.tx_rings[0].header["buf_ofs"][0]) + 2048 * int(a.tx_rings[0].slots["buf_idx"][0])
        raw[start : start + 60] = frame(fill=9)
        raw[ring_at + 260 : ring_at + 262] = (60).to_bytes(2, "little")
        raw[ring_at + 20 : ring_at + 28] = (1).to_bytes(4, "little") * 2  # head and cur
        a.txsync()
        assert b.recv(timeout=0) == [frame(fill=9)]


def test_rings_that_a_descriptor_has_not_bound_have_offset_zero_for_it(nm):
    with nm.open("vale0:a@conf:rings=2"), nm.open("vale0:a-1/R") as second:
        count = 2 + 2 + 2
        offsets = second._region.view(second.nifp_offset + 56, np.int64, count).tolist()
        assert [bool(o) for o in offsets] == [False, False, False, False, True, False]


def test_descriptors_of_one_port_have_a_netmap_if_each_and_share_the_rings(nm):
    with nm.open("vale0:a") as first, nm.open("vale0:a") as second:
        assert first.nifp_offset != second.nifp_offset
        assert first.tx_rings[0].offset == second.tx_rings[0].offset


def test_both_ends_of_a_pipe_begin_with_the_same_buffers_in_their_parents_region(nm):
    with nm.open("vale0:a") as parent, nm.open("vale0:a{1") as master, nm.open("vale0:a}1") as slave:
        assert parent.mem_id == master.mem_id == slave.mem_id
        for tx, rx in ((master, slave), (slave, master)):
            assert (tx.tx_rings[0].slots["buf_idx"] == rx.rx_rings[0].slots["buf_idx"]).all()


def test_an_open_vale_port_takes_only_the_memory_it_touches(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        resident = [p.adapter.allocator.region.resident() for p in (a, b)]
        # A page of netmap_if, and two rings of 16,640 bytes.
        assert max(resident) <= 4096 + 2 * 5 * 4096
        a.send([frame()] * 16)
        assert len(b.recv(timeout=0)) == 16
        after = [p.adapter.allocator.region.resident() for p in (a, b)]
        assert [x - y for x, y in zip(after, resident, strict=True)] == [8 * 4096, 8 * 4096]


def test_arrays_outlive_their_port(nm):
    with nm.open("vale0:a") as port:
        buffer = port.tx_rings[0].buffer(0)
        slots = port.tx_rings[0].slots
    buffer[:] = 1
    assert len(slots) == 1024


# Extra buffers ---------------------------------------------------------------------------------------------------------


def chain(port):
    ring = (port.tx_rings or port.rx_rings)[0]
    seen = []
    index = int(port.interface["ni_bufs_head"][0])
    while index:
        seen.append(index)
        index = int(ring.buffer_at(index)[:4].view(np.uint32)[0])
    return seen


def test_extra_buffers_are_granted_as_asked_and_linked(nm):
    with nm.open("vale0:a", extra_bufs=20000) as port:
        listed = chain(port)
        assert port.extra_bufs == len(listed) == len(set(listed)) == 20000
        assert set(listed).isdisjoint(port.tx_rings[0].slots["buf_idx"].tolist())


def test_without_room_fewer_extra_buffers_are_granted(nm):
    with nm.open("vale0:a", extra_bufs=10) as first, nm.open("vale0:a", extra_bufs=1_000_000) as second:
        free = first.adapter.allocator.bufs
        assert free.available == 0
        assert second.extra_bufs == len(chain(second)) < 1_000_000


def test_a_negative_number_of_extra_buffers_is_refused(nm):
    with nm.open("vale0:a") as port:
        with pytest.raises(PortError) as refused:
            nm.open("vale0:a", extra_bufs=-1)
        assert refused.value.errno == errno.EINVAL
        assert port.adapter.references == 1


@pytest.fixture
def region(lax):
    """A port that keeps a region alive, and how many of its buffers are free then."""
    with lax.open("vale0:keeper") as keeper:
        allocator = keeper.adapter.allocator
        free = allocator.bufs.available

        def check():
            (found,) = [a for a in lax.audit() if a.allocator == allocator.id]
            assert found.ok, str(found)
            assert found.lost == []
            assert found.free == free

        yield lax, keeper, check


def swap_first_extra(port):
    """Put the first extra buffer into TX slot 0, as a zero-copy program does; return what was there."""
    ring = port.tx_rings[0]
    extra, old = int(port.interface["ni_bufs_head"][0]), int(ring.slots["buf_idx"][0])
    following = int(ring.buffer_at(extra)[:4].view(np.uint32)[0])
    ring.slots["buf_idx"][0] = extra
    return extra, old, following


def test_closing_gives_back_a_list_that_was_linked_again(region):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}", extra_bufs=5) as port:
        _, old, following = swap_first_extra(port)
        port.tx_rings[0].buffer_at(old)[:4].view(np.uint32)[0] = following
        port.interface["ni_bufs_head"] = old
        assert all(a.ok for a in nm.audit())
    check()


@pytest.mark.parametrize("head", [0, 1, 0xFFFFFFFF, None])
def test_closing_gives_back_extra_buffers_whatever_the_list_says(region, head):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}", extra_bufs=5) as port:
        swap_first_extra(port)
        if head is not None:  # else the list still begins with the buffer that is in the ring now
            port.interface["ni_bufs_head"] = head
    check()


def test_closing_gives_back_extra_buffers_whose_list_is_a_loop_into_somebody_elses(region):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}", extra_bufs=5) as port:
        victim = int(keeper.rx_rings[0].slots["buf_idx"][3])
        head = int(port.interface["ni_bufs_head"][0])
        ring = port.tx_rings[0]
        ring.buffer_at(head)[:4].view(np.uint32)[0] = victim
        ring.buffer_at(victim)[:4].view(np.uint32)[0] = head
    check()


def test_buffers_in_the_hands_of_one_program_are_not_given_away_when_another_closes(region):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}", extra_bufs=5) as holder:
        held = chain(holder)
        holder.interface["ni_bufs_head"] = 0  # all five are in the program's hands
        with nm.open(f"vale0:y@{keeper.mem_id}") as other:
            other.tx_rings[0].slots["buf_idx"][:8] = 0
        with nm.open(f"vale0:z@{keeper.mem_id}", extra_bufs=100_000) as greedy:
            assert set(chain(greedy)).isdisjoint(held)
    check()


# The audit -------------------------------------------------------------------------------------------------------------


def report(nm, port):
    (found,) = [a for a in nm.audit() if a.allocator == port.mem_id]
    return found


def test_an_honest_region_has_one_owner_for_every_buffer(nm, frame):
    with nm.open("netmap:p{1") as a, nm.open("netmap:p}1") as b:
        a.send([frame()] * 100)
        b.recv(40, timeout=0)
        found = report(nm, a)
        assert found.ok
        assert found.owned == 2048
        assert found.free + found.owned + 2 == found.total
        assert (found.lost, found.doubled, found.invalid) == ([], [], [])


def test_the_audit_names_a_buffer_that_is_in_two_slots_and_the_one_that_is_in_none(lax):
    with lax.open("vale0:a") as port:
        slots = port.tx_rings[0].slots["buf_idx"]
        twice, gone = int(slots[3]), int(slots[4])
        slots[4] = twice
        found = report(lax, port)
        assert not found.ok
        assert (found.doubled, found.lost, found.invalid) == ([twice], [gone], [])
        assert found.owners == {twice: ["vale0:a TX ring 0"]}


@pytest.mark.parametrize("number", [1, 5000, 20482, 0xFFFFFFFF])
def test_the_audit_names_a_slot_with_a_reserved_free_or_impossible_buffer(lax, number):
    with lax.open("vale0:a") as port:
        slots = port.rx_rings[0].slots["buf_idx"]
        gone = int(slots[0])
        slots[0] = number
        found = report(lax, port)
        assert not found.ok
        assert (found.invalid, found.lost, found.doubled) == ([number], [gone], [])
        assert found.owners == {number: ["vale0:a RX ring 0"]}


def test_the_audit_blames_everyone_who_names_a_doubled_buffer(lax):
    with lax.open("vale0:a") as a, lax.open(f"vale0:b@{a.mem_id}") as b:
        stolen = int(a.rx_rings[0].slots["buf_idx"][0])
        b.tx_rings[0].slots["buf_idx"][0] = stolen
        found = report(lax, a)
        assert sorted(found.owners[stolen]) == ["vale0:a RX ring 0", "vale0:b TX ring 0"]


def test_extra_buffers_in_the_programs_hands_are_loose_and_not_lost(lax):
    with lax.open("vale0:a", extra_bufs=4) as port:
        port.interface["ni_bufs_head"] = 0
        found = report(lax, port)
        assert len(found.lost) == found.loose == 4
        assert found.ok


HOSTILE = {
    "zeros": lambda slots, _: slots.fill(0),
    "ones": lambda slots, _: slots.fill(0xFFFFFFFF),
    "all the same": lambda slots, _: slots.fill(slots[0]),
    "somebody else's": lambda slots, other: np.copyto(slots, other),
    "free ones": lambda slots, _: np.copyto(slots, np.arange(len(slots), dtype=np.uint32) + 15000),
}


@pytest.mark.parametrize("write", HOSTILE.values(), ids=HOSTILE)
def test_closing_a_port_that_wrote_nonsense_loses_nothing_in_a_shared_region(region, write):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}", extra_bufs=7) as port:
        write(port.tx_rings[0].slots["buf_idx"], keeper.tx_rings[0].slots["buf_idx"])
        write(port.rx_rings[0].slots["buf_idx"], keeper.tx_rings[0].slots["buf_idx"])
        port.interface["ni_bufs_head"] = int(keeper.rx_rings[0].slots["buf_idx"][0])
    check()


@pytest.mark.parametrize("write", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_closing_a_pipe_whose_end_wrote_nonsense_loses_nothing(region, write, end, frame):
    nm, keeper, check = region
    with nm.open("vale0:keeper{1") as sender, nm.open("vale0:keeper}1") as receiver:
        sender.send([frame()] * 20)
        receiver.recv(7, timeout=0)
        rings = sender.tx_rings if end == "sender" else receiver.rx_rings
        write(rings[0].slots["buf_idx"], keeper.tx_rings[0].slots["buf_idx"])
        sender.txsync()
        receiver.rxsync()
    check()


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 2**32 - 1) | st.integers(0, 200)), max_size=20))
@settings(max_examples=40, deadline=None)
def test_no_writes_to_slots_cost_a_shared_region_a_buffer(writes):
    with Netmap() as nm, nm.open("vale0:keeper", tx_slots=16, rx_slots=16) as keeper:
        allocator = keeper.adapter.allocator
        free = allocator.bufs.available
        with nm.open(f"vale0:x@{keeper.mem_id}", tx_slots=16, rx_slots=16, extra_bufs=3) as port:
            for place, number in writes:
                ring = (port.tx_rings + port.rx_rings)[place // 16]
                ring.slots["buf_idx"][place % 16] = number
            port.txsync()
        (found,) = nm.audit()
        assert found.ok
        assert found.lost == []
        assert allocator.bufs.available == free


def test_buffers_swapped_between_the_rings_of_one_region_go_back_to_it(region):
    nm, keeper, check = region
    with nm.open(f"vale0:x@{keeper.mem_id}") as port:
        mine, theirs = port.tx_rings[0].slots["buf_idx"], keeper.tx_rings[0].slots["buf_idx"]
        mine[:50], theirs[:50] = theirs[:50].copy(), mine[:50].copy()
        assert all(a.ok for a in nm.audit())
    check()

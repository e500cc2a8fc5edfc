# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.errors import MemoryPoolError
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted


def test_ports_share_memory_by_id_and_by_name(nm):
    with nm.open("vale0:a") as a:
        with nm.open(f"vale0:b@{a.mem_id}") as b, nm.open("vale0:c@share=vale0:a") as c:
            assert a.mem_id == b.mem_id == c.mem_id
            assert b.region_fd == a.region_fd
        with nm.open("netmap:p{1") as pipe, nm.open("vale0:d@share=netmap:p{1") as d:
            assert d.mem_id == pipe.mem_id != a.mem_id


def test_private_memory_is_nobody_elses(switch):
    a, b = switch
    assert a.mem_id != b.mem_id


@pytest.mark.parametrize("share", ["vale0:x", "netmap:x", "netmap:x{1"])
def test_the_memory_of_a_port_that_does_not_exist_cannot_be_shared(nm, share, refusal):
    refusal("ENXIO", nm.open, f"vale0:a@share={share}", match="share")


def test_an_unknown_memory_id_is_refused_and_leaves_nothing_behind(nm, refusal):
    refusal("EINVAL", nm.open, "vale0:a@77", kind=MemoryPoolError, match="ids in use are 1")
    refusal("EINVAL", nm.open, "netmap:p{1@77", kind=MemoryPoolError)
    assert nm.list() == []
    assert nm._directory.adapters == {}


def test_a_port_that_is_open_does_not_move_to_other_memory(nm, refusal):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("netmap:p{1") as pipe:
        refusal("EINVAL", nm.open, f"vale0:a@{b.mem_id}", match="uses")
        refusal("EINVAL", nm.open, f"netmap:p}}1@{a.mem_id}")
        with nm.open(f"vale0:a@{a.mem_id}"), nm.open(f"netmap:p}}1@{pipe.mem_id}"):
            pass


def test_memory_goes_with_its_last_user(nm, refusal):
    with nm.open("vale0:a") as a:
        shared = a.mem_id
        b = nm.open(f"vale0:b@{shared}")
    with nm.open(f"vale0:c@{shared}"):
        b.close()
    refusal("EINVAL", nm.open, f"vale0:d@{shared}", kind=MemoryPoolError)


def test_rings_of_4096_slots_need_bigger_objects_than_the_global_regions(nm):
    with pytest.raises(MemoryPoolError) as refused:
        nm.open("vale0:a@1@conf:slots=4096")
    assert refused.value.errno == errno.ENOMEM
    assert str(refused.value) == (
        "netmap: cannot size the ring pool: asked for rings of 4,096 slots = 65,792 bytes each, "
        "and pool objects are 36,864 bytes\n"
        "        use fewer slots (up to 2,288), or set ring_size to 65,792 or more"
    )
    assert nm.list() == []
    with nm.open("vale0:a@conf:slots=4096") as port:
        assert port.memsize > 42_369_024


@pytest.mark.parametrize(
    ("pool", "knob", "pipes"),
    [("ring", "ring_num=", {"buf_num": 40000}), ("buf", "buf_num=", {"ring_num": 200})],
)
def test_pipes_take_rings_and_buffers_until_there_are_none_and_the_error_says_of_what(pool, knob, pipes):
    with Netmap(**pipes) as nm:
        parent = nm.open("vale0:a")
        allocator = parent.adapter.allocator
        while min(allocator.rings.available // 4, allocator.bufs.available // 2048) > 0:
            nm.open(f"vale0:a{{{len(nm._directory.pipes)}")
        before = [allocator.rings.available, allocator.bufs.available]
        with pytest.raises(MemoryPoolError, match=f"{pool} pool exhausted") as refused:
            nm.open("vale0:a{too_many")
        assert refused.value.errno == errno.ENOMEM
        assert knob in str(refused.value)
        assert before == [allocator.rings.available, allocator.bufs.available]
        assert all(a.ok for a in nm.audit())
        assert ("vale0:a", "too_many") not in nm._directory.pipes


def test_descriptors_take_netmap_ifs_until_there_are_none(nm):
    ports = []
    with pytest.raises(MemoryPoolError, match="if pool exhausted") as refused:
        ports.extend(nm.open("vale0:a") for _ in range(100))
    assert refused.value.errno == errno.ENOMEM
    for port in list(nm._ports)[1:]:
        port.close()
    with nm.open("vale0:a"):
        pass


def test_pool_sizes_of_a_runtime_shape_its_private_regions(frame):
    with Netmap(buf_size=4096) as nm, nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        assert a.tx_rings[0].nr_buf_size == 4096
        a.send(frame(size=3000))
        assert b.recv(timeout=0) == [frame(size=3000)]


@pytest.mark.parametrize("pools", [{"buf_size": 1 << 20}, {"ring_size": 1 << 20}, {"buf_num": 2_000_000}])
def test_impossible_pool_sizes_are_refused_at_once(pools, refusal):
    refusal("EINVAL", Netmap, kind=MemoryPoolError, **pools)


def test_a_null_port_is_a_handle_on_memory(nm, frame, refusal):
    with nm.open("vale0:a") as a, nm.null(a.mem_id, tx_rings=1, rx_rings=2, slots=64) as port:
        assert port.region_fd == a.region_fd
        assert (len(port.tx_rings), len(port.rx_rings)) == (1, 2)
        port.tx_rings[0].advance(3)
        port.txsync()
        port.rxsync()
        assert port.stats.tx_packets == 0
        assert port.tx_rings[0].tail == 63
        refusal("EIO", port.send, frame(), match="handle on memory")
        assert port.recv(timeout=0) == []


def test_a_null_port_may_have_no_rings_and_keeps_the_memory(nm):
    with nm.open("vale0:a") as a:
        null = nm.null(a.mem_id)
    assert (null.tx_rings, null.rx_rings) == ([], [])
    with nm.open(f"vale0:b@{null.mem_id}") as b:
        assert b.region_fd == null.region_fd
    null.close()


def test_a_null_port_without_memory_is_refused(nm, refusal):
    refusal("EINVAL", nm.null, 0)
    refusal("EINVAL", nm.null, 99, kind=MemoryPoolError)

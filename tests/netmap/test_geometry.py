# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import MemoryPoolError
from ptnetmap.netmap.geometry import (
    MAX_CLUSTER,
    PAGE,
    Geometry,
    Pool,
    cluster_objects,
    global_geometry,
    make_pool,
    nic_geometry,
    private_geometry,
)


def pools(geometry):
    return geometry.if_pool, geometry.ring_pool, geometry.buf_pool


def test_the_global_region_has_the_size_that_upstreams_tools_print():
    geometry = global_geometry()
    assert pools(geometry) == (Pool("if", 1024, 100), Pool("ring", 36864, 200), Pool("buf", 2048, 163840))
    assert geometry.total == 334_980 * 1024


def test_a_default_vale_port_has_the_size_that_guests_see_as_their_memory_device():
    geometry = private_geometry(1, 1, 1024, 1024)
    assert pools(geometry) == (Pool("if", 1024, 12), Pool("ring", 20480, 20), Pool("buf", 2048, 20482))
    assert geometry.total == 42_369_024 == 0x2868000


def test_a_small_port_without_pipes_gets_upstreams_minimum():
    geometry = private_geometry(1, 1, 64, 64, pipes=0)
    assert pools(geometry) == (Pool("if", 1024, 4), Pool("ring", 20480, 4), Pool("buf", 2048, 4098))


def test_pools_lie_end_to_end_from_the_regions_beginning():
    geometry = private_geometry(1, 1, 1024, 1024)
    assert (geometry.if_offset, geometry.ring_offset) == (0, 12 * 1024)
    assert geometry.buf_offset == geometry.umem_offset == 12 * 1024 + 20 * 20480


def test_a_nics_buffers_begin_one_xdp_headroom_past_a_page():
    plain, nic = private_geometry(2, 2, 1024, 1024), nic_geometry(2, 2, 1024, 1024)
    assert pools(nic) == pools(plain)
    assert nic.umem_offset == plain.buf_offset
    assert nic.buf_offset == plain.buf_offset + 256
    assert nic.total == plain.total + PAGE


def test_overrides_replace_minimums_but_not_what_the_rings_need():
    assert private_geometry(1, 1, 1024, 1024, ring_size=4096).ring_pool.objsize == 16640
    assert private_geometry(1, 1, 1024, 1024, ring_size=65792).ring_pool.objsize == 65792
    assert private_geometry(1, 1, 1024, 1024, buf_size=4096).buf_pool == Pool("buf", 4096, 20482)
    assert private_geometry(1, 1, 1024, 1024, extra_bufs=100).buf_pool.objtotal == 20582
    assert private_geometry(1, 1, 1024, 1024, buf_num=0) == private_geometry(1, 1, 1024, 1024)
    assert global_geometry(ring_size=65792, buf_num=8000).ring_pool == Pool("ring", 65792, 208)


def test_an_unknown_override_is_a_programming_error():
    with pytest.raises(TypeError, match="ring_bytes"):
        private_geometry(1, 1, 1024, 1024, ring_bytes=1)


def test_a_ring_of_4096_slots_needs_65792_bytes_and_does_not_fit_in_the_global_region():
    geometry = global_geometry()
    assert abi.ring_size(4096) == 65792
    geometry.require_ring(2288)
    with pytest.raises(MemoryPoolError) as caught:
        geometry.require_ring(4096)
    assert caught.value.errno == errno.ENOMEM
    assert str(caught.value) == (
        "netmap: cannot size the ring pool: asked for rings of 4,096 slots = 65,792 bytes each, "
        "and pool objects are 36,864 bytes\n"
        "        use fewer slots (up to 2,288), or set ring_size to 65,792 or more"
    )
    private_geometry(1, 1, 4096, 4096).require_ring(4096)
    global_geometry(ring_size=65792).require_ring(4096)


@pytest.mark.parametrize(
    ("make", "pool", "advice"),
    [
        (lambda: global_geometry(if_size=4097), "if", "set if_size within the limits"),
        (lambda: global_geometry(if_num=9), "if", "set if_num to 10 or more"),
        (lambda: global_geometry(if_num=10_001), "if", "if_num"),
        (lambda: global_geometry(ring_size=192), "ring", "set ring_size"),
        (lambda: global_geometry(ring_num=1025), "ring", "use fewer rings or pipes"),
        (lambda: global_geometry(buf_size=65537), "buf", "set buf_size"),
        (lambda: global_geometry(buf_num=1_000_001), "buf", "use fewer slots"),
        (lambda: private_geometry(1, 1, 1024, 1024, pipes=25), "if", "use fewer pipes"),
        (lambda: private_geometry(1, 1, 8177, 8), "ring", "at most 8,176 slots"),
        (lambda: private_geometry(1, 1, 1024, 1024, extra_bufs=1_000_000), "buf", "extra buffers"),
        (lambda: nic_geometry(1, 1, 1024, 1024, buf_size=8192), "buf", "set buf_size"),
        (lambda: Pool("buf", 2048, 3), "buf", "make_pool"),
        (lambda: Pool("if", 100, 4), "if", "make_pool"),
    ],
)
def test_a_shape_outside_of_upstreams_limits_is_einval_and_says_what_to_change(make, pool, advice):
    with pytest.raises(MemoryPoolError) as caught:
        make()
    asked, to_do = str(caught.value).split("\n")
    assert caught.value.errno == errno.EINVAL
    assert asked.startswith(f"netmap: cannot size the {pool} pool: asked for ")
    assert advice in to_do


@pytest.mark.parametrize("slots", [*range(4081, 4085), *range(4089, 4093), 4100])
def test_a_ring_size_without_a_cluster_below_4_mb_is_refused_with_one_that_has(slots):
    with pytest.raises(MemoryPoolError, match=r"limit is 4,194,304\n.*slots, or set ring_size to ") as caught:
        private_geometry(1, 1, slots, slots)
    better = str(caught.value).split("rings of ")[1].split(" slots")[0].replace(",", "")
    assert 0 < int(better) - slots < 8
    private_geometry(1, 1, int(better), int(better))


@pytest.mark.parametrize("what", ["tx_rings", "rx_rings", "tx_slots", "rx_slots", "pipes", "extra_bufs"])
def test_negative_numbers_are_refused(what):
    shape = {"tx_rings": 1, "rx_rings": 1, "tx_slots": 8, "rx_slots": 8, what: -1}
    with pytest.raises(MemoryPoolError, match=f"asked for {what} = -1") as caught:
        private_geometry(**shape)
    assert caught.value.errno == errno.EINVAL


@given(st.integers(1, 1024))
def test_a_cluster_is_the_fewest_objects_that_fill_whole_pages(lines):
    objsize = 64 * lines
    fewest = next(count for count in range(1, 65) if count * objsize % PAGE == 0)
    assert cluster_objects(objsize) == fewest


@given(st.sampled_from(["if", "ring", "buf"]), st.integers(256, 4096), st.integers(4, 100))
def test_a_pool_is_rounded_up_by_less_than_a_line_and_a_cluster(name, objsize, objtotal):
    pool = make_pool(name, objsize, objtotal)
    assert pool.objsize % 64 == 0
    assert 0 <= pool.objsize - objsize < 64
    assert 0 <= pool.objtotal - objtotal < pool.cluster
    assert pool.size == pool.objsize * pool.objtotal
    assert pool.size % PAGE == 0
    assert pool.cluster * pool.objsize <= MAX_CLUSTER


MAKERS = st.sampled_from([private_geometry, nic_geometry])
RINGS = st.integers(0, 16)
SLOTS = st.integers(1, 4080) | st.just(4096)


@given(MAKERS, RINGS, RINGS, SLOTS, SLOTS, st.integers(0, 4), st.integers(0, 1000))
def test_a_region_holds_the_port_its_host_rings_and_its_pipes(make, tx, rx, tx_slots, rx_slots, pipes, extra):
    geometry = make(tx, rx, tx_slots, rx_slots, pipes, extra)
    ifs, rings, bufs = pools(geometry)
    assert ifs.objsize >= abi.netmap_if_size(tx + rx + 2)
    assert ifs.objtotal >= 2 + 4 * pipes
    geometry.require_ring(max(tx_slots, rx_slots))
    assert rings.objtotal >= tx + rx + 2 + 8 * pipes
    assert bufs.objtotal >= (tx + 1 + 4 * pipes) * tx_slots + (rx + 1 + 4 * pipes) * rx_slots + 2 + extra
    assert geometry.ring_offset == ifs.size
    assert geometry.umem_offset == ifs.size + rings.size
    assert geometry.umem_offset % PAGE == geometry.total % PAGE == 0
    assert geometry.buf_offset % PAGE == geometry.shift
    assert 0 <= geometry.total - (geometry.buf_offset + bufs.size) < PAGE
    assert geometry.umem_offset + bufs.size <= geometry.total


@given(st.integers(0, 16), st.integers(1, 2000))
def test_upstreams_layout_has_no_gap_anywhere(rings, slots):
    geometry = private_geometry(rings, rings, slots, slots)
    assert geometry.total == sum(pool.size for pool in pools(geometry))
    assert geometry == Geometry(*pools(geometry))

# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import ctypes
import errno
import gc
import os
import select
import threading
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest
from numba import config

import ptnetmap
from ptnetmap.abi import netmap as abi
from ptnetmap.errors import MemoryPoolError, NameSyntaxError, PeerError, PortError
from ptnetmap.netmap import binding
from ptnetmap.netmap.port import POLLERR, POLLIN, POLLOUT
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

pytestmark = pytest.mark.interpreted

MOREFRAG = abi.NS_MOREFRAG


@pytest.fixture
def small(nm):
    """A pipe of 8 slots: both ends."""
    with nm.open("netmap:p{1", tx_slots=8, rx_slots=8) as tx, nm.open("netmap:p}1") as rx:
        yield tx, rx


@pytest.fixture
def switch(nm):
    """Two ports of 8 slots on a switch."""
    with nm.open("vale0:a", tx_slots=8, rx_slots=8) as a, nm.open("vale0:b", tx_slots=8, rx_slots=8) as b:
        yield a, b


def refusal(number, action, *arguments, kind=PortError, match=None, **keywords):
    """Check that a call is refused with an errno, and a message that says what to do."""
    with pytest.raises(kind, match=match) as refused:
        action(*arguments, **keywords)
    assert refused.value.errno == getattr(errno, number)
    assert "\n        " in str(refused.value)


# Names and modes -------------------------------------------------------------------------------------------------------


def test_the_package_exports_the_runtime():
    assert ptnetmap.Netmap is Netmap


def test_a_text_that_is_no_port_name_is_refused_and_leaves_nothing_behind(nm):
    refusal("EINVAL", nm.open, "eth0", kind=NameSyntaxError)
    assert nm.list() == []


def test_a_name_that_nobody_has_is_enxio(nm):
    refusal("ENXIO", nm.open, "netmap:eth0", match=r"Netmap\.create\('eth0'\)")


@pytest.mark.parametrize("option", ["@extmem:file=/dev/null"])
def test_options_that_are_not_supported_are_refused(nm, option):
    refusal("EOPNOTSUPP", nm.open, f"vale0:a{option}", match="not supported")


@pytest.mark.parametrize("suffix", ["^", "*", "^0"])
def test_a_port_without_host_rings_refuses_modes_with_them_and_is_not_left_behind(nm, suffix):
    for name in ("vale0:a", "netmap:p{1"):
        refusal("EINVAL", nm.open, name + suffix, match="host rings")
    assert nm.list() == []
    assert nm.switches == {}
    assert nm._pipes == {}
    assert nm._adapters == {}


def test_one_ring_is_bound_by_its_number(nm):
    with nm.open("vale0:a-2@conf:rings=4") as port:
        assert [(r.dir, r.ringid) for r in port.tx_rings + port.rx_rings] == [(abi.TX, 2), (abi.RX, 2)]


def test_a_direction_without_that_ring_binds_its_first(nm):
    with nm.open("vale0:a-3@conf:tx-rings=4,rx-rings=2") as port:
        assert [(r.dir, r.ringid) for r in port.tx_rings + port.rx_rings] == [(abi.TX, 3), (abi.RX, 0)]


def test_a_ring_that_neither_direction_has_is_refused(nm):
    refusal("EINVAL", nm.open, "vale0:a-4@conf:tx-rings=4,rx-rings=2", match="4 TX and 2 RX")
    assert nm.list() == []


@pytest.mark.parametrize(("letter", "tx", "rx"), [("T", 2, 0), ("R", 0, 2), ("", 2, 2)])
def test_a_direction_can_be_left_out(nm, letter, tx, rx):
    with nm.open(f"vale0:a{'/' + letter if letter else ''}@conf:rings=2") as port:
        assert (len(port.tx_rings), len(port.rx_rings)) == (tx, rx)


def test_a_direction_that_is_not_bound_cannot_be_used(nm, frame):
    with nm.open("vale0:a/R") as reader, nm.open("vale0:a/T") as sender:
        refusal("EIO", reader.send, frame(), match="without /R")
        refusal("EIO", sender.recv, match="without /T")
        assert not reader.inject(frame())


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("", (1, 1, 1024, 1024)),
        ("@conf:rings=3,slots=64", (3, 3, 64, 64)),
        ("@conf:tx-rings=2,rx-rings=5,tx-slots=32,rx-slots=2048", (2, 5, 32, 2048)),
        ("@conf:rings=17,slots=5000", (16, 16, 4096, 4096)),
    ],
)
def test_conf_shapes_a_port_within_the_limits(nm, asked, given):
    with nm.open(f"vale0:a{asked}") as port:
        tx, rx = port.tx_rings, port.rx_rings
        assert (len(tx), len(rx), tx[0].num_slots, rx[0].num_slots) == given


def test_counts_given_to_open_override_the_names(nm):
    with nm.open("vale0:a@conf:slots=64", tx_slots=128) as port:
        assert (port.tx_rings[0].num_slots, port.rx_rings[0].num_slots) == (128, 64)


def test_who_opens_a_port_that_exists_gets_its_shape(nm):
    with nm.open("vale0:a@conf:slots=64"), nm.open("vale0:a@conf:slots=128") as second:
        assert second.tx_rings[0].num_slots == 64


def test_a_pipe_has_its_parents_slots_and_its_ends_mirror_each_other(nm):
    with (
        nm.open("vale0:a@conf:tx-slots=64,rx-slots=128") as _,
        nm.open("vale0:a{1@conf:tx-rings=3,rx-rings=2") as master,
        nm.open("vale0:a}1") as slave,
    ):
        assert [len(master.tx_rings), len(master.rx_rings)] == [3, 2] == [len(slave.rx_rings), len(slave.tx_rings)]
        assert master.tx_rings[0].num_slots == slave.rx_rings[0].num_slots == 64
        assert master.rx_rings[0].num_slots == slave.tx_rings[0].num_slots == 128


def test_a_pipe_may_have_256_rings_if_its_region_has_room_for_them():
    with Netmap(ring_num=1024) as nm, nm.open("netmap:p{1@conf:rings=300,slots=4") as port:
        assert (len(port.tx_rings), len(port.rx_rings)) == (256, 256)


def test_a_pipe_needs_no_parent_and_takes_it_along_when_it_goes(nm):
    with nm.open("netmap:nothing{1"):
        with nm.open("netmap:nothing") as parent:
            assert parent.tx_rings[0].num_slots == 1024
        refusal("EINVAL", nm.delete, "nothing", match="pipes")
    refusal("ENXIO", nm.open, "netmap:nothing")


def test_data_in_a_pipe_outlives_its_sender(nm, frame):
    with nm.open("netmap:p}1") as rx:
        with nm.open("netmap:p{1") as tx:
            tx.send([frame()] * 3)
        assert len(rx.recv(timeout=0)) == 3


def test_data_in_a_pipe_outlives_its_readers_absence(nm, frame):
    with nm.open("netmap:p{1") as tx:
        with nm.open("netmap:p}1") as rx:
            tx.send([frame()] * 5)
            rx.recv(2, timeout=0)
        tx.send([frame(fill=1)])
        with nm.open("netmap:p}1") as rx:
            assert rx.recv(timeout=0) == [frame()] * 3 + [frame(fill=1)]


# Sharing and exclusion -------------------------------------------------------------------------------------------------


def test_an_exclusive_open_is_refused_while_others_have_the_port(nm):
    with nm.open("vale0:a"):
        refusal("EBUSY", nm.open, "vale0:a/x", match="1 other")
        with nm.open("vale0:a"):
            pass


def test_a_port_held_exclusively_is_free_again_once_closed(nm):
    nm.open("vale0:keep")
    nm.open("vale0:a/x").close()
    with nm.open("vale0:a/x"):
        refusal("EBUSY", nm.open, "vale0:a")


def test_exclusion_is_per_ring(nm):
    with nm.open("vale0:a-0/x@conf:rings=2"), nm.open("vale0:a-1/x"):
        refusal("EBUSY", nm.open, "vale0:a-0")


def test_the_ends_of_a_pipe_exclude_others_separately(nm):
    with nm.open("netmap:p{1/x"), nm.open("netmap:p}1/x"):
        refusal("EBUSY", nm.open, "netmap:p}1")


def test_a_refused_open_changes_nothing(nm):
    with nm.open("vale0:a/x") as port:
        before = (port.adapter.references, port.adapter.allocator.ifs.available)
        for name in ("vale0:a", "vale0:a/x", "vale0:a-7", "vale0:a^"):
            with pytest.raises(PortError):
                nm.open(name)
        assert (port.adapter.references, port.adapter.allocator.ifs.available) == before


def test_descriptors_of_one_port_share_its_rings(nm, frame):
    with nm.open("vale0:a") as first, nm.open("vale0:a") as second, nm.open("vale0:b") as b:
        b.send([frame()] * 2)
        assert len(first.recv(1, timeout=0)) == 1
        assert len(second.recv(timeout=0)) == 1
        second.close()
        b.send(frame())
        assert len(first.recv(timeout=0)) == 1


def test_a_lossless_open_of_what_cannot_be_lossless_leaves_other_descriptors_alone(nm, frame):
    with nm.open("netmap:p{1") as tx, nm.open("netmap:p}1") as rx:
        refusal("EOPNOTSUPP", nm.open, "netmap:p}1", lossless=True)
        tx.send(frame())
        assert rx.recv(timeout=0) == [frame()]
        assert rx.adapter.references == 1


# Memory ----------------------------------------------------------------------------------------------------------------


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
def test_the_memory_of_a_port_that_does_not_exist_cannot_be_shared(nm, share):
    refusal("ENXIO", nm.open, f"vale0:a@share={share}", match="share")


def test_an_unknown_memory_id_is_refused_and_leaves_nothing_behind(nm):
    refusal("EINVAL", nm.open, "vale0:a@77", kind=MemoryPoolError, match="ids in use are 1")
    refusal("EINVAL", nm.open, "netmap:p{1@77", kind=MemoryPoolError)
    assert nm.list() == []
    assert nm._adapters == {}


def test_a_port_that_is_open_does_not_move_to_other_memory(nm):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("netmap:p{1") as pipe:
        refusal("EINVAL", nm.open, f"vale0:a@{b.mem_id}", match="uses")
        refusal("EINVAL", nm.open, f"netmap:p}}1@{a.mem_id}")
        with nm.open(f"vale0:a@{a.mem_id}"), nm.open(f"netmap:p}}1@{pipe.mem_id}"):
            pass


def test_memory_goes_with_its_last_user(nm):
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
            nm.open(f"vale0:a{{{len(nm._pipes)}")
        before = [allocator.rings.available, allocator.bufs.available]
        with pytest.raises(MemoryPoolError, match=f"{pool} pool exhausted") as refused:
            nm.open("vale0:a{too_many")
        assert refused.value.errno == errno.ENOMEM
        assert knob in str(refused.value)
        assert before == [allocator.rings.available, allocator.bufs.available]
        assert all(a.ok for a in nm.audit())
        assert ("vale0:a", "too_many") not in nm._pipes


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
def test_impossible_pool_sizes_are_refused_at_once(pools):
    refusal("EINVAL", Netmap, kind=MemoryPoolError, **pools)


def test_a_null_port_is_a_handle_on_memory(nm, frame):
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


def test_a_null_port_without_memory_is_refused(nm):
    refusal("EINVAL", nm.null, 0)
    refusal("EINVAL", nm.null, 99, kind=MemoryPoolError)


# Switches and persistent ports -----------------------------------------------------------------------------------------


def test_there_are_8_switches_at_most_and_a_ninth_fits_once_one_has_gone(nm):
    ports = [nm.open(f"vale{i}:a") for i in range(8)]
    refusal("ENOMEM", nm.open, "vale8:a", match="8 switches")
    assert len(nm.switches) == 8
    ports[3].close()
    with nm.open("vale8:a"):
        pass


def test_the_limit_of_switches_can_be_set():
    with Netmap(max_switches=1) as nm, nm.open("vale0:a"):
        refusal("ENOMEM", nm.open, "vale1:a", match="max_switches")


def test_a_switch_comes_with_its_first_port_and_goes_with_its_last(nm):
    refusal("ENXIO", nm.switch, "vale0")
    with nm.open("vale0:a"):
        assert nm.switch("vale0").name == "vale0"
    refusal("ENXIO", nm.switch, "vale0")


@pytest.mark.parametrize("name", ["vale0", "valeX", "p{1", "p}1", "sixteen_letters_"])
def test_a_persistent_port_cannot_have_a_name_of_another_kind(nm, name):
    refusal("EINVAL", nm.create, name)


def test_a_persistent_port_is_opened_by_its_name_or_by_that_on_the_switch(nm, frame):
    nm.create("v0", tx_slots=64)
    nm.attach("vale0:v0")
    with nm.open("netmap:v0") as by_name, nm.open("vale0:v0") as on_switch, nm.open("vale0:b") as b:
        assert by_name.adapter is on_switch.adapter
        assert by_name.tx_rings[0].num_slots == 64
        by_name.send(frame())
        assert b.recv(timeout=0) == [frame()]


def test_a_persistent_port_outlives_its_descriptors_but_not_what_is_in_its_rings(nm, frame):
    nm.create("v0")
    nm.attach("vale0:v0")
    with nm.open("vale0:a") as a:
        with nm.open("netmap:v0"):
            a.send(frame())
        a.send(frame())
        assert a.stats.drops == {"no_reader": 1}
        with nm.open("netmap:v0") as again:
            assert again.recv(timeout=0) == []
    assert nm.list() == [("vale0:v0", 0, 0)]


def test_a_persistent_port_that_is_not_attached_loses_what_it_sends_and_says_so(nm, frame):
    nm.create("v0")
    with nm.open("netmap:v0") as port:
        port.send(frame())
        assert port.stats.drops == {"bridge_off": 1}


def test_the_name_of_a_persistent_port_is_not_free_for_an_ephemeral_one(nm):
    nm.create("v0")
    refusal("EINVAL", nm.open, "vale0:v0", match="attach")
    nm.attach("vale0:v0")
    with nm.open("vale0:v0"):
        pass
    refusal("EINVAL", nm.open, "vale1:v0")


def test_a_persistent_port_is_not_attached_under_a_name_that_an_ephemeral_one_has(nm):
    with nm.open("vale0:v0"):
        nm.create("v0")
        refusal("EBUSY", nm.attach, "vale0:v0")


def test_a_port_that_joins_two_switches_belongs_to_the_runtime(nm):
    nm.create("v0")
    nm.attach("vale0:v0")
    with nm.open("vale0:v0"):
        refusal("EBUSY", nm.attach, "vale1:v0")
    assert "vale1" not in nm.switches
    nm.attach("vale1:v0")
    for name in ("netmap:v0", "vale0:v0", "vale1:v0"):
        refusal("EBUSY", nm.open, name, match="joins|other side")
    refusal("EBUSY", nm.detach, "vale0:v0")
    nm.detach("vale1:v0")
    with nm.open("vale0:v0"):
        pass


def test_joining_a_switch_that_there_is_no_room_for_undoes_everything():
    with Netmap(max_switches=1) as nm:
        nm.create("v0")
        nm.attach("vale0:v0")
        refusal("ENOMEM", nm.attach, "vale1:v0")
        with nm.open("vale0:v0"):
            pass
        nm.detach("vale0:v0")
        nm.delete("v0")
        assert list(nm.allocators)[1:] == []


def test_a_pipe_on_the_far_side_of_a_join_keeps_its_memory_after_the_join(nm, frame):
    nm.create("v0")
    nm.attach("vale0:v0")
    nm.attach("vale1:v0")
    with nm.open("vale1:v0{1") as tx, nm.open("vale1:v0}1") as rx:
        nm.detach("vale1:v0")
        tx.send(frame())
        assert rx.recv(timeout=0) == [frame()]
    nm.detach("vale0:v0")
    nm.delete("v0")
    assert list(nm.allocators)[1:] == []


def test_a_port_that_is_there_for_its_pipes_stays_while_it_is_attached(nm, frame):
    with nm.open("netmap:p{1"):
        nm.attach("vale0:p")
    with nm.open("netmap:p") as port, nm.open("vale0:b") as b:
        port.send(frame())
        assert b.recv(timeout=0) == [frame()]
    nm.detach("vale0:p")
    refusal("ENXIO", nm.open, "netmap:p")


@pytest.mark.parametrize(
    ("action", "name", "number"),
    [
        ("attach", "v0", "EINVAL"),
        ("detach", "v0", "EINVAL"),
        ("attach", "vale0:nobody", "ENXIO"),
        ("detach", "vale0:nobody", "ENXIO"),
        ("detach", "vale0:a", "EINVAL"),
        ("delete", "nobody", "ENXIO"),
        ("delete", "vale0:a", "ENXIO"),
    ],
)
def test_control_requests_that_make_no_sense_are_refused(nm, action, name, number):
    nm.create("v0")
    with nm.open("vale0:a"):
        refusal(number, getattr(nm, action), name)


def test_a_port_that_is_open_cannot_be_deleted(nm):
    nm.create("v0")
    with nm.open("netmap:v0"):
        refusal("EBUSY", nm.delete, "v0", match="open")
    nm.delete("v0")
    refusal("ENXIO", nm.delete, "v0")


def test_list_tells_of_all_ports_with_their_switches_and_numbers(nm):
    with nm.open("vale0:a") as a, nm.open("vale1:b"), nm.open("vale0:c"):
        assert nm.list() == [("vale0:a", 0, 0), ("vale0:c", 0, 1), ("vale1:b", 1, 0)]
        a.close()
        with nm.open("vale0:d"):
            assert nm.list() == [("vale0:d", 0, 0), ("vale0:c", 0, 1), ("vale1:b", 1, 0)]


# Virtio-net headers: see test_switch.py for what they do to frames -----------------------------------------------------


def test_a_port_with_a_virtio_net_header_is_for_programs_that_expect_it(nm):
    with nm.open("vale0:a"):
        nm.set_header("vale0:a", 12)
        assert nm.header("vale0:a") == 12
        refusal("EIO", nm.open, "vale0:a", match="12 bytes")
        with nm.open("vale0:a", flags=abi.NR_ACCEPT_VNET_HDR):
            pass
        with nm.open("vale0:a/r"):  # the monitor itself has none
            pass


def test_header_lengths_are_0_10_and_12_and_belong_to_vale_ports(nm):
    with nm.open("vale0:a"), nm.open("netmap:p{1"):
        for length in (-1, 1, 11, 16):
            refusal("EINVAL", nm.set_header, "vale0:a", length)
        for name in ("netmap:p{1", "p{1", "nobody"):
            refusal("ENXIO", nm.set_header, name, 10)
            refusal("ENXIO", nm.header, name)


# Sending and receiving -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "list", "generator", "array", "row", "memoryview", "arrays"])
def test_send_takes_frames_in_any_form(switch, frame, kind):
    a, b = switch
    one = np.frombuffer(frame(), np.uint8)
    given = {
        "bytes": (frame(), 1),
        "memoryview": (memoryview(frame()), 1),
        "row": (one, 1),
        "list": ([frame(), bytearray(frame())], 2),
        "generator": ((frame() for _ in range(3)), 3),
        "array": (np.stack([one] * 4), 4),
        "arrays": ([one, one], 2),
    }
    frames, count = given[kind]
    assert a.send(frames) == count
    assert b.recv(timeout=0) == [frame()] * count


@pytest.mark.parametrize("given", [5, [5], "text", ["text"], np.zeros((2, 2, 2), np.uint8), np.zeros(60)])
def test_send_refuses_what_is_no_frame(switch, given):
    refusal("EINVAL", switch[0].send, given, match="cannot send")


def test_a_long_list_is_sent_in_as_many_rounds_as_it_takes(small, frame, meanwhile):
    tx, rx = small
    sent = meanwhile(tx.send, (frame(fill=i % 251) for i in range(3000)))
    received = []
    while len(received) < 3000:
        received += rx.recv(timeout=30)
    assert sent() == 3000
    assert received == [frame(fill=i % 251) for i in range(3000)]


def test_sender_to_a_full_pipe_waits_until_the_timeout_and_says_how_many_went(small, frame):
    tx, rx = small
    assert tx.send([frame(fill=i) for i in range(10)], timeout=0) == 7
    assert tx.send(frame(), timeout=0.001) == 0
    assert rx.recv(timeout=0) == [frame(fill=i) for i in range(7)]


def test_sender_to_a_full_pipe_blocks_and_loses_nothing(small, frame, meanwhile):
    tx, rx = small
    sent = meanwhile(tx.send, [frame(fill=i) for i in range(20)])
    received = []
    while len(received) < 20:
        received += rx.recv(3, timeout=30)
    assert sent() == 20
    assert received == [frame(fill=i) for i in range(20)]


def test_recv_waits_for_the_first_frame_only(small, frame, meanwhile):
    tx, rx = small
    received = meanwhile(rx.recv, timeout=30)
    tx.send([frame()] * 2)
    assert 1 <= len(received()) <= 2


def test_recv_returns_nothing_after_its_timeout(small):
    assert small[1].recv(timeout=0) == []
    assert small[1].recv(timeout=0.001) == []


def test_recv_of_at_most_no_frames_takes_none(small, frame):
    tx, rx = small
    tx.send(frame())
    assert rx.recv(0) == []
    assert rx.recv(1) == [frame()]


def test_inject_puts_a_frame_without_a_sync_until_the_ring_is_full(small, frame):
    tx, rx = small
    assert [tx.inject(frame(fill=i)) for i in range(8)] == [True] * 7 + [False]
    assert rx.recv(timeout=0) == []
    tx.txsync()
    assert len(rx.recv(timeout=0)) == 7


def test_dispatch_shows_frames_in_place_and_releases_them(small, frame):
    tx, rx = small
    tx.send([frame(fill=i) for i in range(5)])
    seen = []
    assert rx.dispatch(lambda header, data: seen.append((header.ring, header.length, bytes(data))), 3) == 3
    assert seen == [(0, 60, frame(fill=i)) for i in range(3)]
    assert rx.dispatch(lambda *_: None) == 2
    assert rx.dispatch(lambda *_: None) == 0


def test_recv_into_fills_an_array_and_leaves_what_does_not_fit(small, frame):
    tx, rx = small
    tx.send([frame(fill=1), frame(fill=2), frame(fill=3, size=200)])
    out = np.zeros(150, np.uint8)
    data, lengths = rx.recv_into(out, timeout=0)
    assert (bytes(data), lengths.tolist()) == (frame(fill=1) + frame(fill=2), [60, 60])
    refusal("EMSGSIZE", rx.recv_into, out, timeout=0, match="200 bytes")
    assert rx.recv(timeout=0) == [frame(fill=3, size=200)]


@pytest.mark.parametrize("out", [np.zeros(100), np.zeros(200, np.uint8)[::2]])
def test_recv_into_needs_a_contiguous_array_of_bytes(small, out):
    refusal("EINVAL", small[1].recv_into, out, timeout=0)


def test_a_port_can_be_iterated_until_it_is_closed(small, frame, meanwhile):
    tx, rx = small
    frames = iter(rx)
    tx.send([frame(), frame(fill=1)])
    assert next(frames) == frame()
    assert next(frames) == frame(fill=1)
    rest = meanwhile(list, frames)
    rx.close()
    assert rest() == []


def test_frames_are_spread_over_the_rings_that_have_room(nm, frame):
    with nm.open("netmap:p{1@conf:rings=2,slots=4") as tx, nm.open("netmap:p}1") as rx:
        assert tx.send([frame()] * 10, timeout=0) == 6
        assert [r.space() for r in tx.tx_rings] == [0, 0]
        assert len(rx.recv(timeout=0)) == 6


def test_one_ring_can_be_chosen_to_send_on(nm, frame):
    with nm.open("netmap:p{1@conf:rings=2") as tx, nm.open("netmap:p}1") as rx:
        tx.send([frame()] * 3, ring=1)
        rx.rxsync()
        assert [r.space() for r in rx.rx_rings] == [0, 3]


# Fragments -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pipe", "switch"])
def pair(request, nm):
    """Two ports of 128 slots that reach each other."""
    a, b = {"pipe": ("netmap:p{1", "netmap:p}1"), "switch": ("vale0:a", "vale0:b")}[request.param]
    with nm.open(a, tx_slots=128, rx_slots=128) as tx, nm.open(b, tx_slots=128, rx_slots=128) as rx:
        yield tx, rx


@pytest.mark.parametrize(("size", "slots"), [(2048, 1), (2049, 2), (9000, 5), (64 * 2048, 64)])
def test_a_frame_longer_than_a_buffer_travels_as_a_chain(pair, frame, size, slots):
    tx, rx = pair
    long = frame()[:14] + os.urandom(size - 14)
    assert tx.send([frame(), long, frame()]) == 3
    rx.rxsync()
    assert rx.rx_rings[0].space() == slots + 2
    flags = rx.rx_rings[0].slots["flags"][1 : slots + 1] & MOREFRAG
    assert flags.tolist() == [MOREFRAG] * (slots - 1) + [0]
    assert rx.recv(timeout=0) == [frame(), long, frame()]


def test_dispatch_puts_a_chain_together(pair, frame):
    tx, rx = pair
    long = frame()[:14] + os.urandom(5000)
    tx.send(long)
    seen = []
    assert rx.dispatch(lambda header, data: seen.append(bytes(data))) == 1
    assert seen == [long]


def test_a_frame_longer_than_64_buffers_is_refused(pair, frame):
    refusal("EMSGSIZE", pair[0].send, frame(size=64 * 2048 + 1), match="64 fragments")
    refusal("EMSGSIZE", pair[0].inject, frame(size=64 * 2048 + 1))


def test_a_chain_through_a_switch_tells_how_many_fragments_it_has(switch, frame):
    a, b = switch
    a.send(frame(size=5000))
    b.rxsync()
    assert (b.rx_rings[0].slots["flags"][:3] >> 8).tolist() == [3, 3, 3]


def unfinished(ring, fragments, size=60):
    """Release a chain whose last slot says that more follows."""
    for i in range(fragments):
        ring.slots["len"][ring.head + i] = size
        ring.slots["flags"][ring.head + i] = MOREFRAG
        ring.buffer(ring.head + i)[:size] = np.arange(size) & ~1
    ring.advance(fragments)


def test_a_pipe_shows_its_reader_whole_packets_only(small):
    tx, rx = small
    unfinished(tx.tx_rings[0], 2)
    tx.txsync()
    assert rx.recv(timeout=0) == []
    ring = tx.tx_rings[0]
    ring.slots["len"][2] = 60
    ring.slots["flags"][2] = 0
    ring.advance(1)
    tx.txsync()
    (packet,) = rx.recv(timeout=0)
    assert len(packet) == 180


def test_a_switch_ends_an_unfinished_chain_where_the_sender_does(switch):
    a, b = switch
    unfinished(a.tx_rings[0], 3)
    a.txsync()
    (packet,) = b.recv(timeout=0)
    assert len(packet) == 180


def test_a_chain_of_more_than_64_fragments_is_dropped_and_counted(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        unfinished(a.tx_rings[0], 64)
        a.tx_rings[0].slots["flags"][63] = 0
        unfinished(a.tx_rings[0], 65)
        a.txsync()
        assert [len(p) for p in b.recv(timeout=0)] == [64 * 60]
        assert a.stats.drops == {"fragments": 1}
        a.tx_rings[0].slots["flags"] = 0
        a.send(frame())
        assert b.recv(timeout=0) == [frame()]


# Indirect frames -------------------------------------------------------------------------------------------------------


def indirect(port, address, size):
    ring = port.tx_rings[0]
    ring.slots[ring.head] = (0, size, abi.NS_INDIRECT, address)
    ring.advance(1)


def test_an_indirect_slot_sends_what_it_points_to(switch, frame):
    a, b = switch
    data = ctypes.create_string_buffer(frame(fill=5), 60)
    indirect(a, ctypes.addressof(data), 60)
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=5)]


@pytest.mark.parametrize("address", [0, 1, 0x7FFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000])
def test_an_indirect_slot_that_points_nowhere_is_dropped_and_counted(switch, frame, address):
    a, b = switch
    a.inject(frame(fill=1))
    indirect(a, address, 60)
    a.inject(frame(fill=2))
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=1), frame(fill=2)]
    assert a.stats.drops == {"bad_indirect": 1}


def test_an_indirect_frame_that_ends_where_memory_does_is_sent(switch, frame):
    a, b = switch
    page = np.frombuffer(mmap(-1, 8192), np.uint8)
    address = page.ctypes.data
    ctypes.memmove(address + 4096 - 61, frame(size=61), 61)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + 4096), 4096, 0) == 0
    try:
        indirect(a, address + 4096 - 61, 61)
        a.txsync()
        assert b.recv(timeout=0) == [frame(size=61)]
        indirect(a, address + 4096 - 60, 61)
        a.txsync()
        assert a.stats.drops == {"bad_indirect": 1}
    finally:
        libc.mprotect(ctypes.c_void_p(address + 4096), 4096, 3)


# Drops, by reason ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 13])
def test_a_frame_without_an_ethernet_header_is_dropped_and_counted(switch, frame, size):
    a, b = switch
    a.send([frame(), frame(size=size), frame()])
    assert b.recv(timeout=0) == [frame()] * 2
    assert a.stats.drops == {"too_short": 1}


def test_a_frame_of_14_bytes_is_a_frame(switch, frame):
    a, b = switch
    a.send(frame(size=14))
    assert b.recv(timeout=0) == [frame(size=14)]


def test_a_full_port_loses_packets_which_both_sides_count(switch, frame):
    a, b = switch
    assert a.send([frame(fill=i) for i in range(20)]) == 20
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7)]
    assert a.stats.drops == {"no_room": 13}
    assert (b.stats.missed, b.stats.rx_packets, a.stats.tx_packets) == (13, 7, 20)


def test_drops_by_the_lookups_answer_have_a_reason_each(switch, nm, frame):
    a, b = switch

    def answer(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = table[i]

    nm.switch("vale0").lookup = answer, np.array([1, 0, 77, ptnetmap.DROP, *[0] * 1020], np.int64)
    a.send([frame()] * 4)
    assert b.recv(timeout=0) == [frame()]
    assert a.stats.drops == {"same_port": 1, "no_port": 1, "filtered": 1}
    assert a.stats.dropped == 3


def test_a_port_whose_rx_rings_nobody_has_bound_is_no_reader(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b/T"):
        a.send(frame())
        assert a.stats.drops == {"no_reader": 1}


def test_stats_count_packets_and_bytes_of_both_sides(pair, frame):
    tx, rx = pair
    tx.send([frame(), frame(size=100)])
    rx.recv(timeout=0)
    assert (tx.stats.tx_packets, tx.stats.tx_bytes) == (2, 160)
    assert (rx.stats.rx_packets, rx.stats.rx_bytes) == (2, 160)
    assert tx.stats.drops == {}


# Lossless ports --------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient(nm):
    """A sender and a lossless reader of 8 slots each."""
    with nm.open("vale0:a", tx_slots=8, rx_slots=8) as a, nm.open("vale0:b", rx_slots=8, lossless=True) as b:
        yield a, b


def test_a_lossless_port_holds_its_sender_back_and_loses_nothing(patient, frame, meanwhile):
    a, b = patient
    sent = meanwhile(a.send, [frame(fill=i % 251) for i in range(500)])
    received = []
    while len(received) < 500:
        received += b.recv(timeout=30)
    assert sent() == 500
    assert received == [frame(fill=i % 251) for i in range(500)]
    assert (a.stats.drops, b.stats.missed) == ({}, 0)


def test_what_a_lossless_port_cannot_take_waits_in_the_ring_and_counts_as_accepted(patient, frame):
    a, b = patient
    assert a.send([frame(fill=i) for i in range(20)], timeout=0) == 14
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7)]
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=i) for i in range(7, 14)]


def fill_up(a, frame):
    """Send until the destination is full and the sender's ring too."""
    assert a.send([frame()] * 20, timeout=0) == 14


def test_a_sender_held_back_goes_on_when_the_lossless_port_closes(patient, frame, meanwhile):
    a, b = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    b.close()
    assert sent() == 1
    assert a.tx_rings[0].space() == 7
    assert (a.stats.tx_packets, a.stats.drops.keys() - {"no_reader"}) == (15, set())


def test_a_sender_held_back_goes_on_when_the_port_stops_being_lossless(patient, frame, meanwhile):
    a, b = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    b.lossless = False
    assert sent() == 1
    assert a.stats.drops == {"no_room": 8}


def test_a_sender_held_back_goes_on_when_the_switch_changes_its_mind(patient, nm, frame, meanwhile):
    a, _ = patient
    fill_up(a, frame)
    sent = meanwhile(a.send, frame())
    wait_until_asleep(a)
    nm.switch("vale0").lookup = lambda packets, lengths, source, table, ports, rings: None
    assert sent() == 1
    assert a.stats.drops == {"filtered": 8}


def test_a_lossless_port_is_an_ordinary_one_when_it_is_opened_again(nm):
    nm.create("v0")
    with nm.open("netmap:v0", lossless=True) as port:
        assert port.lossless
    with nm.open("netmap:v0") as port:
        assert not port.lossless


def test_a_lossless_and_a_lossy_port_get_a_flood_according_to_their_kind(nm, frame):
    with (
        nm.open("vale0:a", tx_slots=16) as a,
        nm.open("vale0:b", rx_slots=4) as lossy,
        nm.open("vale0:c", rx_slots=8, lossless=True) as lossless,
    ):
        frames = [frame(255, fill=i) for i in range(12)]
        a.send(frames, timeout=0)
        assert lossless.recv(timeout=0) == frames[:7]
        assert lossy.recv(timeout=0) == frames[:3]
        a.txsync()
        assert lossless.recv(timeout=0) == frames[7:]


# Learning: ageing (the rest is in test_switch.py) ----------------------------------------------------------------------


def test_what_is_learned_is_forgotten_after_the_ageing_time(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:c") as c:
        switch = nm.switch("vale0")
        assert switch.ageing == 300
        b.send(frame(255, 2))
        assert switch.learned() == {"02:00:00:00:00:02": 1}
        switch._learning_table[8 + 1024 :] -= 301  # the seconds of last use: as if they had passed
        assert switch.learned() == {}
        c.recv(timeout=0)
        a.send(frame(2, 1))
        assert c.recv(timeout=0) == [frame(2, 1)]
        switch.ageing = 0
        assert switch.learned()["02:00:00:00:00:02"] == 1
        a.send(frame(2, 1))
        assert c.recv(timeout=0) == []


def test_an_ageing_time_is_no_negative_number(nm):
    with nm.open("vale0:a"):
        refusal("EINVAL", setattr, nm.switch("vale0"), "ageing", -1)


def test_a_runtimes_ageing_time_is_that_of_its_switches():
    with Netmap(ageing=5) as nm, nm.open("vale0:a"):
        assert nm.switch("vale0").ageing == 5


# Timestamps ------------------------------------------------------------------------------------------------------------


def test_a_sync_stamps_an_rx_ring_only_if_its_flag_asks_and_poll_always(small):
    rx = small[1]
    ring = rx.rx_rings[0]
    rx.rxsync()
    assert ring.ts == 0
    ring.flags = abi.NR_TIMESTAMP
    rx.rxsync()
    stamped = ring.ts
    assert stamped > 1_600_000_000
    ring.flags = 0
    rx.rxsync()
    assert ring.ts == stamped
    ring.header["ts_sec"] = 0
    rx.poll(POLLIN, 0)
    assert ring.ts >= stamped


# poll ------------------------------------------------------------------------------------------------------------------


def wait_until_asleep(port):
    """Return once a thread that waits on a port to send, or to receive, is about to sleep."""
    rings = port.adapter.rings
    while not any(ring.block["need_kick"] for ring in rings):
        os.sched_yield()


def test_poll_tells_what_holds(small, frame):
    tx, rx = small
    assert tx.poll(POLLOUT, 0) == POLLOUT
    assert rx.poll(POLLIN, 0) == 0
    tx.send(frame())
    assert rx.poll(POLLIN | POLLOUT, 0) == POLLIN | POLLOUT
    assert rx.poll(POLLIN) == POLLIN


def test_a_full_pipe_is_not_writable_until_its_reader_has_read(small, frame):
    tx, rx = small
    tx.send([frame()] * 7)
    assert tx.poll(POLLOUT, 0) == 0
    rx.recv(1, timeout=0)
    assert tx.poll(POLLOUT, 0) == POLLOUT


def test_a_vale_port_is_always_writable(switch, frame):
    a, _ = switch
    a.send([frame()] * 50)
    assert a.poll(POLLOUT, 0) == POLLOUT


def test_polling_to_read_sends_what_is_pending(small, frame):
    tx, rx = small
    tx.inject(frame())
    assert tx.poll(POLLIN, 0) == 0
    assert rx.recv(timeout=0) == [frame()]


def test_polling_to_read_sends_nothing_if_asked_not_to(nm, frame):
    with nm.open("netmap:p{1", flags=abi.NR_NO_TX_POLL) as tx, nm.open("netmap:p}1") as rx:
        tx.inject(frame())
        tx.poll(POLLIN, 0)
        assert rx.recv(timeout=0) == []
        assert tx.poll(POLLOUT, 0) == POLLOUT
        assert rx.recv(timeout=0) == [frame()]


def test_poll_wakes_up_when_a_packet_comes(small, frame, meanwhile):
    tx, rx = small
    ready = meanwhile(rx.poll, POLLIN)
    wait_until_asleep(rx)
    tx.send(frame())
    assert ready() == POLLIN


def test_poll_wakes_up_when_there_is_room(small, frame, meanwhile):
    tx, rx = small
    tx.send([frame()] * 7)
    ready = meanwhile(tx.poll, POLLOUT)
    wait_until_asleep(tx)
    rx.recv(1, timeout=0)
    assert ready() == POLLOUT


def test_poll_reports_an_error_after_a_reinit(small):
    tx, _ = small
    tx.tx_rings[0].head = 8
    assert tx.poll(POLLOUT, 0) & POLLERR
    assert tx.poll(POLLOUT, 0) == POLLOUT


def test_a_monitor_whose_ring_has_gone_reports_an_error(nm):
    with nm.open("vale0:keep"):
        watched = nm.open("vale0:a")
        with nm.open("vale0:a/rt") as monitor:
            watched.close()
            assert monitor.poll(POLLIN, 0) == POLLERR
            with pytest.raises(PortError) as refused:
                monitor.recv(timeout=0)
            assert refused.value.errno == errno.EIO


def test_a_waiting_monitor_is_woken_when_its_ring_goes(nm, meanwhile):
    watched = nm.open("vale0:a")
    with nm.open("vale0:a/r") as monitor:
        ready = meanwhile(monitor.poll, POLLIN)
        wait_until_asleep(monitor)
        watched.close()
        assert ready() == POLLERR


def test_a_monitor_cannot_send(nm, frame):
    with nm.open("vale0:a"), nm.open("vale0:a/t") as monitor:
        with pytest.raises(PortError) as refused:
            monitor.txsync()
        assert refused.value.errno == errno.EIO
        with pytest.raises(PortError):
            monitor.send(frame())


@pytest.mark.parametrize("name", ["vale0:a/r", "netmap:v0/t", "netmap:p{1/r", "netmap:eth0/t"])
def test_only_what_is_open_can_be_monitored(nm, name):
    nm.create("v0")
    refusal("EINVAL", nm.open, name, match="cannot monitor")
    assert nm.list() == []


def test_a_monitor_has_its_parents_shape_and_one_tx_ring(nm):
    with (
        nm.open("vale0:a@conf:tx-rings=2,rx-rings=3,tx-slots=64,rx-slots=128"),
        nm.open("vale0:a/rt") as both,
        nm.open("vale0:a-1/r") as one,
    ):
        assert (len(both.tx_rings), len(both.rx_rings)) == (1, 3)
        assert (both.tx_rings[0].num_slots, both.rx_rings[0].num_slots) == (64, 128)
        assert [r.ringid for r in one.rx_rings] == [1]


def test_a_full_monitor_misses_frames_and_holds_nobody_back(nm, frame):
    with (
        nm.open("vale0:a") as a,
        nm.open("vale0:b") as b,
        nm.open("vale0:b/r@conf:slots=8") as copies,
        nm.open("vale0:b/rz@conf:slots=8") as originals,
    ):
        frames = [frame(fill=i) for i in range(20)]
        a.send(frames)
        assert b.recv(timeout=0) == frames
        assert copies.recv(timeout=0) == frames[:7]
        assert originals.recv(timeout=0) == frames[:7]
        assert (copies.stats.missed, originals.stats.missed) == (13, 13)


@pytest.mark.parametrize("first_to_go", [0, 1])
def test_zero_copy_monitors_of_one_port_form_a_chain(nm, frame, first_to_go):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:b/rz") as m, nm.open("vale0:b/rz") as n:
        a.send(frame(fill=1))
        assert [p.recv(timeout=0) for p in (b, m, n)] == [[frame(fill=1)]] * 3
        monitors = [m, n]
        monitors.pop(first_to_go).close()
        a.send(frame(fill=2))
        assert [p.recv(timeout=0) for p in (b, *monitors)] == [[frame(fill=2)]] * 2


# Closing ---------------------------------------------------------------------------------------------------------------


def test_a_closed_port_refuses_everything(small, frame):
    tx, _ = small
    tx.close()
    tx.close()
    assert tx.closed
    for action in (
        tx.txsync,
        tx.rxsync,
        tx.poll,
        tx.recv,
        tx.fileno,
        lambda: tx.send(frame()),
        lambda: tx.inject(frame()),
        lambda: tx.dispatch(print),
    ):
        with pytest.raises(PortError) as refused:
            action()
        assert refused.value.errno == errno.EBADF


@pytest.mark.parametrize(
    "wait",
    [
        lambda port, _: port.poll(POLLIN),
        lambda port, _: port.recv(),
        lambda port, frame: port.send([frame] * 20),
        lambda port, _: port.poll(POLLOUT),
    ],
    ids=["poll in", "recv", "send", "poll out"],
)
def test_closing_a_port_ends_another_threads_wait_on_it(small, frame, meanwhile, wait):
    tx, _ = small
    tx.send([frame()] * 7)
    waiting = meanwhile(wait, tx, frame())
    wait_until_asleep(tx)
    tx.close()
    with pytest.raises(PortError) as refused:
        waiting()
    assert refused.value.errno == errno.EBADF


def test_closing_a_port_ends_a_wait_for_a_lossless_one(patient, frame, meanwhile):
    a, _ = patient
    waiting = meanwhile(a.send, [frame()] * 10)
    wait_until_asleep(a)
    a.close()
    with pytest.raises(PortError) as refused:
        waiting()
    assert refused.value.errno == errno.EBADF


def test_closing_a_port_under_busy_threads_ends_them_all_with_ebadf(nm, frame, meanwhile):
    for _ in range(5):
        a, b = nm.open("vale0:a"), nm.open("vale0:b")
        batch = [frame()] * 64

        def forever(step):
            while True:
                step()

        threads = [
            meanwhile(forever, lambda a=a, batch=batch: a.send(batch)),
            meanwhile(forever, lambda b=b: b.recv(timeout=1)),
        ]
        while b.stats.rx_packets < 200:
            os.sched_yield()
        a.close()
        b.close()
        for thread in threads:
            with pytest.raises(PortError) as refused:
                thread()
            assert refused.value.errno == errno.EBADF


def test_closing_one_descriptor_does_not_end_a_wait_on_another(nm, frame, meanwhile):
    with nm.open("vale0:a") as first, nm.open("vale0:a") as second, nm.open("vale0:b") as b:
        ready = meanwhile(second.poll, POLLIN)
        wait_until_asleep(second)
        first.close()
        b.send(frame())
        assert ready() == POLLIN


def test_closing_the_runtime_closes_its_ports(frame):
    nm = Netmap()
    ports = [nm.open("vale0:a"), nm.open("netmap:p{1")]
    nm.close()
    assert all(port.closed for port in ports)
    assert nm.list() == []


def open_files():
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that iterdir itself has
            found.add((entry.name, str(entry.readlink())))
    return found


def test_closing_gives_all_file_descriptors_back(frame):
    scratch()  # this thread's memory has one
    gc.collect()
    before = open_files()
    with Netmap() as nm, nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:b/r"):
        b.fileno()
        a.fileno(POLLOUT)
        a.send(frame())
        b.recv()
        b.recv(timeout=0.01)
        assert len(open_files()) > len(before) + 6
    del nm, a, b
    gc.collect()
    assert open_files() == before


# File descriptors ------------------------------------------------------------------------------------------------------


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_the_file_descriptor_is_readable_while_there_are_packets(small, frame):
    tx, rx = small
    fd = rx.fileno()
    assert not readable(fd)
    tx.send([frame()] * 3)
    assert readable(fd)
    rx.recv(1, timeout=0)
    assert readable(fd)
    rx.recv(2, timeout=0)
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


def test_the_file_descriptor_tells_of_packets_that_came_before_it(small, frame):
    tx, rx = small
    tx.send(frame())
    assert readable(rx.fileno())
    assert rx.fileno() == rx.fileno()


def test_a_file_descriptor_for_space_is_readable_while_there_is_some(small, frame):
    tx, rx = small
    fd = tx.fileno(POLLOUT)
    assert readable(fd)
    tx.send([frame()] * 7)
    tx.txsync()
    assert not readable(fd)
    rx.recv(1, timeout=0)
    assert readable(fd)


def test_a_file_descriptor_for_both_is_readable_when_either_holds(small, frame):
    tx, rx = small
    rx.send([frame()] * 7)
    fd = rx.fileno(POLLIN | POLLOUT)
    rx.txsync()
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


def test_the_file_descriptor_works_with_epoll(small, frame):
    tx, rx = small
    with select.epoll() as epoll:
        epoll.register(rx.fileno(), select.EPOLLIN)
        assert epoll.poll(0) == []
        tx.send([frame()] * 2)
        assert [fd for fd, _ in epoll.poll(30)] == [rx.fileno()]
        rx.recv(timeout=0)
        assert epoll.poll(0) == []
        epoll.unregister(rx.fileno())


def test_the_file_descriptor_wakes_a_thread_that_sleeps_in_select(small, frame, meanwhile):
    tx, rx = small
    fd = rx.fileno()
    entered = threading.Event()

    def sleep():
        entered.set()
        return select.select([fd], [], [], 30)[0]

    woken = meanwhile(sleep)
    entered.wait()
    tx.send(frame())
    assert woken() == [fd]


def test_the_file_descriptor_works_with_asyncio(small, frame):
    tx, rx = small

    async def receive(count):
        received = []
        done = asyncio.get_running_loop().create_future()

        def on_readable():
            received.extend(rx.recv(timeout=0))
            if len(received) == count and not done.done():
                done.set_result(None)

        loop = asyncio.get_running_loop()
        loop.add_reader(rx.fileno(), on_readable)
        try:
            for i in range(count):
                await loop.run_in_executor(None, tx.send, frame(fill=i))
            await asyncio.wait_for(done, 30)
        finally:
            loop.remove_reader(rx.fileno())
        return received

    assert asyncio.run(receive(20)) == [frame(fill=i) for i in range(20)]


def test_the_file_descriptors_of_a_switchs_ports_follow_the_traffic(switch, frame):
    a, b = switch
    fds = [a.fileno(), b.fileno()]
    a.send(frame())
    assert [readable(fd) for fd in fds] == [False, True]
    b.recv(timeout=0)
    b.send(frame(1, 2))
    assert [readable(fd) for fd in fds] == [True, False]


def test_a_wait_that_gives_up_leaves_the_file_descriptor_in_step(small, frame):
    tx, rx = small
    fd = rx.fileno()
    rx.recv(timeout=0.01)
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


@pytest.mark.skipif(not config.DISABLE_JIT, reason="calls a piece of a kernel, which only interpreted Python can")
def test_preparing_to_sleep_with_packets_in_the_ring_leaves_the_file_descriptor_readable(small, frame):
    # What a wait does when packets come after it has looked, and before it prepares to sleep.
    tx, rx = small
    fd = rx.fileno()
    tx.send([frame()] * 2)
    assert binding.expect(rx._binding.address, scratch(), POLLIN) > 0
    rx.recv(1, timeout=0)
    assert readable(fd)


def test_a_peer_error_is_raised_for_a_tx_slot_that_names_no_buffer(lax, frame):
    with lax.open("vale0:a") as a:
        a.tx_rings[0].slots["buf_idx"][0] = 0
        with pytest.raises(PeerError) as refused:
            a.send(frame())
        assert refused.value.errno == errno.EFAULT

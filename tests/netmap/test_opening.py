# SPDX-License-Identifier: BSD-2-Clause

import pytest

import ptnetmap
from ptnetmap.abi import netmap as abi
from ptnetmap.errors import NameSyntaxError, PortError
from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted


def test_the_package_exports_the_runtime():
    assert ptnetmap.Netmap is Netmap


def test_a_text_that_is_no_port_name_is_refused_and_leaves_nothing_behind(nm, refusal):
    refusal("EINVAL", nm.open, "eth0", kind=NameSyntaxError)
    assert nm.list() == []


def test_a_name_that_nobody_has_is_enxio(nm, refusal):
    refusal("ENXIO", nm.open, "netmap:nobody0", match=r"vale-ctl -n nobody0, Netmap\.create")


@pytest.mark.parametrize("option", ["@extmem:file=/dev/null"])
def test_options_that_are_not_supported_are_refused(nm, option, refusal):
    refusal("EOPNOTSUPP", nm.open, f"vale0:a{option}", match="not supported")


@pytest.mark.parametrize("suffix", ["^", "*", "^0"])
def test_a_port_without_host_rings_refuses_modes_with_them_and_is_not_left_behind(nm, suffix, refusal):
    for name in ("vale0:a", "netmap:p{1"):
        refusal("EINVAL", nm.open, name + suffix, match="host rings")
    assert nm.list() == []
    assert nm.switches == {}
    assert nm._directory.pipes == {}
    assert nm._directory.adapters == {}


def test_one_ring_is_bound_by_its_number(nm):
    with nm.open("vale0:a-2@conf:rings=4") as port:
        assert [(r.dir, r.ringid) for r in port.tx_rings + port.rx_rings] == [(abi.TX, 2), (abi.RX, 2)]


def test_a_direction_without_that_ring_binds_its_first(nm):
    with nm.open("vale0:a-3@conf:tx-rings=4,rx-rings=2") as port:
        assert [(r.dir, r.ringid) for r in port.tx_rings + port.rx_rings] == [(abi.TX, 3), (abi.RX, 0)]


def test_a_ring_that_neither_direction_has_is_refused(nm, refusal):
    refusal("EINVAL", nm.open, "vale0:a-4@conf:tx-rings=4,rx-rings=2", match="4 TX and 2 RX")
    assert nm.list() == []


@pytest.mark.parametrize(("letter", "tx", "rx"), [("T", 2, 0), ("R", 0, 2), ("", 2, 2)])
def test_a_direction_can_be_left_out(nm, letter, tx, rx):
    with nm.open(f"vale0:a{'/' + letter if letter else ''}@conf:rings=2") as port:
        assert (len(port.tx_rings), len(port.rx_rings)) == (tx, rx)


def test_a_direction_that_is_not_bound_cannot_be_used(nm, frame, refusal):
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


def test_a_pipe_needs_no_parent_and_takes_it_along_when_it_goes(nm, refusal):
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


def test_an_exclusive_open_is_refused_while_others_have_the_port(nm, refusal):
    with nm.open("vale0:a"):
        refusal("EBUSY", nm.open, "vale0:a/x", match="1 other")
        with nm.open("vale0:a"):
            pass


def test_a_port_held_exclusively_is_free_again_once_closed(nm, refusal):
    nm.open("vale0:keep")
    nm.open("vale0:a/x").close()
    with nm.open("vale0:a/x"):
        refusal("EBUSY", nm.open, "vale0:a")


def test_exclusion_is_per_ring(nm, refusal):
    with nm.open("vale0:a-0/x@conf:rings=2"), nm.open("vale0:a-1/x"):
        refusal("EBUSY", nm.open, "vale0:a-0")


def test_the_ends_of_a_pipe_exclude_others_separately(nm, refusal):
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


def test_a_lossless_open_of_what_cannot_be_lossless_leaves_other_descriptors_alone(nm, frame, refusal):
    with nm.open("netmap:p{1") as tx, nm.open("netmap:p}1") as rx:
        refusal("EOPNOTSUPP", nm.open, "netmap:p}1", lossless=True)
        tx.send(frame())
        assert rx.recv(timeout=0) == [frame()]
        assert rx.adapter.references == 1

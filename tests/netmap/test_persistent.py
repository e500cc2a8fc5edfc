# SPDX-License-Identifier: BSD-2-Clause

import pytest

from ptnetmap.netmap.runtime import Netmap

pytestmark = pytest.mark.interpreted


def test_there_are_8_switches_at_most_and_a_ninth_fits_once_one_has_gone(nm, refusal):
    ports = [nm.open(f"vale{i}:a") for i in range(8)]
    refusal("ENOMEM", nm.open, "vale8:a", match="8 switches")
    assert len(nm.switches) == 8
    ports[3].close()
    with nm.open("vale8:a"):
        pass


def test_the_limit_of_switches_can_be_set(refusal):
    with Netmap(max_switches=1) as nm, nm.open("vale0:a"):
        refusal("ENOMEM", nm.open, "vale1:a", match="max_switches")


def test_a_switch_comes_with_its_first_port_and_goes_with_its_last(nm, refusal):
    refusal("ENXIO", nm.switch, "vale0")
    with nm.open("vale0:a"):
        assert nm.switch("vale0").name == "vale0"
    refusal("ENXIO", nm.switch, "vale0")


@pytest.mark.parametrize("name", ["vale0", "valeX", "p{1", "p}1", "sixteen_letters_"])
def test_a_persistent_port_cannot_have_a_name_of_another_kind(nm, name, refusal):
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


def test_the_name_of_a_persistent_port_is_not_free_for_an_ephemeral_one(nm, refusal):
    nm.create("v0")
    refusal("EINVAL", nm.open, "vale0:v0", match="attach")
    nm.attach("vale0:v0")
    with nm.open("vale0:v0"):
        pass
    refusal("EINVAL", nm.open, "vale1:v0")


def test_a_persistent_port_is_not_attached_under_a_name_that_an_ephemeral_one_has(nm, refusal):
    with nm.open("vale0:v0"):
        nm.create("v0")
        refusal("EBUSY", nm.attach, "vale0:v0")


def test_a_port_that_joins_two_switches_belongs_to_the_runtime(nm, refusal):
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


def test_joining_a_switch_that_there_is_no_room_for_undoes_everything(refusal):
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


def test_a_port_that_is_there_for_its_pipes_stays_while_it_is_attached(nm, frame, refusal):
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
def test_control_requests_that_make_no_sense_are_refused(nm, action, name, number, refusal):
    nm.create("v0")
    with nm.open("vale0:a"):
        refusal(number, getattr(nm, action), name)


def test_a_port_that_is_open_cannot_be_deleted(nm, refusal):
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

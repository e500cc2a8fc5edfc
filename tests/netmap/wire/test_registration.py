# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap import names
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.names import PortName
from ptnetmap.netmap.wire import request
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.option import FilePlace
from ptnetmap.netmap.wire.registration import conf_of, counts, register_request, registration
from ptnetmap.netmap.wire.request import Request

IDENTIFIER = st.text("abcXYZ019_", min_size=1, max_size=8)
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
CONFS = st.builds(Conf, U16, U16, U32, U32, U16, U16)


@st.composite
def port_names(draw):
    base = draw(st.sampled_from(["", "vale", "vale0:", "vale_x:"])) + draw(IDENTIFIER)
    pipe = draw(st.sampled_from(["", "{", "}"]))
    mode = draw(st.sampled_from([1, 4] if pipe else [1, 2, 3, 4, 8]))
    return PortName(
        base + (pipe + draw(IDENTIFIER) if pipe else ""),
        mode,
        draw(st.integers(0, names.MAX_RING)) if mode in (4, 8) else 0,
        draw(U64),
        draw(U16),
        conf=draw(CONFS),
        offset=draw(st.none() | st.tuples(U64, U32)),
    )


def refused(action, *arguments, **keywords):
    with pytest.raises(WireError) as caught:
        action(*arguments, **keywords)
    assert caught.value.errno == errno.EINVAL
    assert "\n        " in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(port_names(), U32)
def test_a_port_name_becomes_a_request_and_again_a_port_name(port, extra_bufs):
    sent = register_request(port, extra_bufs=extra_bufs)

    assert registration(request.decode(sent.argument)) == (port, port.conf, port.flags, extra_bufs)


@settings(max_examples=60, deadline=None)
@given(port_names(), CONFS, U64)
def test_what_the_program_asks_for_goes_over_what_the_name_says(port, conf, flags):
    asked = registration(register_request(port, conf=conf, flags=flags))

    assert asked.flags == port.flags | flags
    for name, value in vars(asked.conf).items():
        assert value == (getattr(conf, name) or getattr(port.conf, name))


@pytest.mark.parametrize(
    "text",
    [
        "vale0:1",
        "netmap:eth0.100-3/x",
        "netmap:x{a_1",
        "vale0:p}7@5",
        "netmap:eth0^",
        "netmap:eth0*/R",
        "netmap:vale7",
        "vale0:1/rtz",
        "vale0:1@conf:rings=2,slots=512,host-rings=3",
    ],
)
def test_texts_that_users_write_come_back_from_the_other_side(text):
    port = names.parse(text)

    assert registration(request.decode(register_request(port).argument)).port == port


@settings(max_examples=60, deadline=None)
@given(CONFS)
def test_shapes_survive_the_bodies_that_have_all_of_their_fields(conf):
    assert conf_of(counts(conf)) == conf
    assert conf_of({"nr_tx_slots": 8}) == Conf(tx_slots=8)


def test_shared_memory_is_named_by_its_number():
    port = names.parse("vale0:1@share=vale1:2")

    assert registration(register_request(port, shared_mem_id=7)).port == replace(port, share=None, mem_id=7)
    refused(register_request, port)
    refused(register_request, replace(port, mem_id=8), shared_mem_id=7)


def test_memory_of_the_users_is_an_option_that_points_into_a_file_sent():
    port = names.parse("vale0:1@extmem:file=/dev/shm/x,buf-num=100,ring-size=4096")

    sent = register_request(port, extmem_place=FilePlace(1, 0), extmem_size=1 << 20)

    option = sent.options[abi.NETMAP_REQ_OPT_EXTMEM]
    assert option["nro_usrptr"] == 1 << 48
    assert {key: value for key, value in option["nro_info"].items() if value} == {
        "nr_memsize": 1 << 20,
        "nr_buf_pool_objtotal": 100,
        "nr_ring_pool_objsize": 4096,
    }
    assert registration(sent).port == replace(port, extmem=None)
    refused(register_request, port)


@pytest.mark.parametrize("mode", [abi.NR_REG_DEFAULT, abi.NR_REG_PIPE_MASTER, abi.NR_REG_PIPE_SLAVE, 9, 0xFFFFFFFF])
def test_modes_of_the_legacy_request_and_unknown_ones_are_refused(mode):
    refused(registration, Request(abi.NETMAP_REQ_REGISTER, "x", {"nr_mode": mode}))
    refused(register_request, PortName("x", mode))


@pytest.mark.parametrize("mode", [abi.NR_REG_SW, abi.NR_REG_NIC_SW, abi.NR_REG_ONE_SW])
def test_pipes_have_no_host_rings(mode):
    refused(registration, Request(abi.NETMAP_REQ_REGISTER, "x{1", {"nr_mode": mode}))


def test_a_null_port_needs_a_memory_and_no_name():
    null = {"nr_mode": abi.NR_REG_NULL}

    refused(registration, Request(abi.NETMAP_REQ_REGISTER, "", null))
    port = registration(Request(abi.NETMAP_REQ_REGISTER, "", {**null, "nr_mem_id": 3})).port
    assert port == PortName("", abi.NR_REG_NULL, mem_id=3)


@pytest.mark.parametrize(
    "name",
    ["", "x{", "{1", "x{1{2", "vale0:", "vale0:1:2", "vale-:1", "eth0/x", "eth0@5", "a b", "ü", "netmap:x", "x-1"],
)
def test_names_that_no_text_stands_for_are_refused(name):
    refused(registration, Request(abi.NETMAP_REQ_REGISTER, name, {"nr_mode": 1}))


def test_only_register_registers():
    refused(registration, Request(abi.NETMAP_REQ_VALE_DELIF, "x"))


def test_counts_that_do_not_fit_are_refused():
    refused(register_request, PortName("x"), conf=Conf(tx_rings=1 << 16))
    refused(register_request, PortName("x"), extra_bufs=-1)


def test_the_numbers_are_where_upstream_reads_them():
    sent = register_request(names.parse("vale0:1-2/x@3@conf:tx-slots=7"), extra_bufs=9)

    assert struct.unpack_from("<I", sent.argument, 88 + 16) == (7,)
    assert struct.unpack_from("<HHII", sent.argument, 88 + 32) == (3, 2, 4, 9)

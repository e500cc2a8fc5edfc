# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi import rtnetlink as abi
from ptnetmap.netmap.nic.message import Interface, detach_program, error_of, get_link, interface_of


def attribute(kind, value):
    return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(*attributes, kind=abi.RTM_NEWLINK, flags=0):
    body = struct.pack("<BBHiII", 0, 0, abi.ARPHRD_ETHER, 7, flags, 0) + b"".join(attributes)
    return struct.pack("<IHHII", 16 + len(body), kind, 0, 0, 0) + body


NAME = attribute(abi.IFLA_IFNAME, b"eth0\0")
MTU = attribute(abi.IFLA_MTU, struct.pack("<I", 1500))


def xdp(*attributes):
    return attribute(abi.IFLA_XDP | abi.NLA_F_NESTED, b"".join(attributes))


def test_a_request_by_name_has_the_name_as_its_attribute():
    header = bytes.fromhex("28000000 1200 0100 00000000 00000000")
    assert get_link("va") == header + bytes(16) + bytes.fromhex("0700 0300 76610000")


def test_a_request_by_number_has_the_number():
    assert get_link(index=7)[20:24] == struct.pack("<i", 7)


def test_a_request_to_detach_asks_for_minus_one_and_an_answer():
    message = detach_program(7, 4)
    assert message[4:8] == struct.pack("<HH", abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK)
    nested = attribute(abi.IFLA_XDP_FD, b"\xff" * 4) + attribute(abi.IFLA_XDP_FLAGS, b"\4\0\0\0")
    assert message[32:] == attribute(abi.IFLA_XDP | abi.NLA_F_NESTED, nested)


def test_an_answer_tells_what_the_interface_is():
    none = xdp(attribute(abi.IFLA_XDP_ATTACHED, b"\0"))
    assert interface_of(link(NAME, MTU, none)) == Interface("eth0", 7, abi.ARPHRD_ETHER, 0, 1500, {})
    assert interface_of(link(NAME, flags=abi.IFF_UP)).is_up


@pytest.mark.parametrize(
    ("nested", "programs"),
    [
        ([(abi.IFLA_XDP_ATTACHED, b"\1"), (abi.IFLA_XDP_PROG_ID, b"\5\0\0\0")], {abi.XDP_ATTACHED_DRV: 5}),
        ([(abi.IFLA_XDP_ATTACHED, b"\2"), (abi.IFLA_XDP_PROG_ID, b"\6\0\0\0")], {abi.XDP_ATTACHED_SKB: 6}),
        (
            [
                (abi.IFLA_XDP_ATTACHED, b"\4"),
                (abi.IFLA_XDP_DRV_PROG_ID, b"\7\0\0\0"),
                (abi.IFLA_XDP_HW_PROG_ID, b"\x09\0\0\0"),
            ],
            {abi.XDP_ATTACHED_DRV: 7, abi.XDP_ATTACHED_HW: 9},
        ),
    ],
)
def test_programs_are_told_by_their_mode(nested, programs):
    answer = link(NAME, xdp(*(attribute(kind, value) for kind, value in nested)))
    assert interface_of(answer).programs == programs


def test_an_error_is_told_as_its_number():
    error = struct.pack("<IHHIIi", 36, abi.NLMSG_ERROR, 0, 0, 0, -errno.ENODEV) + bytes(16)
    assert error_of(error) == errno.ENODEV
    assert error_of(link(NAME)) == 0
    with pytest.raises(ValueError, match="describes no interface"):
        interface_of(error)


@given(st.binary(max_size=100))
def test_attributes_that_make_no_sense_end_the_reading(junk):
    assert interface_of(link(NAME, junk)).index == 7

# SPDX-License-Identifier: BSD-2-Clause
import errno
import struct

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import extension, request
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.request import Request

EXTMEM, EVENTFDS, CSB, MODE, OFFSETS = range(1, 6)


def header(reqtype, options=0, body=0, *, version=14, reserved=0, name=b"vale0:1"):
    return struct.pack("<HHI64sQQ", version, reqtype, reserved, name, options, body)


def option(kind, following=0, size=0, rest=b"", status=0):
    return struct.pack("<QIIQ", following, kind, status, size) + rest


def register(*options):
    """A REGISTER with options one after the other behind its body."""
    argument = header(abi.NETMAP_REQ_REGISTER, 144 if options else 0, 88) + bytes(56)
    for number, (kind, rest) in enumerate(options):
        at = len(argument)
        last = number == len(options) - 1
        argument += option(kind, 0 if last else at + 24 + len(rest), 24 + len(rest), rest)
    return argument


def refused(number, argument):
    with pytest.raises(WireError) as caught:
        request.decode(argument)
    assert caught.value.errno == number
    assert "\n        " in str(caught.value)


def statuses(asked, **keywords):
    return request.decode_answer(asked, request.answer(asked, **keywords)).statuses


# What it looks like ---------------------------------------------------------------------------------------------------


def test_a_request_is_what_upstreams_ioctl_would_read():
    body = np.zeros(1, abi.nmreq_register)
    body["nr_mode"], body["nr_tx_slots"], body["nr_flags"] = 4, 512, 0x8000
    csb = np.zeros(1, abi.nmreq_opt_csb)
    csb["nro_opt"]["nro_reqtype"], csb["csb_atok"], csb["csb_ktoa"] = CSB, 64, 1 << 48
    fields = {"nr_mode": 4, "nr_tx_slots": 512, "nr_flags": 0x8000}

    asked = Request(1, "vale0:1", fields, {CSB: {"csb_atok": 64, "csb_ktoa": 1 << 48}})

    assert asked.argument == header(1, 144, 88) + body.tobytes() + csb.tobytes()


def test_a_decoded_request_has_all_fields_of_body_and_options():
    asked = request.decode(register((OFFSETS, struct.pack("<QQIIQ", 1, 2, 3, 4, 5))))

    assert asked.body == dict.fromkeys(abi.nmreq_register.names, 0)
    assert asked.options == {
        OFFSETS: {
            "nro_max_offset": 1,
            "nro_initial_offset": 2,
            "nro_offset_bits": 3,
            "nro_tx_align": 4,
            "nro_min_gap": 5,
        }
    }


def test_structures_inside_a_body_are_dictionaries():
    asked = Request(abi.NETMAP_REQ_VALE_ATTACH, "vale0:x", {"reg": {"nr_mode": 3}})

    assert request.decode(asked.argument).body["reg"]["nr_mode"] == 3


def test_eventfds_are_signed_and_as_many_as_the_size_says():
    entries = [{"ioeventfd": 3, "irqfd": -1}, {"ioeventfd": -1, "irqfd": 0}]
    asked = Request(abi.NETMAP_REQ_SYNC_KLOOP_START, "", {}, {EVENTFDS: {"eventfds": entries}})

    assert request.decode(asked.argument).options[EVENTFDS] == {"nro_size": 40, "eventfds": entries}


@pytest.mark.parametrize("size", [0, 23, 31, 33])
def test_an_eventfds_size_of_no_whole_number_of_entries_is_left_to_the_consumer(size):
    argument = header(abi.NETMAP_REQ_SYNC_KLOOP_START, 96, 88) + bytes(8) + option(EVENTFDS, 0, size) + bytes(16)

    assert request.decode(argument).options[EVENTFDS]["nro_size"] == size


def test_what_follows_a_names_end_does_not_matter():
    argument = header(abi.NETMAP_REQ_VALE_DELIF, name=b"foo\0\xff\xfe")

    assert request.decode(argument).name == "foo"


@pytest.mark.parametrize(
    ("reqtype", "name", "body", "options", "version"),
    [
        (99, "", None, {}, 14),
        (9, "x", {}, {}, 14),
        (9, "x" * 64, None, {}, 14),
        (9, "a\0b", None, {}, 14),
        (9, "\ud800", None, {}, 14),
        (9, "x", None, {}, 13),
        (9, "x", None, {6: {}}, 14),
        (1, "x", {"nr_colour": 1}, {}, 14),
        (1, "x", {"nr_tx_rings": 65536}, {}, 14),
        (1, "x", {"nr_tx_rings": -1}, {}, 14),
        (1, "x", {"nr_tx_rings": 1.5}, {}, 14),
        (13, "", {}, {EVENTFDS: {"eventfds": [{"ioeventfd": 1 << 31}]}}, 14),
        (13, "", {}, {EVENTFDS: {"nro_size": 24, "eventfds": [{}]}}, 14),
        (13, "", {}, {EVENTFDS: {"fds": []}}, 14),
    ],
)
def test_a_request_that_could_not_be_read_cannot_be_made(reqtype, name, body, options, version):
    with pytest.raises(WireError) as caught:
        Request(reqtype, name, body, options, version)
    assert caught.value.errno == errno.EINVAL


# What upstream refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 11, 13, 16, 0xFFFF])
def test_versions_other_than_14_and_15_are_refused(version):
    refused(errno.EINVAL, header(9, version=version))


@pytest.mark.parametrize("version", [14, 15])
def test_versions_14_and_15_are_served(version):
    assert request.decode(header(9, version=version)).version == version


@pytest.mark.parametrize("reqtype", [0, 16, 0x7FFF, 0x8000, 0x8FFF, 0xFFFF])
def test_unknown_request_types_are_refused(reqtype):
    refused(errno.EINVAL, header(reqtype, body=88) + bytes(64))


def test_reserved_bits_are_refused():
    refused(errno.EINVAL, header(9, reserved=1))


@pytest.mark.parametrize("name", [b"x" * 64, b"\xff", b"vale\xc3("])
def test_names_without_end_or_in_another_encoding_are_refused(name):
    refused(errno.EINVAL, header(9, name=name))


@pytest.mark.parametrize("reqtype", sorted(request.BODIES))
def test_a_body_is_there_exactly_if_the_type_has_one(reqtype):
    present = request.BODIES[reqtype] is not None

    refused(errno.EINVAL, header(reqtype, body=0 if present else 88) + bytes(512))


@pytest.mark.parametrize("at", [0, 8, 80])
def test_pointers_into_the_header_are_bad_addresses(at):
    refused(errno.EFAULT if at else errno.EINVAL, header(1, body=at) + bytes(56))
    if at:
        refused(errno.EFAULT, header(9, options=at))


@pytest.mark.parametrize("at", [96, 144, 1 << 20, (1 << 64) - 8])
def test_pointers_out_of_the_argument_are_bad_addresses(at):
    refused(errno.EFAULT, header(1, body=at) + bytes(56))
    refused(errno.EFAULT, header(9, options=at) + bytes(16))


def test_an_option_longer_than_the_argument_is_a_bad_address():
    refused(errno.EFAULT, register((CSB, b"")))
    refused(errno.EFAULT, header(13, 96, 88) + bytes(8) + option(EVENTFDS, 0, 32))


def test_unaligned_pointers_are_refused():
    refused(errno.EINVAL, header(1, body=92) + bytes(64))
    refused(errno.EINVAL, header(1, 148, 88) + bytes(90))


def test_parts_that_overlap_are_refused():
    refused(errno.EINVAL, header(1, 120, 88) + bytes(24) + bytes(8) + option(6) + bytes(8))


def test_a_circular_list_of_options_is_too_long():
    refused(errno.EMSGSIZE, header(9, 88) + option(CSB, 88, 0, bytes(16)))
    refused(errno.EMSGSIZE, header(9, 88) + option(77, 112) + option(78, 88))


def test_4096_bytes_of_body_and_options_pass_and_more_do_not():
    fits = header(13, 96, 88) + bytes(8) + option(EVENTFDS, 0, 4088, bytes(4064))
    assert len(request.decode(fits).options[EVENTFDS]["eventfds"]) == 508

    refused(errno.EMSGSIZE, header(13, 96, 88) + bytes(8) + option(EVENTFDS, 0, 4089, bytes(4080)))
    refused(errno.EMSGSIZE, header(13, 96, 88) + bytes(8) + option(EVENTFDS, 0, (1 << 64) - 1))
    with pytest.raises(WireError) as caught:
        Request(13, "", {}, {EVENTFDS: {"eventfds": [{}] * 509}})
    assert caught.value.errno == errno.EMSGSIZE


def test_a_header_that_is_cut_is_refused():
    refused(errno.EINVAL, header(9)[:-1])


# Options --------------------------------------------------------------------------------------------------------------


def test_options_nobody_takes_keep_not_supported():
    asked = request.decode(register((CSB, bytes(16)), (OFFSETS, bytes(32))))

    assert statuses(asked) == ((CSB, errno.EOPNOTSUPP), (OFFSETS, errno.EOPNOTSUPP))
    assert request.first_option_error(asked, {CSB: 0}) == errno.EOPNOTSUPP
    assert request.first_option_error(asked, {CSB: errno.EFAULT, OFFSETS: 0}) == errno.EFAULT
    assert request.first_option_error(asked, {CSB: 0, OFFSETS: 0}) == 0


def test_unknown_options_are_not_supported_and_number_0_is_invalid():
    asked = request.decode(register((6, b""), (0, b""), (0xFFFFFFFF, b"")))

    assert asked.options == {}
    assert [status for _, status in statuses(asked)] == [errno.EOPNOTSUPP, errno.EINVAL, errno.EOPNOTSUPP]


def test_an_option_given_twice_is_invalid_in_both_places_and_at_nobodys_hand():
    asked = request.decode(register((CSB, bytes(16)), (OFFSETS, bytes(32)), (CSB, bytes(16))))

    assert set(asked.options) == {OFFSETS}
    assert statuses(asked, option_status={OFFSETS: 0}) == ((CSB, 22), (OFFSETS, 0), (CSB, 22))
    assert request.first_option_error(asked, {OFFSETS: 0}) == errno.EINVAL


def test_a_request_without_options_has_no_option_error():
    assert request.first_option_error(request.decode(header(9)), {}) == 0


def test_statuses_come_back_whether_or_not_the_request_succeeded():
    asked = request.decode(register((CSB, bytes(16))))

    for error in (0, errno.ENOMEM):
        assert statuses(asked, option_status={CSB: 0}, error=error) == ((CSB, 0),)


def test_a_status_for_an_option_that_was_not_sent_is_a_programming_error():
    with pytest.raises(ValueError, match="option 3"):
        request.answer(request.decode(header(9)), option_status={CSB: 0})


# Answers --------------------------------------------------------------------------------------------------------------


def test_body_name_and_options_are_written_back_only_on_success():
    asked = request.decode(register((OFFSETS, bytes(32))))
    result = {
        "body": {"nr_memsize": 42369024},
        "name": "vale0:2",
        "option_status": {OFFSETS: 0},
        "option_values": {OFFSETS: {"nro_max_offset": 128}},
    }

    granted = request.decode_answer(asked, request.answer(asked, **result))
    denied = request.decode_answer(asked, request.answer(asked, **result, error=errno.EIO))

    assert (granted.name, granted.body["nr_memsize"]) == ("vale0:2", 42369024)
    assert granted.options[OFFSETS]["nro_max_offset"] == 128
    assert granted.fields == {**granted.body, "nr_name": "vale0:2"}
    assert (denied.name, denied.body, denied.options) == (asked.name, asked.body, asked.options)


def test_the_contents_of_a_failed_option_stay_as_they_were():
    asked = request.decode(register((OFFSETS, bytes(32))))

    answered = request.answer(
        asked, option_status={OFFSETS: errno.EINVAL}, option_values={OFFSETS: {"nro_max_offset": 128}}
    )

    assert request.decode_answer(asked, answered).options == asked.options


def test_an_answer_touches_nothing_but_its_fields():
    argument = header(abi.NETMAP_REQ_VALE_DETACH, body=96) + b"gapgapga" + struct.pack("<I4s", 0, b"pads") + b"tail"
    asked = request.decode(argument)

    answered = request.answer(asked, body={"port_index": 7})

    assert answered == argument[:96] + struct.pack("<I4s", 7, b"pads") + b"tail"


def test_an_answer_to_something_else_is_refused():
    asked = Request(abi.NETMAP_REQ_VALE_DELIF, "foo")

    for other in (Request(abi.NETMAP_REQ_CSB_ENABLE).argument, asked.argument + bytes(8)):
        with pytest.raises(WireError) as caught:
            request.decode_answer(asked, other)
        assert caught.value.errno == errno.EPROTO


def test_an_answer_does_not_outgrow_its_request():
    page = request.decode(Request(extension.AUDIT, "", {"room": 8}).argument)
    loop = Request(abi.NETMAP_REQ_SYNC_KLOOP_START, "", {}, {EVENTFDS: {"eventfds": [{}]}})

    for asked, changes in (
        (page, {"body": {"room": 16, "text": b"0123456789"}}),
        (page, {"body": {"text": b"0123456789"}}),
        (loop, {"option_status": {2: 0}, "option_values": {2: {"nro_size": 40, "eventfds": [{}, {}]}}}),
    ):
        with pytest.raises(WireError) as caught:
            request.answer(asked, **changes)
        assert caught.value.errno == errno.EINVAL

# SPDX-License-Identifier: BSD-2-Clause
import errno

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import legacy, request
from ptnetmap.netmap.wire.error import WireError

REGIF, GINFO = abi.NIOCREGIF, abi.NIOCGINFO
ANY = pytest.mark.parametrize("version", [11, 12, 13, 14, 15, 99])
COUNTS = {"nr_tx_slots": 100, "nr_rx_slots": 200, "nr_tx_rings": 3, "nr_rx_rings": 4}


def nmreq(name=b"vale0:1", version=14, **fields):
    req = np.zeros(1, abi.nmreq)
    req["nr_name"], req["nr_version"] = name, version
    for key, value in fields.items():
        req[f"nr_{key}" if key != "spare2" else key] = value
    return req.tobytes()


def fields(argument):
    return {name: np.frombuffer(argument, abi.nmreq)[name].item() for name in abi.nmreq.names}


def decoded(ioctl=REGIF, **arguments):
    asked = legacy.decode(ioctl, nmreq(**arguments))
    return asked.reqtype, asked.name, {key: value for key, value in (asked.body or {}).items() if value}


def changed(ioctl, argument, *, error=0, **written):
    """Return what an answer changes in an nmreq."""
    asked = legacy.decode(ioctl, argument)
    after = fields(legacy.answer(argument, asked, request.answer(asked, **written, error=error), error))
    return {key: value for key, value in after.items() if value != fields(argument)[key]}


def refused(ioctl, argument):
    with pytest.raises(WireError) as caught:
        legacy.decode(ioctl, argument)
    assert caught.value.errno == errno.EINVAL
    assert "\n        " in str(caught.value)


@ANY
def test_a_plain_registration_binds_all_rings(version):
    assert decoded(version=version) == (abi.NETMAP_REQ_REGISTER, "vale0:1", {"nr_mode": abi.NR_REG_ALL_NIC})


@pytest.mark.parametrize(
    ("ringid", "mode", "ring"),
    [
        (abi.NETMAP_SW_RING, abi.NR_REG_SW, 0),
        (abi.NETMAP_HW_RING | 5, abi.NR_REG_ONE_NIC, 5),
        (abi.NETMAP_SW_RING | abi.NETMAP_HW_RING | 1, abi.NR_REG_SW, 1),
        (7, abi.NR_REG_ALL_NIC, 7),
    ],
)
def test_without_a_mode_the_ring_number_decides(ringid, mode, ring):
    body = legacy.decode(REGIF, nmreq(ringid=ringid)).body

    assert (body["nr_mode"], body["nr_ringid"], body["nr_flags"]) == (mode, ring, 0)


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 7, 8])
def test_a_mode_in_the_flags_decides_and_the_bits_of_the_ring_number_do_not(mode):
    body = legacy.decode(REGIF, nmreq(flags=mode | abi.NR_EXCLUSIVE, ringid=abi.NETMAP_SW_RING | 2)).body

    assert (body["nr_mode"], body["nr_ringid"], body["nr_flags"]) == (mode, 2, abi.NR_EXCLUSIVE)


@pytest.mark.parametrize("mode", [7, 8, 15])
def test_programs_of_2015_do_not_have_todays_modes(mode):
    refused(REGIF, nmreq(version=11, flags=mode))


def test_poll_bits_of_the_ring_number_become_flags():
    bits = abi.NETMAP_NO_TX_POLL | abi.NETMAP_DO_RX_POLL

    assert legacy.decode(REGIF, nmreq(ringid=bits)).body["nr_flags"] == abi.NR_NO_TX_POLL | abi.NR_DO_RX_POLL


@ANY
@pytest.mark.parametrize(("mode", "brace"), [(abi.NR_REG_PIPE_MASTER, "{"), (abi.NR_REG_PIPE_SLAVE, "}")])
def test_a_pipes_number_moves_into_its_name(version, mode, brace):
    reqtype, name, body = decoded(name=b"x", version=version, flags=mode | abi.NR_EXCLUSIVE, ringid=0x1000 | 4094)

    assert (reqtype, name) == (abi.NETMAP_REQ_REGISTER, f"x{brace}4094")
    assert body == {"nr_mode": abi.NR_REG_ALL_NIC, "nr_flags": abi.NR_EXCLUSIVE | abi.NR_NO_TX_POLL}


@pytest.mark.parametrize(
    ("ioctl", "given", "reqtype", "body"),
    [
        (REGIF, {"arg1": 9, "arg2": 5, "arg3": 6}, 1, {"nr_mode": 1, "nr_mem_id": 5, "nr_extra_bufs": 6}),
        (REGIF, {"cmd": 1, "arg1": 0}, 3, {"reg": {"nr_mode": abi.NR_REG_ALL_NIC}}),
        (REGIF, {"cmd": 1, "arg1": 1}, 3, {"reg": {"nr_mode": abi.NR_REG_NIC_SW}}),
        (REGIF, {"cmd": 1, "arg2": 4, "flags": 4}, 3, {"reg": {"nr_mode": 1, "nr_mem_id": 4}}),
        (REGIF, {"cmd": 2}, 4, {}),
        (REGIF, {"cmd": 5, "arg1": 12}, 6, {"nr_hdr_len": 12}),
        (REGIF, {"cmd": 6, "name": b"foo", "arg2": 3}, 8, {"nr_mem_id": 3}),
        (REGIF, {"cmd": 7, "name": b"foo"}, 9, {}),
        (REGIF, {"cmd": 10, "flags": 1, "ringid": 2, "arg1": 1}, 10, (1, 2, 1)),
        (REGIF, {"cmd": 11, "flags": 4, "ringid": 0x4003, "arg1": 2}, 11, (2, 3, 2)),
        (REGIF, {"cmd": 10, "flags": 2, "arg1": 1}, 10, (0, 0, 1)),
        (REGIF, {"cmd": 12}, 7, {}),
        (GINFO, {"cmd": 4, "arg1": 2, "arg2": 9}, 5, {"nr_bridge_idx": 2, "nr_port_idx": 9}),
        (GINFO, {"cmd": 0, "arg2": 5}, 2, {"nr_mem_id": 5}),
        (GINFO, {"cmd": 77}, 2, {}),
    ],
)
def test_commands_become_requests(ioctl, given, reqtype, body):
    if isinstance(body, tuple):
        body = dict(zip(("nr_mode", "nr_first_cpu_id", "nr_num_polling_cpus"), body, strict=True))
    asked = legacy.decode(ioctl, nmreq(**given))
    expected = request.Request(reqtype, asked.name, body if asked.body is not None else None)

    assert asked == expected


@pytest.mark.parametrize("cmd", [0, 1, 6])
def test_numbers_of_rings_and_slots_are_asked_for(cmd):
    body = legacy.decode(REGIF, nmreq(cmd=cmd, name=b"foo", **{key[3:]: n for key, n in COUNTS.items()})).body

    assert COUNTS.items() <= (body["reg"] if cmd == 1 else body).items()


@ANY
@pytest.mark.parametrize("cmd", [3, 4, 8, 9, 13, 0xFFFF])
def test_unknown_commands_are_refused(version, cmd):
    refused(REGIF, nmreq(version=version, cmd=cmd))


@pytest.mark.parametrize("cmd", [10, 11, 12])
def test_commands_younger_than_2015_are_refused_to_programs_of_that_time(cmd):
    refused(REGIF, nmreq(version=11, cmd=cmd))


@pytest.mark.parametrize("version", [0, 4, 10])
def test_older_structures_are_refused(version):
    refused(REGIF, nmreq(version=version))
    refused(GINFO, nmreq(version=version))


@pytest.mark.parametrize("argument", [b"", nmreq()[:-1], b"x" * 16 + nmreq()[16:], b"\xff" + nmreq()[1:]])
def test_broken_structures_are_refused(argument):
    refused(REGIF, argument)


def test_other_ioctls_have_no_nmreq():
    refused(abi.NIOCCTRL, nmreq())


@pytest.mark.parametrize(("version", "api"), [(11, 11), (13, 11), (14, 14), (99, 14)])
def test_the_version_says_whose_rules_hold(version, api):
    assert legacy.api_of(nmreq(version=version)) == api


@pytest.mark.parametrize("error", [0, errno.EBUSY])
def test_programs_of_2015_always_see_version_11_and_others_their_own(error):
    for version, after in ((12, {"nr_version": 11}), (11, {}), (14, {}), (99, {})):
        assert changed(REGIF, nmreq(version=version, cmd=2), error=error) == after


def test_a_registration_says_what_was_granted():
    body = {"nr_offset": 1024, "nr_memsize": 42369024, "nr_mem_id": 7, "nr_extra_bufs": 2, **COUNTS}
    expected = {"nr_offset": 1024, "nr_memsize": 42369024, "nr_arg2": 7, "nr_arg3": 2, **COUNTS}

    assert changed(REGIF, nmreq(arg3=9, ringid=0x4001), body=body) == expected
    assert changed(REGIF, nmreq(cmd=1), body={"reg": body}) == expected
    assert changed(REGIF, nmreq(arg3=9), body=body, error=errno.EBUSY) == {}


def test_other_answers_go_where_programs_look_for_them():
    info = {"nr_memsize": 4096, "nr_mem_id": 7, **COUNTS}
    assert changed(GINFO, nmreq(), body=info) == {"nr_memsize": 4096, "nr_arg2": 7, **COUNTS}
    assert changed(REGIF, nmreq(cmd=6), body={**COUNTS, "nr_mem_id": 7}) == {"nr_arg2": 7, **COUNTS}
    assert changed(REGIF, nmreq(cmd=12), body={"nr_hdr_len": 12}) == {"nr_arg1": 12}
    assert changed(REGIF, nmreq(cmd=2), body={"port_index": 3}) == {}
    assert changed(REGIF, nmreq(cmd=7)) == {}
    listed = changed(GINFO, nmreq(b"", cmd=4), name="vale0:7", body={"nr_bridge_idx": 1, "nr_port_idx": 2})
    assert listed == {"nr_name": b"vale0:7", "nr_arg1": 1, "nr_arg2": 2}


def test_numbers_and_names_too_big_for_the_structure_are_cut():
    assert changed(GINFO, nmreq(), body={"nr_memsize": (5 << 32) + 4096}) == {"nr_memsize": 4096}
    assert changed(GINFO, nmreq(b"", cmd=4), name="vale0:" + "x" * 20) == {"nr_name": b"vale0:xxxxxxxxx"}


def test_what_is_not_a_field_of_the_answer_stays():
    argument = nmreq(b"foo\0junk", cmd=7, spare2=0xDEADBEEF, arg1=5)
    asked = legacy.decode(REGIF, argument)

    assert legacy.answer(argument, asked, request.answer(asked)) == argument

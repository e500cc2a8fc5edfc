# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import extension, rules
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.request import BODIES, Request

ALL, HOST = abi.NR_REG_ALL_NIC, abi.NR_REG_NIC_SW


def polling(mode, cpus):
    return {"nr_mode": mode, "nr_num_polling_cpus": cpus}


@pytest.mark.parametrize(
    ("reqtype", "name", "body"),
    [
        (abi.NETMAP_REQ_REGISTER, "vale0:1", {"nr_mode": ALL}),
        (abi.NETMAP_REQ_PORT_INFO_GET, "", {}),
        (abi.NETMAP_REQ_PORT_INFO_GET, "eth0", {}),
        (abi.NETMAP_REQ_VALE_ATTACH, "vale0:foo", {"reg": {"nr_mode": ALL}}),
        (abi.NETMAP_REQ_VALE_ATTACH, "vale0:foo", {"reg": {"nr_mode": HOST}}),
        (abi.NETMAP_REQ_VALE_DETACH, "vale0:foo", {}),
        (abi.NETMAP_REQ_VALE_LIST, "", {}),
        (abi.NETMAP_REQ_VALE_LIST, "vale0", {}),
        (abi.NETMAP_REQ_PORT_HDR_SET, "vale0:1", {"nr_hdr_len": 0}),
        (abi.NETMAP_REQ_PORT_HDR_SET, "vale0:1", {"nr_hdr_len": 10}),
        (abi.NETMAP_REQ_PORT_HDR_SET, "vale0:1", {"nr_hdr_len": 12}),
        (abi.NETMAP_REQ_VALE_NEWIF, "f" * 15, {}),
        (abi.NETMAP_REQ_VALE_DELIF, "foo", None),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(1, 1)),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(2, 4)),
        (abi.NETMAP_REQ_VALE_POLLING_DISABLE, "vale0:eth0", {}),
        (abi.NETMAP_REQ_SYNC_KLOOP_START, "", {"sleep_us": 1_000_000}),
        (extension.LOSSLESS_SET, "vale0:1", {"on": 1}),
        (extension.AUDIT, "", {"room": 8}),
    ],
)
def test_a_request_that_some_netmap_could_grant_passes(reqtype, name, body):
    rules.check(Request(reqtype, name, body))


@pytest.mark.parametrize(
    ("reqtype", "name", "body"),
    [
        (abi.NETMAP_REQ_REGISTER, "x", {"nr_mode": abi.NR_REG_DEFAULT}),
        (abi.NETMAP_REQ_REGISTER, "x", {"nr_mode": abi.NR_REG_PIPE_MASTER}),
        (abi.NETMAP_REQ_REGISTER, "x", {"nr_mode": abi.NR_REG_NULL}),
        (abi.NETMAP_REQ_PORT_INFO_GET, "a/b", {}),
        (abi.NETMAP_REQ_VALE_ATTACH, "foo", {"reg": {"nr_mode": ALL}}),
        (abi.NETMAP_REQ_VALE_ATTACH, "vale0:", {"reg": {"nr_mode": ALL}}),
        (abi.NETMAP_REQ_VALE_ATTACH, "vale0:foo", {"reg": {"nr_mode": abi.NR_REG_ONE_NIC}}),
        (abi.NETMAP_REQ_VALE_ATTACH, "vale0:foo", {"reg": {"nr_mode": HOST, "nr_ringid": 1}}),
        (abi.NETMAP_REQ_VALE_DETACH, "foo", {}),
        (abi.NETMAP_REQ_VALE_LIST, "foo", {}),
        (abi.NETMAP_REQ_PORT_HDR_SET, "vale0:1", {"nr_hdr_len": 11}),
        (abi.NETMAP_REQ_VALE_NEWIF, "f" * 16, {}),
        (abi.NETMAP_REQ_VALE_NEWIF, "vale9", {}),
        (abi.NETMAP_REQ_VALE_NEWIF, "x{1", {}),
        (abi.NETMAP_REQ_VALE_NEWIF, "a b", {}),
        (abi.NETMAP_REQ_VALE_NEWIF, "", {}),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "eth0", polling(1, 1)),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(0, 1)),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(3, 1)),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(1, 2)),
        (abi.NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:eth0", polling(2, 0)),
        (abi.NETMAP_REQ_VALE_POLLING_DISABLE, "eth0", {}),
        (abi.NETMAP_REQ_SYNC_KLOOP_START, "", {"sleep_us": 1_000_001}),
        (abi.NETMAP_REQ_CSB_ENABLE, "", None),
        (extension.LOSSLESS_SET, "vale0:1", {"on": 2}),
    ],
)
def test_a_request_that_no_netmap_could_grant_is_invalid(reqtype, name, body):
    with pytest.raises(WireError) as caught:
        rules.check(Request(reqtype, name, body))
    assert caught.value.errno == errno.EINVAL
    assert "\n        " in str(caught.value)


def test_csb_enable_passes_with_its_option():
    rules.check(Request(abi.NETMAP_REQ_CSB_ENABLE, "", None, {abi.NETMAP_REQ_OPT_CSB: {}}))


def test_an_empty_request_of_any_type_passes_or_is_refused_with_wire_error():
    for reqtype in BODIES:
        with contextlib.suppress(WireError):
            rules.check(Request(reqtype))

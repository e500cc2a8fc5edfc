# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import netmap as abi

REGISTER = {
    "nr_offset": (0, 8),
    "nr_memsize": (8, 8),
    "nr_tx_slots": (16, 4),
    "nr_rx_slots": (20, 4),
    "nr_tx_rings": (24, 2),
    "nr_rx_rings": (26, 2),
    "nr_host_tx_rings": (28, 2),
    "nr_host_rx_rings": (30, 2),
    "nr_mem_id": (32, 2),
    "nr_ringid": (34, 2),
    "nr_mode": (36, 4),
    "nr_extra_bufs": (40, 4),
    "nr_flags": (48, 8),
}
PORT_INFO = {
    "nr_memsize": (0, 8),
    "nr_tx_slots": (8, 4),
    "nr_rx_slots": (12, 4),
    "nr_tx_rings": (16, 2),
    "nr_rx_rings": (18, 2),
    "nr_host_tx_rings": (20, 2),
    "nr_host_rx_rings": (22, 2),
    "nr_mem_id": (24, 2),
}
NEWIF = {
    "nr_tx_slots": (0, 4),
    "nr_rx_slots": (4, 4),
    "nr_tx_rings": (8, 2),
    "nr_rx_rings": (10, 2),
    "nr_mem_id": (12, 2),
}
POLLING = {"nr_mode": (0, 4), "nr_first_cpu_id": (4, 4), "nr_num_polling_cpus": (8, 4)}
POOLS = {
    "nr_memsize": (0, 8),
    "nr_mem_id": (8, 2),
    "nr_if_pool_offset": (16, 8),
    "nr_if_pool_objtotal": (24, 4),
    "nr_if_pool_objsize": (28, 4),
    "nr_ring_pool_offset": (32, 8),
    "nr_ring_pool_objtotal": (40, 4),
    "nr_ring_pool_objsize": (44, 4),
    "nr_buf_pool_offset": (48, 8),
    "nr_buf_pool_objtotal": (56, 4),
    "nr_buf_pool_objsize": (60, 4),
}


def test_the_header_has_upstreams_88_bytes(layout):
    assert abi.nmreq_header.itemsize == 88
    assert layout(abi.nmreq_header) == {
        "nr_version": (0, 2),
        "nr_reqtype": (2, 2),
        "nr_reserved": (4, 4),
        "nr_name": (8, 64),
        "nr_options": (72, 8),
        "nr_body": (80, 8),
    }


@pytest.mark.parametrize(
    ("name", "number", "size", "fields"),
    [
        ("REGISTER", 1, 56, REGISTER),
        ("PORT_INFO_GET", 2, 32, PORT_INFO),
        ("VALE_ATTACH", 3, 64, {"reg": (0, 56), "port_index": (56, 4)}),
        ("VALE_DETACH", 4, 8, {"port_index": (0, 4)}),
        ("VALE_LIST", 5, 8, {"nr_bridge_idx": (0, 2), "nr_port_idx": (4, 4)}),
        ("PORT_HDR_SET", 6, 8, {"nr_hdr_len": (0, 4)}),
        ("PORT_HDR_GET", 7, 8, {"nr_hdr_len": (0, 4)}),
        ("VALE_NEWIF", 8, 16, NEWIF),
        ("VALE_POLLING_ENABLE", 10, 16, POLLING),
        ("VALE_POLLING_DISABLE", 11, 16, POLLING),
        ("POOLS_INFO_GET", 12, 64, POOLS),
        ("SYNC_KLOOP_START", 13, 8, {"sleep_us": (0, 4)}),
    ],
)
def test_a_request_has_upstreams_number_and_body(layout, name, number, size, fields):
    assert getattr(abi, f"NETMAP_REQ_{name}") == number
    body = abi.REQUEST_BODIES[number]
    assert body.itemsize == size
    assert layout(body) == fields


@pytest.mark.parametrize(("name", "number"), [("VALE_DELIF", 9), ("SYNC_KLOOP_STOP", 14), ("CSB_ENABLE", 15)])
def test_a_request_without_a_body_says_so(name, number):
    assert getattr(abi, f"NETMAP_REQ_{name}") == number
    assert abi.REQUEST_BODIES[number] is None


def test_there_are_exactly_fifteen_requests():
    assert set(abi.REQUEST_BODIES) == set(range(1, 16))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NETMAP_API", 14),
        ("NETMAP_MIN_API", 14),
        ("NETMAP_MAX_API", 15),
        ("NETMAP_API_2015", 11),
        ("NETMAP_REQ_IFNAMSIZ", 64),
        ("NETMAP_REQ_MAXSIZE", 4096),
        ("NM_BDG_NAME", "vale"),
        ("NR_REG_DEFAULT", 0),
        ("NR_REG_ALL_NIC", 1),
        ("NR_REG_SW", 2),
        ("NR_REG_NIC_SW", 3),
        ("NR_REG_ONE_NIC", 4),
        ("NR_REG_PIPE_MASTER", 5),
        ("NR_REG_PIPE_SLAVE", 6),
        ("NR_REG_NULL", 7),
        ("NR_REG_ONE_SW", 8),
        ("NR_MONITOR_TX", 0x100),
        ("NR_MONITOR_RX", 0x200),
        ("NR_ZCOPY_MON", 0x400),
        ("NR_EXCLUSIVE", 0x800),
        ("NR_PTNETMAP_HOST", 0x1000),
        ("NR_RX_RINGS_ONLY", 0x2000),
        ("NR_TX_RINGS_ONLY", 0x4000),
        ("NR_ACCEPT_VNET_HDR", 0x8000),
        ("NR_DO_RX_POLL", 0x10000),
        ("NR_NO_TX_POLL", 0x20000),
        ("NETMAP_POLLING_MODE_SINGLE_CPU", 1),
        ("NETMAP_POLLING_MODE_MULTI_CPU", 2),
    ],
)
def test_a_constant_has_upstreams_value(name, value):
    assert getattr(abi, name) == value

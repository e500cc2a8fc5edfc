# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import netmap as abi


def test_the_legacy_request_has_upstreams_60_bytes(layout):
    assert abi.nmreq.itemsize == 60
    assert layout(abi.nmreq) == {
        "nr_name": (0, 16),
        "nr_version": (16, 4),
        "nr_offset": (20, 4),
        "nr_memsize": (24, 4),
        "nr_tx_slots": (28, 4),
        "nr_rx_slots": (32, 4),
        "nr_tx_rings": (36, 2),
        "nr_rx_rings": (38, 2),
        "nr_ringid": (40, 2),
        "nr_cmd": (42, 2),
        "nr_arg1": (44, 2),
        "nr_arg2": (46, 2),
        "nr_arg3": (48, 4),
        "nr_flags": (52, 4),
        "spare2": (56, 4),
    }


def test_a_passthrough_configuration_lies_over_the_arguments():
    assert abi.nmreq.fields["nr_arg1"][1] == abi.PTNETMAP_CFG_OFFSET
    assert abi.nmreq.fields["nr_flags"][1] == abi.PTNETMAP_CFG_OFFSET + 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NR_REG_MASK", 0xF),
        ("NETMAP_HW_RING", 0x4000),
        ("NETMAP_SW_RING", 0x2000),
        ("NETMAP_RING_MASK", 0x0FFF),
        ("NETMAP_NO_TX_POLL", 0x1000),
        ("NETMAP_DO_RX_POLL", 0x8000),
        ("NETMAP_BDG_ATTACH", 1),
        ("NETMAP_BDG_DETACH", 2),
        ("NETMAP_BDG_REGOPS", 3),
        ("NETMAP_BDG_LIST", 4),
        ("NETMAP_BDG_VNET_HDR", 5),
        ("NETMAP_BDG_OFFSET", 5),
        ("NETMAP_BDG_NEWIF", 6),
        ("NETMAP_BDG_DELIF", 7),
        ("NETMAP_PT_HOST_CREATE", 8),
        ("NETMAP_PT_HOST_DELETE", 9),
        ("NETMAP_BDG_POLLING_ON", 10),
        ("NETMAP_BDG_POLLING_OFF", 11),
        ("NETMAP_VNET_HDR_GET", 12),
        ("NETMAP_BDG_HOST", 1),
    ],
)
def test_a_legacy_constant_has_upstreams_value(name, value):
    assert getattr(abi, name) == value


def test_the_bits_of_a_ringid_do_not_overlap():
    bits = [
        abi.NETMAP_HW_RING,
        abi.NETMAP_SW_RING,
        abi.NETMAP_RING_MASK,
        abi.NETMAP_NO_TX_POLL,
        abi.NETMAP_DO_RX_POLL,
    ]
    assert sum(bits) == 0xFFFF

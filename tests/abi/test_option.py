# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import netmap as abi

OFFSETS = {
    "nro_opt": (0, 24),
    "nro_max_offset": (24, 8),
    "nro_initial_offset": (32, 8),
    "nro_offset_bits": (40, 4),
    "nro_tx_align": (44, 4),
    "nro_min_gap": (48, 8),
}


def test_the_option_header_has_upstreams_24_bytes(layout):
    assert abi.nmreq_option.itemsize == 24
    assert layout(abi.nmreq_option) == {
        "nro_next": (0, 8),
        "nro_reqtype": (8, 4),
        "nro_status": (12, 4),
        "nro_size": (16, 8),
    }


@pytest.mark.parametrize(
    ("name", "number", "size", "fields"),
    [
        ("EXTMEM", 1, 96, {"nro_opt": (0, 24), "nro_usrptr": (24, 8), "nro_info": (32, 64)}),
        ("SYNC_KLOOP_EVENTFDS", 2, 24, {"nro_opt": (0, 24)}),
        ("CSB", 3, 40, {"nro_opt": (0, 24), "csb_atok": (24, 8), "csb_ktoa": (32, 8)}),
        ("SYNC_KLOOP_MODE", 4, 32, {"nro_opt": (0, 24), "mode": (24, 4)}),
        ("OFFSETS", 5, 56, OFFSETS),
    ],
)
def test_an_option_has_upstreams_number_and_layout(layout, name, number, size, fields):
    assert getattr(abi, f"NETMAP_REQ_OPT_{name}") == number
    option = abi.OPTION_LAYOUTS[number]
    assert option.itemsize == size
    assert layout(option) == fields


def test_the_options_are_all_below_max():
    assert set(abi.OPTION_LAYOUTS) == set(range(1, abi.NETMAP_REQ_OPT_MAX))
    assert abi.NETMAP_REQ_OPT_MAX == 6


def test_an_eventfds_option_has_8_bytes_a_ring(layout):
    assert layout(abi.sync_kloop_eventfd) == {"ioeventfd": (0, 4), "irqfd": (4, 4)}
    assert {abi.sync_kloop_eventfd[name].kind for name in ("ioeventfd", "irqfd")} == {"i"}
    assert [abi.eventfds_option_size(rings) for rings in (0, 2, 64)] == [24, 40, 536]


def test_direct_modes_are_two_bits():
    assert (abi.NM_OPT_SYNC_KLOOP_DIRECT_TX, abi.NM_OPT_SYNC_KLOOP_DIRECT_RX) == (1, 2)

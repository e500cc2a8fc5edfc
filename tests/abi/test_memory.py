# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi


def test_a_slot_has_upstreams_16_bytes(layout):
    assert abi.slot.itemsize == 16
    assert layout(abi.slot) == {"buf_idx": (0, 4), "len": (4, 2), "flags": (6, 2), "ptr": (8, 8)}


def test_a_ring_header_has_upstreams_256_bytes(layout):
    assert abi.ring.itemsize == 256
    assert layout(abi.ring) == {
        "buf_ofs": (0, 8),
        "num_slots": (8, 4),
        "nr_buf_size": (12, 4),
        "ringid": (16, 2),
        "dir": (18, 2),
        "head": (20, 4),
        "cur": (24, 4),
        "tail": (28, 4),
        "flags": (32, 4),
        "ts_sec": (40, 8),
        "ts_usec": (48, 8),
        "offset_mask": (56, 8),
        "buf_align": (64, 8),
        "sem": (128, 128),
    }


def test_only_distances_and_times_are_signed():
    kinds = {name: abi.ring[name].kind for name in abi.ring.names if name != "sem"}
    assert {name for name, kind in kinds.items() if kind == "i"} == {"buf_ofs", "ts_sec", "ts_usec"}
    assert abi.ring_ofs.kind == "i"


def test_a_netmap_if_header_has_upstreams_56_bytes(layout):
    assert abi.netmap_if.itemsize == 56
    assert layout(abi.netmap_if) == {
        "ni_name": (0, 16),
        "ni_version": (16, 4),
        "ni_flags": (20, 4),
        "ni_tx_rings": (24, 4),
        "ni_rx_rings": (28, 4),
        "ni_bufs_head": (32, 4),
        "ni_host_tx_rings": (36, 4),
        "ni_host_rx_rings": (40, 4),
    }
    assert abi.ring_ofs.itemsize == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TX", 0),
        ("RX", 1),
        ("IFNAMSIZ", 16),
        ("NS_BUF_CHANGED", 0x0001),
        ("NS_REPORT", 0x0002),
        ("NS_FORWARD", 0x0004),
        ("NS_NO_LEARN", 0x0008),
        ("NS_INDIRECT", 0x0010),
        ("NS_MOREFRAG", 0x0020),
        ("NS_TXMON", 0x0040),
        ("NS_PORT_MASK", 0xFF00),
        ("NS_PORT_SHIFT", 8),
        ("NETMAP_MAX_FRAGS", 64),
        ("NR_TIMESTAMP", 2),
        ("NR_FORWARD", 4),
        ("NI_PRIV_MEM", 1),
    ],
)
def test_a_flag_has_upstreams_value(name, value):
    assert getattr(abi, name) == value


def test_a_ring_of_4096_slots_does_not_fit_in_the_default_object():
    assert abi.ring_size(4096) == 65792
    assert abi.ring_size(2288) <= 36864 < abi.ring_size(2289)


def test_a_netmap_if_grows_by_8_bytes_a_ring():
    assert abi.netmap_if_size(0) == 56
    assert abi.netmap_if_size(4) == 88


def test_rx_rings_of_2015_come_after_exactly_one_host_ring():
    assert abi.ring_offset_index(abi.RX, 2, ni_tx_rings=3, ni_host_tx_rings=7, api=11) == 6
    assert abi.ring_offset_index(abi.RX, 2, ni_tx_rings=3, ni_host_tx_rings=7, api=14) == 12


@given(counts=st.tuples(*[st.integers(0, 5)] * 4))
def test_every_ring_has_its_own_offset_in_upstreams_order(counts):
    tx, host_tx, rx, host_rx = counts
    of_tx = [abi.ring_offset_index(abi.TX, i, tx, host_tx, 14) for i in range(tx + host_tx)]
    of_rx = [abi.ring_offset_index(abi.RX, i, tx, host_tx, 14) for i in range(rx + host_rx)]
    assert of_tx + of_rx == list(range(sum(counts)))

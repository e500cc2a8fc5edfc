# SPDX-License-Identifier: BSD-2-Clause
from ptnetmap.abi import netmap as abi


def test_an_entry_fills_a_cache_line(layout):
    assert abi.CSB_ALIGN == abi.nm_csb_atok.itemsize == abi.nm_csb_ktoa.itemsize == 64
    assert layout(abi.nm_csb_atok) == {"head": (0, 4), "cur": (4, 4), "appl_need_kick": (8, 4), "sync_flags": (12, 4)}
    assert layout(abi.nm_csb_ktoa) == {"hwcur": (0, 4), "hwtail": (4, 4), "kern_need_kick": (8, 4)}


def test_the_csb_of_2015_uses_156_bytes_of_a_page(layout):
    assert abi.csb_2015.itemsize == 156
    assert abi.NETMAP_VIRT_CSB_SIZE == 4096
    assert layout(abi.csb_2015) == {
        "guest_tdt": (0, 4),
        "guest_need_txkick": (4, 4),
        "guest_need_rxkick": (8, 4),
        "guest_csb_on": (12, 4),
        "guest_rdt": (16, 4),
        "guest_txkick_at": (20, 4),
        "guest_use_msix": (24, 4),
        "host_tdh": (64, 4),
        "host_need_txkick": (68, 4),
        "host_txcycles_lim": (72, 4),
        "host_txcycles": (76, 4),
        "host_rdh": (80, 4),
        "host_need_rxkick": (84, 4),
        "host_isr": (88, 4),
        "host_rxkick_at": (92, 4),
        "vnet_ring_high": (96, 4),
        "vnet_ring_low": (100, 4),
        "nifp_offset": (104, 4),
        "num_tx_rings": (108, 2),
        "num_rx_rings": (110, 2),
        "num_tx_slots": (112, 2),
        "num_rx_slots": (114, 2),
        "tx_ring": (116, 20),
        "rx_ring": (136, 20),
    }


def test_a_ring_block_of_2015_has_20_bytes(layout):
    assert abi.csb_2015_ring.itemsize == 20
    assert layout(abi.csb_2015_ring) == {
        "head": (0, 4),
        "cur": (4, 4),
        "hwcur": (8, 4),
        "hwtail": (12, 4),
        "sync_flags": (16, 4),
    }


def test_sync_flags_have_upstreams_values():
    assert (abi.NAF_FORCE_READ, abi.NAF_FORCE_RECLAIM, abi.NAF_CAN_FORWARD_DOWN) == (1, 2, 4)

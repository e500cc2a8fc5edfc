# SPDX-License-Identifier: BSD-2-Clause
"""Where the fields of one ring's CSB are, in each of its layouts: what a kthread needs to know of a CSB."""

from __future__ import annotations

from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.netmap.csb import csb_2015, csb_2015_ring, nm_csb_atok, nm_csb_ktoa
from ptnetmap.jit.block import offsets
from ptnetmap.netmap.csb import CORE, SERVED
from ptnetmap.netmap.kring import ORDER_HWCUR_FIRST, ORDER_HWTAIL_FIRST

_ATOK = offsets(nm_csb_atok)
_KTOA = offsets(nm_csb_ktoa)
_2015 = offsets(csb_2015)
_2015_RING = offsets(csb_2015_ring)


class CsbFields(NamedTuple):
    """Addresses of a ring's fields, and how they are used.

    ``order`` says which of hwcur and hwtail is stored first (ORDER_*), ``clears`` that appl_need_kick is cleared before
    an interrupt. ``served`` and ``core`` are the places that only a CSB of our own has, else 0.
    """

    head: int
    cur: int
    appl_need_kick: int
    sync_flags: int
    hwcur: int
    hwtail: int
    kern_need_kick: int
    order: int = ORDER_HWCUR_FIRST
    clears: bool = False
    served: int = 0
    core: int = 0


def entries(atok: int, ktoa: int, *, private: bool = False) -> CsbFields:
    """Return the fields of today's CSB, from the addresses of both entries; ``private`` if we made it, with more in it."""
    return CsbFields(
        head=atok + _ATOK["head"],
        cur=atok + _ATOK["cur"],
        appl_need_kick=atok + _ATOK["appl_need_kick"],
        sync_flags=atok + _ATOK["sync_flags"],
        hwcur=ktoa + _KTOA["hwcur"],
        hwtail=ktoa + _KTOA["hwtail"],
        kern_need_kick=ktoa + _KTOA["kern_need_kick"],
        clears=private,
        served=ktoa + SERVED if private else 0,
        core=ktoa + CORE if private else 0,
    )


def page_2015(page: int, direction: int) -> CsbFields:
    """Return the fields of the TX or RX ring of a CSB of 2015, from the address of its page (netmap-abi 5a.2)."""
    way = "tx" if direction == abi.TX else "rx"
    ring = page + _2015[f"{way}_ring"]
    return CsbFields(
        head=ring + _2015_RING["head"],
        cur=ring + _2015_RING["cur"],
        appl_need_kick=page + _2015[f"guest_need_{way}kick"],
        sync_flags=ring + _2015_RING["sync_flags"],
        hwcur=ring + _2015_RING["hwcur"],
        hwtail=ring + _2015_RING["hwtail"],
        kern_need_kick=page + _2015[f"host_need_{way}kick"],
        order=ORDER_HWTAIL_FIRST,
        clears=True,
    )

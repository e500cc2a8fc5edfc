# SPDX-License-Identifier: BSD-2-Clause
"""Which port names are devices of a Linux guest: ``netmap:ptnetN`` is the ptnet that comes N-th on the bus, from 0."""

from __future__ import annotations

import re
from pathlib import Path

from ptnetmap.abi import pci, ptnet
from ptnetmap.netmap.linuxguest.pci import SYSFS, PciFunction, find
from ptnetmap.netmap.names import PortName

_NAME = re.compile(r"ptnet([0-9]{1,4})")


def ptnets(sysfs: Path = SYSFS) -> list[PciFunction]:
    """Return this machine's ptnet devices, in the order in which they are counted."""
    return find(ptnet.PTNETMAP_PCI_VENDOR_ID, ptnet.PTNETMAP_PCI_NETIF_ID, pci.PCIC_NETWORK << 8, sysfs)


def memdevs(sysfs: Path = SYSFS) -> list[PciFunction]:
    """Return this machine's memdevs."""
    return find(ptnet.PTNETMAP_PCI_VENDOR_ID, ptnet.PTNETMAP_PCI_DEVICE_ID, pci.PCIC_OTHER << 8, sysfs)


def device_number(port: PortName, sysfs: Path = SYSFS) -> int | None:
    """Return which ptnet a name means, None if it means none.

    Only a machine that has a ptnet has such names; and a network interface that is called so goes first.
    """
    found = _NAME.fullmatch(port.name)
    if found is None or (sysfs / "class/net" / port.name).exists() or not ptnets(sysfs):
        return None
    return int(found[1])

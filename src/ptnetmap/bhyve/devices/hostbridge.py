# SPDX-License-Identifier: BSD-2-Clause
"""hostbridge and amd_hostbridge: what the processor's side of the PCI bus looks like from the bus.

It does nothing. Its PCI Express capability tells FreeBSD that the machine is new enough for MSI.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ptnetmap.abi import pci
from ptnetmap.bhyve.config import integer_value
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.device import PciDevice, register
from ptnetmap.bhyve.pci.function import Function

# PCI Express base 3.0 §7.8: version 2, a root port; link of 2.5 GT/s, one lane, L0s.
_VERSION_2, _ROOT_PORT = 2, 4 << 4
_LINK = 1 | 1 << 4
_L0S = 1 << 10
_EXPRESS = struct.Struct("<HIHHIHH40x")


@register
class HostBridge(PciDevice):
    """The bridge. Options ``vendor`` and ``devid``, or ``pcireg.vendor`` and ``pcireg.device``: its ids."""

    name = "hostbridge"
    ids = (0x1275, 0x1275)
    """Vendor and device unless the options say others: NetApp's, as in bhyve."""

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        super().__init__(host, function, options)
        vendor, device = self.ids
        self.identify(
            vendor_id=self._id(("pcireg.vendor", "vendor"), vendor),
            device_id=self._id(("pcireg.device", "devid"), device),
            class_code=pci.PCIC_BRIDGE << 16 | pci.PCIS_BRIDGE_HOST << 8,
        )
        self.config.add_capability(
            pci.PCIY_EXPRESS, _EXPRESS.pack(_VERSION_2 | _ROOT_PORT, 0, 0, 0, _LINK | _L0S, 0, _LINK)
        )

    def _id(self, keys: tuple[str, ...], default: int) -> int:
        for key in keys:
            if key in self.options:
                return integer_value(f"{self.name}.{key}", self.options[key], 0, 0xFFFF)
        return default


@register
class AmdHostBridge(HostBridge):
    """The bridge with AMD's vendor id, for guests that look at it before they use MSI."""

    name = "amd_hostbridge"
    ids = (0x1022, 0x7432)

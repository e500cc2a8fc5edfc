# SPDX-License-Identifier: BSD-2-Clause
"""The PCI bus: what a guest finds there, and what a device model builds on.

:mod:`~ptnetmap.bhyve.pci.device` is the base of every device model; :mod:`~ptnetmap.bhyve.pci.bus` finds devices for
the guest and places for their BARs. Pure state machines: :mod:`~ptnetmap.bhyve.pci.config` (configuration space),
:mod:`~ptnetmap.bhyve.pci.bar`, :mod:`~ptnetmap.bhyve.pci.msix` and :mod:`~ptnetmap.bhyve.pci.msi`. Interrupts leave
through :mod:`~ptnetmap.bhyve.pci.vector` (messages) and :mod:`~ptnetmap.bhyve.pci.intx` (pins).
"""

from ptnetmap.bhyve.pci.bar import Bar, BarKind
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.device import DEVICES, PciDevice, register
from ptnetmap.bhyve.pci.function import Function

__all__ = ["DEVICES", "Bar", "BarKind", "Function", "PciBus", "PciDevice", "register"]

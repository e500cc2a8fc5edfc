# SPDX-License-Identifier: BSD-2-Clause
"""Ports inside a Linux guest: drivers in user space for what the host passes through (docs/linux-guests.md).

:mod:`~ptnetmap.netmap.linuxguest.pci` finds functions in sysfs and opens their BARs;
:class:`~ptnetmap.netmap.linuxguest.device.PtnetDevice` drives ptnet and the memdev it belongs to, with a CSB in pinned pages
(:mod:`~ptnetmap.netmap.linuxguest.csbpages`), a guardian that stops it when its program dies, and interrupts by
uio_pci_generic or vfio-pci where one of these is bound; :mod:`~ptnetmap.netmap.linuxguest.port` makes a Port of it. The
rings' own logic is that of netmapd's clients (:mod:`ptnetmap.netmap.csb`).
"""

# SPDX-License-Identifier: BSD-2-Clause
"""The machine around a virtual CPU, as bhyve's: address spaces, a PCI bus and its devices, boot, configuration.

:mod:`~ptnetmap.bhyve.host` says what devices may ask of their machine, :mod:`~ptnetmap.bhyve.iospace` decodes
addresses, :mod:`~ptnetmap.bhyve.pci` is the bus and what is common to its devices. Nothing here touches a packet, and
nothing here imports a compiler.
"""

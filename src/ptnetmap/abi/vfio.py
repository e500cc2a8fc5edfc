# SPDX-License-Identifier: BSD-2-Clause
"""The few calls of VFIO by which a program takes a PCI function's interrupts, without an IOMMU.

A *container* is /dev/vfio/vfio, a *group* /dev/vfio/noiommu-N, and a group's device a descriptor that the group gives.
Source: Linux's include/uapi/linux/vfio.h, Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import numpy as np

VFIO_API_VERSION = 0
VFIO_NOIOMMU_IOMMU = 8

VFIO_GET_API_VERSION = 0x3B64
VFIO_SET_IOMMU = 0x3B66
"""Of a container: take a kind of IOMMU, VFIO_NOIOMMU_IOMMU."""
VFIO_GROUP_SET_CONTAINER = 0x3B68
"""Of a group: belong to a container, whose descriptor is an int at the argument."""
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
"""Of a group: return a descriptor of a device, whose PCI address is a string at the argument."""
VFIO_DEVICE_SET_IRQS = 0x3B6E
"""Of a device: have eventfds signalled, see :data:`vfio_irq_set`."""

VFIO_PCI_MSIX_IRQ_INDEX = 2
VFIO_IRQ_SET_DATA_NONE = 1
VFIO_IRQ_SET_DATA_EVENTFD = 4
VFIO_IRQ_SET_ACTION_TRIGGER = 32

vfio_irq_set = np.dtype([("argsz", "u4"), ("flags", "u4"), ("index", "u4"), ("start", "u4"), ("count", "u4")])
"""Argument of VFIO_DEVICE_SET_IRQS: 20 bytes, and an eventfd (4 bytes) for each vector after them.

====== ==== ===== =================================================================================================
offset size field meaning
====== ==== ===== =================================================================================================
0      4    argsz bytes of all this
4      4    flags VFIO_IRQ_SET_DATA_* and VFIO_IRQ_SET_ACTION_TRIGGER
8      4    index VFIO_PCI_MSIX_IRQ_INDEX
12     4    start first vector
16     4    count vectors; 0 with VFIO_IRQ_SET_DATA_NONE takes all of them back
====== ==== ===== =================================================================================================
"""

# SPDX-License-Identifier: BSD-2-Clause
"""Virtio: what is common to its devices, and a driver to test them with.

:mod:`~ptnetmap.bhyve.virtio.device` is the base of every device model. :mod:`~ptnetmap.bhyve.virtio.queue` is the split
virtqueue as a library. What driver and device agree on is :mod:`~ptnetmap.bhyve.virtio.negotiation`, which the driver
reaches through :mod:`~ptnetmap.bhyve.virtio.legacy` or :mod:`~ptnetmap.bhyve.virtio.modern` registers; its notifications
come through a :mod:`~ptnetmap.bhyve.virtio.doorbell`. :mod:`~ptnetmap.bhyve.virtio.mock` is the other side of it all.
"""

from ptnetmap.bhyve.virtio.device import Handover, VirtioDevice
from ptnetmap.bhyve.virtio.doorbell import Place
from ptnetmap.bhyve.virtio.queue import Chain, Queue, QueueState

__all__ = ["Chain", "Handover", "Place", "Queue", "QueueState", "VirtioDevice"]

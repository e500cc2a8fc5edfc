# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What drivers of legacy virtio devices share: the way to DRIVER_OK, and where a queue's parts are (virtio 1.2 §4.1.4.10)."""

from __future__ import annotations

from ptnetmap.abi.virtio import (
    VIRTQ_LEGACY_ALIGN,
    virtq_avail,
    virtq_avail_elem,
    virtq_desc,
    virtq_used,
    virtq_used_elem,
)
from ptnetmap.abi.virtio_pci import (
    VIRTIO_MSI_NO_VECTOR,
    VIRTIO_MSI_QUEUE_VECTOR,
    VIRTIO_PCI_GUEST_FEATURES,
    VIRTIO_PCI_QUEUE_ADDR_SHIFT,
    VIRTIO_PCI_QUEUE_NUM,
    VIRTIO_PCI_QUEUE_PFN,
    VIRTIO_PCI_QUEUE_SEL,
    VIRTIO_PCI_STATUS,
    VIRTIO_STATUS_ACKNOWLEDGE,
    VIRTIO_STATUS_DRIVER,
    VIRTIO_STATUS_DRIVER_OK,
)
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import allocate_vector
from ptnetmap.guest.pci import msix_enable, msix_set
from ptnetmap.guest.port import in16, out8, out16, out32
from ptnetmap.guest.routine import routine

_STARTED = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER
_DESC_SIZE = virtq_desc.itemsize
_AVAIL_HEAD = virtq_avail.itemsize
_AVAIL_ELEM = virtq_avail_elem.itemsize
_USED_HEAD = virtq_used.itemsize
_USED_ELEM = virtq_used_elem.itemsize


@routine
def start_device(ports, features):
    """Reset the device at ``ports``, and accept some of its features."""
    out8(ports + VIRTIO_PCI_STATUS, 0)
    out8(ports + VIRTIO_PCI_STATUS, VIRTIO_STATUS_ACKNOWLEDGE)
    out8(ports + VIRTIO_PCI_STATUS, _STARTED)
    out32(ports + VIRTIO_PCI_GUEST_FEATURES, features)


@routine
def drive_device(ports):
    """Tell the device that its driver is ready."""
    out8(ports + VIRTIO_PCI_STATUS, _STARTED | VIRTIO_STATUS_DRIVER_OK)


@routine
def stop_device(ports):
    """Stop the device; its memory is its own no more."""
    out8(ports + VIRTIO_PCI_STATUS, 0)


@routine
def queue_size(ports, index):
    """Select a queue, and return how many entries it has; 0 for one that is not there."""
    out16(ports + VIRTIO_PCI_QUEUE_SEL, index)
    return in16(ports + VIRTIO_PCI_QUEUE_NUM)


@routine
def available_at(size):
    """Return where the available ring of a queue of ``size`` entries is, from its descriptor table on."""
    return size * _DESC_SIZE


@routine
def used_at(size):
    """Return where its used ring is."""
    end = available_at(size) + _AVAIL_HEAD + size * _AVAIL_ELEM + 2
    return (end + VIRTQ_LEGACY_ALIGN - 1) & -VIRTQ_LEGACY_ALIGN


@routine
def place_queue(boot, ports, size):
    """Give the selected queue its memory; return the address of its descriptor table, 0 without memory or entries."""
    if size == 0:
        return 0
    queue = allocate(boot, used_at(size) + _USED_HEAD + size * _USED_ELEM + 2, VIRTQ_LEGACY_ALIGN)
    if queue != 0:
        out32(ports + VIRTIO_PCI_QUEUE_PFN, queue >> VIRTIO_PCI_QUEUE_ADDR_SHIFT)
    return queue


@routine
def route_interrupt(function, ports, message, block, boot):
    """Send the selected queue's interrupts, as ``message``, to a vector of the processor of ``block``.

    Return the vector, or -1 if there can be none. The two registers of vectors are there from now on.
    """
    vector = allocate_vector(boot)
    if vector < 0 or msix_set(function, message, block, vector) == 0:
        return -1
    msix_enable(function)
    out16(ports + VIRTIO_MSI_QUEUE_VECTOR, message)
    return -1 if in16(ports + VIRTIO_MSI_QUEUE_VECTOR) == VIRTIO_MSI_NO_VECTOR else vector

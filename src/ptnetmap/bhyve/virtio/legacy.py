# SPDX-License-Identifier: BSD-2-Clause
"""The registers of virtio 0.9 in an I/O BAR, as bhyve's devices of 2015 have them (virtio 1.2 §4.1.4.10).

Registers are written with their own width; anything else has no effect. Reads may have any width.
"""

from __future__ import annotations

import struct
from typing import Protocol

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.doorbell import Place
from ptnetmap.bhyve.virtio.negotiation import Negotiation

_IMAGE = struct.Struct("<IIIHHHBB")
_VECTORS = struct.Struct("<HH")


def places(queues: int) -> list[Place]:
    """Return where in the BAR the first ``queues`` queues are notified: one register, and the queue's number in it."""
    return [Place("port", abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, index) for index in range(queues)]


class DeviceSide(Protocol):
    """What the registers need of the device, besides the negotiation; the modern ones too."""

    def device_config_read(self, offset: int, size: int) -> int:
        """Read the device's own configuration; zeroes where there is none."""

    def device_config_write(self, offset: int, size: int, value: int) -> None:
        """Write it."""

    def queue_kicked(self, index: int) -> None:
        """A notification arrived for a queue, which need not exist."""

    def deassert(self) -> None:
        """The interrupt's reason was read."""


class LegacyRegisters:
    """BAR 0 of a device whose agreement is ``negotiation``."""

    def __init__(self, negotiation: Negotiation, device: DeviceSide) -> None:
        self._n = negotiation
        self._device = device

    def read(self, offset: int, size: int, *, msix: bool) -> int:
        """Return ``size`` bytes at ``offset``; ``msix`` tells whether MSI-X is enabled, which moves what follows."""
        config = abi.legacy_config(msix)
        if offset >= config:
            return self._device.device_config_read(offset - config, size)
        n = self._n
        queue = n.selected
        image = _IMAGE.pack(
            n.legacy_offer,
            n.accepted & 0xFFFFFFFF,
            queue.desc >> abi.VIRTIO_PCI_QUEUE_ADDR_SHIFT & 0xFFFFFFFF if queue else 0,
            queue.size if queue else 0,
            n.queue_select,
            0,
            n.status,
            n.isr,
        )
        if msix:
            image += _VECTORS.pack(n.config_vector, queue.vector if queue else abi.VIRTIO_MSI_NO_VECTOR)
        value = int.from_bytes(image[offset : offset + size], "little")
        if offset <= abi.VIRTIO_PCI_ISR < offset + size:
            n.take_isr()
            self._device.deassert()
        return value

    def write(self, offset: int, size: int, value: int, *, msix: bool) -> None:
        """Take a write of ``size`` bytes at ``offset``."""
        config = abi.legacy_config(msix)
        if offset >= config:
            self._device.device_config_write(offset - config, size, value)
            return
        n = self._n
        queue = n.selected
        match offset, size:
            case abi.VIRTIO_PCI_GUEST_FEATURES, 4:
                n.accept(value & n.legacy_offer)
            case abi.VIRTIO_PCI_QUEUE_SEL, 2:
                n.queue_select = value
            case abi.VIRTIO_PCI_QUEUE_NOTIFY, 2:
                self._device.queue_kicked(value)
            case abi.VIRTIO_PCI_STATUS, 1:
                n.set_status(value, modern=False)
            case abi.VIRTIO_MSI_CONFIG_VECTOR, 2:
                n.set_config_vector(value)
            case abi.VIRTIO_PCI_QUEUE_PFN, 4 if queue:
                n.place_legacy(queue, value)
            case abi.VIRTIO_MSI_QUEUE_VECTOR, 2 if queue:
                n.set_queue_vector(queue, value)

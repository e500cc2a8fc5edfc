# SPDX-License-Identifier: BSD-2-Clause
"""The registers of virtio 1 in a memory BAR, and the PCI capabilities that say where they are (virtio 1.2 §4.1.4).

Each structure has a page of the BAR for itself. Fields are written with their own width, 64-bit ones in halves too;
anything else has no effect. Reads may have any width.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.doorbell import Place
from ptnetmap.bhyve.virtio.legacy import DeviceSide
from ptnetmap.bhyve.virtio.negotiation import Negotiation
from ptnetmap.bhyve.virtio.queue import Queue

BAR_SIZE = 0x4000
"""Bytes of the BAR."""
COMMON = 0x0000
"""Where :data:`~ptnetmap.abi.virtio_pci.virtio_pci_common_cfg` starts in the BAR."""
ISR = 0x1000
"""Where the interrupt status is."""
DEVICE = 0x2000
"""Where the device's own configuration starts."""
NOTIFY = 0x3000
"""Where the notification registers start."""
NOTIFY_MULTIPLIER = 4
"""Bytes from one queue's notification register to the next; their numbers are the queues'."""

_PAGE = 0x1000
_LOW = 0xFFFFFFFF
_COMMON = struct.Struct("<IIIIHHBBHHHHHQQQHH")
_AT = {name: field[1] for name, field in (abi.virtio_pci_common_cfg.fields or {}).items()}


def capability(layout: np.dtype[np.void], cfg_type: int, bar: int, offset: int, length: int, **more: int) -> bytes:
    """Return a capability of ``layout``, whole; its id and link are for the configuration space to write."""
    record: Any = np.zeros((), layout)
    record["cap_len"] = layout.itemsize
    record["cfg_type"] = cfg_type
    record["bar"] = bar
    record["offset"] = offset
    record["length"] = length
    for name, value in more.items():
        record[name] = value
    return bytes(record.tobytes())


def capabilities(bar: int, queues: int, config_bytes: int) -> list[bytes]:
    """Return the capabilities of a device with ``queues`` queues and ``config_bytes`` of its own configuration.

    The one for access through configuration space is not among them: :mod:`ptnetmap.bhyve.virtio.window` has it.
    """
    plain = abi.virtio_pci_cap
    out = [
        capability(plain, abi.VIRTIO_PCI_CAP_COMMON_CFG, bar, COMMON, abi.virtio_pci_common_cfg.itemsize),
        capability(plain, abi.VIRTIO_PCI_CAP_ISR_CFG, bar, ISR, 1),
        capability(
            abi.virtio_pci_notify_cap,
            abi.VIRTIO_PCI_CAP_NOTIFY_CFG,
            bar,
            NOTIFY,
            queues * NOTIFY_MULTIPLIER,
            notify_off_multiplier=NOTIFY_MULTIPLIER,
        ),
    ]
    if config_bytes:
        out.append(capability(plain, abi.VIRTIO_PCI_CAP_DEVICE_CFG, bar, DEVICE, config_bytes))
    return out


def places(queues: int) -> list[Place]:
    """Return where in the BAR the first ``queues`` queues are notified: a register each, whatever is written."""
    return [Place("mmio", NOTIFY + index * NOTIFY_MULTIPLIER, 2, None) for index in range(queues)]


class ModernRegisters:
    """The memory BAR of a device whose agreement is ``negotiation``."""

    def __init__(self, negotiation: Negotiation, device: DeviceSide) -> None:
        self._n = negotiation
        self._device = device
        self._writers: dict[tuple[int, int], Callable[[int], None]] = {
            (_AT["device_feature_select"], 4): self._select_device_feature,
            (_AT["driver_feature_select"], 4): self._select_driver_feature,
            (_AT["driver_feature"], 4): self._accept,
            (_AT["config_msix_vector"], 2): negotiation.set_config_vector,
            (_AT["device_status"], 1): self._set_status,
            (_AT["queue_select"], 2): self._select_queue,
        }
        self._queue_writers: dict[tuple[int, int], Callable[[Queue, int], None]] = {
            (_AT["queue_size"], 2): _set_size,
            (_AT["queue_msix_vector"], 2): negotiation.set_queue_vector,
            (_AT["queue_enable"], 2): self._enable,
        }
        for field, part in (("queue_desc", "desc"), ("queue_driver", "avail"), ("queue_device", "used")):
            for shift, size in ((0, 8), (0, 4), (32, 4)):
                self._queue_writers[_AT[field] + shift // 8, size] = _address_writer(part, shift, size)

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes at ``offset``; what is no register reads as 0."""
        page, start = offset & -_PAGE, offset % _PAGE
        if page == COMMON:
            return int.from_bytes(self._common()[start : start + size], "little")
        if page == DEVICE:
            return self._device.device_config_read(start, size)
        if page == ISR and start == 0:
            isr = self._n.take_isr()
            self._device.deassert()
            return isr
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write of ``size`` bytes at ``offset``."""
        page, start = offset & -_PAGE, offset % _PAGE
        if page == COMMON:
            writer = self._writers.get((start, size))
            queue_writer = self._queue_writers.get((start, size))
            if writer:
                writer(value)
            elif queue_writer and self._n.selected:
                queue_writer(self._n.selected, value)
        elif page == DEVICE:
            self._device.device_config_write(start, size, value)
        elif page == NOTIFY and start % NOTIFY_MULTIPLIER == 0:
            self._device.queue_kicked(start // NOTIFY_MULTIPLIER)

    def _common(self) -> bytes:
        n = self._n
        queue = n.selected
        about_queue = (0, abi.VIRTIO_MSI_NO_VECTOR, 0, 0, 0, 0, 0)
        if queue:
            about_queue = (queue.size, queue.vector, queue.enabled, queue.index, queue.desc, queue.avail, queue.used)
        return _COMMON.pack(
            n.device_feature_select,
            _half(n.modern_offer, n.device_feature_select),
            n.driver_feature_select,
            _half(n.accepted, n.driver_feature_select),
            n.config_vector,
            len(n.queues),
            n.status,
            n.generation,
            n.queue_select,
            *about_queue,
            0,
            0,
        )

    def _select_device_feature(self, value: int) -> None:
        self._n.device_feature_select = value

    def _select_driver_feature(self, value: int) -> None:
        self._n.driver_feature_select = value

    def _select_queue(self, value: int) -> None:
        self._n.queue_select = value

    def _accept(self, value: int) -> None:
        select = self._n.driver_feature_select
        if select < 2:
            shift = 32 * select
            self._n.accept(self._n.accepted & ~(_LOW << shift) | value << shift)

    def _set_status(self, value: int) -> None:
        self._n.set_status(value, modern=True)

    def _enable(self, queue: Queue, value: int) -> None:
        if value == 1:
            self._n.enable(queue)


def _half(features: int, select: int) -> int:
    return features >> 32 * select & _LOW if select < 2 else 0


def _set_size(queue: Queue, value: int) -> None:
    if not queue.enabled:
        queue.size = value


def _address_writer(part: str, shift: int, size: int) -> Callable[[Queue, int], None]:
    mask = (1 << 8 * size) - 1 << shift

    def write(queue: Queue, value: int) -> None:
        if not queue.enabled:
            setattr(queue, part, getattr(queue, part) & ~mask | value << shift)

    return write

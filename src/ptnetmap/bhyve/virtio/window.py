# SPDX-License-Identifier: BSD-2-Clause
"""Access to a device's BARs through its configuration space, for software that cannot reach BARs (virtio 1.2 §4.1.4.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.config import Capability, CapabilityWritten
from ptnetmap.bhyve.virtio.modern import capability

if TYPE_CHECKING:
    from ptnetmap.bhyve.virtio.device import VirtioDevice

_AT = {name: field[1] for name, field in (abi.virtio_pci_cfg_cap.fields or {}).items()}
_WRITABLE = ("bar", "offset", "length", "pci_cfg_data")


class ConfigWindow:
    """The capability by which ``device`` shows one place of the BAR ``bar``, or another of those ``bars`` it allows."""

    def __init__(self, device: VirtioDevice, bars: tuple[int, ...]) -> None:
        self._device = device
        self._bars = bars
        layout = abi.virtio_pci_cfg_cap
        body = capability(layout, abi.VIRTIO_PCI_CAP_PCI_CFG, bars[0], 0, 0)
        writable = bytearray(layout.itemsize)
        for name in _WRITABLE:
            size = layout[name].itemsize
            writable[_AT[name] : _AT[name] + size] = b"\xff" * size
        self.capability: Capability = device.config.add_capability(pci.PCIY_VENDOR, body[2:], bytes(writable[2:]))
        self._data = self.capability.offset + _AT["pci_cfg_data"]

    def before_read(self, offset: int, size: int) -> None:
        """Bring the BAR's contents into the data field, if the read that follows is one of it."""
        if offset == self._data and (place := self._place()) and place[2] == size:
            bar, start, _ = place
            self._device.config.store(self._data, size, self._device.bar_read(bar, start, size) & (1 << 8 * size) - 1)

    def written(self, effect: CapabilityWritten) -> None:
        """Bring the data field's contents into the BAR, if the write was one of it."""
        if effect.capability is self.capability and effect.offset == _AT["pci_cfg_data"]:
            place = self._place()
            if place and place[2] == effect.size:
                bar, start, size = place
                self._device.bar_write(bar, start, size, self._device.config.read(self._data, size))

    def _place(self) -> tuple[int, int, int] | None:
        """Return bar, offset and length as the guest chose them, if that is a place."""
        config, base = self._device.config, self.capability.offset
        bar = config.read(base + _AT["bar"], 1)
        start = config.read(base + _AT["offset"], 4)
        length = config.read(base + _AT["length"], 4)
        if bar not in self._bars or length not in (1, 2, 4) or start % length:
            return None
        return (bar, start, length) if start + length <= self._device.bars[bar].size else None

# SPDX-License-Identifier: BSD-2-Clause
"""MSI-X: a table of vectors in a BAR, which the guest fills in and masks (PCI 3.0 §6.8.2)."""

from __future__ import annotations

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Interrupts
from ptnetmap.bhyve.pci.config import ConfigSpace
from ptnetmap.bhyve.pci.vector import Mode, Vector

_ENTRY = pci.msix_entry.itemsize
_PAGE = 4096
_ENTRY_MASK = (0xFFFFFFFC).to_bytes(4, "little") + b"\xff" * 8 + bytes([pci.PCIM_MSIX_VCTRL_MASK, 0, 0, 0])
_ENTRY_RESET = bytes(12) + bytes([pci.PCIM_MSIX_VCTRL_MASK, 0, 0, 0])


class Msix:
    """``count`` vectors, their capability in ``config``, and the contents of BAR ``bar``, which they have alone.

    The table is at offset 0, the pending bits start at the first page after it. Accesses of any size and alignment
    work, although the guest must use aligned ones of 4 and 8 bytes (PCI 3.0 §6.8.2.2); they change what is writable.
    """

    def __init__(self, interrupts: Interrupts, config: ConfigSpace, count: int, bar: int) -> None:
        if not 1 <= count <= pci.PCI_MSIX_MSGNUM:
            raise ValueError(f"a function has 1 to {pci.PCI_MSIX_MSGNUM} MSI-X vectors, not {count}")
        self.bar = bar
        self._pba = -(-count * _ENTRY // _PAGE) * _PAGE
        self._config = config
        control = (count - 1).to_bytes(2, "little")
        places = bar.to_bytes(4, "little") + (self._pba | bar).to_bytes(4, "little")
        writable = (pci.PCIM_MSIXCTRL_MSIX_ENABLE | pci.PCIM_MSIXCTRL_FUNCTION_MASK).to_bytes(2, "little")
        self.capability = config.add_capability(pci.PCIY_MSIX, control + places, writable)
        self._table = bytearray(_ENTRY_RESET * count)
        self.vectors: list[Vector] = []
        try:
            for _ in range(count):
                self.vectors.append(Vector(interrupts))
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes that the BAR needs."""
        return self._pba + _PAGE

    @property
    def _control(self) -> int:
        return self._config.read(self.capability.offset + 2, 2)

    @property
    def enabled(self) -> bool:
        """Whether the guest uses MSI-X."""
        return bool(self._control & pci.PCIM_MSIXCTRL_MSIX_ENABLE)

    def signal(self, vector: int) -> None:
        """Make an event for a vector; one that does not exist is ignored."""
        if 0 <= vector < len(self.vectors):
            self.vectors[vector].signal()

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the BAR; what is neither table nor pending bits is 0."""
        data = bytearray(self._table[offset : offset + size].ljust(size, b"\0"))
        for i in range(size):
            first = (offset + i - self._pba) * 8
            if 0 <= first < len(self.vectors):
                data[i] = sum(vector.pending << n for n, vector in enumerate(self.vectors[first : first + 8]))
        return int.from_bytes(data, "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Change what is writable of ``size`` bytes of the BAR, and deliver what that unmasks."""
        end = min(offset + size, len(self._table))
        for i in range(offset, end):
            mask = _ENTRY_MASK[i % _ENTRY]
            self._table[i] = self._table[i] & ~mask | (value >> 8 * (i - offset)) & mask
        if offset < end:
            for n in range(offset // _ENTRY, (end - 1) // _ENTRY + 1):
                self._update(n, self._control)

    def update(self) -> None:
        """Follow the capability's enable and function mask bits."""
        control = self._control
        for n in range(len(self.vectors)):
            self._update(n, control)

    def _update(self, n: int, control: int) -> None:
        vector = self.vectors[n]
        if not control & pci.PCIM_MSIXCTRL_MSIX_ENABLE:
            vector.set(Mode.DROP)
            return
        entry = int.from_bytes(self._table[n * _ENTRY : (n + 1) * _ENTRY], "little")
        if control & pci.PCIM_MSIXCTRL_FUNCTION_MASK or entry >> 96 & pci.PCIM_MSIX_VCTRL_MASK:
            vector.set(Mode.HOLD)
        else:
            vector.set(Mode.DELIVER, entry & (1 << 64) - 1, entry >> 64 & 0xFFFFFFFF)

    def reset(self) -> None:
        """Mask everything and forget the messages; the capability is reset by its configuration space."""
        self._table[:] = _ENTRY_RESET * len(self.vectors)
        self.update()

    def close(self) -> None:
        """Give back the vectors."""
        for vector in self.vectors:
            vector.close()

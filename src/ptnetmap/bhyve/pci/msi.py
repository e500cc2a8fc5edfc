# SPDX-License-Identifier: BSD-2-Clause
"""MSI: up to 32 messages that differ in the low bits of their data, without masks (PCI 3.0 §6.8.1)."""

from __future__ import annotations

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Interrupts
from ptnetmap.bhyve.pci.config import ConfigSpace
from ptnetmap.bhyve.pci.vector import Mode, Vector


class Msi:
    """``count`` messages, a power of two up to 32, and their capability in ``config``.

    A guest may allow fewer than that; then vectors share messages: vector n sends the one of n modulo those allowed.
    """

    def __init__(self, interrupts: Interrupts, config: ConfigSpace, count: int) -> None:
        if count not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"a function has 1, 2, 4, 8, 16 or 32 MSI messages, not {count}")
        self._config = config
        self._most = count.bit_length() - 1
        control = pci.PCIM_MSICTRL_64BIT | self._most << 1
        enable = pci.PCIM_MSICTRL_MSI_ENABLE | pci.PCIM_MSICTRL_MME_MASK
        writable = enable.to_bytes(2, "little") + (0xFFFFFFFFFFFFFFFC).to_bytes(8, "little") + b"\xff\xff"
        self.capability = config.add_capability(pci.PCIY_MSI, control.to_bytes(2, "little") + bytes(10), writable)
        self.vectors: list[Vector] = []
        try:
            for _ in range(count):
                self.vectors.append(Vector(interrupts))
        except BaseException:
            self.close()
            raise

    @property
    def _control(self) -> int:
        return self._config.read(self.capability.offset + 2, 2)

    @property
    def enabled(self) -> bool:
        """Whether the guest uses MSI."""
        return bool(self._control & pci.PCIM_MSICTRL_MSI_ENABLE)

    @property
    def allowed(self) -> int:
        """Messages that the guest allows: a power of two, never more than there are."""
        return 1 << min((self._control & pci.PCIM_MSICTRL_MME_MASK) >> 4, self._most)

    def signal(self, vector: int) -> None:
        """Make an event for a vector; one that does not exist is ignored."""
        if 0 <= vector < len(self.vectors):
            self.vectors[vector].signal()

    def update(self) -> None:
        """Follow what the guest wrote to the capability."""
        mode = Mode.DELIVER if self.enabled else Mode.DROP
        address = self._config.read(self.capability.offset + 4, 8)
        data = self._config.read(self.capability.offset + 12, 2)
        low = self.allowed - 1
        for n, vector in enumerate(self.vectors):
            vector.set(mode, address, data & ~low | n & low)

    def reset(self) -> None:
        """Be disabled; the capability is reset by its configuration space."""
        self.update()

    def close(self) -> None:
        """Give back the vectors."""
        for vector in self.vectors:
            vector.close()

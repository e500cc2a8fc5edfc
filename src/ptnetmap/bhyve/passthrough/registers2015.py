# SPDX-License-Identifier: BSD-2-Clause
"""The registers that ptnetmap added to virtio-net in 2015, as bytes and what they mean (netmap-abi 5a.1).

A driver of 2015 writes a register as four bytes, the one at the register's own offset last, and that one makes it
effective. A write of all four at once is the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ptnetmap.abi import ptnet

_WORD = 4
_IMAGE = struct.Struct("<5I")


class Registers2015:
    """PTFEAT, PTCTL, PTSTS, CSBBAH and CSBBAL.

    ``command`` carries out what is written to PTCTL, and returns what PTSTS reads then. ``place_csb`` is told the address
    of the CSB, 0 for none.
    """

    def __init__(self, command: Callable[[int], int], place_csb: Callable[[int], None]) -> None:
        self._command = command
        self._place_csb = place_csb
        self.clear()

    def clear(self) -> None:
        """Return to the state before any driver."""
        self._latch = bytearray(ptnet.PTNETMAP_VIRTIO_IO_SIZE)
        self.features = 0
        self.status = 0

    def image(self) -> bytes:
        """Return what the registers read as."""
        return _IMAGE.pack(
            self.features,
            0,
            self.status,
            self._word(ptnet.PTNETMAP_VIRTIO_IO_CSBBAH),
            self._word(ptnet.PTNETMAP_VIRTIO_IO_CSBBAL),
        )

    def write(self, offset: int, size: int, value: int) -> None:
        """Take a write of any width, the last byte first."""
        for at in reversed(range(offset, min(offset + size, len(self._latch)))):
            self._latch[at] = value >> 8 * (at - offset) & 0xFF
            if at % _WORD == 0:
                self._written(at)

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._latch[offset : offset + _WORD], "little")

    def _written(self, offset: int) -> None:
        value = self._word(offset)
        if offset == ptnet.PTNETMAP_VIRTIO_IO_PTFEAT:
            self.features = value & ptnet.PTNETMAP_F_BASE
        elif offset == ptnet.PTNETMAP_VIRTIO_IO_PTCTL:
            self.status = self._command(value)
        elif offset == ptnet.PTNETMAP_VIRTIO_IO_CSBBAL:
            self._place_csb(self._word(ptnet.PTNETMAP_VIRTIO_IO_CSBBAH) << 32 | value)

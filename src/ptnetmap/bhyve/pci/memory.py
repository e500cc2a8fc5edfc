# SPDX-License-Identifier: BSD-2-Clause
"""Memory of ours behind a BAR, which the guest reaches without us: as netmap's in a passed-through port."""

from __future__ import annotations

import ctypes
import mmap

from ptnetmap.bhyve.host import Host, UserBuf
from ptnetmap.errors import HypervisorError


class BarMemory:
    """``size`` bytes at the host's ``address``, to be seen by the guest where its BAR is, and perhaps shorter than it.

    Both are multiples of the page size; raises ValueError if not.
    The caller keeps the memory mapped until :meth:`place` was told None, which closing the device does. While the
    hypervisor cannot show it (there is none, or something else is at that address), accesses come to :meth:`read` and
    :meth:`write`: slower, with the same result.
    """

    def __init__(self, host: Host, address: int, size: int, *, fd: int | None = None, read_only: bool = False) -> None:
        if size <= 0 or size % mmap.PAGESIZE or address % mmap.PAGESIZE:
            raise ValueError(f"{size:,} bytes at {address:#x} are no whole pages, so a guest cannot see them")
        self.address = address
        self.size = size
        self.fd = fd
        self.read_only = read_only
        self.refusal: HypervisorError | None = None
        self._host = host
        self._buf: UserBuf | None = None

    @property
    def gpa(self) -> int | None:
        """Where the guest sees it without us, None if nowhere."""
        return None if self._buf is None else self._buf.gpa

    def place(self, gpa: int | None) -> bool:
        """Show it at ``gpa``, or nowhere, and return whether that is so now.

        False: there is no hypervisor, or it refused (``refusal`` says why), and the memory is seen nowhere.
        """
        vm = self._host.vm
        self.refusal = None
        if gpa == self.gpa:
            return True
        try:
            if self._buf is None:
                if vm is None or gpa is None:
                    return gpa is None
                self._buf = vm.map_user_buf(gpa, self.address, self.size, fd=self.fd, read_only=self.read_only)
                return True
            if gpa is not None:
                self._buf.move(gpa)
                return True
        except HypervisorError as error:
            self.refusal = error
        buf, self._buf = self._buf, None
        if buf is not None:
            buf.unmap()
        return gpa is None

    def overlaps_ram(self, gpa: int) -> bool:
        """Whether guest RAM has any of the addresses that it would take at ``gpa``."""
        return any(
            gpa < segment.gpa + segment.size and segment.gpa < gpa + self.size for segment in self._host.memory.segments
        )

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes; those past the end are ones."""
        length = max(min(size, self.size - offset), 0)
        data = ctypes.string_at(self.address + offset, length) if length else b""
        return int.from_bytes(data.ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store what lies within the memory, if the guest may write there."""
        length = max(min(size, self.size - offset), 0)
        if length and not self.read_only:
            ctypes.memmove(self.address + offset, value.to_bytes(size, "little"), length)

# SPDX-License-Identifier: BSD-2-Clause
"""Memory for a CSB: two pages at known physical addresses, that stay there whatever becomes of this process.

The device is told physical addresses, and the host writes there until it is told to stop. So the pages are of a memfd,
which the :mod:`~ptnetmap.netmap.linuxguest.guardian` has, too; mlock(2) keeps them in memory, and references that a pipe
holds (vmsplice(2)) keep the kernel from moving them, which mlock alone does not. /proc/self/pagemap tells where they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from ptnetmap.errors import PortError
from ptnetmap.netmap.shared import Mapping, make_memfd

PAGE = 4096
_PRESENT = 1 << 63
_FRAME = (1 << 55) - 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class CsbPages:
    """Pinned pages: ``address`` of the first here, and ``places`` of each in the machine's memory.

    ``fds`` are what keeps them: whoever has these descriptors open keeps the pages. Raises PortError: EPERM for those
    who may not know physical addresses, ENOMEM over RLIMIT_MEMLOCK.
    """

    def __init__(self, count: int = 2, pagemap: Path = Path("/proc/self/pagemap")) -> None:
        size = count * PAGE
        memory = make_memfd("ptnetmap-csb", size)
        self._mapping = Mapping(memory, size)
        self.address = self._mapping.address
        self.fds = [memory, *os.pipe2(os.O_CLOEXEC)]
        try:
            ctypes.memset(self.address, 0, size)
            self._pin(size)
            self.places = [_place(pagemap, self.address + i * PAGE) for i in range(count)]
        except BaseException:
            self.close()
            raise

    def _pin(self, size: int) -> None:
        if _libc.mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(size)):
            number = ctypes.get_errno()
            raise PortError(
                number,
                f"netmap: cannot lock the {size:,} bytes that the host is to write to: {os.strerror(number)}\n"
                "        raise the limit (ulimit -l), or be root",
            )
        piece = _Iovec(self.address, size)
        if _libc.vmsplice(self.fds[-1], ctypes.byref(piece), 1, 0) != size:
            number = ctypes.get_errno()
            raise PortError(number, f"netmap: cannot pin the pages that the host is to write to: {os.strerror(number)}")

    def close(self) -> None:
        """Let go of them: nobody writes there any more. The mapping lives as long as this object."""
        while self.fds:
            os.close(self.fds.pop())


def _place(pagemap: Path, address: int) -> int:
    """Return the physical address of a page (Linux's Documentation/admin-guide/mm/pagemap.rst)."""
    try:
        fd = os.open(pagemap, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PortError(error.errno or errno.EIO, f"netmap: cannot read {pagemap}: {error.strerror}") from error
    try:
        entry = int.from_bytes(os.pread(fd, 8, address // PAGE * 8), "little")
    finally:
        os.close(fd)
    if not entry & _FRAME or not entry & _PRESENT:
        raise PortError(
            errno.EPERM,
            f"netmap: {pagemap} does not tell where memory is, and the host has to be told\n"
            "        be root: that is for those with CAP_SYS_ADMIN",
        )
    return (entry & _FRAME) * PAGE + address % PAGE

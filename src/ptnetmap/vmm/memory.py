# SPDX-License-Identifier: BSD-2-Clause
"""A guest's RAM: one sealed memfd, seen by the guest below 3 GB and from 4 GB on. Needs no KVM."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import weakref
from dataclasses import dataclass
from typing import Self

from ptnetmap.errors import ConfigError, GuestError, HypervisorError
from ptnetmap.vmm.mapping import Mapping

LOW_LIMIT = 3 << 30
"""RAM below 4 GB ends here: the rest of the first 4 GB is PCI windows, ECAM, I/O APIC and local APICs."""
HIGH_BASE = 4 << 30
"""What does not fit below LOW_LIMIT continues here."""
HIGH_LIMIT = 0xD000000000
"""Where 64-bit BARs start: RAM must end before."""
HUGE_PAGE = 2 << 20
"""Size of the pages of ``hugepages=True``, in bytes."""

_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_MFD_HUGE_2MB = 21 << 26
_MADV_POPULATE_WRITE = 23
_WORDS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


@dataclass(frozen=True, slots=True)
class Segment:
    """Guest-physical ``[gpa, gpa + size)`` is the memfd's ``[offset, offset + size)``, mapped at host ``address``."""

    gpa: int
    size: int
    offset: int
    address: int


class GuestMemory:
    """The RAM of a guest: ``size`` bytes, zeroed, at guest-physical 0 up to 3 GB and the rest from 4 GB on.

    ``segments`` tells where each part is (:class:`Segment`), ``low_size`` and ``high_size`` how much lies on either
    side of the hole, ``fd`` is the memfd, which can neither shrink nor grow. ``wired`` allocates all of it now and
    locks it; ``hugepages`` takes it from the host's reserved 2 MiB pages; ``in_core`` lets it into this process's core
    dumps. Where the host cannot lock, or has too few huge pages, the memory is made all the same, and ``notice`` is
    the sentence to print. Sizes are in bytes and multiples of the page size. Raises ConfigError (a size that cannot
    be) and HypervisorError (ENOMEM and others: the host does not give the memory).

    What :meth:`host` returns is valid until :meth:`close`; what :meth:`view` returns stays valid after it.
    """

    def __init__(self, size: int, *, wired: bool = False, hugepages: bool = False, in_core: bool = False) -> None:
        largest = LOW_LIMIT + HIGH_LIMIT - HIGH_BASE
        if not 0 < size <= largest or size % mmap.PAGESIZE:
            raise ConfigError(
                f"bhyve: cannot have {size:,} bytes of guest memory\n"
                f"        give a multiple of {mmap.PAGESIZE:,} bytes, at most {largest:,}"
            )
        self.size = size
        self.low_size = min(size, LOW_LIMIT)
        self.high_size = size - self.low_size
        self.notice = ""
        self.fd, self._mapping = self._allocate(hugepages)
        self._finalizer = weakref.finalize(self, os.close, self.fd)
        self._finalizer.atexit = False
        self._bytes = self._mapping.bytes()
        base = self._mapping.address
        low = Segment(0, self.low_size, 0, base)
        high = Segment(HIGH_BASE, self.high_size, self.low_size, base + self.low_size)
        self.segments: tuple[Segment, ...] = (low, high) if self.high_size else (low,)
        if not in_core:
            self._mapping.advise(mmap.MADV_DONTDUMP)
        if wired:
            self._wire()

    def _allocate(self, hugepages: bool) -> tuple[int, Mapping]:
        if hugepages:
            try:
                return self._map(os.MFD_HUGETLB | _MFD_HUGE_2MB)
            except OSError as error:
                self.notice = (
                    f"bhyve: guest memory is on small pages: no {self.size:,} bytes of 2 MiB pages ({error.strerror})\n"
                    f"        reserve them: sysctl vm.nr_hugepages={-(-self.size // HUGE_PAGE)}, and give a multiple of 2M"
                )
        try:
            return self._map(0)
        except OSError as error:
            raise HypervisorError(
                error.errno or errno.ENOMEM,
                f"bhyve: cannot have {self.size:,} bytes of guest memory: {error.strerror}\n        give less with -m",
            ) from error

    def _map(self, flags: int) -> tuple[int, Mapping]:
        fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        try:
            os.ftruncate(fd, self.size)
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
            mapping = Mapping(fd, self.size)
            if flags & os.MFD_HUGETLB:
                os.posix_fallocate(fd, 0, self.size)  # touching one that a cgroup refuses would be SIGBUS
        except BaseException:
            os.close(fd)
            raise
        return fd, mapping

    def _wire(self) -> None:
        try:
            os.posix_fallocate(self.fd, 0, self.size)
        except OSError as error:
            self.close()
            raise HypervisorError(
                error.errno or errno.ENOMEM,
                f"bhyve: cannot wire {self.size:,} bytes of guest memory: {error.strerror}\n"
                "        give less with -m, or leave -S out",
            ) from error
        try:
            self._mapping.lock()
        except OSError as error:
            self.notice = (
                f"bhyve: guest memory is allocated, but not locked: {error.strerror}\n"
                "        raise the limit of locked memory (ulimit -l), or leave -S out"
            )
            with contextlib.suppress(OSError):  # before Linux 5.14, the first touch maps what is allocated already
                self._mapping.advise(_MADV_POPULATE_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GuestMemory: {self.size:,} bytes{'' if self.segments else ', closed'}>"

    def close(self) -> None:
        """Close the memfd and let go of the mapping; from now on every address is outside."""
        self.segments = ()
        self._finalizer()
        if hasattr(self, "_mapping"):
            del self._mapping, self._bytes

    def host(self, gpa: int, length: int) -> int | None:
        """Return the host address of guest-physical ``[gpa, gpa + length)``, None unless it lies in one segment."""
        for segment in self.segments:
            offset = gpa - segment.gpa
            if 0 <= offset < segment.size and 0 <= length <= segment.size - offset:
                return segment.address + offset
        return None

    def view(self, gpa: int, length: int) -> memoryview:
        """Return ``[gpa, gpa + length)`` as bytes shared with the guest; raises GuestError (EFAULT) if it is no RAM.

        What lies there may change at any time: copy it once, then use the copy.
        """
        offset = self._offset(gpa, length)
        return self._bytes[offset : offset + length]

    def read(self, gpa: int, n: int) -> bytes:
        """Return a copy of ``[gpa, gpa + n)``; raises GuestError (EFAULT) if it is no RAM."""
        offset = self._offset(gpa, n)
        return bytes(self._bytes[offset : offset + n])

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` at ``gpa``; raises GuestError (EFAULT) if it does not lie in RAM."""
        source = memoryview(data).cast("B")
        offset = self._offset(gpa, len(source))
        self._bytes[offset : offset + len(source)] = source

    def read_int(self, gpa: int, size: int) -> int:
        """Return the little-endian integer of ``size`` (1, 2, 4 or 8) bytes at ``gpa``, by one load.

        Raises GuestError (EFAULT) if it is no RAM.
        """
        return _WORDS[size].from_address(self._word(gpa, size)).value

    def write_int(self, gpa: int, size: int, value: int) -> None:
        """Write ``value``, modulo its size, as a little-endian integer of ``size`` (1, 2, 4 or 8) bytes by one store.

        Raises GuestError (EFAULT) if ``gpa`` is no RAM.
        """
        _WORDS[size].from_address(self._word(gpa, size)).value = value

    def _word(self, gpa: int, size: int) -> int:
        address = self.host(gpa, size)
        return self._refuse(gpa, size) if address is None else address

    def _offset(self, gpa: int, length: int) -> int:
        address = self.host(gpa, length)
        return self._refuse(gpa, length) if address is None else address - self._mapping.address

    def _refuse(self, gpa: int, length: int) -> int:
        ram = ", ".join(f"{s.gpa:#x}-{s.gpa + s.size:#x}" for s in self.segments) or "closed"
        raise GuestError(
            errno.EFAULT,
            f"guest: {length:,} bytes at {gpa:#x} are not in its memory ({ram})\n"
            "        the guest, or its image, gave a wrong address or length",
        )

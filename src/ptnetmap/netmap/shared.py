# SPDX-License-Identifier: BSD-2-Clause
"""Memory shared with other processes: memfds, and mappings of them that live as long as anybody uses them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.errors import PortError
from ptnetmap.jit.block import view

_F_ADD_SEALS = 1033
_F_GET_SEALS = 1034
F_SEAL_SEAL = 0x1
F_SEAL_SHRINK = 0x2
F_SEAL_GROW = 0x4
F_SEAL_FUTURE_WRITE = 0x10

_HUGETLBFS_MAGIC = 0x958458F6
_LONGS_OF_STATFS = 32  # more than any libc's struct has; the first is f_type

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """``size`` bytes of a file from ``offset`` on, mapped and shared; ``address`` is where. Holds no descriptor.

    The mapping lives as long as the object, or an array that :meth:`view` made. Raises OSError as mmap(2).
    """

    def __init__(self, fd: int, size: int, *, writable: bool = True, offset: int = 0) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, offset)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {size:,} bytes: {os.strerror(number)}")
        self.address: int = address
        self.size = size
        weakref.finalize(self, _libc.munmap, address, size).atexit = False

    def view(self, offset: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` items of ``dtype`` at ``offset`` bytes, without copying."""
        return view(self.address + offset, dtype, count, self)


def make_memfd(name: str, size: int) -> int:
    """Return a memfd of ``size`` zeroed bytes that can neither shrink nor grow; more seals may be added."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, _F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


def seal(fd: int, seals: int = F_SEAL_SEAL) -> None:
    """Add seals to a memfd; with F_SEAL_FUTURE_WRITE, only mappings that exist can write from now on."""
    fcntl.fcntl(fd, _F_ADD_SEALS, seals)


def _seals(fd: int) -> int:
    """Return the seals of a memfd, or of another file in memory; -1 for what has none.

    Nothing else is asked before this: the kernel answers it, while a file system of a client's own may take its time.
    """
    try:
        return fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return -1


def check_sealed(fd: int, size: int, what: str) -> None:
    """Raise PortError (EINVAL) unless ``fd`` is a memfd of at least ``size`` bytes that cannot shrink.

    Memory that may shrink would kill whoever touches it (SIGBUS), so nothing of the sort is mapped.
    """
    seals = _seals(fd)
    if seals == -1 or not stat.S_ISREG(os.fstat(fd).st_mode):
        raise PortError(errno.EINVAL, f"netmap: {what} is no memfd\n        pass one from memfd_create(2)")
    if not seals & F_SEAL_SHRINK:
        try:
            fcntl.fcntl(fd, _F_ADD_SEALS, F_SEAL_SHRINK)
        except OSError:
            raise PortError(
                errno.EINVAL,
                f"netmap: {what} can shrink, and cannot be sealed any more\n"
                "        make it with MFD_ALLOW_SEALING and F_SEAL_SHRINK",
            ) from None
    found = os.fstat(fd).st_size  # before it was sealed, whoever has it too could make it smaller
    if found < size:
        raise PortError(
            errno.EINVAL,
            f"netmap: {what} has {found:,} bytes, {size:,} are needed\n        make it larger before passing it",
        )


def check_lasting(fds: Iterable[int]) -> None:
    """Raise PortError (EINVAL) if one of these descriptors is of memory on huge pages, sealed or not.

    No seal keeps its owner from punching a hole in it, and once somebody else has taken the page, there is none to be
    had at the next touch, which is SIGBUS then. Pages of the usual size come back.
    """
    for fd in fds:
        if is_huge(fd):
            raise PortError(
                errno.EINVAL,
                "netmap: memory on huge pages can be taken away from netmapd, which is another user's\n"
                "        use pages of the usual size (bhyve without memory.hugepages), or a netmapd of your own",
            )


def is_huge(fd: int) -> bool:
    """Whether a descriptor is of memory on huge pages."""
    if _seals(fd) == -1:
        return False
    status = (ctypes.c_long * _LONGS_OF_STATFS)()
    return _libc.fstatfs(fd, status) == 0 and status[0] & 0xFFFFFFFF == _HUGETLBFS_MAGIC


class SharedBlock:
    """As :class:`~ptnetmap.jit.block.Block`, in a memfd of its own: ``count`` items of ``dtype``; ``fd`` is to be passed on.

    With ``read_only``, nobody but this process can ever write to it.
    """

    def __init__(self, name: str, dtype: npt.DTypeLike, count: int = 1, *, read_only: bool = False) -> None:
        layout = np.dtype(dtype)
        self.size = -(-layout.itemsize * count // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = make_memfd(name, self.size)
        weakref.finalize(self, os.close, self.fd).atexit = False
        mapping = Mapping(self.fd, self.size)
        seal(self.fd, F_SEAL_SEAL | (F_SEAL_FUTURE_WRITE if read_only else 0))
        self.address = mapping.address
        self.items: npt.NDArray[Any] = mapping.view(0, layout, count)

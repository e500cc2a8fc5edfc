# SPDX-License-Identifier: BSD-2-Clause
"""A region: the memory that a port's user and the runtime share, in one sealed memfd."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from typing import Any

import numpy.typing as npt

from ptnetmap.jit.block import view
from ptnetmap.netmap.geometry import Geometry

_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW


class Region:
    """``geometry.total`` bytes of zeroed memory, backed by a memfd that can neither shrink nor grow.

    Pages come into being when they are first touched. The mapping lives as long as anybody holds the Region or a view
    into it: closing a port never pulls memory from under a thread or an array.

    ``address`` is where the region is mapped here, ``fd`` its memfd, for other processes to map.
    """

    def __init__(self, geometry: Geometry, name: str = "netmap") -> None:
        self.geometry = geometry
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self.fd)
        os.ftruncate(self.fd, geometry.total)
        fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
        self._mapping = mmap.mmap(self.fd, geometry.total)
        # The exported buffer keeps the mapping alive and tells its address.
        self._first = ctypes.c_char.from_buffer(self._mapping)
        self.address = ctypes.addressof(self._first)

    def view(self, offset: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` items of ``dtype`` at ``offset`` bytes into the region, without copying."""
        return view(self.address + offset, dtype, count, self)

    def resident(self) -> int:
        """Bytes of the region that have been touched, by anybody."""
        return os.fstat(self.fd).st_blocks * 512

# SPDX-License-Identifier: BSD-2-Clause
"""Mappings of descriptors with a known address, which live as long as anybody uses them."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


class Mapping:
    """``size`` bytes of a descriptor from ``offset`` on, mapped and shared; ``address`` is where. Holds no descriptor.

    The memory is unmapped when this object, and every view made of it, is gone. Raises OSError as mmap(2).
    """

    def __init__(self, fd: int, size: int, offset: int = 0, *, writable: bool = True) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc.mmap(None, size, protection, mmap.MAP_SHARED, fd, offset)
        if address == _FAILED:
            _raise()
        self.address: int = address
        self.size = size
        self._writable = writable
        weakref.finalize(self, _libc.munmap, address, size).atexit = False

    def bytes(self) -> memoryview:
        """Return all of it as bytes, without copying."""
        raw: Any = (ctypes.c_uint8 * self.size).from_address(self.address)
        raw._owner = self  # a view's base is this ctypes object, which holds the mapping
        view = memoryview(raw).cast("B")
        return view if self._writable else view.toreadonly()

    def structure(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return what lies at its start as a structure (an array without dimensions), without copying."""
        array: npt.NDArray[Any] = np.frombuffer(self.bytes(), dtype=dtype, count=1).reshape(())
        return array

    def advise(self, advice: int) -> None:
        """Call madvise(2) for all of it; raises OSError."""
        if _libc.madvise(self.address, self.size, advice):
            _raise()

    def lock(self) -> None:
        """Call mlock(2) for all of it: its pages exist from now on, and stay in memory; raises OSError."""
        if _libc.mlock(self.address, self.size):
            _raise()

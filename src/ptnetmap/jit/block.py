# SPDX-License-Identifier: BSD-2-Clause
"""Typed memory with a known address: how Python code shares structures with kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

CACHE_LINE = 64


class Block:
    """Zeroed private memory for ``count`` items of ``dtype``, aligned to a cache line.

    ``address`` is what kernels get; ``items`` is the same memory as a NumPy array. The memory lives as long as the
    Block: whoever hands the address to a kernel keeps the Block.
    """

    __slots__ = ("_memory", "address", "items")

    def __init__(self, dtype: npt.DTypeLike, count: int = 1) -> None:
        layout = np.dtype(dtype)
        self._memory = np.zeros(layout.itemsize * count + CACHE_LINE, dtype=np.uint8)
        start = -self._memory.ctypes.data % CACHE_LINE
        self.address: int = self._memory.ctypes.data + start
        self.items: npt.NDArray[Any] = self._memory[start : start + layout.itemsize * count].view(layout)

    def __getitem__(self, field: str) -> int:
        """Field of the first item, as an int."""
        return int(self.items[field][0])

    def __setitem__(self, field: str, value: int) -> None:
        """Set a field of the first item."""
        self.items[field][0] = value


def view(address: int, dtype: npt.DTypeLike, count: int, owner: object) -> npt.NDArray[Any]:
    """``count`` items of ``dtype`` at ``address``, without copying, as an array that keeps ``owner`` alive.

    ``owner`` is the object whose life the memory has (a mapping, a :class:`Block`).
    """
    layout = np.dtype(dtype)
    raw: Any = (ctypes.c_uint8 * (layout.itemsize * count)).from_address(address)
    raw._owner = owner  # the array's base is this ctypes object, which holds the owner
    array: npt.NDArray[Any] = np.frombuffer(raw, dtype=layout, count=count)
    return array


def offsets(dtype: npt.DTypeLike) -> dict[str, int]:
    """Byte offset of each field of a structured ``dtype``."""
    fields: Any = np.dtype(dtype).fields or {}
    return {name: int(field[1]) for name, field in fields.items()}

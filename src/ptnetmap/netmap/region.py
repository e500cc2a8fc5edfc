# SPDX-License-Identifier: BSD-2-Clause
"""A region: the memory that a port's user and the runtime share, in one sealed memfd."""

from __future__ import annotations

import os
import weakref
from typing import Any

import numpy.typing as npt

from ptnetmap.netmap.geometry import Geometry
from ptnetmap.netmap.shared import Mapping, make_memfd, seal


class Region:
    """``geometry.total`` bytes of zeroed memory, backed by a memfd that can neither shrink nor grow.

    Pages come into being when they are first touched. The mapping lives as long as anybody holds the Region or a view
    into it: closing a port never pulls memory from under a thread or an array.

    ``address`` is where the region is mapped here, ``fd`` its memfd, for other processes to map; a ``fd`` that another
    process made is mapped instead of a new one, and belongs to the Region from then on.
    """

    def __init__(self, geometry: Geometry, name: str = "netmap", fd: int = -1) -> None:
        self.geometry = geometry
        self.fd = fd
        if fd < 0:
            self.fd = make_memfd(name, geometry.total)
            seal(self.fd)
        weakref.finalize(self, os.close, self.fd).atexit = False
        self._mapping = Mapping(self.fd, geometry.total)
        self.address = self._mapping.address

    def view(self, offset: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` items of ``dtype`` at ``offset`` bytes into the region, without copying."""
        return self._mapping.view(offset, dtype, count)

    def resident(self) -> int:
        """Bytes of the region that have been touched, by anybody."""
        return os.fstat(self.fd).st_blocks * 512

# SPDX-License-Identifier: BSD-2-Clause
"""Allocators: who has which object of a region's three pools."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ptnetmap.errors import MemoryPoolError
from ptnetmap.netmap.geometry import Geometry, Pool
from ptnetmap.netmap.region import Region

if TYPE_CHECKING:
    from ptnetmap.netmap.audit import Owner

RESERVED_BUFFERS = 2
GLOBAL_ID = 1
MAX_ID = 0xFFFF

_KNOBS = {
    "if": "close some descriptors, or open the first port of the region with more if objects (if_num=)",
    "ring": "use fewer rings or pipes, or open the first port of the region with more ring objects (ring_num=)",
    "buf": "use fewer slots, rings or extra buffers, or open the first port of the region with more buffers (buf_num=)",
}


class ObjectPool:
    """Allocation of one pool's objects, lowest free one first (as upstream's bitmaps)."""

    def __init__(self, pool: Pool, reserved: int = 0) -> None:
        self.pool = pool
        self.reserved = reserved
        self.used = np.zeros(pool.objtotal, np.bool_)
        self.used[:reserved] = True

    @property
    def available(self) -> int:
        """Objects that are free."""
        return int(self.pool.objtotal - np.count_nonzero(self.used))

    def allocate(self, count: int, purpose: str) -> list[int]:
        """Take ``count`` objects. Raises MemoryPoolError and takes nothing if there are fewer."""
        free = np.flatnonzero(~self.used)[:count]
        if len(free) < count:
            raise MemoryPoolError(
                f"netmap: cannot allocate {purpose}: {self.pool.name} pool exhausted (asked for {count:,} objects of "
                f"{self.pool.objsize:,} bytes, {len(free):,} of {self.pool.objtotal:,} are free)\n"
                f"        {_KNOBS[self.pool.name]}"
            )
        self.used[free] = True
        taken: list[int] = free.tolist()
        return taken

    def release(self, objects: Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Give objects back. Returns how many were taken: numbers out of range, reserved or free are ignored."""
        numbers = np.unique(np.asarray(objects, np.int64))
        numbers = numbers[(numbers >= self.reserved) & (numbers < self.pool.objtotal)]
        numbers = numbers[self.used[numbers]]
        self.used[numbers] = False
        return len(numbers)


class Allocator:
    """One netmap memory allocator: an id, a shape, and, while it has users, a region and its pools.

    ``owners`` are all who hold buffers now; ``owed`` counts buffers of owners that are gone which may be in somebody's
    hands.

    The region is built for the first user and let go with the last one, so that an unused allocator costs nothing.
    """

    def __init__(self, id: int, geometry: Geometry) -> None:
        self.id = id
        self.geometry = geometry
        self.users = 0
        self.owners: set[Owner] = set()
        self._region: Region | None = None
        self._make_pools()

    def _make_pools(self) -> None:
        self.ifs = ObjectPool(self.geometry.if_pool)
        self.rings = ObjectPool(self.geometry.ring_pool)
        self.bufs = ObjectPool(self.geometry.buf_pool, RESERVED_BUFFERS)
        self.owed = 0

    @property
    def region(self) -> Region:
        """The memory; only while there are users."""
        if self._region is None:
            raise MemoryPoolError(f"netmap: allocator {self.id} has no memory: no port uses it", errno.EINVAL)
        return self._region

    @property
    def active(self) -> bool:
        """Whether the region exists."""
        return self._region is not None

    def retain(self) -> None:
        """Add a user; the first one builds the region."""
        if self._region is None:
            self._region = Region(self.geometry, f"netmap-{self.id}")
            self._make_pools()
        self.users += 1

    def drop(self) -> None:
        """Remove a user; the last one lets the region go."""
        self.users -= 1
        if self.users == 0:
            self._region = None

    def if_offset(self, index: int) -> int:
        """Offset of a netmap_if object in the region."""
        return self.geometry.if_offset + index * self.geometry.if_pool.objsize

    def ring_offset(self, index: int) -> int:
        """Offset of a ring object in the region."""
        return self.geometry.ring_offset + index * self.geometry.ring_pool.objsize


class AllocatorTable:
    """All allocators of a runtime, by id: 16 bits, increasing, 0 never valid, 1 the global one."""

    def __init__(self, global_geometry: Geometry) -> None:
        self._global = Allocator(GLOBAL_ID, global_geometry)
        self._private: dict[int, Allocator] = {}
        self._last = GLOBAL_ID

    def create(self, geometry: Geometry) -> Allocator:
        """Return a new private allocator of the given shape. Raises MemoryPoolError (ENOMEM) if all ids are taken."""
        for _ in range(MAX_ID):
            self._last = self._last + 1 if self._last < MAX_ID else GLOBAL_ID + 1
            if self._last not in self._private:
                allocator = Allocator(self._last, geometry)
                self._private[self._last] = allocator
                return allocator
        raise MemoryPoolError("netmap: cannot create an allocator: all 65,534 ids are in use\n        close some ports")

    def find(self, id: int) -> Allocator:
        """Return the allocator with this id. Raises MemoryPoolError (EINVAL) if there is none."""
        if id == GLOBAL_ID:
            return self._global
        if id not in self._private:
            known = ", ".join(str(i) for i in (GLOBAL_ID, *sorted(self._private)))
            raise MemoryPoolError(
                f"netmap: no allocator has id {id}: the ids in use are {known}\n"
                "        open the port that owns the memory first, and use its mem_id",
                errno.EINVAL,
            )
        return self._private[id]

    def discard(self, allocator: Allocator) -> None:
        """Forget a private allocator that no port refers to any more."""
        if allocator.users == 0:
            self._private.pop(allocator.id, None)

    def __iter__(self) -> Iterator[Allocator]:
        """All allocators, the global one first."""
        return iter([self._global, *self._private.values()])

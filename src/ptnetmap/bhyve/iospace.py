# SPDX-License-Identifier: BSD-2-Clause
"""An address space, and who answers where: the I/O ports, and the memory addresses without memory behind them.

A device that sits at a fixed place claims it with :meth:`IoSpace.add`; two of them cannot overlap. A BAR is where the
guest puts it, over anything: then the fixed device is heard, and of two BARs the one with the lower priority number,
so who answers depends on where things are, never on the order in which they came there. What a hidden BAR lost comes
back as soon as the other one moves away.

Guest RAM is not part of this: KVM serves an access to RAM from its memory slot and never tells us. A BAR over RAM is
just not reached there, as on a chip set that gives RAM precedence.
"""

from __future__ import annotations

import errno
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import Protocol

from ptnetmap.errors import GuestError


class Handler(Protocol):
    """What answers accesses; ``offset`` counts from the start of its region."""

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes; higher bits are cut off."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Take ``size`` bytes."""


@dataclass(frozen=True, eq=False)
class Region:
    """``size`` addresses from ``start`` that ``handler`` answers for.

    ``priority`` is None for a fixed region, else a BAR's; ``exact`` limits it to accesses of just this size here.
    """

    start: int
    size: int
    handler: Handler = field(repr=False)
    priority: int | None = None
    exact: bool = False

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.start + self.size

    @property
    def rank(self) -> int:
        """Where two regions overlap, the one with the lower rank answers."""
        return -1 if self.priority is None else self.priority


class IoSpace:
    """``limit`` addresses from 0, for messages called ``name``.

    With ``strict`` an access that nobody answers is a GuestError (ENXIO), else it reads as ones and takes no write.
    """

    def __init__(self, name: str, limit: int, *, strict: bool = False) -> None:
        self.name = name
        self.limit = limit
        self.strict = strict
        self._regions: list[Region] = []
        self._exact: dict[tuple[int, int], Region] = {}
        # Where the answering region changes, and who answers from there on; the last entry is None.
        self._starts: list[int] = [0]
        self._owners: list[Region | None] = [None]

    def add(
        self, start: int, size: int, handler: Handler, *, priority: int | None = None, exact: bool = False
    ) -> Region:
        """Let ``handler`` answer for ``size`` addresses from ``start``.

        With ``priority`` it is a BAR, which may overlap. With ``exact`` only an access of ``size`` bytes at ``start``
        is meant, and that one wins over everything: as the 32-bit register at 0xcf8, around which other devices have
        ports. Raises ValueError for an overlap, or for addresses outside of the space.
        """
        region = Region(start, size, handler, priority, exact)
        if size <= 0 or start < 0 or region.end > self.limit:
            raise ValueError(f"{self.name} {start:#x}-{region.end - 1:#x} do not exist")
        if exact:
            if (start, size) in self._exact:
                raise ValueError(f"the {size} bytes at {self.name} {start:#x} are taken")
            self._exact[start, size] = region
            return region
        if priority is None:
            for other in self._regions:
                if other.priority is None and start < other.end and other.start < region.end:
                    raise ValueError(
                        f"{self.name} {start:#x}-{region.end - 1:#x} overlap {other.start:#x}-{other.end - 1:#x}"
                    )
        self._regions.append(region)
        self._arrange()
        return region

    def remove(self, region: Region) -> None:
        """Take back what :meth:`add` returned; raises ValueError if it is not there."""
        if region.exact:
            if self._exact.get((region.start, region.size)) is not region:
                raise ValueError(f"{region} is not in {self.name}")
            del self._exact[region.start, region.size]
            return
        self._regions.remove(region)
        self._arrange()

    def visible(self, region: Region) -> bool:
        """Whether ``region`` answers at each of its addresses (exact regions of others aside)."""
        i = bisect_right(self._starts, region.start) - 1
        return self._owners[i] is region and self._end(i) >= region.end

    def read(self, address: int, size: int) -> int:
        """Return the ``size`` bytes (1-8) at ``address``, little endian.

        A region is asked once if the access lies within it, else byte by byte.
        """
        region = self._find(address, size)
        if region is not None:
            return region.handler.read(address - region.start, size) & ((1 << 8 * size) - 1)
        if size > 1 and self._is_mixed(address, size):
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        self._refuse("read", address, size)
        return (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> None:
        """Write ``size`` bytes (1-8), as :meth:`read`; bits of ``value`` above them are cut off."""
        region = self._find(address, size)
        if region is not None:
            region.handler.write(address - region.start, size, value & ((1 << 8 * size) - 1))
        elif size > 1 and self._is_mixed(address, size):
            for i in range(size):
                self.write(address + i, 1, value >> 8 * i & 0xFF)
        else:
            self._refuse("wrote", address, size)

    def _find(self, address: int, size: int) -> Region | None:
        """Return the region that answers the whole access."""
        region = self._exact.get((address, size))
        if region is not None:
            return region
        i = bisect_right(self._starts, address) - 1
        region = self._owners[i]
        return region if region is not None and address + size <= self._end(i) else None

    def _is_mixed(self, address: int, size: int) -> bool:
        """Whether somebody answers a part of the access."""
        i = bisect_right(self._starts, address) - 1
        return self._owners[i] is not None or self._end(i) < address + size

    def _end(self, i: int) -> int:
        """Return where piece ``i`` ends; the last one, after all regions, has no end."""
        return self._starts[i + 1] if i + 1 < len(self._starts) else 1 << 128

    def _refuse(self, verb: str, address: int, size: int) -> None:
        if self.strict:
            raise GuestError(
                errno.ENXIO,
                f"the guest {verb} {size} bytes at {self.name} {address:#x}, where there is no device\n"
                "        run it without strict I/O (-e), or add the device that it expects",
            )

    def _arrange(self) -> None:
        """Cut the space into pieces with one answering region each, in order of address."""
        edges: list[tuple[int, bool, int, int]] = []
        for n, region in enumerate(self._regions):
            edges.append((region.start, True, region.rank, n))
            edges.append((region.end, False, region.rank, n))
        edges.sort()
        starts: list[int] = [0]
        owners: list[Region | None] = [None]
        here: list[tuple[int, int]] = []
        for i, (address, begins, rank, n) in enumerate(edges):
            if begins:
                insort(here, (rank, n))
            else:
                here.remove((rank, n))
            if i + 1 < len(edges) and edges[i + 1][0] == address:
                continue
            owner = self._regions[here[0][1]] if here else None
            if owner is owners[-1]:
                continue
            if starts[-1] == address:
                owners[-1] = owner
            else:
                starts.append(address)
                owners.append(owner)
        self._starts, self._owners = starts, owners

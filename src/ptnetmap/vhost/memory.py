# SPDX-License-Identifier: BSD-2-Clause
"""The front end's memory table: where the guest's memory is, for the guest, in a file, and in the front end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LIMIT = 1 << 63


class Region(NamedTuple):
    """``size`` bytes: from ``guest`` on for the guest, from ``user`` on in the front end, from ``offset`` on in ``fd``."""

    guest: int
    size: int
    user: int
    offset: int
    fd: int

    @property
    def is_possible(self) -> bool:
        """Whether there is something, and nothing of it ends beyond 2**63."""
        return self.size > 0 and all(start + self.size <= _LIMIT for start in (self.guest, self.user, self.offset))

    def overlaps(self, other: Region) -> bool:
        """Whether both have an address in common, the guest's or the front end's."""
        return any(
            a < b + other.size and b < a + self.size for a, b in ((self.guest, other.guest), (self.user, other.user))
        )

    def is_at(self, guest: int, size: int, user: int) -> bool:
        """Whether it is the region at these addresses."""
        return (self.guest, self.size, self.user) == (guest, size, user)


class MemoryTable:
    """Regions that do not overlap. Immutable: a change makes another one."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self.regions = tuple(regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def is_possible(self) -> bool:
        """Whether every region is, and no two overlap."""
        return all(one.is_possible for one in self.regions) and not any(
            one.overlaps(other) for at, one in enumerate(self.regions) for other in self.regions[:at]
        )

    def guest_address(self, user: int) -> int | None:
        """Return the guest-physical address of an address of the front end, None if it is in no region."""
        for region in self.regions:
            if region.user <= user < region.user + region.size:
                return region.guest + user - region.user
        return None

# SPDX-License-Identifier: BSD-2-Clause
"""A front-end's memory table: which regions can be, and where its user addresses are for the guest."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from ptnetmap.netmap.vhost.message import MemoryRegion, wrong

_END = 1 << 63  # signed 64-bit numbers hold all addresses and offsets that a kernel gives


class Region(NamedTuple):
    """``size`` bytes of guest memory: at address ``guest`` for the guest, at ``user`` in the front-end's process.

    They are at ``offset`` of the file that ``fd`` is; neither need be a multiple of a page, nor the file be as long as
    it should. ``fd`` is -1 for a region that has been given before.
    """

    guest: int
    size: int
    user: int
    offset: int
    fd: int = -1

    @property
    def plain(self) -> MemoryRegion:
        """The region as messages describe it."""
        return MemoryRegion(self.guest, self.size, self.user, self.offset)


Table = Sequence[Region]
"""All the memory that there is."""


def check(table: Table) -> None:
    """Raise PeerError (EINVAL) unless each region has bytes and ends, and no two overlap."""
    for region in table:
        if region.size == 0 or max(region.guest, region.user, region.offset) + region.size > _END:
            raise wrong(
                f"a region of {region.size:#x} bytes, at guest address {region.guest:#x}, user address "
                f"{region.user:#x} and offset {region.offset:#x}",
                "send regions with at least 1 byte that end below 2**63",
            )
    for what in ("guest", "user"):
        end = 0
        for start, size in sorted((getattr(region, what), region.size) for region in table):
            if start < end:
                raise wrong(f"two regions overlap at {what} address {start:#x}", "send regions that do not")
            end = start + size


def translate(table: Table, user: int, size: int, what: str) -> int:
    """Return the guest address of ``size`` bytes at a user address, all of one region; ``what`` they are, for errors.

    Raises PeerError (EFAULT) if they are not.
    """
    for region in table:
        if region.user <= user and user + size <= region.user + region.size:
            return region.guest + user - region.user
    raise wrong(
        f"the {what}, {size:,} bytes at user address {user:#x}, is not within one of {len(table)} regions of memory",
        "send the memory table first, and place the queue in it",
        errno.EFAULT,
    )

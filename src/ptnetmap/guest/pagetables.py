# SPDX-License-Identifier: BSD-2-Clause
"""Page tables that map guest-physical memory to itself, for privilege level 3.

Four levels, leaves of 2 MiB, all of it present, writable and allowed for level 3; but the first page is not mapped, for
which the first 2 MiB have leaves of 4 KiB. Source: Intel SDM volume 3, §4.5.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

PAGE = 4096
"""Bytes of a table, and of a small page."""
LARGE_PAGE = 2 << 20
"""Bytes that an entry of a directory maps."""
DIRECTORY_SPAN = 1 << 30
"""Bytes that a directory maps."""
POINTERS_SPAN = 1 << 39
"""Bytes that a table of directory pointers maps."""

TABLE = 0x07
"""Entry that refers to a table: present, writable, level 3."""
LARGE_LEAF = 0x87
"""Entry that maps 2 MiB."""
SMALL_LEAF = 0x07
"""Entry that maps 4 KiB."""


class PageTables:
    """The tables for some ranges of memory, placed at ``base`` and following; the top level is the first.

    ``ranges`` are (start, end) in bytes, mapped in directories of 1 GiB: what is between them and the next multiple is
    mapped too. The table of the first 2 MiB lies at ``first``, not among the others.
    """

    def __init__(self, base: int, ranges: Iterable[tuple[int, int]], *, first: int) -> None:
        self.base = base
        directories = sorted(
            {place for start, end in ranges for place in range(start // DIRECTORY_SPAN, -(-end // DIRECTORY_SPAN))}
        )
        tops = sorted({place * DIRECTORY_SPAN // POINTERS_SPAN for place in directories})
        self._first = first
        self._tables = np.zeros((1 + len(tops) + len(directories), PAGE // 8), "<u8")
        for at, place in enumerate(tops, 1):
            self._tables[0, place] = self._address(at) | TABLE
        for at, place in enumerate(directories, 1 + len(tops)):
            top, inner = divmod(place, PAGE // 8)
            self._tables[1 + tops.index(top), inner] = self._address(at) | TABLE
            start = place * DIRECTORY_SPAN
            self._tables[at] = np.arange(start, start + DIRECTORY_SPAN, LARGE_PAGE, dtype=np.uint64) | LARGE_LEAF
        if directories and directories[0] == 0:
            self._tables[1 + len(tops), 0] = first | TABLE

    def _address(self, number: int) -> int:
        return self.base + number * PAGE

    @property
    def size(self) -> int:
        """Bytes of the tables at ``base``."""
        return int(self._tables.nbytes)

    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """Return what to store where: pairs of address and bytes."""
        small = np.arange(0, LARGE_PAGE, PAGE, dtype="<u8") | SMALL_LEAF
        small[0] = 0
        return (self.base, self._tables.tobytes()), (self._first, small.tobytes())

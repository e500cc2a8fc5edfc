# SPDX-License-Identifier: BSD-2-Clause
"""Which ports to show, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from ptnetmap.tools.top.rates import PortRow
from ptnetmap.tools.top.snapshot import Occupied


def matching(rows: Iterable[PortRow], wanted: Sequence[str]) -> list[PortRow]:
    """Return the rows of ports whose name, or whose switch's, is one of ``wanted`` or matches it (``*``, ``?``).

    All rows, if nothing is wanted in particular. A name may begin with "netmap:", as programs write it.
    """
    patterns = [pattern.removeprefix("netmap:") for pattern in wanted]
    return [row for row in rows if not patterns or any(_matches(row, pattern) for pattern in patterns)]


def _matches(row: PortRow, pattern: str) -> bool:
    names = (row.name, row.sample.port["switch"])
    return pattern in names or any(name and fnmatchcase(name, pattern) for name in names)


def _natural(row: PortRow) -> list[tuple[int, str]]:
    """Order vale0:2 before vale0:10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", row.name)]


def _busy(row: PortRow) -> float:
    return (row.tx_pps or 0.0) + (row.rx_pps or 0.0)


def _lost(row: PortRow) -> float:
    return (row.dropped_pps or 0.0) + (row.missed_pps or 0.0)


def _full(row: PortRow) -> float:
    return max(_part(row.sample.tx), _part(row.sample.rx))


def _part(occupied: Occupied) -> float:
    return (occupied.packets or 0) / occupied.slots if occupied.slots else 0.0


def _largest_first(figure: Callable[[PortRow], float]) -> Callable[[list[PortRow]], list[PortRow]]:
    return lambda rows: sorted(sorted(rows, key=_natural), key=figure, reverse=True)


SORTS: dict[str, Callable[[list[PortRow]], list[PortRow]]] = {
    "busy": _largest_first(_busy),
    "tx": _largest_first(lambda row: row.tx_pps or 0.0),
    "rx": _largest_first(lambda row: row.rx_pps or 0.0),
    "lost": _largest_first(_lost),
    "full": _largest_first(_full),
    "name": lambda rows: sorted(rows, key=_natural),
}
"""Orders by name: most packets first, most sent, received or lost, fullest ring first, by name. Ties are by name."""

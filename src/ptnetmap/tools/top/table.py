# SPDX-License-Identifier: BSD-2-Clause
"""A view as text: a line about netmapd, its kthreads, its ports, and what was lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ptnetmap.tools.top.rates import KthreadRow, PortRow, View
from ptnetmap.tools.top.snapshot import Occupied

_UNKNOWN = "-"
_UNITS = "kMGTPE"
_LONGEST_NAME = 40
_SHORTEST_NAME = 10
_GAP = 2
_MOST_KTHREADS = 4  # on a screen; and so many lines about losses
_MOST_LOSSES = 6


class Column(NamedTuple):
    """A column of the ports: its head, its width, and the least width of the page that has room for it."""

    head: str
    width: int
    page: int = 0


PORT_COLUMNS = (
    Column("tx pps", 6),
    Column("tx bit/s", 8),
    Column("rx pps", 6),
    Column("rx bit/s", 8),
    Column("drop/s", 6),
    Column("miss/s", 6),
    Column("tx%", 4),
    Column("rx%", 4),
    Column("kthread", 7, page=100),
    Column("lossless", 8, page=110),
    Column("process", 10, page=120),
    Column("mode", 9, page=131),
)


def si(value: float | None) -> str:
    """Return a number in at most six characters: 0, 7, 0.5, 999, 14.88M, 1.200G; "-" for None."""
    if value is None:
        return _UNKNOWN
    if value < 999.5:
        return f"{value:.1f}" if 0.05 <= value < 9.95 and value != int(value) else f"{value:.0f}"
    power = 1
    while value >= 999.95 * 1000**power and power < len(_UNITS):
        power += 1
    scaled = value / 1000**power
    digits = 3 if scaled < 9.9995 else 2 if scaled < 99.995 else 1
    return f"{scaled:.{digits}f}{_UNITS[power - 1]}"


def shortened(name: str, width: int) -> str:
    """Return a name in ``width`` characters; what is left out is in the middle, since names differ at their ends."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def _percent(part: float | None) -> str:
    return _UNKNOWN if part is None else f"{part:.0%}"


def _level(occupied: Occupied) -> str:
    known = occupied.packets is not None and occupied.slots
    return _percent((occupied.packets or 0) / occupied.slots if known else None)


def _processes(pids: Sequence[int]) -> str:
    known = sorted(set(pids))
    return _UNKNOWN if not known else f"{known[0]}" if len(known) == 1 else f"{known[0]}+{len(known) - 1}"


def _cells(row: PortRow) -> list[str]:
    sample = row.sample
    kthread = sample.port["kthread"]
    return [
        si(row.tx_pps),
        si(row.tx_bps),
        si(row.rx_pps),
        si(row.rx_bps),
        si(row.dropped_pps),
        si(row.missed_pps),
        _level(sample.tx),
        _level(sample.rx),
        _UNKNOWN if kthread is None or kthread < 0 else str(kthread),
        "yes" if sample.port["lossless"] else "no",
        _processes(sample.port["pids"]),
        sample.port.get("mode") or _UNKNOWN,
    ]


def _style(row: PortRow) -> str:
    if row.dropped_pps or row.missed_pps:
        return "yellow"
    return "" if row.tx_pps or row.rx_pps else "dim"


def _table(first: str, heads: Sequence[str], widths: Sequence[int]) -> Table:
    """Return an empty table without lines, whose first column is text and whose others are numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True, width=widths[0])
    for head, width in zip(heads, widths[1:], strict=True):
        table.add_column(head, justify="right", no_wrap=True, width=width)
    return table


def _name_width(rows: Sequence[PortRow], left: int) -> int:
    longest = max((len(row.name) for row in rows), default=0)
    return max(min(longest, left, _LONGEST_NAME), _SHORTEST_NAME)


def ports(rows: Sequence[PortRow], width: int) -> Table:
    """Return the table of ports for a page ``width`` characters wide."""
    shown = [i for i, column in enumerate(PORT_COLUMNS) if column.page <= width]
    columns = [PORT_COLUMNS[i] for i in shown]
    name = _name_width(rows, width - sum(column.width + _GAP for column in columns))
    table = _table("port", [column.head for column in columns], [name, *(column.width for column in columns)])
    for row in rows:
        cells = _cells(row)
        table.add_row(Text(shortened(row.name, name)), *(cells[i] for i in shown), style=_style(row))
    return table


def kthreads(rows: Sequence[KthreadRow]) -> Table:
    """Return the table of kthreads, the busiest first."""
    heads = ("cpu", "rings", "load", "rounds/s", "sleeps/s", "kicks/s", "irqs/s")
    table = _table("kthread", heads, (7, 4, 5, 4, 8, 8, 7, 6))
    for row in sorted(rows, key=lambda row: -(row.load or 0.0)):
        cpu = _UNKNOWN if row.cpu is None else str(row.cpu)
        rates = (si(rate) for rate in (row.rounds, row.sleeps, row.kicks, row.irqs))
        table.add_row(str(row.kthread), cpu, str(row.rings), _percent(row.load), *rates)
    return table


def losses(rows: Sequence[PortRow], width: int, most: int | None = None) -> Table | None:
    """Return the table of what was lost, the most per second first, ``most`` lines of it; None if nothing was."""
    found = [(loss.rate or 0.0, loss.total, row.name, loss) for row in rows for loss in row.losses]
    if not found:
        return None
    found.sort(key=lambda one: one[:2], reverse=True)
    name = _name_width(rows, width - 40)
    table = _table("lost at", ("reason", "per second", "total"), (name, 12, 10, 12))
    for rate, total, port, loss in found[:most]:
        style = "yellow" if rate else "dim"
        table.add_row(Text(shortened(port, name)), loss.reason, si(loss.rate), f"{total:,}", style=style)
    return table


def headline(view: View, rows: Sequence[PortRow]) -> Text:
    """Return the line about netmapd and the sums of ``rows``."""
    sums = [sum(getattr(row, rate) or 0.0 for row in rows) for rate in ("tx_pps", "rx_pps", "dropped_pps")]
    text = (
        f"netmapd {view.version}: {_counted(len(rows), 'port')}, tx {si(sums[0])} pps, rx {si(sums[1])} pps, "
        f"dropped {si(sums[2])}/s, {view.seconds:.1f} s; {view.address}"
    )
    return Text(text, style="reverse", no_wrap=True, overflow="ellipsis")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def page(
    view: View, rows: Sequence[PortRow], width: int, height: int | None = None, footer: str = ""
) -> RenderableType:
    """Return all of a view, ``rows`` being its ports that are to be shown, in order.

    With a ``height``, in lines, it is made to fit: what has no room is left out, and a line says how many ports were.
    """
    return Group(*_parts(view, rows, width, height, footer))


def _parts(
    view: View, rows: Sequence[PortRow], width: int, height: int | None, footer: str
) -> Iterator[RenderableType]:
    yield headline(view, rows)
    threads = sorted(view.kthreads, key=lambda row: -(row.load or 0.0))
    lost = losses(rows, width, None if height is None else _MOST_LOSSES)
    shown = list(rows)
    if height is not None:
        threads = threads[: max(min(_MOST_KTHREADS, height - 9), 1)]
        # Empty lines and heads: one each for kthreads and ports; the headline and perhaps a footer.
        room = height - 5 - len(threads) - bool(footer)
        if lost is not None and room - lost.row_count - 2 < min(len(rows), 4):
            lost = None
        room -= lost.row_count + 2 if lost is not None else 0
        if len(shown) > room:
            shown = shown[: max(room - 1, 0)]
    yield Text()
    yield kthreads(threads)
    yield Text()
    if shown:
        yield ports(shown, width)
    elif not rows:
        yield Text("no ports", style="dim")
    if len(shown) < len(rows):
        yield Text(f"{len(rows) - len(shown)} more not shown", style="dim")
    if lost is not None:
        yield Text()
        yield lost
    if footer:
        yield Text(footer, style="dim", no_wrap=True, overflow="ellipsis")

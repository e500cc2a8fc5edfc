# SPDX-License-Identifier: BSD-2-Clause
"""A benchmark's report as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ptnetmap.bench.frame import Figure, Report, Row
from ptnetmap.bench.machine import one_line

_WIDTH_IN_A_FILE = 152


def console(*, stderr: bool = False) -> Console:
    """Return a console for the terminal as wide as it is, or for a file; colours follow ``NO_COLOR``."""
    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal:
        out.width = _WIDTH_IN_A_FILE
    return out


def _compared(row: Row) -> str:
    if row.against is None:
        return ""
    if row.dropped and row.ratio is None:
        return f"lossy: no ratio to {row.against}"
    return row.against if row.ratio is not None else ""


def _judged(limit: float | None, reached: bool | None) -> str:
    """What was wanted, and whether it was reached."""
    if limit is None:
        return ""
    return f"{limit:g}" if reached is None else f"{limit:.3g} {'reached' if reached else 'missed'}"


def _rates(row: Row, *, trips: bool) -> list[str]:
    """Mpps and Gbit/s of packets, or the times of round trips; those have columns if ``trips``."""
    if row.rtt_ns is not None and row.p99_ns is not None:
        return ["", "", f"{row.rtt_ns / 1e3:.2f}", f"{row.p99_ns / 1e3:.2f}"]
    return [f"{row.mpps:.2f}", f"{row.gbps:.1f}", *([""] * 2 if trips else [])]


def show(report: Report, out: Console) -> None:
    """Print all rows and figures, and the machine and what else is to be said below them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    trips = any(row.rtt_ns is not None for row in report.rows)
    latency = ("RTT us", "p99 us") if trips else ()
    for name in ("size", "batch", "Mpps", "Gbit/s", *latency, "dropped", "ratio", "spread", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    floors = any(row.floor is not None for row in report.rows)
    if floors:
        table.add_column("floor", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for row in report.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        dropped = f"{row.dropped:,}" if row.dropped else ""
        table.add_row(
            row.case,
            str(row.size),
            str(row.batch),
            *_rates(row, trips=trips),
            dropped,
            ratio,
            f"{row.spread:.0%}",
            str(row.runs),
            *([_judged(row.floor, row.reached)] if floors else []),
            _compared(row),
            style="" if row.against else "dim",
        )
    if report.rows:
        out.print(table)
    if report.netmapd:
        out.print(_figures(report.netmapd))
    for line in (one_line(report.machine), *report.footnotes):
        out.print(line, style="dim", soft_wrap=True, markup=False)


def _figures(figures: list[Figure]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("at most", no_wrap=True)
    for one in figures:
        table.add_row(one.name, f"{one.value:g}", one.unit, _judged(one.limit, one.reached))
    return table

# SPDX-License-Identifier: BSD-2-Clause
"""The 2015 report's table, for this machine: host to host, guest to host, and what the report has for a guest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from ptnetmap.bench.frame import Case, Result

LABELS = {
    "passthrough/vale_out": "VALE, guest to host",
    "passthrough/vale_in": "VALE, host to guest",
    "passthrough/pipe_out": "pipe, guest to host",
    "passthrough/pipe_in": "pipe, host to guest",
    "virtio/vale_out": "VALE, guest to host, by virtio-net",
    "virtio/vale_in": "VALE, host to guest, by virtio-net",
    "nic/guest_transmit": "interface (here a veth), from the guest",
    "nic/guest_receive": "interface (here a veth), to the guest",
    "processes/vale": "VALE, process to process",
    "processes/pipe": "pipe, process to process",
}
"""What a case is called for people; the others keep their names."""


@dataclass(frozen=True)
class Headline:
    """One row: rates in Mpps, None where there is none (yet), and ``report``, the guest's in 2015."""

    label: str
    host: float | None
    guest: float | None
    report: float

    @property
    def ratio(self) -> float | None:
        """Guest to host over host to host."""
        return self.guest / self.host if self.host and self.guest else None

    def as_json(self) -> dict[str, Any]:
        """Return the row, of JSON's own types."""
        rates = {"host_mpps": self.host, "guest_mpps": self.guest, "ratio": self.ratio}
        return {"label": self.label, **{k: v and round(v, 3) for k, v in rates.items()}, "report_mpps": self.report}


class Headlines:
    """The rows of ``cases``, those with a figure in the report, as results come in."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = [case for case in cases if case.report is not None]
        self._rates: dict[tuple[str, int, int], list[float]] = {}

    def observe(self, case: Case, result: Result) -> None:
        """Take note of a run."""
        self._rates.setdefault(case.key, []).append(result.mpps)

    def rows(self) -> list[Headline]:
        """Return the rows as of now: medians of the runs so far."""
        return [self._row(case, case.report) for case in self._cases if case.report is not None]

    def _row(self, case: Case, report: float) -> Headline:
        label = LABELS.get(case.name, case.name)
        mine = self._middle(case.key)
        if case.name.startswith("processes/"):
            return Headline(label, mine, None, report)
        rival = "processes/vale" if case.name.startswith("virtio/") else case.against or ""
        return Headline(label, self._middle((rival, case.size, case.batch)), mine, report)

    def _middle(self, key: tuple[str, int, int]) -> float | None:
        rates = self._rates.get(key)
        return median(rates) if rates else None


def headline_table(rows: Iterable[Headline]) -> Table:
    """Return the rows as a table for people."""
    table = Table(box=None, pad_edge=False)
    table.add_column("60-byte packets, Mpps", no_wrap=True)
    for name in ("host to host", "with a guest", "ratio", "with a guest, 2015"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        rates = ("" if rate is None else f"{rate:.1f}" for rate in (row.host, row.guest))
        table.add_row(row.label, *rates, "" if row.ratio is None else f"{row.ratio:.2f}", f"{row.report:g}")
    return table


def plot(rows: Sequence[Headline], path: str, title: str) -> None:
    """Draw the rows as bars into a file, whose ending says what kind it is. ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.9 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    bars = [("host to host", [row.host for row in rows]), ("with a guest", [row.guest for row in rows])]
    bars.append(("with a guest, 2015", [row.report for row in rows]))
    height = 0.8 / len(bars)
    for number, (label, rates) in enumerate(bars):
        places = [at + height * (number - (len(bars) - 1) / 2) for at in range(len(rows))]
        drawn = axes.barh(places, [rate or 0.0 for rate in rates], height, label=label)
        axes.bar_label(drawn, [f"{rate:.1f}" if rate else "" for rate in rates], padding=3)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("million packets of 60 bytes per second, as received")
    axes.set_title(title, fontsize="small")
    axes.margins(x=0.1)
    axes.legend()
    figure.savefig(path)

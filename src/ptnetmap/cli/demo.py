# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap demo``: the 2015 report's table on this machine."""

from __future__ import annotations

import argparse
import json
from typing import Any

EXAMPLES = """\
examples:
  ptnetmap demo
  ptnetmap demo --json
"""

_SECONDS = 0.3
_RUNS = 3


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="the 2015 report's table, measured here",
        description="Measure the rates of the 2015 report's table here: packets of 60 bytes from host to host, through "
        "a pipe and through a VALE switch. The report's own figures, 50 and 25 Mpps, are from a guest to the host, on "
        "the hardware of 2015; it has none from host to host.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure the cases that the report has a figure for, and print them beside it."""
    from ptnetmap.bench.cases import all_cases
    from ptnetmap.bench.frame import count_runs, measure
    from ptnetmap.bench.table import console, show_headlines
    from ptnetmap.cli.bench import progress_bar

    known = all_cases()
    chosen = [case for case in known if case.report is not None]
    figures = {(case.name, case.batch): case.report for case in chosen if case.report is not None}
    with progress_bar(count_runs(chosen, _RUNS)) as step:
        report = measure(chosen, known, seconds=_SECONDS, runs=_RUNS, progress=step)
    if options.json:
        data = report.as_json()
        for row in data["rows"]:
            row["report"] = figures.get((row["case"], row["batch"]))
        print(json.dumps(data, indent=1))
    else:
        show_headlines(report, figures, console())
    return 0

# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap bench``: rates of everything, as ratios to what the machine can do at best."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptnetmap.cli.outcome import ASKED_WRONGLY, FAILED

if TYPE_CHECKING:
    from ptnetmap.bench.frame import Case, Probe, Report

EXAMPLES = """\
examples:
  ptnetmap bench                                everything, which takes some minutes
  ptnetmap bench vale --seconds 1               the VALE switch, longer runs
  ptnetmap bench processes                      ports of different processes, which netmapd serves
  ptnetmap bench roofline --json > here.json
  ptnetmap bench --read here.json               the table of what was measured before
"""


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="measure this machine",
        description="Measure packet rates between threads and between processes of this machine, each in turn with its "
        "rival: the bare loop that moves the same packets without netmap, the same case in one process, or DPDK's memif "
        "where that is installed. A ratio is the median over the runs; some have a floor, which is what is wanted.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="these cases, or all below a name: vale, vale/idle_ports (see --list)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="the same, for the names behind it",
    )
    parser.add_argument("--seconds", type=_positive, help="length of one run (default: up to 0.5, so that all fit)")
    parser.add_argument("--runs", type=_count, default=5, help="runs of each case (default: 5)")
    parser.add_argument("--pin", action="store_true", help="sender and receiver each on a core of its own")
    parser.add_argument("--list", action="store_true", help="print the cases and measure nothing")
    parser.add_argument("--read", type=Path, metavar="FILE", help="print what an earlier --json wrote")
    parser.set_defaults(run=run)


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Show ``total`` runs on stderr, if that is a terminal; yields what to call before each of them."""
    from ptnetmap.bench.table import console

    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda label: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("compiling", total=total)
        started = -1

        def step(label: str) -> None:
            nonlocal started
            started += 1
            bar.update(task, completed=started, description=label)

        yield step


def run(options: argparse.Namespace) -> int:
    """Measure, and print; 2 if no case is meant."""
    from dataclasses import replace

    from ptnetmap.bench.cases import all_cases, all_footnotes, all_probes
    from ptnetmap.bench.frame import count_runs, default_seconds, measure, select
    from ptnetmap.bench.pair import two_cores

    if options.read:
        return _reprint(options.read, as_json=options.json)
    known, probes = all_cases(), all_probes()
    names = [*options.names, *options.only]
    for wanted in names:
        if not select(known, [wanted]) and not select(probes, [wanted]):
            print(f"ptnetmap bench: no case is called {wanted}; --list prints their names", file=sys.stderr)
            return ASKED_WRONGLY
    chosen, probed = select(known, names), select(probes, names)
    if options.list:
        _list(chosen, probed, as_json=options.json)
        return 0
    cores = two_cores() if options.pin else None
    if options.pin and cores is None:
        print("ptnetmap bench: --pin needs two cores, this process may use one; leave it out", file=sys.stderr)
        return FAILED
    seconds = options.seconds or default_seconds(chosen, options.runs)
    with progress_bar(count_runs(chosen, options.runs) + len(probed)) as step:
        report = measure(chosen, known, seconds=seconds, runs=options.runs, cores=cores, progress=step)
        figures = []
        for probe in probed:
            step(probe.name)
            figures += probe.run()
    _print(replace(report, netmapd=figures, footnotes=all_footnotes()), as_json=options.json)
    return 0


def _list(cases: Sequence[Case], probes: Sequence[Probe], *, as_json: bool) -> None:
    entries = [{"case": case.name, "size": case.size, "batch": case.batch} for case in cases]
    if as_json:
        print(json.dumps(entries + [{"case": probe.name, "size": None, "batch": None} for probe in probes]))
        return
    for entry in entries:
        print(f"{entry['case']:26} {entry['size']:5} B  batch {entry['batch']}")
    for probe in probes:
        print(probe.name)


def _print(report: Report, *, as_json: bool) -> None:
    from ptnetmap.bench.table import console, show

    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        show(report, console())


def _reprint(path: Path, *, as_json: bool) -> int:
    from ptnetmap.bench.frame import Report

    try:
        report = Report.from_json(json.loads(path.read_text()))
    except OSError as error:
        print(f"ptnetmap bench: cannot read {path}: {error.strerror}", file=sys.stderr)
        return FAILED
    except (ValueError, KeyError, TypeError):
        print(f"ptnetmap bench: {path} is not the output of ptnetmap bench --json", file=sys.stderr)
        return FAILED
    _print(report, as_json=as_json)
    return 0

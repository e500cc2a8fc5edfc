# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap demo``: the 2015 report's table on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptnetmap.cli.outcome import FAILED

if TYPE_CHECKING:
    from ptnetmap.bench.headlines import Headlines

EXAMPLES = """\
examples:
  ptnetmap demo
  ptnetmap demo --plot table.svg      (with pip install 'ptnetmap[plot]')
  ptnetmap demo --json
"""

_SECONDS = 0.3
_RUNS = 3
_KINDS = (".png", ".svg", ".pdf")


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _KINDS:
        raise argparse.ArgumentTypeError(f"{text} should end with {', '.join(_KINDS)}")
    return path


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="the 2015 report's table, measured here",
        description="Boot a virtual machine, pass a port through to it, and measure pkt-gen in the guest against the "
        "host: packets of 60 bytes through a pipe and through a VALE switch, both ways, in turn with the same between "
        "two processes of the host, beside what the 2015 report had from a guest; and the same through an ordinary "
        "virtio-net on the switch; by root, a network interface too, a veth in a namespace of its own. Everything that it "
        "starts, ends with it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", type=_picture, metavar="FILE", help=f"draw the table, too ({', '.join(_KINDS)})")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure the cases that the report has a figure for, and print them beside it."""
    from ptnetmap.bench.cases import all_cases
    from ptnetmap.bench.frame import measure
    from ptnetmap.bench.guestend import unavailable
    from ptnetmap.bench.headlines import Headlines, plot
    from ptnetmap.bench.machine import one_line
    from ptnetmap.bench.nic import unavailable as no_interface
    from ptnetmap.bench.table import console

    if options.plot and find_spec("matplotlib") is None:
        print("ptnetmap demo: --plot needs matplotlib: pip install 'ptnetmap[plot]'", file=sys.stderr)
        return FAILED
    known = all_cases()
    missing = unavailable()
    subjects = ("processes/",) if missing else ("passthrough/", "virtio/", "nic/")
    chosen = [case for case in known if case.report is not None and case.name.startswith(subjects)]
    if missing:
        print(
            f"ptnetmap demo: no guest: {missing}\n"
            "        a process takes its part: it works on its rings through the same CSB, served by the same kthreads",
            file=sys.stderr,
        )
    elif without := no_interface():
        print(f"ptnetmap demo: no interface: {without}; its rows are left out", file=sys.stderr)
    headlines = Headlines(chosen)
    with _live(headlines) as step:
        report = measure(chosen, known, seconds=_SECONDS, runs=_RUNS, progress=step, observe=headlines.observe)
    rows = headlines.rows()
    if options.json:
        print(json.dumps({**report.as_json(), "headlines": [row.as_json() for row in rows]}, indent=1))
    else:
        from ptnetmap.bench.headlines import headline_table

        out = console()
        out.print(headline_table(rows))
        out.print(one_line(report.machine), style="dim", soft_wrap=True)
    if options.plot:
        plot(rows, str(options.plot), one_line(report.machine))
    return 0


@contextlib.contextmanager
def _live(headlines: Headlines) -> Iterator[Callable[[str], None]]:
    """Show the table as it grows on stderr, if that is a terminal; yields what to call before each run."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from ptnetmap.bench.headlines import LABELS, headline_table
    from ptnetmap.bench.table import console

    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda label: None
        return
    with Live(console=err, transient=True, auto_refresh=False) as shown:
        shown.update(Text("starting netmapd ..."), refresh=True)

        def step(label: str) -> None:
            now = Text(f"now: {LABELS.get(label, label)}", style="dim")
            shown.update(Group(headline_table(headlines.rows()), now), refresh=True)

        yield step

# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap top``: what the ports of netmapd do, second by second."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from ptnetmap.cli.outcome import FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from ptnetmap.netmap.client.session import Session
    from ptnetmap.tools.top import Absent, PortRow, View

EXAMPLES = """\
keys: q or Ctrl-C ends, s sorts by something else

"drop" is what a port sent and no port got, "miss" what found its RX rings full; tx% and rx% are how full its rings
are, where a kthread serves them. A port that is new has no rates in its first second.

examples:
  ptnetmap top                          all ports, the busiest first
  ptnetmap top vale0 --sort lost        the ports of one switch
  ptnetmap top 'vale*:1' --once         one table, after a second
  ptnetmap top --json -n 60 -d 10       a line of JSON every 10 seconds, 60 times
"""

SORTS = ("busy", "tx", "rx", "lost", "full", "name")
_LEAST_DELAY = 0.1
_WIDTH_IN_A_FILE = 120


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _delay(text: str) -> float:
    value = float(text)
    if not _LEAST_DELAY <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from {_LEAST_DELAY} up")
    return value


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "top",
        help="watch netmapd's ports",
        description="Show the rates of netmapd's ports and the load of its kthreads, once a second. What is not "
        "a terminal gets one table. A netmapd has to run: top starts none, and one that would be idle stays while it "
        "is watched.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these ports and those of these switches; * and ? match"
    )
    parser.add_argument("-s", "--sort", choices=SORTS, default="busy", help="what comes first (default: busy)")
    parser.add_argument(
        "-d", "--delay", type=_delay, default=1.0, metavar="SECONDS", help="time between two looks (default: 1)"
    )
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("-n", "--count", type=_count, metavar="COUNT", help="end after so many")
    ends.add_argument("-1", "--once", action="store_true", help="print one table and end")
    parser.add_argument("--json", action="store_true", help="print a JSON object on a line each time")
    parser.add_argument("--socket", metavar="PATH", help="netmapd's socket (default: $NETMAP_SOCKET, or the usual one)")
    parser.add_argument("--wait", action="store_true", help="wait for a netmapd when none runs, or it has gone")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show what there is until told to end; 1 if no netmapd runs, or it goes, and it is not to be waited for."""
    from ptnetmap.errors import PtnetmapError

    try:
        if options.json or options.once or not sys.stdout.isatty():
            _print(options)
        else:
            _watch(options)
    except KeyboardInterrupt:
        return 0
    except PtnetmapError as error:
        if error.errno not in (errno.ENOENT, errno.ECONNRESET):
            raise
        print(f"ptnetmap top: {str(error).splitlines()[0].removeprefix('netmap: ')}", file=sys.stderr)
        print("        top starts none: open a port, or run netmapd; --wait waits for one", file=sys.stderr)
        return FAILED
    return 0


def _connect(options: argparse.Namespace) -> Callable[[], Session]:
    from ptnetmap.netmap.client.session import connect

    return lambda: connect(options.socket, start=False)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_IN_A_FILE
    return console


def _chosen(view: View, options: argparse.Namespace, sort: str) -> list[PortRow]:
    from ptnetmap.tools import top

    return top.SORTS[sort](top.matching(view.ports, options.names))


# Lines and tables -----------------------------------------------------------------------------------------------------


def _print(options: argparse.Namespace) -> None:
    """Print views until there were as many as asked for: without an answer to that, one table, or JSON for ever."""
    from ptnetmap.tools import top

    left = options.count or (math.inf if options.json and not options.once else 1)

    def pause() -> bool:
        if left > 0:
            time.sleep(options.delay)
        return left > 0

    console = _console()
    absent = False
    with closing(top.follow(_connect(options), pause, wait=options.wait)) as states:
        for state in states:
            if isinstance(state, top.Absent):
                if not absent:
                    print(f"ptnetmap top: {state.reason}; waiting for one", file=sys.stderr)
                absent = True
                continue
            absent = False
            left -= 1
            rows = _chosen(state, options, options.sort)
            if options.json:
                ports = [row.as_json() for row in rows]
                print(json.dumps({"time": time.time(), **state.as_json(), "ports": ports}), flush=True)
            else:
                console.print(top.page(state, rows, console.width))
                if left:
                    console.print()


# The terminal ---------------------------------------------------------------------------------------------------------


def _watch(options: argparse.Namespace) -> None:
    """Show views on the terminal's other screen, and obey its keys meanwhile."""
    from ptnetmap.tools import top

    with _own_screen() as (console, screen):
        state: View | Absent = top.Absent("looking for netmapd")
        sort = options.sort
        shown = -1  # views, but for the first, which has no rates

        def draw() -> None:
            screen.show(_content(state, options, sort, console))

        def pause() -> bool:
            nonlocal sort
            if options.count is not None and shown >= options.count:
                return False
            deadline = time.monotonic() + options.delay
            while key := screen.key(deadline):
                if key in ("q", "Q"):
                    return False
                if key in ("s", "S"):
                    sort = SORTS[(SORTS.index(sort) + 1) % len(SORTS)]
                draw()
            return True

        with closing(top.follow(_connect(options), pause, wait=options.wait, at_once=True)) as states:
            for state in states:
                shown += isinstance(state, top.View) and (shown < 0 or state.seconds > 0)
                draw()
    if options.count is not None and isinstance(state, top.View):
        console.print(top.page(state, _chosen(state, options, sort), console.width))


def _content(state: View | Absent, options: argparse.Namespace, sort: str, console: Console) -> Any:
    from rich.text import Text

    from ptnetmap.tools import top

    if isinstance(state, top.Absent):
        return Text(f"{state.reason}\n\nwaiting; q ends")
    which = f", only {' '.join(options.names)}" if options.names else ""
    rows = _chosen(state, options, sort)
    return top.page(state, rows, console.width, console.height, f"q ends   s sorts (now: {sort}){which}")


@contextmanager
def _own_screen() -> Iterator[tuple[Console, Any]]:
    from ptnetmap.tools.top import Screen

    console = _console()
    keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    with Screen(console, keyboard) as screen:
        yield console, screen

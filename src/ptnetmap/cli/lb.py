# SPDX-License-Identifier: BSD-2-Clause
"""``lb``: spread the packets of a port over pipes, with upstream's options and log lines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ptnetmap.cli.outcome import FAILED, conclude
from ptnetmap.tools.lb.groups import DEFAULT_PIPES, MOST_PIPES, Group, parse_group

if TYPE_CHECKING:
    from ptnetmap.tools.lb.balancer import Balancer

EXAMPLES = """\
examples:
  lb -i vale0:in -p 4                        to the programs that open vale0:in}0 ... vale0:in}3
  lb -i vale0:in -p 2 -B 10000 -o 10         with room for bursts, and figures every 10 seconds
  lb -i netmap:eth0 -p ids:4 -p stats:1      netmap:ids}0 ... get everything, then netmap:stats}0 does
"""

_BATCH, _MOST_BATCH = 2048, 65535
_WAIT = 2
_MOST_EXTRA = 1 << 20


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 1 after a wrong command line, as lb always has."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _group(text: str) -> Group:
    try:
        return parse_group(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text[:12]) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least} to {most}")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lb",
        description="Read packets from a port and spread them over pipes: all packets of a connection, both ways, go to "
        "the same pipe. Programs receive from NAME}0, NAME}1, ... Ends with Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-i", "--interface", required=True, metavar="PORT", help="port to receive from")
    parser.add_argument(
        "-p",
        "--pipes",
        type=_group,
        action="append",
        metavar="NAME:N|N",
        help=f"a group of N pipes (default: {DEFAULT_PIPES}) of port NAME (default: PORT); given again, the next group "
        f"gets all packets that the one before has read; up to {MOST_PIPES} in all",
    )
    parser.add_argument(
        "-B",
        "--extra-buffers",
        type=_number(0, _MOST_EXTRA),
        default=0,
        metavar="N",
        help="buffers for packets whose pipe is full (default: 0)",
    )
    parser.add_argument(
        "-b",
        "--batch",
        type=_number(1, _MOST_BATCH),
        default=_BATCH,
        metavar="N",
        help=f"packets to read at a time (default: {_BATCH})",
    )
    parser.add_argument(
        "-w",
        "--wait",
        type=_seconds,
        metavar="S",
        help=f"seconds to wait for a link (default: {_WAIT}; VALE, pipes: 0)",
    )
    parser.add_argument("-W", "--busy", action="store_true", help="never sleep: uses all of a core")
    parser.add_argument(
        "-s",
        "--syslog",
        type=_seconds,
        default=0,
        metavar="S",
        help="figures to the system log, and stderr, every S seconds",
    )
    parser.add_argument(
        "-o", "--output", type=_seconds, default=0, metavar="S", help="figures to standard output every S seconds"
    )
    parser.add_argument("--json", action="store_true", help="print final figures as one JSON object, and no messages")
    return parser


def main(arguments: Sequence[str] | None = None, *, opener: Callable[..., Any] | None = None) -> int:
    """Run the program and return its exit code: 0 also after Ctrl-C, 1 if a port cannot be opened or used.

    ``opener`` opens ports; the default is ``ptnetmap.open``. Exits by itself on ``--help`` and on a wrong command line.
    """
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    if not options.interface.startswith(("netmap:", "vale")):
        options.interface = f"netmap:{options.interface}"
    return conclude("lb", lambda: _run(options, opener))


def _run(options: argparse.Namespace, opener: Callable[..., Any] | None) -> int:
    import ptnetmap
    from ptnetmap.cli.capture import stopped_by_signals
    from ptnetmap.tools.lb.balancer import Balancer
    from ptnetmap.tools.lb.report import summary
    from ptnetmap.tools.pktgen.report import Log

    log = Log(quiet=options.json)
    name = options.interface
    log("main", f"interface is {name}")
    if options.extra_buffers:
        log("main", f"requested {options.extra_buffers} extra buffers")
    balancer = Balancer(
        name,
        options.pipes or (Group(),),
        opener=opener or ptnetmap.open,
        extra_bufs=options.extra_buffers,
        batch=options.batch,
        log=lambda text: log("main", text),
    )
    with balancer, stopped_by_signals(balancer.stop):
        if options.extra_buffers:
            log("main", f"obtained {balancer.figures.extra_buffers} extra buffers")
        wait = options.wait
        if wait is None:
            wait = _WAIT if name.startswith("netmap:") and not any(mark in name for mark in "{}") else 0
        balancer.pause(wait)
        began = time.monotonic()
        _work(options, balancer)
        seconds = time.monotonic() - began
    figures = balancer.figures
    if options.json:
        print(json.dumps(summary(name, figures, seconds)))
    else:
        total = figures.packets + figures.dropped
        print(f"{figures.packets} packets forwarded.  {figures.dropped} packets dropped. Total {total}")
    return 0


def _work(options: argparse.Namespace, balancer: Balancer) -> None:
    """Let the balancer work, and tell its figures whenever it is time for that."""
    from ptnetmap.tools.lb.report import Periods

    now = time.monotonic()
    outlets = [
        (interval, tell, Periods(options.interface, balancer.figures, now))
        for interval, tell in ((options.syslog, _to_syslog), (options.output, _to_stdout))
        if interval
    ]
    due = [now + interval for interval, _, _ in outlets]
    while not balancer.stopped:
        balancer.run(min(due, default=None), busy=options.busy)
        now = time.monotonic()
        for i, (interval, tell, periods) in enumerate(outlets):
            if now >= due[i]:
                for line in periods.lines(balancer.figures, now, time.time()):
                    tell(line)
                due[i] = now + interval


def _to_syslog(line: str) -> None:
    import syslog

    syslog.openlog("lb", syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_LOCAL1)
    syslog.syslog(syslog.LOG_INFO, line)
    print(line, file=sys.stderr)


def _to_stdout(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

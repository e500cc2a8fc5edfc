# SPDX-License-Identifier: BSD-2-Clause
"""``bridge``: packets between two ports, with upstream's options, messages and exit codes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from ptnetmap.cli.outcome import FAILED, conclude

if TYPE_CHECKING:
    from ptnetmap.netmap.bridge.session import Bridge
    from ptnetmap.netmap.port import Port
    from ptnetmap.tools.pktgen.report import Log

EXAMPLES = """\
examples:
  bridge -i vale0:a -i vale1:b          join two switches
  bridge netmap:x}1 netmap:x}2 256      two pipes of one port: buffers change places, nothing is copied
  bridge -L vale0:echo                  send everything back
  bridge -i vale0:a -i vale1:b --json   print figures when it ends (Ctrl-C)
"""

_BURST, _MOST = 1024, 8192
_WAIT, _LONGEST = 4, 100


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 1 after a wrong command line, as bridge always has."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bridge",
        usage="bridge [-v] [-i ifa] [-i ifb] [-b burst] [-w wait] [-L] [-c] [--json]\n"
        "       bridge [-v] [-w wait] [-L] [-c] [--json] [ifa [ifb [burst]]]",
        description="Forward packets between two ports, both ways. If ifb is missing or the same as ifa: between ifa and "
        "the host's network stack, or with -L, back to ifa. Ends with Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("positional", nargs="*", metavar="ifa ifb burst", help="as -i, -i and -b, and stronger")
    parser.add_argument("-i", "--interface", action="append", default=[], metavar="PORT", help="a port, twice")
    parser.add_argument(
        "-b",
        "--burst",
        type=int,
        default=_BURST,
        metavar="N",
        help=f"packets at a time, 1 to {_MOST} (default: {_BURST})",
    )
    parser.add_argument(
        "-w", "--wait", type=int, metavar="S", help=f"seconds to wait for links (default: {_WAIT}; VALE and pipes: 0)"
    )
    parser.add_argument("-L", "--loopback", action="store_true", help="with one port: send everything back to it")
    parser.add_argument("-c", "--copy", action="store_true", help="copy packets, even if buffers could change places")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print more")
    parser.add_argument("--json", action="store_true", help="print final figures as one JSON object, and no messages")
    return parser


def main(arguments: Sequence[str] | None = None, *, opener: Callable[..., Any] | None = None) -> int:
    """Run the program and return its exit code: 0 also after Ctrl-C, 1 if a port cannot be opened or used.

    ``opener`` opens ports; the default is ``ptnetmap.open``. Exits by itself on ``--help`` and on a wrong command line.
    """
    parser = _parser()
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    given = options.positional
    if len(given) > 3:
        parser.error(f"unexpected argument {given[3]}")
    names = [*given[:2], *options.interface[len(given[:2]) : 2]]
    if not names:
        parser.error("missing interface")
    if len(given) > 2:
        if not given[2].isdecimal():
            parser.error(f"burst {given[2]!r} is not a whole number")
        options.burst = int(given[2])
    return conclude("bridge", lambda: _run(options, names, opener))


def _run(options: argparse.Namespace, names: list[str], opener: Callable[..., Any] | None) -> int:
    import ptnetmap
    from ptnetmap.cli.capture import stopped_by_signals
    from ptnetmap.netmap.bridge.session import Bridge
    from ptnetmap.netmap.names import parse
    from ptnetmap.tools.pktgen.report import Log

    log = Log(quiet=options.json)
    for name in options.interface[2:]:
        log("main", f"{name} ignored, already have 2 interfaces")
    _correct(options, log)
    a, b = names[0], names[-1]
    if a == b and options.loopback:
        log("main", "same interface, loopbacking traffic")
    elif a == b:
        log("main", "same interface, endpoint 0 goes to host")
        a = f"{a}^"
    with ExitStack() as stack:
        pa = stack.enter_context((opener or ptnetmap.open)(a))
        pb = pa if a == b else stack.enter_context((opener or ptnetmap.open)(b))
        bridge = Bridge(
            pa,
            pb,
            burst=options.burst,
            copy=options.copy,
            quiet=lambda: log("main", f"poll timeout {_state((pa, pb))}"),
            polled=(lambda: log("main", f"poll ok {_state((pa, pb))}")) if options.verbose else None,
        )
        stack.callback(bridge.close)
        stack.enter_context(stopped_by_signals(bridge.stop))
        log("main", f"------- zerocopy {'' if bridge.zero_copy else 'NOT '}supported")
        _wait_for_links(options, (a, b), bridge, log)
        ends = [f"{parse(port.name).name} 0x{_first(port):x}/{len(port.rx_rings)}" for port in (pa, pb)]
        log("main", f"Ready to go, {ends[0]} <-> {ends[1]}.")
        began = time.monotonic()
        bridge.run()
        _report(options, (a, b), bridge, time.monotonic() - began, log)
    return 0


def _correct(options: argparse.Namespace, log: Log) -> None:
    """Replace what is out of range, and say so."""
    if not 1 <= options.burst <= _MOST:
        log("main", f"invalid burst {options.burst}, set to {_BURST}")
        options.burst = _BURST
    if options.wait is not None and not 0 <= options.wait <= _LONGEST:
        log("main", f"invalid wait_link {options.wait}, set to {_WAIT}")
        options.wait = _WAIT


def _wait_for_links(options: argparse.Namespace, names: tuple[str, str], bridge: Bridge, log: Log) -> None:
    seconds = options.wait
    if seconds is None:
        seconds = _WAIT if any(_has_link(name) for name in names) else 0
    log("main", f"Wait {seconds} secs for link to come up...")
    bridge.pause(seconds)


def _has_link(name: str) -> bool:
    """Whether a port may be a network interface, whose link takes a while."""
    return name.startswith("netmap:") and not any(mark in name for mark in "{}")


def _first(port: Port) -> int:
    return port.rx_rings[0].ringid if port.rx_rings else 0


def _state(ports: tuple[Port, Port]) -> str:
    """How many packets wait in each port's RX rings, where the first one's ``cur`` is, and the room to send."""
    parts = []
    for i, port in enumerate(ports):
        queued = sum(ring.space() for ring in port.rx_rings)
        room = sum(ring.space() for ring in port.tx_rings)
        cur = port.rx_rings[0].cur if port.rx_rings else 0
        events = 4 if sum(ring.space() for ring in ports[1 - i].rx_rings) else 1
        parts.append(f"[{i}] ev {events:x} 0 rx {queued}@{cur} tx {room}")
    return ", ".join(parts)


def _report(options: argparse.Namespace, names: tuple[str, str], bridge: Bridge, seconds: float, log: Log) -> None:
    from dataclasses import asdict

    ways = [{"from": x, "to": y, **asdict(bridge.figures(i))} for i, (x, y) in enumerate((names, names[::-1]))]
    if names[0] == names[1]:
        del ways[1]
    if options.json:
        print(json.dumps({"zero_copy": bridge.zero_copy, "burst": options.burst, "seconds": seconds, "ways": ways}))
    elif options.verbose:
        for way in ways:
            log("main", f"{way['from']} -> {way['to']}: {way['packets']} packets, {way['bytes']} bytes")


if __name__ == "__main__":
    sys.exit(main())

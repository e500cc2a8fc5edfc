# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap capture``: what a port sends and receives, into a pcapng or pcap file."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ptnetmap.cli.outcome import ASKED_WRONGLY

if TYPE_CHECKING:
    from ptnetmap.pcap import Output
    from ptnetmap.tools.capture import Figures

EXAMPLES = """\
examples:
  ptnetmap capture vale0:1 -w all.pcapng               until Ctrl-C
  ptnetmap capture vale0:1 -d rx -c 1000 -w in.pcap    the next 1000 packets that it receives
  ptnetmap capture vale0:1 -w - | tcpdump -n -r -      watch
  ptnetmap capture netmap:eth0-1/rtz -s 96 -G 60 -w heads.pcapng
"""

_MOST = 262_144
_SLOTS = 4096
_SWITCH = 0.0002
_REASONS = {
    "count": "as many as asked for",
    "time": "time is over",
    "stopped": "stopped",
    "closed": "the port was closed by the last program that had it open",
}


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _snaplen(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..{_MOST}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "capture",
        help="write a port's packets to a pcapng or pcap file",
        description="Open a monitor of a port that some program has open, and write what it sends and receives to a "
        "file. The port's own traffic is not held up: packets that the capture is too slow for are counted as missed. "
        "A guest's netmap:ptnet0, which one program at a time can have, is opened itself: what it receives is taken.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("port", metavar="PORT", help="port to watch; a name with /r /t /rt and z is opened as it is")
    parser.add_argument("-w", "--write", required=True, metavar="FILE", help="file to write, - for standard output")
    parser.add_argument("-d", "--direction", choices=("rx", "tx", "both"), help="what to watch (default: both)")
    parser.add_argument("--format", choices=("pcapng", "pcap"), help="default: pcap if FILE ends so, else pcapng")
    parser.add_argument("-c", "--count", type=_count, metavar="N", help="end after N packets")
    parser.add_argument("-G", "--seconds", type=_seconds, metavar="S", help="end after S seconds")
    parser.add_argument(
        "-s",
        "--snaplen",
        type=_snaplen,
        default=0,
        metavar="BYTES",
        help=f"keep so much of a packet (default: {_MOST})",
    )
    parser.add_argument(
        "--slots", type=_count, metavar="N", help=f"slots of each of the monitor's rings (default: {_SLOTS}, the most)"
    )
    parser.add_argument(
        "--flush",
        choices=("batch", "full", "disk"),
        default="batch",
        help="when to write: every batch of packets at once (default), a megabyte at a time, or every batch to the disk",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no counter and no summary")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Capture, and print what came of it; 0 also after Ctrl-C."""
    import ptnetmap
    from ptnetmap.errors import NameSyntaxError
    from ptnetmap.tools.capture import Session, has_slots, is_device, is_monitor, monitor_name, plain_name

    to_stdout = options.write == "-"
    try:
        wrong = _conflict(options, is_monitor(options.port), sys.stdout.isatty())
        if not wrong and is_device(options.port) and options.direction not in (None, "rx"):
            wrong = f"nothing can be seen of what {options.port} sends: leave out -d"
    except NameSyntaxError as error:
        wrong = str(error)
    if wrong:
        print(f"ptnetmap capture: {wrong}", file=sys.stderr)
        return ASKED_WRONGLY
    if is_device(options.port):
        name, slots = options.port, 0
    else:
        name = monitor_name(options.port, options.direction or "both")
        slots = options.slots or (0 if has_slots(name) else _SLOTS)
    with ptnetmap.open(name, rx_slots=slots) as port, _output(options, plain_name(name)) as out:
        counter = None if options.quiet or not sys.stderr.isatty() else _tell
        session = Session(port, out, count=options.count, seconds=options.seconds, progress=counter)
        # The thread that empties the rings must not wait 5 ms for the one that writes: a ring is full earlier.
        sys.setswitchinterval(_SWITCH)
        with stopped_by_signals(session.stop):
            figures = session.run()
    if counter is not None:
        print("\r\x1b[K", end="", file=sys.stderr)
    _report(figures, options, sys.stderr if to_stdout or not options.json else sys.stdout)
    return 0


def _conflict(options: argparse.Namespace, is_monitor: bool, stdout_is_terminal: bool) -> str:
    """Return what is wrong with the options together, or nothing."""
    if is_monitor and options.direction is not None:
        return f"{options.port} says itself what to watch: leave out -d, or its /r, /t or /rt"
    if options.write == "-" and stdout_is_terminal:
        return "a capture is not for terminals: write -w FILE, or send standard output to a file or a program"
    return ""


def _output(options: argparse.Namespace, interface: str) -> Output:
    from ptnetmap import __version__
    from ptnetmap.pcap import PcapngWriter, PcapWriter

    form = options.format or ("pcap" if options.write.endswith(".pcap") else "pcapng")
    if form == "pcap":
        return PcapWriter(options.write, snaplen=options.snaplen, flush=options.flush)
    return PcapngWriter(
        options.write,
        interface=interface,
        snaplen=options.snaplen or _MOST,
        application=f"ptnetmap {__version__}",
        flush=options.flush,
    )


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP call ``stop``; a second one does what it always does.

    Signals that are ignored (nohup) stay so. Outside of the main thread, which signals are for, nothing is changed.
    """
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, before[number])
        stop()

    if threading.current_thread() is threading.main_thread():
        for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(asked) != signal.SIG_IGN:
                before[asked] = signal.signal(asked, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(packets: int, missed: int) -> None:
    print(f"\r\x1b[K{packets:,} packets, {missed:,} missed", end="", file=sys.stderr, flush=True)


def _report(figures: Figures, options: argparse.Namespace, where: Any) -> None:
    if options.json:
        print(json.dumps(asdict(figures)), file=where)
        return
    if options.quiet:
        return
    print(
        f"{figures.packets:,} packets captured ({figures.inbound:,} received and {figures.outbound:,} sent by the port), "
        f"{figures.bytes:,} bytes in {figures.seconds:.2f} s: {_REASONS[figures.ended]}\n"
        f"{figures.missed:,} packets missed by the monitor",
        file=where,
    )

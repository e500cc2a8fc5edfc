# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap replay``: the packets of a pcap or pcapng file into a port."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ptnetmap.cli.capture import stopped_by_signals
from ptnetmap.cli.outcome import ASKED_WRONGLY, INTERRUPTED

if TYPE_CHECKING:
    from ptnetmap.tools.replay import Figures, Schedule

EXAMPLES = """\
examples:
  ptnetmap replay all.pcapng -i vale0:1                 as it was recorded
  ptnetmap replay all.pcapng -i vale0:1 --speed 2       in half the time
  ptnetmap replay all.pcap -i netmap:eth0 --rate 1.5M   1.5 million packets per second
  ptnetmap replay all.pcap -i vale0:1 -t --loop 100     as fast as possible, 100 times
  zcat all.pcap.gz | ptnetmap replay - -i vale0:1 --bps 100M
"""

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_NUMBER = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([kKmMgG]?)")
_SWITCH = 0.0002


def _amount(text: str) -> Fraction:
    match = _NUMBER.fullmatch(text)
    value = Fraction(match[1]) * _SUFFIXES[match[2].lower()] if match else Fraction(0)
    if not Fraction("0.01") <= value <= 10**15:
        raise argparse.ArgumentTypeError(f"{text} is not a number in 0.01..1e15, with k, M or G if you like")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _loops(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return value


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "replay",
        help="send the packets of a pcapng or pcap file",
        description="Send the Ethernet frames of a capture file on a port, by default with the times between them that "
        "were recorded. Ends when the last one has left the port.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="pcap or pcapng file, - for standard input")
    parser.add_argument("-i", "--interface", required=True, metavar="PORT", help="port to send on")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--speed", type=_amount, metavar="X", help="X times as fast as recorded (default: 1)")
    pace.add_argument("--rate", type=_amount, metavar="PPS", help="packets per second, with k, M or G if you like")
    pace.add_argument("--bps", type=_amount, metavar="BPS", help="bits of frames per second, with k, M or G")
    pace.add_argument("-t", "--top-speed", action="store_true", help="as fast as the port takes them")
    parser.add_argument("-l", "--loop", type=_loops, default=1, metavar="N", help="N times (default: 1; 0: for ever)")
    parser.add_argument("-n", "--count", type=_count, metavar="N", help="end after N packets in all")
    parser.add_argument("--limit", type=_count, metavar="N", help="use only the first N packets of the file")
    parser.add_argument("--tolerant", action="store_true", help="be content with a file that was cut short")
    parser.add_argument("-q", "--quiet", action="store_true", help="no counter and no summary")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send, and print what came of it; 130 if it was interrupted."""
    import ptnetmap
    from ptnetmap.tools.replay import File, Player

    if options.file == "-" and options.loop != 1:
        print("ptnetmap replay: standard input can be read once: leave out --loop, or name a file", file=sys.stderr)
        return ASKED_WRONGLY
    source = File(options.file, tolerant=options.tolerant)
    with ptnetmap.open(options.interface) as port:
        player = Player(
            port,
            source,
            _schedule(options),
            loop=options.loop or None,
            count=options.count,
            limit=options.limit,
            progress=None if options.quiet or not sys.stderr.isatty() else _tell,
        )
        # The thread that sends must not wait 5 ms for the one that reads the file.
        sys.setswitchinterval(_SWITCH)
        try:
            with stopped_by_signals(player.stop):
                player.run()
        finally:
            figures = player.figures
            _report(figures, source, options)
    return INTERRUPTED if figures.ended == "stopped" else 0


def _schedule(options: argparse.Namespace) -> Schedule:
    from ptnetmap.tools.replay import BitRate, PacketRate, Recorded, TopSpeed

    if options.top_speed:
        return TopSpeed()
    if options.rate is not None:
        return PacketRate(options.rate)
    if options.bps is not None:
        return BitRate(options.bps)
    return Recorded(options.speed or 1)


def _tell(packets: int) -> None:
    print(f"\r\x1b[K{packets:,} packets", end="", file=sys.stderr, flush=True)


def _report(figures: Figures, source: Any, options: argparse.Namespace) -> None:
    if sys.stderr.isatty() and not options.quiet:
        print("\r\x1b[K", end="", file=sys.stderr)
    skipped = dict(figures.skipped)
    if source.other:
        skipped["not Ethernet"] = source.other
    if options.json:
        rates = {"pps": round(figures.pps, 3), "bps": round(figures.bps, 3), "truncated": source.truncated}
        print(json.dumps({**asdict(figures), "skipped": skipped, **rates}))
        return
    if options.quiet:
        return
    rate = f"{figures.pps:,.0f} packets/s, {figures.bps / 1e6:,.3f} Mbit/s"
    lines = [f"{figures.packets:,} packets, {figures.bytes:,} bytes in {figures.seconds:.3f} s: {rate}"]
    lines += [f"{count:,} packets of the file not sent: {reason}" for reason, count in skipped.items()]
    if figures.cut:
        lines.append(f"{figures.cut:,} packets sent as short as they were recorded (snaplen)")
    lines += [f"{count:,} packets dropped by the port: {reason}" for reason, count in figures.dropped.items()]
    if source.truncated:
        lines.append("the file was cut short; all whole packets were sent")
    print("\n".join(lines), file=sys.stderr)

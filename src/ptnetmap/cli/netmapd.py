# SPDX-License-Identifier: BSD-2-Clause
"""``netmapd``: regions, switches and pipes for all processes that ask."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptnetmap import __version__
from ptnetmap.cli.outcome import conclude

if TYPE_CHECKING:
    from ptnetmap.netmap.daemon.startup import Options, Serve

EXAMPLES = """\
Programs start netmapd by themselves when they first need it, and it leaves when it is idle: you rarely have to.
NETMAP_SOCKET names the socket for all programs; without it they use /run/netmap/socket if there is one, else
$XDG_RUNTIME_DIR/netmap/socket, else /tmp/netmap-UID/socket.

examples:
  netmapd --kthreads 2 --cpus 2-3                          in the background, its workers on two cores
  netmapd --foreground --verbose                           here, until Ctrl-C
  netmapd --socket /run/netmap/socket --group netmap       for all users of a group (mkdir /run/netmap before)
"""

POOLS = {
    "if-size": "bytes of an interface descriptor",
    "if-num": "number of interface descriptors",
    "ring-size": "bytes of a ring, which bound its slots",
    "ring-num": "number of rings",
    "buf-size": "bytes of a buffer",
    "buf-num": "number of buffers",
}
"""The shape of a region's three pools: option, and what it is."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="netmapd",
        description="Own netmap's regions, switches and pipes for other processes, in user space.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"netmapd {__version__}")
    top.add_argument("--verbose", "-v", action="store_true", help="say what is opened and closed, on stderr or the log")
    top.add_argument("--foreground", action="store_true", help="stay in this terminal, until told to stop")
    top.add_argument("--socket", metavar="PATH", help="listen there (default: see below)")
    top.add_argument("--mode", type=_mode, help="the socket's mode, octal (default: 0600, or 0660 with --group)")
    top.add_argument("--group", metavar="NAME", help="the socket's group: its members may connect")
    top.add_argument(
        "--idle",
        type=_seconds,
        metavar="SECONDS",
        help="leave after that long without clients and persistent ports, 0 = never "
        "(default: 10; in the foreground and under systemd 0)",
    )
    work = top.add_argument_group("work")
    work.add_argument("--kthreads", type=_positive, default=1, metavar="N", help="worker threads (default: 1)")
    work.add_argument("--cpus", type=_cpus, default=(), metavar="LIST", help="pin them to these CPUs, such as 1,3-5")
    work.add_argument("--spin", type=_count, metavar="N", help="pauses before a worker without work yields its core")
    work.add_argument("--max-switches", type=_positive, metavar="N", help="VALE switches at a time")
    work.add_argument("--ageing", type=_count, metavar="SECONDS", help="forget silent addresses after, 0 = never")
    work.add_argument(
        "--force-xdp",
        action="store_true",
        help="detach somebody else's XDP program from a network interface that is opened",
    )
    work.add_argument(
        "--nic-mode",
        choices=("auto", "xdp", "af_packet"),
        default="auto",
        help="how network interfaces are opened (default: auto, which is AF_XDP, or AF_PACKET where that cannot be had)",
    )
    work.add_argument(
        "--busy-poll",
        type=_count,
        default=0,
        metavar="FRAMES",
        help="poll the drivers of network interfaces, up to so many frames at a time, instead of waiting for their "
        "interrupts (default: 0, which is not)",
    )
    work.add_argument(
        "--relay",
        metavar="SOCKET",
        help="give virtio-net devices ports of the netmapd at SOCKET, and take guest memory that may vanish: the worker "
        "of a vhost-user port",
    )
    memory = top.add_argument_group("memory of each port that has its own")
    for option, meaning in POOLS.items():
        memory.add_argument(f"--{option}", type=_positive, metavar="N", help=meaning)
    top.add_argument("--detached", type=_pair, help=argparse.SUPPRESS)
    return top


def main(arguments: Sequence[str] | None = None, *, serve: Serve | None = None) -> int:
    """Run the program and return its exit code; exits by itself on ``--help`` and on a wrong command line.

    ``serve`` replaces the server, in tests of everything else.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    return conclude("netmapd", lambda: _run(options, given, serve))


def _run(parsed: argparse.Namespace, arguments: Sequence[str], serve: Serve | None) -> int:
    from ptnetmap.netmap.daemon import startup

    options = _options(parsed)
    # Under systemd this process is the service, with or without --foreground.
    if options.foreground or options.detached or os.environ.get("LISTEN_PID") == str(os.getpid()):
        return startup.run(options, serve)
    return startup.start_in_background(options, arguments)


def _options(parsed: argparse.Namespace) -> Options:
    from ptnetmap.netmap.daemon.startup import Options

    given = vars(parsed)
    pools = {name: given.pop(name) for name in [option.replace("-", "_") for option in POOLS]}
    return Options(**given, pools={name: value for name, value in pools.items() if value is not None})


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _mode(text: str) -> int:
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777:
        raise argparse.ArgumentTypeError(f"{text} is not an octal mode such as 0660")
    return value


def _cpus(text: str) -> tuple[int, ...]:
    usable = os.sched_getaffinity(0)
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text} is not a list of CPUs such as 1,3-5")
        low, high = int(first), int(last or first)
        if low > high or low not in usable or high not in usable:
            numbers = ",".join(map(str, sorted(usable)))
            raise argparse.ArgumentTypeError(f"{part}: not CPUs that this process may use ({numbers})")
        chosen += [cpu for cpu in range(low, high + 1) if cpu in usable and cpu not in chosen]
    return tuple(chosen)


def _pair(text: str) -> tuple[int, int]:
    first, second = map(int, text.split(","))
    return first, second


if __name__ == "__main__":
    sys.exit(main())

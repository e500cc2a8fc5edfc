# SPDX-License-Identifier: BSD-2-Clause
"""``bhyvectl``: look at running virtual machines, reset them, and end them."""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ptnetmap import __version__
from ptnetmap.cli.outcome import FAILED, conclude

EXAMPLES = """\
A machine is found by its name, among those of the same user. Exits with 0, or with 1 if anything could not be done.

examples:
  bhyvectl --list                          the machines that run
  bhyvectl --vm=netmapvm --get-stats       its counters; with --cpu=0 those of one CPU
  bhyvectl --vm=netmapvm --force-reset     reset it: its bhyve exits with 0, and a loop around it starts it again
  bhyvectl --vm=netmapvm --destroy         end its bhyve, and remove what is left of it
"""

ORDERS = ("inject_nmi", "power_button", "force_reset", "force_poweroff")
"""Orders that a machine carries out itself, in the order in which they are given to it."""


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 1 after a wrong command line, as bhyvectl always has."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bhyvectl",
        description="Control running virtual machines of bhyve.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bhyvectl (ptnetmap) {__version__}")
    parser.add_argument("--vm", metavar="NAME", help="the virtual machine")
    parser.add_argument("--list", action="store_true", help="list the machines that run")
    parser.add_argument("--get-stats", action="store_true", help="print its counters")
    parser.add_argument("--cpu", type=_cpu, metavar="N", help="with --get-stats: only those of one virtual CPU")
    parser.add_argument("--inject-nmi", action="store_true", help="interrupt it with an NMI")
    parser.add_argument("--power-button", action="store_true", help="press the power button: the guest shuts down")
    parser.add_argument("--force-reset", action="store_true", help="reset it")
    parser.add_argument("--force-poweroff", action="store_true", help="power it off")
    parser.add_argument("--destroy", action="store_true", help="end its process, by force if need be")
    parser.add_argument("--create", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; exits by itself on ``--help`` and on a wrong command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    orders = any(getattr(options, order) for order in (*ORDERS, "get_stats", "destroy"))
    if options.create:
        parser.error("bhyve makes its machines itself: there is nothing to create before")
    if options.list and (orders or options.vm is not None):
        parser.error("--list is for all machines: leave out the rest")
    if not options.list and options.vm is None:
        parser.error("which machine? give --vm=NAME, or --list")
    if not options.list and not orders:
        parser.error("nothing to do; --help shows what there is")
    return conclude("bhyvectl", lambda: _list(options) if options.list else _control(options))


def _list(options: argparse.Namespace) -> int:
    from ptnetmap.bhyve.control.client import listing

    found = listing()
    if options.json:
        print(json.dumps(found))
    elif found:
        width = max(len("NAME"), *(len(info["name"]) for info in found))
        print(f"{'NAME':{width}} {'PID':>8}  STATE")
        for info in found:
            state = info.get("state", "running") if info["answers"] else "does not answer"
            print(f"{info['name']:{width}} {info['pid'] or '?':>8}  {state}")
    return 0


def _control(options: argparse.Namespace) -> int:
    from ptnetmap.bhyve.control.client import Connection, destroy
    from ptnetmap.bhyve.control.error import ControlError

    done: dict[str, Any] = {"vm": options.vm}
    orders = [order for order in ORDERS if getattr(options, order)]
    if options.get_stats or orders:
        with Connection(options.vm) as machine:
            if options.get_stats:
                done["stats"] = _chosen(machine.request("get-stats"), options.cpu)
                if not options.json:
                    _print_stats(done["stats"])
            for order in orders:
                heard = machine.request(order.replace("_", "-"))
                if order == "power_button" and not heard:
                    raise ControlError(
                        errno.EAGAIN,
                        f"the guest of {options.vm} does not listen to the power button\n"
                        "        it may still be booting; --force-poweroff ends it all the same",
                    )
                done[order] = True
    if options.destroy:
        destroy(options.vm)
        done["destroy"] = True
    if options.json:
        print(json.dumps(done))
    return 0


def _chosen(stats: Any, cpu: int | None) -> Mapping[str, Mapping[str, Any]]:
    """Return the counters asked for: a mapping of counters for each part of the machine."""
    from ptnetmap.bhyve.control.error import ControlError

    if not isinstance(stats, dict) or not all(isinstance(counters, dict) for counters in stats.values()):
        raise ControlError(errno.EPROTO, "the virtual machine answers with something else than counters")
    if cpu is None:
        return stats
    part = f"vcpu{cpu}"
    if part not in stats:
        raise ControlError(errno.EINVAL, f"there is no virtual CPU {cpu}\n        there are {', '.join(stats)}")
    return {part: stats[part]}


def _print_stats(stats: Mapping[str, Mapping[str, Any]]) -> None:
    for part, counters in stats.items():
        print(f"{part} stats:")
        for name, value in counters.items():
            print(f"{name:<40}\t{value}")


def _cpu(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())

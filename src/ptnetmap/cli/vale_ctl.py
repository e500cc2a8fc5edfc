# SPDX-License-Identifier: BSD-2-Clause
"""``vale-ctl``: list, create, attach and describe ports of VALE switches."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ptnetmap.cli.outcome import FAILED, conclude
from ptnetmap.errors import PtnetmapError

if TYPE_CHECKING:
    from ptnetmap.tools.valectl import Session

EXAMPLES = """\
examples:
  vale-ctl                            list all ports on switches (exits with 1, as it always has; --list with 0)
  vale-ctl -n foo -C 512              create a persistent port with rings of 512 slots
  vale-ctl -a vale0:foo               attach it to switch vale0
  vale-ctl -g vale0:foo --json        describe a port, for programs
  vale-ctl --statistics               packets, bytes, and drops by reason, of all ports
  vale-ctl --lossless vale0:vm        hold back whoever sends to a virtual machine that lags
"""


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 1 after a wrong command line, as vale-ctl always has."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


class _Choose(argparse.Action):
    """Remember which command was given, and for which port; the last one counts."""

    def __call__(self, parser: Any, options: argparse.Namespace, values: Any, option: str | None = None) -> None:
        options.command, options.value = self.dest, values


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vale-ctl",
        description="Control the VALE switches of netmapd. Without arguments: list all ports on switches.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.set_defaults(command=None, value=None)
    commands = parser.add_argument_group("commands (the last one counts)")
    for *flags, metavar, text in (
        ("-g", "--info", "PORT", "describe a port: memory, slots, rings"),
        ("-a", "--attach", "vale:PORT", "attach an interface to a switch"),
        ("-h", "--attach-host", "vale:PORT", "the same, and the host's network stack with it"),
        ("-d", "--detach", "vale:PORT", "detach an interface from its switch"),
        ("-n", "--create", "NAME", "create a persistent port; -C gives its shape, -m its memory"),
        ("-r", "--delete", "NAME", "delete a persistent port"),
        ("-l", "--find", "vale:PORT", "show the numbers of a port and its switch"),
        ("-p", "--start-polling", "vale:PORT", "let CPUs poll an attached NIC; -C says which"),
        ("-P", "--stop-polling", "vale:PORT", "stop that"),
        ("--lossless", "vale:PORT", "hold senders back while the port is full, until it is closed"),
        ("--lossy", "vale:PORT", "drop what does not fit, as ports do unless told otherwise"),
    ):
        dest = flags[-1][2:].replace("-", "_")
        commands.add_argument(*flags, dest=dest, metavar=metavar, action=_Choose, help=text)
    commands.add_argument(
        "--list", dest="list", metavar="vale:PORT", nargs="?", action=_Choose, help="list all ports, or find one"
    )
    commands.add_argument(
        "--statistics", metavar="PORT", nargs="*", action=_Choose, help="count packets of these ports, or of all"
    )
    settings = parser.add_argument_group("settings")
    settings.add_argument(
        "-C",
        "--config",
        metavar="N,...",
        help="for -n, -a, -h: slots,rx_slots,rings,rx_rings; for -p: mode,cpu,count (mode 0: one CPU, 1: one per ring)",
    )
    settings.add_argument(
        "-m", "--mem-id", metavar="ID", help="memory to use, for -n, -a, -h: a number, or a port's name"
    )
    settings.add_argument("-v", "--verbose", action="count", default=0, help="print more; say where netmapd is")
    settings.add_argument("--json", action="store_true", help="print JSON")
    settings.add_argument("--help", action="help", help="print this and exit")
    return parser


def _connect() -> Session:
    session: Session = importlib.import_module("ptnetmap.netmap.client.session").connect()
    return session


def main(arguments: Sequence[str] | None = None, connect: Callable[[], Session] = _connect) -> int:
    """Run the program and return its exit code; exits by itself on ``--help`` and on a wrong command line."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(given)
    # Scripts expect 1 after a listing that nobody named; there is no other way to ask for it.
    options.exit_code = 0 if given else FAILED
    if not given or (options.command is None and options.json):
        options.command = "list"
    if options.command is None:
        parser.error("nothing to do; --help shows what there is")
    if options.command in ("find", "list") and options.value is not None and not options.value.startswith("vale"):
        parser.error(f"invalid vale port name: '{options.value}'")
    return conclude("vale-ctl", lambda: _run(options, connect))


def _run(options: argparse.Namespace, connect: Callable[[], Session]) -> int:
    session = connect()
    try:
        if options.verbose:
            print(f"vale-ctl: netmapd is at {session.address}", file=sys.stderr)
        return _PROGRAMS.get(options.command, _one)(options, session)
    finally:
        session.close()


def _list(options: argparse.Namespace, session: Session) -> int:
    from ptnetmap.tools import valectl

    if options.value is not None:
        options.command = "find"
        return _one(options, session)
    return _each(options, lambda: valectl.list_ports(session), valectl.listed_line, "list all")


def _statistics(options: argparse.Namespace, session: Session) -> int:
    from ptnetmap.tools import valectl

    ports = options.value
    action = f"count packets of {' '.join(ports) or 'all'}"
    return _each(options, lambda: valectl.statistics(session, ports), valectl.statistics_line, action)


def _each(options: argparse.Namespace, entries: Callable[[], Any], line: Callable[[Any], str], action: str) -> int:
    """Print entries as they come, or all of them as JSON."""
    collected = []
    try:
        for entry in entries():
            collected.append(entry)
            if not options.json:
                print(line(entry))
    except PtnetmapError as error:
        return _failed(action, error)
    if options.json:
        print(json.dumps(collected))
    return int(options.exit_code)


def _one(options: argparse.Namespace, session: Session) -> int:
    """Make one request about one port."""
    from ptnetmap.abi import netmap as abi
    from ptnetmap.netmap.wire import extension
    from ptnetmap.tools import valectl

    # How failures call it, the request, and what is printed: always, and with -v only.
    action, reqtype, shown, verbose = {
        "info": ("obtain info for", abi.NETMAP_REQ_PORT_INFO_GET, valectl.INFO, ()),
        "attach": ("attach", abi.NETMAP_REQ_VALE_ATTACH, (), valectl.INDEX),
        "attach_host": ("attach", abi.NETMAP_REQ_VALE_ATTACH, (), valectl.INDEX),
        "detach": ("detach", abi.NETMAP_REQ_VALE_DETACH, (), valectl.INDEX),
        "create": ("create", abi.NETMAP_REQ_VALE_NEWIF, (), valectl.CREATED),
        "delete": ("remove", abi.NETMAP_REQ_VALE_DELIF, (), ()),
        "find": ("list", abi.NETMAP_REQ_VALE_LIST, valectl.PLACE, ()),
        "start_polling": ("enable polling on", abi.NETMAP_REQ_VALE_POLLING_ENABLE, (), ()),
        "stop_polling": ("disable polling on", abi.NETMAP_REQ_VALE_POLLING_DISABLE, (), ()),
        "lossless": ("make lossless", extension.LOSSLESS_SET, (), ()),
        "lossy": ("make lossy", extension.LOSSLESS_SET, (), ()),
    }[options.command]
    name = options.value.removeprefix("netmap:")
    body = _body(options, session)
    try:
        answer = valectl.ask(session, reqtype, name, body)
    except PtnetmapError as error:
        return _failed(f"{action} {name}", error)
    if options.json:
        print(json.dumps(answer))
    else:
        for text in valectl.lines((*shown, *(verbose if options.verbose else ())), answer):
            print(text)
    return 0


def _body(options: argparse.Namespace, session: Session) -> dict[str, Any] | None:
    from ptnetmap.abi import netmap as abi
    from ptnetmap.tools import valectl

    if options.command == "delete":
        return None
    if options.command == "start_polling":
        return valectl.polling_setting(options.config)
    if options.command in ("lossless", "lossy"):
        return {"on": int(options.command == "lossless")}
    if options.command not in ("create", "attach", "attach_host"):
        return {}
    fields, ignored = valectl.ring_setting(options.config)
    for text in ignored:
        print(f"ignored config: {text}", file=sys.stderr)
    fields["nr_mem_id"] = valectl.memory_id(session, options.mem_id)
    if options.command == "create":
        return fields
    fields["nr_mode"] = abi.NR_REG_ALL_NIC if options.command == "attach" else abi.NR_REG_NIC_SW
    return {"reg": fields}


def _failed(what: str, error: PtnetmapError) -> int:
    """Say what failed in the words that scripts know, then what the error advises."""
    reason = os.strerror(error.errno or 0)
    print(f"failed to {what}: {reason}", file=sys.stderr)
    if str(error) != reason:
        print(error, file=sys.stderr)
    return FAILED


_PROGRAMS: dict[str, Callable[[argparse.Namespace, Session], int]] = {"list": _list, "statistics": _statistics}

if __name__ == "__main__":
    sys.exit(main())

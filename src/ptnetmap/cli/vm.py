# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap vm``: virtual machines with a name that stays, run by bhyve."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptnetmap.vm.definition import Definition

EXAMPLES = """\
examples:
  ptnetmap vm create web --image debian.raw --kernel vmlinuz --initrd initrd.img \\
        --cmdline 'root=/dev/vda1 console=ttyS0' --memory 2G --net vale0:1 \\
        --seed --ssh-key ~/.ssh/id_ed25519.pub
  ptnetmap vm start web
  ptnetmap vm console web            Ctrl-] detaches
  ptnetmap vm stop web               presses the power button; --force pulls the plug
  ptnetmap vm list --json
  ptnetmap vm delete web             the image stays
"""


def add_to(commands: Any) -> None:
    """Add the subcommand and its own."""
    parser = commands.add_parser(
        "vm",
        help="create, start and stop virtual machines",
        description="Keep virtual machines by name, and run them with bhyve, whose command line is shown.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_create(actions)
    for name, run, text in (
        ("start", _start, "start a machine"),
        ("stop", _stop, "shut a machine down"),
        ("console", _console, "attach to com1; Ctrl-] detaches"),
        ("delete", _delete, "forget a machine; its image stays"),
        ("list", _list, "list the machines"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.set_defaults(run=run)
        if name != "list":
            action.add_argument("name", metavar="NAME", help="the machine")
        if name == "start":
            action.add_argument("--dry-run", action="store_true", help="only print the command line of bhyve")
        if name == "stop":
            action.add_argument("--force", action="store_true", help="end it at once, as a loss of power would")
            action.add_argument(
                "--timeout", type=float, default=60.0, metavar="S", help="seconds for the guest to shut down (60)"
            )
        if name == "list":
            action.add_argument("--json", action="store_true", help="print JSON")


def _add_create(actions: Any) -> None:
    create = actions.add_parser(
        "create", help="make a machine", description="Make a machine, and print its command line."
    )
    create.set_defaults(run=_create)
    create.add_argument("name", metavar="NAME", help="letters, digits, _ . + -")
    create.add_argument("--image", required=True, type=Path, metavar="FILE", help="its disk, a raw image")
    create.add_argument("--kernel", type=Path, metavar="FILE", help="a bzImage or PVH kernel; else the built-in guest")
    create.add_argument("--initrd", type=Path, metavar="FILE")
    create.add_argument("--cmdline", default="", metavar="TEXT", help="the kernel's command line")
    create.add_argument("--cpus", type=int, default=1, metavar="N")
    create.add_argument("--memory", default="1G", metavar="SIZE", help="in MB, or with K, M, G, T (1G)")
    create.add_argument(
        "--net",
        action="append",
        default=[],
        metavar="PORT",
        help="a virtio-net on tap0, vale0:1 or netmap:x{1; repeatable",
    )
    create.add_argument(
        "--passthrough",
        action="append",
        default=[],
        metavar="PORT",
        help="a ptnet on vale0:2 or netmap:x{1; repeatable",
    )
    create.add_argument("--dry-run", action="store_true", help="only print the command line of bhyve")
    seed = create.add_argument_group("seed of cloud-init")
    seed.add_argument("--seed", action="store_true", help="attach a seed (NoCloud) as a second disk")
    seed.add_argument("--user", metavar="NAME", help="the user to make (default: your own name, or debian for root)")
    seed.add_argument(
        "--ssh-key", action="append", type=Path, default=[], metavar="FILE", help="a public key; repeatable"
    )
    seed.add_argument("--address", default="", metavar="A/LEN", help="of the first interface; else DHCP")
    seed.add_argument("--gateway", default="", metavar="A")
    seed.add_argument("--dns", action="append", default=[], metavar="A")


def _create(options: argparse.Namespace) -> int:
    from ptnetmap.errors import ConfigError
    from ptnetmap.vm import run, store
    from ptnetmap.vm.definition import Definition

    place = store.place(options.name)
    of_seeds = options.user or options.ssh_key or options.address or options.gateway or options.dns
    if of_seeds and not options.seed:
        raise ConfigError("--user, --ssh-key, --address, --gateway and --dns are for a seed\n        add --seed")
    machine = Definition(
        options.name,
        image=str(options.image.absolute()),
        kernel=str(options.kernel.absolute()) if options.kernel else "",
        initrd=str(options.initrd.absolute()) if options.initrd else "",
        cmdline=options.cmdline,
        cpus=options.cpus,
        memory=options.memory,
        net=tuple(options.net),
        passthrough=tuple(options.passthrough),
    )
    run.check_files(machine)
    seed = _seed(options) if options.seed else b""
    if seed:
        import dataclasses

        machine = dataclasses.replace(machine, seed=str(place / store.SEED))
    machine.check()
    _check_options(machine)
    if not options.dry_run:
        store.create(machine, seed)
    _print_command(machine)
    return 0


def _seed(options: argparse.Namespace) -> bytes:
    import getpass
    import uuid

    from ptnetmap.errors import ConfigError
    from ptnetmap.vm import seed

    keys = []
    for path in options.ssh_key:
        try:
            keys += [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"cannot read the key {path}: {error}\n        give the file of a public key") from error
    if not keys:
        raise ConfigError("a seed without a key would let nobody in\n        add --ssh-key FILE.pub")
    own = getpass.getuser()
    user = options.user or ("debian" if own == "root" else own)
    return seed.build(
        options.name,
        str(uuid.uuid4()),
        user=user,
        keys=keys,
        address=options.address,
        gateway=options.gateway,
        dns=options.dns,
    )


def _check_options(machine: Definition) -> None:
    """Let bhyve's own parser look at the words, all but the devices, whose models are slow to import."""
    from ptnetmap.bhyve.config import Config
    from ptnetmap.bhyve.options import parse
    from ptnetmap.bhyve.settings import check

    words = machine.command("stdio")
    at = words.index("-s")
    rest = words[:at] + words[words.index("-l") :]
    config = parse(rest, dict)
    assert isinstance(config, Config)
    check(config)


def _print_command(machine: Definition) -> None:
    import shlex

    from ptnetmap.vm import run

    print(shlex.join(["bhyve", *run.arguments(machine)]))


def _start(options: argparse.Namespace) -> int:
    from ptnetmap.vm import run, store

    machine = store.load(options.name)
    if options.dry_run:
        _print_command(machine)
    else:
        run.start(machine)
    return 0


def _stop(options: argparse.Namespace) -> int:
    from ptnetmap.vm import run

    run.stop(options.name, force=options.force, patience=options.timeout)
    return 0


def _console(options: argparse.Namespace) -> int:
    import sys

    from ptnetmap.vm import console

    detached = console.attach(options.name)
    print(f"\n{'detached from' if detached else 'the end of'} {options.name}", file=sys.stderr)
    return 0


def _delete(options: argparse.Namespace) -> int:
    from ptnetmap.vm import store

    store.delete(options.name)
    return 0


def _list(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from ptnetmap.errors import PtnetmapError
    from ptnetmap.vm import store

    found: list[dict[str, Any]] = []
    for name in store.names():
        state = "running" if store.is_running(name) else "stopped"
        entry: dict[str, Any] = {"name": name, "state": state, "ended": store.ended(name)}
        try:
            entry |= dataclasses.asdict(store.load(name))
        except PtnetmapError as error:
            entry["error"] = str(error)
        found.append(entry)
    if options.json:
        print(json.dumps(found))
        return 0
    if found:
        print(f"{'NAME':<20} {'STATE':<24} {'CPUS':>4} {'MEMORY':>7} IMAGE")
    for entry in found:
        state = entry["state"] + (f" ({entry['ended']})" if entry["ended"] and entry["state"] == "stopped" else "")
        what = entry.get("image") or entry["error"].splitlines()[0]
        print(f"{entry['name']:<20} {state:<24} {entry.get('cpus', ''):>4} {entry.get('memory', ''):>7} {what}")
    return 0

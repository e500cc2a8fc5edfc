# SPDX-License-Identifier: BSD-2-Clause
"""``bhyveload``: check what a virtual machine boots, say how it will be loaded, and write that down for ``bhyve -k``.

FreeBSD's bhyveload fills the memory of a machine that lives in the kernel, and bhyve then runs it. Here a machine lives
in bhyve's own process, which loads it; so this program checks what bhyve would load, exactly as bhyve does, and
``--settings`` hands it over.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ptnetmap.bhyve.config import memory_value
from ptnetmap.bhyve.settings import LOW_MEMORY, check, memory_size, new_config
from ptnetmap.cli.outcome import FAILED, conclude
from ptnetmap.errors import ConfigError

if TYPE_CHECKING:
    from ptnetmap.bhyve.boot import Plan
    from ptnetmap.bhyve.config import Config

KERNELS = ("boot/vmlinuz", "vmlinuz")
"""Where a kernel is looked for below ``-h``, if none is named."""
INITRDS = ("boot/initrd.img", "initrd.img")
"""Where its initrd is looked for, if none is named."""

_FILES = ("kernel", "initrd")
_EXAMPLES = """\
examples:
  bhyveload -m 1G -l vmlinuz -e initrd=initrd.img -e console=ttyS0 vm0    how would it be loaded?
  bhyveload -m 1G -h /srv/debian --settings vm0.conf vm0                  take what is below /srv/debian/boot
  bhyve -k vm0.conf -s 0,hostbridge -s 1,lpc -l com1,stdio vm0            then run it
"""


class _Parser(argparse.ArgumentParser):
    """A parser that ends with 1 after a wrong command line, as bhyveload always has."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bhyveload",
        description="Check a kernel for a virtual machine, and say how bhyve will load it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="vmname", help="the virtual machine's name")
    parser.add_argument("-l", dest="kernel", metavar="FILE", help="what gets control: a bzImage or an ELF kernel")
    parser.add_argument(
        "-e",
        dest="variables",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="kernel=, initrd= and cmdline= are bhyve's settings of these names; any other goes to the command line",
    )
    parser.add_argument("-h", dest="root", metavar="DIR", help="a guest's root directory, in which names of -e are")
    parser.add_argument("-m", dest="memory", metavar="SIZE", default="256M", help="guest memory (default: 256M)")
    parser.add_argument("-S", dest="wired", action="store_true", help="wire guest memory")
    parser.add_argument(
        "-d", dest="disks", metavar="DISK", action="append", default=[], help="checked, and left to bhyve"
    )
    parser.add_argument("-c", dest="console", metavar="DEVICE", help="accepted; the guest's console is bhyve's -l com1")
    parser.add_argument("--settings", metavar="FILE", help="write settings for bhyve -k; - is standard output")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--help", action="help", help="print this and exit")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; exits by itself on ``--help`` and on a wrong command line."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    return conclude("bhyveload", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ptnetmap.bhyve.boot import plan

    config = _configure(options)
    with plan(
        config["kernel"],
        initrd=config.get("initrd"),
        cmdline=config.get("cmdline", ""),
        low_size=min(memory_size(config), LOW_MEMORY),
    ) as planned:
        if options.json:
            print(json.dumps(_describe(config["name"], planned)))
        elif options.settings != "-":
            _print(config["name"], planned)
    _write_settings(options, config)
    return 0


def _configure(options: argparse.Namespace) -> Config:
    """Return what bhyve would be told, as its own configuration; raises ConfigError."""
    for disk in options.disks:
        if not os.access(disk, os.R_OK):
            raise ConfigError(f"disk {disk} cannot be read\n        check its name")
    variables = _variables(options)
    config = new_config()
    config.set("name", options.name)
    memory_value(options.memory)  # the message names the option's form
    config.set("memory.size", options.memory)
    if options.wired:
        config.set("memory.wired", True)
    for key, value in variables.items():
        config.set(key, value.replace("%", "%%"))
    check(config)
    return config


def _variables(options: argparse.Namespace) -> dict[str, str]:
    """Return kernel, initrd and command line, with whole paths: bhyve may be started elsewhere."""
    root = Path(options.root or "")
    found: dict[str, str] = {}
    parameters = []
    for variable in options.variables:
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise ConfigError(f"-e {variable}: no value\n        write -e name=value")
        if name in _FILES:
            found[name] = str((root / value.lstrip("/") if options.root else Path(value)).absolute())
        elif name == "cmdline":
            found[name] = value
        else:
            parameters.append(f'{name}="{value}"' if any(map(str.isspace, value)) else variable)
    if options.kernel is not None:
        found["kernel"] = str(Path(options.kernel).absolute())
    if options.root and "kernel" not in found:
        _search(root, found)
    if "kernel" not in found:
        places = f" below {root} ({', '.join(KERNELS)})" if options.root else ""
        raise ConfigError(
            f"no kernel{places}\n        name one with -l; from inside a disk image (-d) none can be read: copy it out"
        )
    cmdline = " ".join(filter(None, (found.get("cmdline", ""), *parameters)))
    return {**found, "cmdline": cmdline} if cmdline else found


def _search(root: Path, found: dict[str, str]) -> None:
    for key, names in (("kernel", KERNELS), ("initrd", INITRDS)):
        for name in names:
            if key not in found and (root / name).exists():
                found[key] = str((root / name).absolute())


def _describe(name: str, planned: Plan) -> dict[str, Any]:
    parts = [*planned.parts, *([planned.initrd] if planned.initrd else [])]
    return {
        "name": name,
        "protocol": planned.protocol,
        "entry": planned.entry,
        "cmdline": os.fsdecode(planned.cmdline),
        "parts": [
            {
                "what": part.name,
                "file": str(part.image.path),
                "offset": part.offset,
                "size": part.size,
                "address": part.gpa,
                "end": part.end,
            }
            for part in parts
        ],
    }


def _print(name: str, planned: Plan) -> None:
    described = _describe(name, planned)
    print(f"{name}: {planned.protocol}, starts at {planned.entry:#x}")
    for part in described["parts"]:
        print(
            f"  {part['address']:#011x} - {part['end']:#011x}  {part['what']}: {part['size']:,} bytes of {part['file']}"
        )
    print(f"  command line: {described['cmdline'] or '(empty)'}")


def _write_settings(options: argparse.Namespace, config: Config) -> None:
    if options.settings is None:
        return
    keys = ("name", "memory.size", "memory.wired", *_FILES, "cmdline")
    text = "".join(f"{key}={config.raw(key)}\n" for key in keys if key in config)
    if options.settings == "-":
        print(text, end="")
        return
    try:
        Path(options.settings).write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(
            f"{options.settings} cannot be written: {error.strerror}\n        choose another place", error.errno or 0
        ) from error


if __name__ == "__main__":
    sys.exit(main())

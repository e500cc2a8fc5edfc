# SPDX-License-Identifier: BSD-2-Clause
"""The ``ptnetmap`` program: measure, demonstrate, prepare.

Nothing heavy is imported before a subcommand runs: ``--help`` must be instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ptnetmap import __version__
from ptnetmap.cli import bench, capture, demo, doctor, replay, top, vhost_user, vm, warmup
from ptnetmap.cli.outcome import conclude


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; each subcommand sets ``run``."""
    program = argparse.ArgumentParser(prog="ptnetmap", description="netmap for Linux in user space.")
    program.add_argument("--version", action="version", version=f"ptnetmap {__version__}")
    commands = program.add_subparsers(metavar="COMMAND", required=True)
    for command in (top, capture, replay, vhost_user, vm, doctor, bench, demo, warmup):
        command.add_to(commands)
    version = commands.add_parser("version", help="print the version", description="Print the version.")
    version.set_defaults(run=_version)
    version.epilog = "example: ptnetmap version"
    return program


def _version(options: argparse.Namespace) -> int:
    print(__version__)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; exits by itself on ``--help`` and on a wrong command line."""
    options = parser().parse_args(arguments)
    return conclude("ptnetmap", lambda: int(options.run(options)))


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: BSD-2-Clause
"""``bhyve``: run a virtual machine, with bhyve's options, messages and exit codes."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ptnetmap.bhyve.options import Answer, UsageError, parse
from ptnetmap.bhyve.settings import check, remarks
from ptnetmap.bhyve.status import ERROR
from ptnetmap.cli.outcome import conclude
from ptnetmap.errors import ConfigError, PtnetmapError

if TYPE_CHECKING:
    from ptnetmap.bhyve.config import Config


def main(arguments: Sequence[str] | None = None, *, run: Callable[[Config], int] | None = None) -> int:
    """Run the program and return its exit code (:mod:`ptnetmap.bhyve.status`).

    ``run`` runs a machine of a configuration and returns the code; the default is ``ptnetmap.bhyve.session.run``.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return conclude("bhyve", lambda: _run(given, run or _machine))


def _run(arguments: Sequence[str], run: Callable[[Config], int]) -> int:
    try:
        config = parse(arguments, _models)
        if isinstance(config, Answer):
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="surrogateescape")  # paths are bytes, and come out as they came in
            print(config.text, end="")
            return config.status
        check(config)
        for remark in remarks(config):
            print(f"bhyve: note: {remark}", file=sys.stderr)
        config.freeze()
        return run(config)
    except PtnetmapError as error:
        print(f"bhyve: {error}", file=sys.stderr)
        if isinstance(error, UsageError):
            print("Usage: bhyve [options] vmname; bhyve --help shows the options", file=sys.stderr)
        # 1 would say that the guest powered itself off.
        return error.status if isinstance(error, ConfigError) else ERROR


def _models() -> Mapping[str, Any]:
    """Import all device models, and return them by name."""
    import pkgutil

    from ptnetmap.bhyve import devices
    from ptnetmap.bhyve.pci.device import DEVICES

    for module in pkgutil.iter_modules(devices.__path__, f"{devices.__name__}."):
        importlib.import_module(module.name)
    return DEVICES


def _machine(config: Config) -> int:
    session = importlib.import_module("ptnetmap.bhyve.session")
    return int(session.run(config))


if __name__ == "__main__":
    sys.exit(main())

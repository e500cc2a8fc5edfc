# SPDX-License-Identifier: BSD-2-Clause
"""Groups of pipes, as ``-p`` describes them, and the names of their pipes."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_PIPES = 2
MOST_PIPES = 256
"""Pipes of all groups together: as many rings as can be waited on."""


@dataclass(frozen=True)
class Group:
    """So many pipes of the port ``name``; "" stands for the port that packets come from."""

    pipes: int = DEFAULT_PIPES
    name: str = ""


@dataclass(frozen=True)
class Ends:
    """The names of one pipe's ends: ``mine`` to send, ``theirs`` for the program that receives."""

    mine: str
    theirs: str


def parse_group(text: str) -> Group:
    """Parse ``NAME:N``, ``NAME:`` or ``N``. Raises ValueError, which says what is wrong."""
    name, colon, count = text.rpartition(":")
    if colon and not name:
        raise ValueError(f"missing name before ':' in {text!r}")
    if colon and not count:
        return Group(name=name)
    if not count.isdecimal() or not 1 <= int(count[:9]) <= MOST_PIPES:
        raise ValueError(f"invalid number of pipes {count!r}: give 1 to {MOST_PIPES}")
    return Group(int(count), name)


def name_pipes(port: str, groups: Sequence[Group], mem_id: int) -> list[list[Ends]]:
    """Name the pipes of all groups, which use the memory ``mem_id``; ``port`` is where packets come from.

    Pipes are numbered from 0; groups with equal names go on where the one before ended. Raises NameSyntaxError, and
    PortError (EINVAL) for a port that cannot have pipes, or is one of them.
    """
    from ptnetmap.abi import netmap as abi
    from ptnetmap.errors import PortError
    from ptnetmap.netmap import names

    parsed = names.parse(port)
    pipe = names.split_pipe(parsed.name)
    own = pipe.base if pipe else parsed.name
    used: dict[str, int] = {}
    plan = []
    for group in groups:
        if not group.name and parsed.flags & (abi.NR_MONITOR_TX | abi.NR_MONITOR_RX):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot give {port} pipes: a monitor's memory is its own, and {own} uses other\n"
                f"        give the pipes a name of their own: -p NAME:{group.pipes}",
            )
        base = names.parse(group.name if ":" in group.name else f"netmap:{group.name}").name if group.name else own
        first = used.get(base, 0)
        used[base] = first + group.pipes
        numbers = range(first, used[base])
        if pipe and base == pipe.base and pipe.id in [str(number) for number in numbers]:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot use {base}{{{pipe.id} for the pipes of {port}: that is where packets come from\n"
                f"        give the pipes another name: -p NAME:{group.pipes}",
            )
        flags = abi.NR_EXCLUSIVE | abi.NR_TX_RINGS_ONLY
        plan.append(
            [
                Ends(
                    str(names.PortName(f"{base}{{{number}", flags=flags, mem_id=mem_id)),
                    str(names.PortName(f"{base}}}{number}")),
                )
                for number in numbers
            ]
        )
    return plan

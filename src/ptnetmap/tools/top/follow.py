# SPDX-License-Identifier: BSD-2-Clause
"""Following a netmapd from window to window, and from one daemon to the next."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from dataclasses import dataclass

from ptnetmap.netmap.client.error import DaemonGoneError
from ptnetmap.netmap.client.session import Session
from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.tools.top.rates import View, compare
from ptnetmap.tools.top.reader import Reader


@dataclass(frozen=True)
class Absent:
    """No netmapd runs now; ``reason`` says where, in one line."""

    reason: str


def follow(
    connect: Callable[[], Session], pause: Callable[[], bool], *, wait: bool = False, at_once: bool = False
) -> Generator[View | Absent, None, None]:
    """Yield a view per window, until ``pause``, which waits for the length of one, returns False.

    ``at_once`` begins with a view that has totals and no rates. With ``wait``, :class:`Absent` is yielded while no
    netmapd runs, and the next one is followed; else DaemonError (ENOENT) or DaemonGoneError is raised then.
    """
    while True:
        try:
            with connect() as session:
                reader = Reader(session)
                before = reader.read()
                if at_once:
                    yield compare(before, before)
                while pause():
                    after = reader.read()
                    yield compare(before, after)
                    before = after
                return
        except (DaemonError, DaemonGoneError) as error:
            if not wait or error.errno not in (errno.ENOENT, errno.ECONNRESET):
                raise
            yield Absent(str(error).splitlines()[0].removeprefix("netmap: "))
        if not pause():
            return

# SPDX-License-Identifier: BSD-2-Clause
"""Ports of two processes, joined: by a pipe, or by a switch that knows where both are."""

from __future__ import annotations

from ptnetmap.bench.remote import Remote
from ptnetmap.bench.runtime import mac
from ptnetmap.bench.stage import stage

_FIRST, _SECOND = mac(1), mac(2)


def join_by_pipe(first: Remote, second: Remote, size: int) -> None:
    """Open both ends of a pipe, with frames of ``size`` bytes in their buffers."""
    number = stage.number()
    first.do("open", f"netmap:bench{number}{{1")
    second.do("open", f"netmap:bench{number}}}1")
    _fill(first, second, size)


def join_by_vale(first: Remote, second: Remote, size: int) -> None:
    """Open two lossless ports of a switch, with frames of ``size`` bytes for the other in their buffers."""
    number = stage.number()
    first.do("open", f"vale{number}:a", True)
    second.do("open", f"vale{number}:b", True)
    _fill(first, second, size)
    for one, other, address in ((first, second, _FIRST), (second, first, _SECOND)):
        one.do("introduce", address)
        other.do("take_introduction")


def _fill(first: Remote, second: Remote, size: int) -> None:
    first.do("fill", _SECOND, _FIRST, size)
    second.do("fill", _FIRST, _SECOND, size)

# SPDX-License-Identifier: BSD-2-Clause
"""What interpreted routines find outside of memory: a simulated machine, which a test attaches.

Compiled routines have instructions for ports, device registers and the time stamp counter; in an ordinary process these
do not exist, so :mod:`~ptnetmap.guest.port`, :mod:`~ptnetmap.guest.mmio` and :mod:`~ptnetmap.guest.cpu` ask here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Outside(Protocol):
    """A simulated machine. Sizes are in bytes, values unsigned."""

    def read_port(self, port: int, size: int) -> int:
        """Return what ``in`` gives."""

    def write_port(self, port: int, size: int, value: int) -> None:
        """Take what ``out`` sends."""

    def read_register(self, address: int, size: int) -> int:
        """Return what a load from a device's memory gives."""

    def write_register(self, address: int, size: int, value: int) -> None:
        """Take what a store to a device's memory sends."""

    def timestamp(self) -> int:
        """Return the time stamp counter, which never stands still for ever."""

    def wait(self, address: int, seen: int) -> None:
        """Let time pass while the 64-bit word at ``address`` is ``seen``, up to the next interrupt."""

    def crash(self) -> None:
        """End the processor for good: must raise."""


_attached: list[Outside] = []


@contextlib.contextmanager
def attached(machine: Outside) -> Iterator[None]:
    """Let routines that run in this ``with`` see ``machine``."""
    _attached.append(machine)
    try:
        yield
    finally:
        _attached.remove(machine)


def machine() -> Outside:
    """Return the machine attached last; raises RuntimeError where there is none, as in an ordinary process."""
    if not _attached:
        raise RuntimeError("guest routines run interpreted only inside ptnetmap.guest.outside.attached(machine)")
    return _attached[-1]

# SPDX-License-Identifier: BSD-2-Clause
"""Handlers that a guest's access to a register signals, without a device model: the report's VM_IO_REG_HANDLER.

The pure part: which handlers there are, which one an access signals, and which of them KVM can serve alone (an exact
write is KVM_IOEVENTFD's DATAMATCH). :mod:`ptnetmap.vmm.ioeventfd` tells KVM; what KVM cannot match comes out of the
guest and is matched here. Source: netmap-abi 5a.9; Linux, api.rst §4.59.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ptnetmap.errors import HypervisorError

CAPACITY = 1024
"""Handlers per machine."""
WIDTHS: dict[str, tuple[int, ...]] = {"port": (1, 2, 4), "mmio": (1, 2, 4, 8)}
"""Bytes that an access can have."""
LIMITS: dict[str, int] = {"port": 1 << 16, "mmio": 1 << 64}
"""Where addresses end."""


class Handler(Protocol):
    """What an access signals."""

    def signal(self, value: int) -> None:
        """Take note of an access; ``value`` is what was written, 0 for a read. Called in the vCPU's thread."""


@dataclass(frozen=True, slots=True)
class EventfdHandler:
    """An eventfd, which must stay open while registered; KVM signals it by itself where it can."""

    fd: int

    def signal(self, value: int) -> None:
        """Add 1 to its counter; one that is full says enough."""
        try:
            os.eventfd_write(self.fd, 1)
        except BlockingIOError:
            return


@dataclass(frozen=True, slots=True)
class CallbackHandler:
    """A function, called with what was written (0 for a read)."""

    function: Callable[[int], None]

    def signal(self, value: int) -> None:
        """Call it."""
        self.function(value)


@dataclass(frozen=True, slots=True)
class Match:
    """Accesses of ``size`` bytes (0: any) at ``address``: reads, or writes with ``value & mask == data``.

    ``kind`` is "port" or "mmio": an I/O port, or a guest-physical address. ``mask`` is narrowed to the width of the
    access, as the report's; 0 takes any value.
    """

    kind: str
    address: int
    in_: bool
    size: int
    mask: int
    data: int

    def __post_init__(self) -> None:
        wrong = self._nonsense()
        if wrong:
            raise HypervisorError(
                errno.EINVAL,
                f"kvm: no I/O handler can be at {self.kind} {self.address:#x}: {wrong}\n"
                "        give a kind, an address, a size (0: any) and a value that an access there can have",
            )

    def _nonsense(self) -> str:
        if self.kind not in WIDTHS:
            return f"kind {self.kind!r} is neither 'port' nor 'mmio'"
        if self.size not in (0, *WIDTHS[self.kind]):
            return f"no access has {self.size} bytes"
        if not 0 <= self.address <= LIMITS[self.kind] - max(self.size, 1):
            return "there is no such address"
        if self.in_ and (self.mask or self.data):
            return "a read has no value to match"
        if not 0 <= self.mask <= full_mask(self.size or WIDTHS[self.kind][-1]):
            return f"mask {self.mask:#x} is wider than the access"
        if self.data & ~self.mask:
            return f"value {self.data:#x} never appears under mask {self.mask:#x}"
        return ""

    def takes(self, size: int, write: bool, value: int) -> bool:
        """Return whether an access at its address is one of these."""
        return write != self.in_ and self.size in (0, size) and value & self.mask & full_mask(size) == self.data

    def overlaps(self, other: Match, width: int) -> bool:
        """Return whether a write of ``width`` bytes at their common address can be one of both."""
        if self.in_ or other.in_ or self.size not in (0, width) or other.size not in (0, width):
            return False
        common = self.mask & other.mask & full_mask(width)
        return self.data & common == other.data & common


@dataclass(frozen=True, slots=True)
class Ioeventfd:
    """What KVM matches by itself: writes of ``width`` bytes, of ``data`` or (None) of anything, signal ``fd``."""

    kind: str
    address: int
    width: int
    data: int | None
    fd: int


Entry: TypeAlias = "tuple[Match, object]"
"""A match and its owner."""


def full_mask(width: int) -> int:
    """Return the mask of all bits of ``width`` bytes."""
    return (1 << 8 * width) - 1


class Registry:
    """All matches of a machine with their handlers; never changes, :meth:`changed` makes another one.

    Each entry has an owner, None or the group that it moves with. One owner cannot have the same match twice; of
    several, the first one registered is signalled, as for all matches that overlap.
    """

    def __init__(self, entries: Mapping[Entry, Handler] | None = None, capacity: int = CAPACITY) -> None:
        self._entries = dict(entries or {})
        self._capacity = capacity
        places: dict[tuple[str, int], list[tuple[Match, Handler]]] = {}
        for (match, _), handler in self._entries.items():
            places.setdefault((match.kind, match.address), []).append((match, handler))
        self._places = {place: tuple(found) for place, found in places.items()}

    def __len__(self) -> int:
        return len(self._entries)

    def changed(self, removed: Iterable[Entry], added: Iterable[tuple[Entry, Handler]]) -> Registry:
        """Return a registry without ``removed`` and with ``added``.

        Raises HypervisorError: ENOENT (nothing of the sort to remove), EEXIST (the same match twice), ENOMEM (full).
        """
        entries = dict(self._entries)
        for entry in removed:
            if entries.pop(entry, None) is None:
                raise HypervisorError(
                    errno.ENOENT, f"kvm: there is no I/O handler {_shown(entry[0])}\n        delete what was registered"
                )
        for entry, handler in added:
            if entry in entries:
                raise HypervisorError(
                    errno.EEXIST, f"kvm: there is an I/O handler {_shown(entry[0])}\n        delete it before"
                )
            entries[entry] = handler
        if len(entries) > max(self._capacity, len(self._entries)):
            raise HypervisorError(
                errno.ENOMEM,
                f"kvm: no room for more than {self._capacity:,} I/O handlers\n        use fewer devices or queues",
            )
        return Registry(entries, self._capacity)

    def find(self, kind: str, address: int, size: int, write: bool, value: int) -> Handler | None:
        """Return the handler that an access signals, or None."""
        for match, handler in self._places.get((kind, address), ()):
            if match.takes(size, write, value):
                return handler
        return None

    def ioeventfds(self) -> list[Ioeventfd]:
        """Return what KVM can serve alone: writes to eventfds, of one value or of all, which no earlier match takes."""
        found = []
        for entries in self._places.values():
            for at, (match, handler) in enumerate(entries):
                if not match.in_ and isinstance(handler, EventfdHandler):
                    found += _exact(match, handler.fd, [other for other, _ in entries[:at]])
        return found


def _exact(match: Match, fd: int, earlier: list[Match]) -> list[Ioeventfd]:
    """Return the widths of ``match`` at which it takes all values or one, and none that an earlier match takes."""
    exact = []
    for width in (match.size,) if match.size else WIDTHS[match.kind]:
        mask = match.mask & full_mask(width)
        possible = match.data & ~mask == 0
        if mask in (0, full_mask(width)) and possible and not any(match.overlaps(other, width) for other in earlier):
            exact.append(Ioeventfd(match.kind, match.address, width, match.data if mask else None, fd))
    return exact


def _shown(match: Match) -> str:
    direction = "reads" if match.in_ else "writes"
    size = f"{match.size} bytes" if match.size else "any size"
    values = f"value & {match.mask:#x} == {match.data:#x}" if match.mask else "any value"
    return f"for {direction} of {size}, {values}, at {match.kind} {match.address:#x}"

# SPDX-License-Identifier: BSD-2-Clause
"""Names of monitors: what to open to watch a port."""

from __future__ import annotations

from dataclasses import replace

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.linuxguest.names import device_number
from ptnetmap.netmap.names import parse

DIRECTIONS = {
    "rx": abi.NR_MONITOR_RX,
    "tx": abi.NR_MONITOR_TX,
    "both": abi.NR_MONITOR_RX | abi.NR_MONITOR_TX,
}
"""What a monitor is asked to see: packets that the port receives, that it sends, or both."""

_MONITOR = abi.NR_MONITOR_RX | abi.NR_MONITOR_TX
_MODIFIERS = _MONITOR | abi.NR_ZCOPY_MON


def is_monitor(name: str) -> bool:
    """Whether a port name has a monitor's suffix. Raises NameSyntaxError for what is no port name."""
    return bool(parse(name).flags & _MONITOR)


def is_device(name: str) -> bool:
    """Whether a port is a guest's device, which has no monitors. Raises NameSyntaxError for what is no port name."""
    return device_number(parse(name)) is not None


def monitor_name(name: str, direction: str = "both") -> str:
    """Return the name of the monitor of a port; one that names a monitor already is returned as it is.

    ``direction`` is one of :data:`DIRECTIONS`. Raises NameSyntaxError for what is no port name.
    """
    port = parse(name)
    if port.flags & _MONITOR:
        return name
    return str(replace(port, flags=port.flags | DIRECTIONS[direction]))


def plain_name(name: str) -> str:
    """Return the name of the port that a monitor watches, without suffixes and options."""
    port = parse(name)
    return str(replace(port, flags=port.flags & ~_MODIFIERS, conf=type(port.conf)()))


def has_slots(name: str) -> bool:
    """Whether a port name says itself how many slots it wants."""
    return bool(parse(name).conf.rx_slots)

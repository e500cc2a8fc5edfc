# SPDX-License-Identifier: BSD-2-Clause
"""What a virtio-net is given on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.devices.mac import mac_address
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.settings import backend_type
from ptnetmap.errors import ConfigError
from ptnetmap.netmap.names import is_vale

MAX_MTU = 65521
"""The longest packet behind an Ethernet header that ``mtu`` can ask for."""
MAX_PAIRS = 16
"""Pairs of queues at the most: rings of a port of a switch."""


class NetOptions(NamedTuple):
    """The options of a network device."""

    backend: str
    kind: str
    """The back end's type: null, tap, netmap or ptnetmap."""
    mac: bytes
    mtu: int
    """0: the device tells none."""
    pairs: int
    """Pairs of queues that the driver may use."""
    lossless: bool

    @classmethod
    def parse(cls, options: Mapping[str, str], function: Function, vm: str) -> NetOptions:
        """Read the options of the device at ``function`` of a machine called ``vm``. Raises ConfigError."""
        backend = options.get("backend", "")
        kind = backend_type(backend, options.get("type")) if backend else "null"
        return cls(
            backend,
            kind,
            mac_address(function, vm, options.get("mac")),
            _mtu(options.get("mtu", "")),
            _pairs(options.get("queues", "1"), backend, kind),
            boolean_value("lossless", options.get("lossless", "false")),
        )


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not abi.VIRTIO_NET_MIN_MTU <= int(text) <= MAX_MTU:
        raise ConfigError(f"virtio-net: mtu={text} cannot be\n        give {abi.VIRTIO_NET_MIN_MTU} to {MAX_MTU:,}")
    return int(text)


def _pairs(text: str, backend: str, kind: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PAIRS:
        raise ConfigError(f"virtio-net: queues={text} cannot be\n        give 1 to {MAX_PAIRS} pairs of queues")
    if int(text) > 1 and kind != "null" and not (kind == "netmap" and is_vale(backend)):
        raise ConfigError(
            f"virtio-net: queues={text} cannot be with {backend}\n        only a port of a switch takes several pairs"
        )
    return int(text)

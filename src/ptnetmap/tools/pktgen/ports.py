# SPDX-License-Identifier: BSD-2-Clause
"""Opening what a run needs: one port, or a descriptor for each thread's ring."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.tools.pktgen.nullport import NullPort
from ptnetmap.tools.pktgen.options import Options

Opener = Callable[..., Any]
"""``opener(name, *, flags, tx_rings, rx_rings, tx_slots, rx_slots) -> Port``: ptnetmap.open, or a runtime's open."""


def shape(options: Options) -> dict[str, int]:
    """Slots and rings to ask for, as ``-C`` has them: what is left out is as the number before it."""
    given = options.config
    asked = {}
    if given:
        asked["tx_slots"] = given[0]
        asked["rx_slots"] = given[1] if len(given) > 1 else given[0]
    if len(given) > 2:
        asked["tx_rings"] = given[2]
        asked["rx_rings"] = given[3] if len(given) > 3 else given[2]
    elif options.threads > 1:
        asked["tx_rings"] = asked["rx_rings"] = options.threads
    return asked


def open_ports(options: Options, opener: Opener, stack: ExitStack) -> list[Any]:
    """Open a port per thread: with one thread, all its rings; else ring i for thread i. ``stack`` closes them.

    Raises PortError (EINVAL) if there are fewer rings than threads, or if the name cannot be opened ring by ring.
    """
    if options.port == "null":
        return [NullPort() for _ in range(options.threads)]
    flags = abi.NR_ACCEPT_VNET_HDR
    whole = opener(options.port, flags=flags, **shape(options))
    stack.callback(whole.close)
    if options.threads == 1:
        return [whole]
    parsed = names.parse(options.port)
    if parsed.mode != abi.NR_REG_ALL_NIC or "{" in parsed.name or "}" in parsed.name:
        raise PortError(
            errno.EINVAL,
            f"pkt-gen: cannot give {options.threads} threads a ring of {options.port} each: it is a pipe or a part of"
            " a port\n        use -p 1, or a port's plain name",
        )
    rings = _rings(whole, options)
    if rings < options.threads:
        raise PortError(
            errno.EINVAL,
            f"pkt-gen: cannot use {options.threads} threads on {options.port}: it has {rings} rings\n"
            f"        use -p {rings}, or create it with more",
        )
    ports = []
    for ring in range(options.threads):
        port = opener(str(replace(parsed, mode=abi.NR_REG_ONE_NIC, ringid=ring)), flags=flags)
        stack.callback(port.close)
        ports.append(port)
    whole.close()
    return ports


def _rings(port: Any, options: Options) -> int:
    """Rings that threads can have: of the directions that the function uses."""
    if options.sends:
        return len(port.tx_rings)
    if options.receives:
        return len(port.rx_rings)
    return min(len(port.tx_rings), len(port.rx_rings))


HeaderSetter = Callable[[str, int], object]
"""``set_header(name, length)``: what PORT_HDR_SET does."""


def agree_on_header(port: Any, options: Options, set_header: HeaderSetter | None) -> int:
    """Give a port the virtio-net header that was asked for; return the length that its packets begin with.

    Raises PortError for ports that cannot have one.
    """
    adapter: Any = getattr(port, "adapter", None)
    if options.header and adapter is not None:
        if hasattr(adapter, "set_header"):
            adapter.set_header(options.header)
        elif set_header is not None:
            set_header(names.parse(options.port).name, options.header)
        else:
            raise PortError(
                errno.EINVAL,
                f"pkt-gen: cannot give {options.port} a virtio-net header: only VALE ports have one\n        leave out -H",
            )
    return options.header or int(getattr(adapter, "header", 0))


def port_mac(port: Any, name: str) -> int:
    """MAC address of what a port belongs to: a guest's device, a network interface; 0 if it has none."""
    own = getattr(port, "mac", None)
    if own:
        return int(own, 16)
    found = re.match(r"netmap:([A-Za-z0-9_.]+)", name)
    if not found:
        return 0
    try:
        return int(Path("/sys/class/net", found[1], "address").read_text().strip().replace(":", ""), 16)
    except (OSError, ValueError):
        return 0

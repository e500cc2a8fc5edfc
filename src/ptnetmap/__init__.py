# SPDX-License-Identifier: BSD-2-Clause
"""netmap for Linux in user space, in Python: rings, VALE switches, pipes and monitors at the speed of compiled code.

Names are imported when they are first used, so that ``import ptnetmap`` alone costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptnetmap.errors import (
        LookupCompileError,
        MemoryPoolError,
        NameSyntaxError,
        PeerError,
        PortError,
        PtnetmapError,
    )
    from ptnetmap.netmap.client.port import open  # noqa: A004 - meant to be used as ptnetmap.open
    from ptnetmap.netmap.lookup import BROADCAST, DROP, Lookup
    from ptnetmap.netmap.port import POLLERR, POLLIN, POLLOUT, Port
    from ptnetmap.netmap.ring import Ring
    from ptnetmap.netmap.runtime import Netmap
    from ptnetmap.netmap.stats import PortStats
    from ptnetmap.netmap.switch import Switch

__version__ = "0.1.0"

_HOME = {
    "BROADCAST": "ptnetmap.netmap.lookup",
    "DROP": "ptnetmap.netmap.lookup",
    "Lookup": "ptnetmap.netmap.lookup",
    "LookupCompileError": "ptnetmap.errors",
    "MemoryPoolError": "ptnetmap.errors",
    "NameSyntaxError": "ptnetmap.errors",
    "Netmap": "ptnetmap.netmap.runtime",
    "POLLERR": "ptnetmap.netmap.port",
    "POLLIN": "ptnetmap.netmap.port",
    "POLLOUT": "ptnetmap.netmap.port",
    "PeerError": "ptnetmap.errors",
    "Port": "ptnetmap.netmap.port",
    "PortStats": "ptnetmap.netmap.stats",
    "Ring": "ptnetmap.netmap.ring",
    "PortError": "ptnetmap.errors",
    "PtnetmapError": "ptnetmap.errors",
    "Switch": "ptnetmap.netmap.switch",
    "open": "ptnetmap.netmap.client.port",
}

__all__ = [
    "BROADCAST",
    "DROP",
    "POLLERR",
    "POLLIN",
    "POLLOUT",
    "Lookup",
    "LookupCompileError",
    "MemoryPoolError",
    "NameSyntaxError",
    "Netmap",
    "PeerError",
    "Port",
    "PortError",
    "PortStats",
    "PtnetmapError",
    "Ring",
    "Switch",
    "__version__",
    "open",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ptnetmap' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value

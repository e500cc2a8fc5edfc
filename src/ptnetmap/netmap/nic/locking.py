# SPDX-License-Identifier: BSD-2-Clause
"""How much memory this process may lock, which is what the kernel does with the buffers of an AF_XDP socket."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_CAP_IPC_LOCK = 14


def lockable() -> int:
    """Return the bytes that this process may lock, other locked memory of its user among them; sys.maxsize for all."""
    status = Path("/proc/thread-self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found and int(found[1], 16) >> _CAP_IPC_LOCK & 1:
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit

# SPDX-License-Identifier: BSD-2-Clause
"""What can go wrong only with a daemon: that it goes, or falls silent."""

from __future__ import annotations

import errno

from ptnetmap.errors import PortError


class DaemonGoneError(PortError):
    """netmapd has ended, or does not answer, and the port is lost (errno ECONNRESET)."""

    def __init__(self, address: str, detail: str = "", loss: str = "has gone") -> None:
        super().__init__(
            errno.ECONNRESET,
            f"netmap: netmapd at {address} {loss}{f' ({detail})' if detail else ''}\n"
            "        start again; a Port opened with reconnect=True comes back by itself",
        )

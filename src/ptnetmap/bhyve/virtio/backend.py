# SPDX-License-Identifier: BSD-2-Clause
"""Ordinary back ends of a network device: what its queues are connected to, at netmapd."""

from __future__ import annotations

import errno

from ptnetmap.errors import ConfigError, PortError, PtnetmapError
from ptnetmap.netmap.client.virtioport import VirtioPort


def open_plain(backend: str, kind: str, *, size: int, mtu: int, lossless: bool) -> VirtioPort:
    """Return the port for a back end of the ``kind`` netmap or tap, for queues of up to ``size`` entries.

    ``mtu`` is the device's, 0 for the usual one; ``lossless`` lets senders wait while the guest takes nothing. Raises
    ConfigError, in bhyve's words, if it cannot be had.
    """
    try:
        port = VirtioPort(backend, size=size, mtu=mtu)
        try:
            if lossless:
                port.set_lossless(True)
        except PortError:
            port.close()
            raise
    except PtnetmapError as error:
        raise ConfigError(
            f"net backend initialization failed: {backend}\n        {error}", error.errno or errno.ENXIO
        ) from error
    return port

# SPDX-License-Identifier: BSD-2-Clause
"""Ordinary back ends of a network device: what its queues are connected to, at netmapd."""

from __future__ import annotations

import errno
import os

from ptnetmap.errors import ConfigError, PortError, PtnetmapError
from ptnetmap.netmap.client.virtioport import VirtioPort
from ptnetmap.netmap.tapdevice import open_tap


def open_plain(backend: str, kind: str, *, pairs: int, size: int, mtu: int, lossless: bool) -> VirtioPort:
    """Return the port for a back end of the ``kind`` netmap or tap, for ``pairs`` of queues of up to ``size`` entries.

    ``mtu`` is the device's, 0 for the usual one; ``lossless`` lets senders wait while the guest takes nothing. Raises
    ConfigError, in bhyve's words, if it cannot be had.
    """
    tap = -1
    try:
        if kind == "tap":
            tap = open_tap(backend)
        port = VirtioPort(backend, pairs=pairs, size=size, mtu=mtu, tap=tap)
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
    finally:
        if tap >= 0:
            os.close(tap)
    return port

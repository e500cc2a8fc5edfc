# SPDX-License-Identifier: BSD-2-Clause
"""The error for everything between a program and its netmapd."""

from __future__ import annotations

from ptnetmap.errors import PtnetmapError


class DaemonError(PtnetmapError):
    """netmapd cannot be found, reached or started.

    ``errno`` is what opening /dev/netmap would give upstream where there is such a case: ENOENT if nothing listens,
    EACCES without permission. Else: EINVAL, ENAMETOOLONG, ENOTSOCK, EPROTOTYPE for a socket that cannot be netmapd's,
    EADDRINUSE if another one is there, ETIMEDOUT, and the daemon's own errno if it failed while starting.
    """

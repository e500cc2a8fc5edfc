# SPDX-License-Identifier: BSD-2-Clause
"""How ``bhyve`` ends: the exit codes that scripts around it look at (bhyve(8), EXIT STATUS).

A loop that restarts a guest as long as bhyve exits with 0 is how people reboot it; everything else ends the loop. Where
2015 and today differ, today's codes are used: a wrong configuration was 1, which also means a power-off, and is 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REBOOT = 0
POWER_OFF = 1
HALT = 2
TRIPLE_FAULT = 3
ERROR = 4
"""A wrong configuration, or a machine that could not be started or go on; a wrong option too."""

USAGE = 64
"""A malformed value of ``-c``, ``-l``, ``-m``, ``-o`` or ``-p``: EX_USAGE of sysexits(3)."""

SUSPENDED: Mapping[str, int] = MappingProxyType(
    {"reset": REBOOT, "poweroff": POWER_OFF, "halt": HALT, "triplefault": TRIPLE_FAULT}
)
"""The exit code for each way in which a guest's run ends (:meth:`ptnetmap.bhyve.host.Host.suspend`)."""

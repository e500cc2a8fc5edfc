# SPDX-License-Identifier: BSD-2-Clause
"""What ``ptnetmap capture`` does: packets from a monitor's rings into a capture file, without losing any on the way."""

from __future__ import annotations

from ptnetmap.tools.capture.monitor import DIRECTIONS, has_slots, is_device, is_monitor, monitor_name, plain_name
from ptnetmap.tools.capture.session import SNAPLEN, Figures, Session

__all__ = [
    "DIRECTIONS",
    "SNAPLEN",
    "Figures",
    "Session",
    "has_slots",
    "is_device",
    "is_monitor",
    "monitor_name",
    "plain_name",
]

# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap top``: what all ports of a netmapd do, from counters that it shares.

A :class:`Reader` takes snapshots; :func:`compare` makes a :class:`View` of two of them, without any I/O; ``order``
chooses and sorts its rows, ``table`` draws them, and :class:`Screen` is the terminal. :func:`follow` ties them together.
"""

from ptnetmap.tools.top.follow import Absent, follow
from ptnetmap.tools.top.order import SORTS, matching
from ptnetmap.tools.top.rates import KthreadRow, PortRow, View, compare
from ptnetmap.tools.top.reader import Reader
from ptnetmap.tools.top.screen import RESIZED, Screen
from ptnetmap.tools.top.snapshot import Occupied, PortSample, Snapshot
from ptnetmap.tools.top.table import page

__all__ = [
    "RESIZED",
    "SORTS",
    "Absent",
    "KthreadRow",
    "Occupied",
    "PortRow",
    "PortSample",
    "Reader",
    "Screen",
    "Snapshot",
    "View",
    "compare",
    "follow",
    "matching",
    "page",
]

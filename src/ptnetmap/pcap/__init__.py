# SPDX-License-Identifier: BSD-2-Clause
"""Capture files, pcap and pcapng: reading and writing them, with nanoseconds, in bounded memory.

:func:`open_capture` reads either format; :class:`PcapngWriter` and :class:`PcapWriter` write one. Nothing here knows
netmap or compiled code.
"""

from __future__ import annotations

from ptnetmap.pcap.capture import Capture, open_capture
from ptnetmap.pcap.error import CaptureFileError
from ptnetmap.pcap.ngwriter import PcapngWriter
from ptnetmap.pcap.output import Output, Room
from ptnetmap.pcap.record import ETHERNET, Interface, Record
from ptnetmap.pcap.writer import PcapWriter

__all__ = [
    "ETHERNET",
    "Capture",
    "CaptureFileError",
    "Interface",
    "Output",
    "PcapWriter",
    "PcapngWriter",
    "Record",
    "Room",
    "open_capture",
]

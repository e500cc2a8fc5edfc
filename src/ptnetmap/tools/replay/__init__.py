# SPDX-License-Identifier: BSD-2-Clause
"""What ``ptnetmap replay`` does: the packets of a capture file into a port, each when it is due.

A reader works ahead of the sender, in bounded memory; a schedule says when; compiled loops send.
"""

from __future__ import annotations

from ptnetmap.tools.replay.chunks import File
from ptnetmap.tools.replay.player import Figures, Player, replay
from ptnetmap.tools.replay.schedule import BitRate, PacketRate, Recorded, Schedule, TopSpeed

__all__ = [
    "BitRate",
    "Figures",
    "File",
    "PacketRate",
    "Player",
    "Recorded",
    "Schedule",
    "TopSpeed",
    "replay",
]

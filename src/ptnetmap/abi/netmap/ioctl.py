# SPDX-License-Identifier: BSD-2-Clause
"""The ioctl numbers of /dev/netmap, in Linux's encoding.

A number says which way its argument goes, how long that is, and which command of which family it names. The values
are the same in 2015 and today, except that NIOCCTRL is younger. Source: netmap.h, netmap_legacy.h.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi.netmap.memory import IFNAMSIZ
from ptnetmap.abi.netmap.nmreq import nmreq
from ptnetmap.abi.netmap.request import nmreq_header

NM_IFRDATA_LEN = 256
"""Bytes of free-form data in a NIOCCONFIG argument."""

nm_ifreq = np.dtype([("nifr_name", f"S{IFNAMSIZ}"), ("data", "u1", (NM_IFRDATA_LEN,))])
"""The argument of NIOCCONFIG, handed to a switch's own configuration function: 272 bytes.

====== ==== ========= ============================================================================================
offset size field     meaning
====== ==== ========= ============================================================================================
0      16   nifr_name the port, NUL padded
16     256  data      whatever the switch's function understands
====== ==== ========= ============================================================================================
"""

_NONE = 0
_READ_WRITE = 3


def _ioc(direction: int, family: str, nr: int, size: int) -> int:
    """Return an ioctl number: 2 bits of direction, 14 of size, 8 of family, 8 of command (asm-generic/ioctl.h)."""
    return direction << 30 | size << 16 | ord(family) << 8 | nr


NIOCGINFO = _ioc(_READ_WRITE, "i", 145, nmreq.itemsize)
"""Describe a port, legacy; argument ``nmreq``."""
NIOCREGIF = _ioc(_READ_WRITE, "i", 146, nmreq.itemsize)
"""Bind a port or run a legacy command; argument ``nmreq``."""
NIOCTXSYNC = _ioc(_NONE, "i", 148, 0)
"""Sync the bound TX rings; no argument."""
NIOCRXSYNC = _ioc(_NONE, "i", 149, 0)
"""Sync the bound RX rings; no argument."""
NIOCCONFIG = _ioc(_READ_WRITE, "i", 150, nm_ifreq.itemsize)
"""Configure a switch; argument ``nm_ifreq``."""
NIOCCTRL = _ioc(_READ_WRITE, "i", 151, nmreq_header.itemsize)
"""Run a request; argument ``nmreq_header``."""

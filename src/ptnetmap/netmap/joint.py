# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Joints: what is on the other side of a ring that is no netmap ring, and is on no switch or is the device of a port."""

from __future__ import annotations

import numpy as np

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load32, load64
from ptnetmap.netmap.kring import PEER, RING

joint = np.dtype([("ring", "u8"), ("mfs", "u4"), ("header", "u4"), ("tap", "i4"), ("_pad", "V4")])
"""What a kring has as its peer: 24 bytes.

====== ==== ======= ================================================================================================
offset size field   meaning
====== ==== ======= ================================================================================================
0      8    ring    the kring of the ring that the queue is joined to
8      4    mfs     longest frame that is made where offloads have to be finished
12     4    header  bytes of virtio-net header before each frame of the ring
16     4    tap     descriptor of a tap device that the queue is joined to in place of a ring, or -1
====== ==== ======= ================================================================================================
"""

TAP = offsets(joint)["tap"]
NO_TAP = 0xFFFFFFFF


@piece
def is_on_tap(k):
    """Whether a ring is joined to a tap device."""
    join = load64(k + PEER)
    return join != 0 and load32(join + TAP) != NO_TAP


@piece
def is_taps_own(k):
    """Whether a ring is a tap device's own port of a switch, and there is no virtqueue."""
    return load64(k + RING) == 0 and is_on_tap(k)

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""What becomes of a virtqueue whose driver has broken it: it stands still, and whoever has the device is told."""

from __future__ import annotations

from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import write
from ptnetmap.jit.memory import load32, load64, store32, store64
from ptnetmap.netmap.queuestate import STATE_BROKEN, virtqueue

_STATE = offsets(virtqueue)["state"]
_BAD_INDEX = offsets(virtqueue)["bad_index"]
_TROUBLE = offsets(virtqueue)["trouble"]
_ONE = offsets(virtqueue)["one"]
_NOBODY = 0xFFFFFFFF


@piece
def break_queue(queue):
    """Read nothing more from a queue until it is started again."""
    store32(queue + _STATE, STATE_BROKEN)
    store64(queue + _BAD_INDEX, load64(queue + _BAD_INDEX) + 1)
    if load32(queue + _TROUBLE) != _NOBODY:
        write(load32(queue + _TROUBLE), queue + _ONE, 8)

# SPDX-License-Identifier: BSD-2-Clause
"""Each thread's batch: made when a thread first syncs, gone with the thread."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref

import numpy as np

from ptnetmap.jit.block import Block
from ptnetmap.netmap.batch import CONVERTED_BYTES, LINEAR_BYTES, NO_PACKET, RECORDS, batch

_BOUNCE_BYTES = RECORDS * 65536  # one buffer of the largest size per record; only what is used takes memory


class Scratch:
    """A batch, with the memory that it points to. ``address`` is what kernels get."""

    def __init__(self) -> None:
        self._batch = Block(batch)
        self._linear = Block(np.uint8, LINEAR_BYTES)
        self._converted = Block(np.uint8, CONVERTED_BYTES)
        fd = os.memfd_create("netmap-indirect", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, fd)
        os.ftruncate(fd, _BOUNCE_BYTES)
        self._bounce = mmap.mmap(fd, _BOUNCE_BYTES)
        self._first = ctypes.c_char.from_buffer(self._bounce)
        fields = self._batch.items
        fields["queue_head"] = NO_PACKET
        fields["linear"] = self._linear.address
        fields["converted"] = self._converted.address
        fields["bounce"] = ctypes.addressof(self._first)
        fields["bounce_fd"] = fd
        self.address = self._batch.address


_threads = threading.local()


def scratch() -> int:
    """Address of the calling thread's batch."""
    mine: Scratch | None = getattr(_threads, "scratch", None)
    if mine is None:
        mine = _threads.scratch = Scratch()
    return mine.address

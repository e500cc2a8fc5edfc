# SPDX-License-Identifier: BSD-2-Clause
"""Sleeping on rings of several ports at once, where a port's own poll() knows its own rings only."""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Iterable

from ptnetmap.jit.block import Block, offsets
from ptnetmap.netmap import binding
from ptnetmap.netmap.descriptor import next_look
from ptnetmap.netmap.port import POLLIN, POLLOUT, Port
from ptnetmap.netmap.scratch import scratch

AT = offsets(binding.binding)
"""Where a kernel lists the krings to wait on: ``rx_count`` of them at ``rx``, ``tx_count`` at ``tx``."""

MOST = binding.MAX_BOUND
"""Krings of one direction that can be waited on."""


class Waiter:
    """What poll(2) does, on rings of all ``ports``: those that a kernel has listed at :attr:`address`, see :data:`AT`.

    A ring counts as ready when there is something past its ``cur``, so whoever wants to be told of *more* sets ``cur`` to
    ``tail``. :meth:`stop` ends a wait, and all that follow; it may be called from a signal handler or another thread.
    """

    def __init__(self, ports: Iterable[Port]) -> None:
        self._block = Block(binding.binding)
        self.address = self._block.address
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._close = weakref.finalize(self, os.close, self._fd)
        self._block["close_fd"] = self._fd
        for port in ports:
            with port.in_use:
                for ring in port.rings:
                    ring.make_eventfd()
                    self._block["naps"] |= int(ring.silent)

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` has been called."""
        return bool(self._block["closed"])

    def stop(self) -> None:
        """Let nobody wait any more."""
        self._block["closed"] = 1
        if self._close.alive:
            os.eventfd_write(self._fd, 1)

    def wait(self, deadline: int) -> bool:
        """Wait until a listed ring is ready, until ``deadline`` (ns, monotonic), or a little less; return whether one is.

        The caller is inside all ports' gates. A ring that cannot be synced counts as ready: whoever uses it will see.
        """
        result = binding.wait(self.address, scratch(), POLLIN | POLLOUT, next_look(deadline), 0)
        return int(result) > 0

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` pass, or less if :meth:`stop` is called."""
        if seconds > 0:
            select.select([self._fd], [], [], seconds)

    def close(self) -> None:
        """Give up what it holds."""
        self._close()

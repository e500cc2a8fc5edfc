# SPDX-License-Identifier: BSD-2-Clause
"""Interrupts of a queue that another process serves, where they cannot go to the guest without us.

A pin, and MSI of the old kind, need the interrupt status register to be set first. So the other process writes to an
eventfd of ours, and the event loop does the rest. With MSI-X there is no such detour: KVM reads the vector's eventfd.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ptnetmap.bhyve.host import Host


class Relay:
    """An eventfd that calls ``interrupt``, with the machine's lock held; without an event loop nobody listens."""

    def __init__(self, host: Host, interrupt: Callable[[], None]) -> None:
        self._host = host
        self._interrupt = interrupt
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop = host.loop
        if self._loop:
            # The vCPU's thread may be the one that made us.
            self._loop.call_soon_threadsafe(self._listen)

    def _listen(self) -> None:
        if self._loop and self.eventfd >= 0:
            self._loop.add_reader(self.eventfd, self.heard)

    def heard(self) -> None:
        """Pass on what was written to the eventfd, if anything was."""
        with self._host.lock:
            if self.eventfd < 0:
                return
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.eventfd)
                self._interrupt()

    def close(self) -> None:
        """Let go of the eventfd, on the event loop's thread. Harmless when repeated."""
        if self._loop:
            self._loop.remove_reader(self.eventfd)
            self._loop = None
        if self.eventfd >= 0:
            os.close(self.eventfd)
            self.eventfd = -1

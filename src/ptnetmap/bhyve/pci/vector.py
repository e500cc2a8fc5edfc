# SPDX-License-Identifier: BSD-2-Clause
"""One message-signalled interrupt: whether its events are delivered, held back or dropped.

Events come from :meth:`Vector.signal` or from writes to :attr:`Vector.eventfd`. While they are delivered, KVM listens
to the eventfd (irqfd) and nobody here wakes up. While the guest masks the vector, the eventfd is taken from KVM: what
is written then stays in its counter, which is read when the guest looks at the pending bit or unmasks. So a mask
holds for both sources, and no event is lost: one event, or many, become one message on unmasking (PCI 3.0 §6.8.3.5).
"""

from __future__ import annotations

import enum
import os

from ptnetmap.abi import pci
from ptnetmap.bhyve.host import Interrupts
from ptnetmap.errors import HypervisorError


class Mode(enum.Enum):
    """What becomes of a vector's events."""

    DROP = "dropped"
    """Nobody is to hear of them: the guest has not enabled messages."""
    HOLD = "held back"
    """The vector is masked: the first one makes it pending."""
    DELIVER = "delivered"


class Vector:
    """A message of a function, dropped at first; takes a route of ``interrupts``, and raises what that raises."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._route = interrupts.allocate_msi()
        self._message: tuple[int, int] | None = None
        self._mode = Mode.DROP
        self._pending = False
        self._eventfd = -1
        self._closed = False

    @property
    def mode(self) -> Mode:
        """What becomes of its events now."""
        return self._mode

    @property
    def eventfd(self) -> int:
        """An eventfd, made on first use, to which another thread or process may write instead of calling :meth:`signal`.

        It is the vector's, and lives until :meth:`close`; hand out duplicates.
        """
        if self._eventfd < 0:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                if self._mode is Mode.DELIVER:
                    self._route.attach(fd)
            except HypervisorError:
                os.close(fd)
                raise
            self._eventfd = fd
        return self._eventfd

    @property
    def pending(self) -> bool:
        """Whether an event is held back."""
        if self._mode is Mode.HOLD and self._drain():
            self._pending = True
        return self._pending

    def signal(self) -> None:
        """Make an event."""
        if self._mode is Mode.DELIVER:
            self._route.signal()
        elif self._mode is Mode.HOLD:
            self._pending = True

    def set(self, mode: Mode, address: int = 0, data: int = 0) -> None:
        """Change what becomes of events, and the message for :attr:`Mode.DELIVER`.

        A message that is no interrupt (to memory, or refused by the hypervisor) harms nobody: its events are dropped.
        """
        if mode is Mode.DELIVER and not self._load(address, data):
            mode = Mode.DROP
        previous = self._mode
        if previous is Mode.DELIVER and mode is not Mode.DELIVER and self._eventfd >= 0:
            self._route.detach()
        if previous is Mode.DROP and mode is not Mode.DROP:
            self._drain()
        self._mode = mode
        if mode is Mode.DROP:
            self._pending = False
        elif mode is Mode.DELIVER and previous is not Mode.DELIVER:
            # What comes after the drain is seen by KVM when it attaches, so each event is delivered, and only once.
            held = self._drain() or self._pending
            self._pending = False
            if self._eventfd >= 0:
                try:
                    self._route.attach(self._eventfd)
                except HypervisorError:
                    self._mode = Mode.DROP
                    return
            if held:
                self._route.signal()

    def close(self) -> None:
        """Give back the route and the eventfd. Harmless when repeated."""
        if self._closed:
            return
        self.set(Mode.DROP)
        self._closed = True
        self._route.close()
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1

    def _load(self, address: int, data: int) -> bool:
        """Make the route deliver a message; false where there is no such interrupt."""
        if not 0 <= address - pci.MSI_INTEL_ADDR_BASE < pci.MSI_INTEL_ADDR_SIZE:
            return False
        if self._message != (address, data):
            self._message = None
            try:
                self._route.set(address, data)
            except HypervisorError:
                return False
            self._message = (address, data)
        return True

    def _drain(self) -> bool:
        """Take the events out of the eventfd, and return whether there were any."""
        if self._eventfd < 0:
            return False
        try:
            os.read(self._eventfd, 8)
        except BlockingIOError:
            return False
        return True

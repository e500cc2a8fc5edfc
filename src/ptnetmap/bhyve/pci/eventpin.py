# SPDX-License-Identifier: BSD-2-Clause
"""A device's interrupt pin, for events that others write to the eventfds of its MSI-X vectors.

While the guest has enabled messages, KVM listens to these eventfds and nobody here wakes up. A guest that has not, a
driver in user space by uio_pci_generic for instance, gets the pin, and the event loop listens. The device has no register
that tells the reason: setting the INTx disable bit, as such a driver's kernel part does in its handler, takes the
interrupt (PCI 3.0 §6.2.2); what comes meanwhile raises the pin again when the bit is cleared.
"""

from __future__ import annotations

import contextlib
import os

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.device import PciDevice


class EventPin:
    """The pin of ``device``, which has MSI-X. Made in its ``__init__``; :meth:`settle` follows each change."""

    def __init__(self, device: PciDevice) -> None:
        self._device = device
        self._wanted = self._disabled = False
        self._fds: list[int] = []
        device.use_intx()

    def settle(self, *, in_use: bool) -> None:
        """Listen or not: ``in_use`` says whether there may be events. Called with the machine's lock held."""
        device = self._device
        disabled = bool(device.config.command & pci.PCIM_CMD_INTxDIS)
        if disabled and not self._disabled:
            device.deassert()
        self._disabled = disabled
        wanted = in_use and not device.uses_messages
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if not wanted:
            device.deassert()
        if device.host.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
                device.host.loop.call_soon_threadsafe(self._arrange)

    def _arrange(self) -> None:
        """Have the loop listen as is wanted by now. On the loop's thread."""
        loop, device = self._device.host.loop, self._device
        assert loop is not None
        with device.host.lock:
            while self._fds and not self._wanted:
                loop.remove_reader(self._fds.pop())
            if self._wanted and not self._fds and device.msix is not None:
                self._fds = [vector.eventfd for vector in device.msix.vectors]
                for fd in self._fds:
                    loop.add_reader(fd, self.heard, fd)

    def heard(self, fd: int) -> None:
        """Interrupt the guest for what was written to a vector's eventfd."""
        with self._device.host.lock:
            if not self._wanted:  # the guest has just enabled messages: it is KVM's
                return
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
                self._device.interrupt()

    def close(self) -> None:
        """Listen no longer. On the loop's thread; harmless when repeated."""
        self._wanted = False
        if self._device.host.loop is not None:
            self._arrange()

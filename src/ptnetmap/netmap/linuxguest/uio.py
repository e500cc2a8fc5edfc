# SPDX-License-Identifier: BSD-2-Clause
"""Interrupts of a function that is bound to uio_pci_generic: one for all rings, by the pin.

The kernel's handler masks the pin and counts (Linux's Documentation/driver-api/uio-howto.rst); a thread here waits for
that, wakes whoever waits for a ring, and unmasks the pin again, in this order, so that no event is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from pathlib import Path

from ptnetmap.abi import pci
from ptnetmap.errors import PortError
from ptnetmap.netmap.linuxguest.pci import PciFunction

_DEV = Path("/dev")


class UioInterrupts:
    """The pin of a function. As :class:`~ptnetmap.netmap.linuxguest.vfio.VfioInterrupts`, with one event for all rings."""

    def __init__(self, function: PciFunction, count: int, dev: Path = _DEV) -> None:
        self.fds: list[int] = []
        self._stop = -1
        self._eventfds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]
        try:
            [device] = (function.path / "uio").iterdir()
            self._uio = self._open(dev / device.name)
            self._config = self._open(function.path / "config")
            self._unmask()
        except (OSError, ValueError) as error:
            self.close()
            raise PortError(
                getattr(error, "errno", None) or errno.ENXIO,
                f"netmap: cannot take the interrupts of the device at {function.address} by uio_pci_generic: {error}\n"
                "        unbind it, and the port polls",
            ) from error
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"ptnetmap-{device.name}", daemon=True)
        self._thread.start()

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.fds.append(fd)
        return fd

    def _unmask(self) -> None:
        command = int.from_bytes(os.pread(self._config, 2, pci.PCIR_COMMAND), "little") & ~pci.PCIM_CMD_INTxDIS
        os.pwrite(self._config, command.to_bytes(2, "little"), pci.PCIR_COMMAND)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._uio, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while self._stop not in [fd for fd, _ in poll.poll()]:
            os.read(self._uio, 4)
            for fd in self._eventfds:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(fd, 1)
            self._unmask()

    def waiting(self, vector: int) -> int:
        """Return a new descriptor that becomes readable with the next interrupt, edge-triggered inside."""
        with select.epoll(flags=select.EPOLL_CLOEXEC) as epoll:
            epoll.register(self._eventfds[vector], select.EPOLLIN | select.EPOLLET)
            return os.dup(epoll.fileno())

    def close(self) -> None:
        """End the thread, and give the function back. Harmless when repeated."""
        if self._stop >= 0:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)
            self._stop = -1
        for fds in (self._eventfds, self.fds):
            while fds:
                os.close(fds.pop())

# SPDX-License-Identifier: BSD-2-Clause
"""Tap devices that are ports of switches: served by a kthread from when they are attached until they are detached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ptnetmap.netmap.daemon.kthreads import QueueService

if TYPE_CHECKING:
    from ptnetmap.netmap.daemon.host import Host


class TapPort:
    """The tap device ``fd`` as port ``name`` of a switch, until :meth:`close`, which closes it.

    The device is as :func:`~ptnetmap.netmap.tapdevice.open_tap` opens it. Raises PortError, and closes it, if there is such
    a port.
    """

    def __init__(self, host: Host, name: str, fd: int) -> None:
        self._host = host
        self._fd = fd
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.adapter = host.create_tap(name, self._fd)
        except BaseException:
            self._let_go()
            raise
        self.adapter.turn(on=True)
        self._service = QueueService(self.adapter.tx[0], self._bell, -1, kicks=(self._fd,), spin=host.kthreads.spin)
        host.kthreads.add([self._service])

    def close(self) -> int:
        """Take the port off its switch; return the number it had there."""
        index = self.adapter.index
        self._host.kthreads.remove([self._service])
        self.adapter.turn(on=False)
        for ring in self.adapter.rings:
            ring.close()
        self.adapter.drop()
        self._let_go()
        return index

    def _let_go(self) -> None:
        for fd in (self._fd, self._bell):
            os.close(fd)

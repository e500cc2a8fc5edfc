# SPDX-License-Identifier: BSD-2-Clause
"""Interrupts of a function that is bound to vfio-pci: an eventfd for each MSI-X vector.

A guest without an IOMMU needs ``modprobe vfio enable_unsafe_noiommu_mode=1``. "Unsafe" is what this package does anyway:
it tells a device physical addresses.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from pathlib import Path

from ptnetmap.abi import vfio
from ptnetmap.errors import PortError
from ptnetmap.netmap.linuxguest.pci import PciFunction

_DEV = Path("/dev/vfio")


class VfioInterrupts:
    """Vectors 0 to ``count`` - 1 of a function; ``fds`` keep them, and :meth:`waiting` gives what to wait on.

    Raises PortError with what is missing.
    """

    def __init__(self, function: PciFunction, count: int) -> None:
        self.fds: list[int] = []
        self._eventfds: list[int] = []
        try:
            container = self._open(_DEV / "vfio")
            number = (function.path / "iommu_group").readlink().name
            group = self._open(_DEV / f"noiommu-{number}")
            fcntl.ioctl(group, vfio.VFIO_GROUP_SET_CONTAINER, container.to_bytes(4, "little"))
            fcntl.ioctl(container, vfio.VFIO_SET_IOMMU, vfio.VFIO_NOIOMMU_IOMMU)
            self._device: int = fcntl.ioctl(
                group, vfio.VFIO_GROUP_GET_DEVICE_FD, bytearray(function.address.encode() + b"\0")
            )
            self.fds.append(self._device)
            for _ in range(count):
                self._eventfds.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            self._route()
        except OSError as error:
            self.close()
            raise PortError(
                error.errno or errno.EIO,
                f"netmap: cannot take the interrupts of the device at {function.address}: {error.strerror}\n"
                "        it is bound to vfio-pci: modprobe vfio enable_unsafe_noiommu_mode=1 before that, or unbind it to"
                " poll",
            ) from error

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.fds.append(fd)
        return fd

    def _route(self) -> None:
        head = vfio.vfio_irq_set.itemsize
        flags = vfio.VFIO_IRQ_SET_DATA_EVENTFD | vfio.VFIO_IRQ_SET_ACTION_TRIGGER
        words = [head + 4 * len(self._eventfds), flags, vfio.VFIO_PCI_MSIX_IRQ_INDEX, 0, len(self._eventfds)]
        argument = b"".join(word.to_bytes(4, "little") for word in (*words, *self._eventfds))
        fcntl.ioctl(self._device, vfio.VFIO_DEVICE_SET_IRQS, argument)

    def waiting(self, vector: int) -> int:
        """Return a new descriptor that becomes readable with a vector's next interrupt, edge-triggered inside."""
        with select.epoll(flags=select.EPOLL_CLOEXEC) as epoll:
            epoll.register(self._eventfds[vector], select.EPOLLIN | select.EPOLLET)
            return os.dup(epoll.fileno())

    def close(self) -> None:
        """Give the function back to vfio-pci. Harmless when repeated."""
        for fds in (self._eventfds, self.fds):
            while fds:
                os.close(fds.pop())

# SPDX-License-Identifier: BSD-2-Clause
"""What driver and device of a console tell each other in its control queues (virtio 1.2 §5.3.6.2). Pure state.

The driver says that it is ready, hears which ports there are, says for each that it is ready for it, hears its name, and
then either says when somebody opens or closes its end. What the driver is to be told is worked out when it has room for
it, so a driver that gives none costs nothing: opening and closing leave at most one message each.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ptnetmap.abi import virtio_console as abi
from ptnetmap.errors import GuestError

_MESSAGE = struct.Struct("<IHH")


@dataclass
class PortState:
    """One port, as both ends have said it is."""

    name: str
    is_ready: bool = False
    """The driver is ready for it."""
    guest_open: bool = False
    """Somebody in the guest has it open."""
    host_open: bool = False
    """Somebody on the host is connected to it."""
    told_open: bool = False
    """What the driver has been told of ``host_open``."""


class Control:
    """The conversation about ports of these names; ``ports`` is their state."""

    def __init__(self, names: Sequence[str]) -> None:
        self.ports = [PortState(name) for name in names]
        self._replies: deque[bytes] = deque()

    def reset(self) -> None:
        """Return to the state before any driver; who is connected on the host stays."""
        self._replies.clear()
        for port in self.ports:
            port.is_ready = port.guest_open = port.told_open = False

    def start(self, *, multiport: bool) -> None:
        """Begin with a driver; one that knows no control messages has port 0, always open."""
        if not multiport:
            self.ports[0].guest_open = True

    @property
    def is_busy(self) -> bool:
        """Whether replies wait for the driver to take them, before it may say more."""
        return bool(self._replies)

    def hear(self, message: bytes) -> int | None:
        """Take a message of the driver's; return the port whose state it may have changed.

        Messages of later standards are passed over. Raises GuestError (EINVAL) for one that is cut short, or about a
        port that is none.
        """
        if len(message) < _MESSAGE.size:
            raise GuestError(
                errno.EINVAL,
                f"virtio-console: a control message of {len(message)} bytes\n"
                f"        the driver must send {_MESSAGE.size}",
            )
        number: int
        number, event, value = _MESSAGE.unpack_from(message)
        if event == abi.VIRTIO_CONSOLE_DEVICE_READY:
            if value:
                self._replies.extend(
                    _MESSAGE.pack(index, abi.VIRTIO_CONSOLE_PORT_ADD, 1) for index in range(len(self.ports))
                )
            return None
        if event not in (abi.VIRTIO_CONSOLE_PORT_READY, abi.VIRTIO_CONSOLE_PORT_OPEN):
            return None
        if number >= len(self.ports):
            raise GuestError(
                errno.EINVAL,
                f"virtio-console: a control message about port {number}\n"
                f"        the driver must name one of the {len(self.ports)} that it was told of",
            )
        port = self.ports[number]
        if event == abi.VIRTIO_CONSOLE_PORT_OPEN:
            port.guest_open = bool(value)
        else:
            port.is_ready = bool(value)
            port.told_open = False
            if port.is_ready:
                self._replies.append(_MESSAGE.pack(number, abi.VIRTIO_CONSOLE_PORT_NAME, 1) + port.name.encode())
        return number

    def next(self) -> bytes | None:
        """Return what the driver is to be told next, None for nothing; :meth:`told` says that it has been."""
        if self._replies:
            return self._replies[0]
        for index, port in enumerate(self.ports):
            if port.is_ready and port.told_open != port.host_open:
                return _MESSAGE.pack(index, abi.VIRTIO_CONSOLE_PORT_OPEN, port.host_open)
        return None

    def told(self) -> None:
        """Note that the driver has been told what :meth:`next` returned."""
        if self._replies:
            self._replies.popleft()
            return
        port = next(port for port in self.ports if port.is_ready and port.told_open != port.host_open)
        port.told_open = port.host_open

# SPDX-License-Identifier: BSD-2-Clause
"""virtio-console: ports of bytes between programs of the guest and Unix sockets of the host (virtio 1.2 §5.3).

A port's socket takes one client at a time. While it takes no more bytes, the guest's wait in its queue, and while nobody
in the guest has the port open, or it offers no buffers, the client's wait in the socket.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptnetmap.abi import pci, virtio_pci
from ptnetmap.abi import virtio_console as abi
from ptnetmap.bhyve.devices.console import Console
from ptnetmap.bhyve.devices.console.backend import Listener
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.device import register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.console import Control, PortState
from ptnetmap.bhyve.virtio.device import VirtioDevice
from ptnetmap.bhyve.virtio.queue import Chain
from ptnetmap.errors import ConfigError, GuestError

QUEUE_SIZE = 64
"""Entries of each queue."""
MAX_PORTS = 16
"""Ports of a device at the most."""
MAX_NAME = 64
"""Bytes of a port's name at the most."""
PIECE = 64 << 10
"""Bytes that are passed on at once."""
PIECES = 16
"""Pieces of a port that are passed on before others have their turn."""

_OPTIONS = ("legacy", "modern")


@register
class VirtioConsole(VirtioDevice):
    """Ports for the guest. Options: ``port.N.name`` and ``port.N.path`` of each, from 0 on."""

    name = "virtio-console"
    virtio_id = virtio_pci.VIRTIO_ID_CONSOLE
    class_code = pci.PCIC_SIMPLECOMM << 16

    def __init__(self, host: Host, function: Function, options: Mapping[str, str]) -> None:
        places = _ports(options)
        config: Any = np.zeros((), abi.virtio_console_config)
        config["max_nr_ports"] = len(places)
        self.control = Control([name for name, _ in places])
        self.ports: list[_Port] = []
        self._holds = False  # messages of the driver's wait until it takes what it is told
        super().__init__(
            host,
            function,
            options,
            features=abi.VIRTIO_CONSOLE_F_MULTIPORT,
            device_config=config.tobytes(),
            queue_sizes=(QUEUE_SIZE,) * (2 + 2 * len(places)),
        )
        try:
            for number, (state, (name, path)) in enumerate(zip(self.control.ports, places, strict=True)):
                self.ports.append(_Port(self, number, state))
                self.ports[-1].connect(name, path)
        except BaseException:
            self.close()
            raise

    @classmethod
    def parse_options(cls, text: str) -> dict[str, str]:
        """Return the settings of ports, in order, for ``NAME=PATH``; the rest is as for any device."""
        found: dict[str, str] = {}
        number = 0
        for word in text.split(","):
            key, _, value = word.partition("=")
            if key in _OPTIONS or not word:
                found |= super().parse_options(word)
            else:
                found |= {f"port.{number}.name": key, f"port.{number}.path": value}
                number += 1
        return found

    # --- the driver ------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Begin the conversation."""
        self.control.start(multiport=self._has_control)

    def stopped(self) -> None:
        """Forget the driver's buffers, and what was said."""
        self.control.reset()
        self._holds = False
        for port in self.ports:
            port.forget(port.receive_queue)
            port.forget(port.transmit_queue)

    def queue_changed(self, index: int) -> None:
        """Forget the buffers of a queue that is not used any more."""
        if not self.queues[index].enabled:
            for port in self.ports:
                port.forget(index)

    def queue_notified(self, index: int) -> bool:
        """Serve a queue, one of a port or of the conversation; without that, a driver knows only port 0."""
        if index > abi.VIRTIO_CONSOLE_TX and not self._has_control:
            return False
        if index == abi.VIRTIO_CONSOLE_CONTROL_RX:
            self.tell()
            return False
        if index == abi.VIRTIO_CONSOLE_CONTROL_TX:
            return self._hear()
        port = self.ports[max(0, index // 2 - 1)]
        return port.transmit() if index & 1 else port.offered()

    @property
    def _has_control(self) -> bool:
        return bool(self.negotiation.accepted & abi.VIRTIO_CONSOLE_F_MULTIPORT)

    def _hear(self) -> bool:
        """Take the driver's messages while it takes the answers."""
        queue = self.queues[abi.VIRTIO_CONSOLE_CONTROL_TX]
        for _ in range(queue.size):
            self._holds = self.control.is_busy
            chain = None if self._holds else queue.take()
            if chain is None:
                return False
            number = self.control.hear(chain.read(abi.virtio_console_control.itemsize))
            self.complete(queue, chain, 0)
            if number is not None:
                self.ports[number].deliver()
            self.tell()
        return True

    def tell(self) -> None:
        """Tell the driver what it is to know, as far as it has offered buffers; raises GuestError."""
        queue = self.queues[abi.VIRTIO_CONSOLE_CONTROL_RX]
        if not self._has_control or not self.negotiation.may_serve(queue.index):
            return
        while (message := self.control.next()) is not None and (chain := queue.take()) is not None:
            if chain.readable or chain.writable_bytes < len(message):
                raise GuestError(
                    errno.EINVAL,
                    f"virtio-console: room for {chain.writable_bytes:,} bytes of a control message of {len(message)}, "
                    f"and {chain.readable_bytes:,} bytes to read\n"
                    "        the driver must offer a buffer that the device writes, large enough for a name",
                )
            self.control.told()
            self.complete(queue, chain, chain.write(message))
        self.flush(queue)
        if self._holds and not self.control.is_busy:
            self._holds = False
            self.queue_kicked(abi.VIRTIO_CONSOLE_CONTROL_TX)

    def close(self) -> None:
        """Deliver what the guest has sent, and let the sockets go. Harmless when repeated."""
        super().close()
        for port in self.ports:
            port.close()


class _Port:
    """One port: its two queues, and the line to its socket."""

    def __init__(self, device: VirtioConsole, number: int, state: PortState) -> None:
        self._device = device
        self.state = state
        first = 2 * number + 2 if number else 0
        self.receive_queue = first
        self.transmit_queue = first + 1
        self.console: Console | None = None
        self._offered: deque[Chain] = deque()
        self._room = 0
        self._sending: Chain | None = None
        self._sent = 0
        self._waits = False

    def connect(self, name: str, path: str) -> None:
        """Listen on the socket; raises ConfigError."""
        host = self._device.host
        try:
            listener = Listener(f"{self._device.name} port {name}", path, socket.AF_UNIX, path)
        except OSError as error:
            advice = "choose another path, or end what listens there"
            if error.errno != errno.EADDRINUSE:
                advice = "give a path of up to 107 bytes, in a directory that you may write to"
            raise ConfigError(
                f"virtio-console: cannot listen on {path} for port {name}: {error.strerror or error}\n        {advice}",
                error.errno or errno.EINVAL,
            ) from error
        self.console = Console(listener, self, host.lock, host.loop)
        self.settle()

    def forget(self, index: int) -> None:
        """Let go of the driver's buffers in queue ``index``, if it is one of this port's."""
        if index == self.receive_queue:
            self._offered.clear()
            self._room = 0
        elif index == self.transmit_queue:
            self._sending = None
            self._waits = False

    def close(self) -> None:
        """Let the socket go. Harmless when repeated."""
        if self.console is not None:
            self.console.close()

    # --- from the guest --------------------------------------------------------------------------------------------

    def transmit(self) -> bool:
        """Pass on what the guest sends while the line takes it; return whether more waits."""
        queue = self._device.queues[self.transmit_queue]
        console = self.console
        assert console is not None
        for _ in range(PIECES):
            self._waits = not console.is_ready
            if self._waits:
                return False
            if self._sending is None:
                self._sending, self._sent = queue.take(), 0
            chain = self._sending
            if chain is None:
                return False
            data = chain.read(PIECE, self._sent)
            console.write(data)
            self._sent += len(data)
            if self._sent >= chain.readable_bytes:
                self._sending = None
                self._device.complete(queue, chain, 0)
            self.settle()
        return True

    # --- to the guest ----------------------------------------------------------------------------------------------

    def offered(self) -> bool:
        """Take the buffers that the driver offers, and fill them with what waits."""
        queue = self._device.queues[self.receive_queue]
        while (chain := queue.take()) is not None:
            if chain.readable:
                raise GuestError(
                    errno.EINVAL,
                    f"virtio-console: the driver sent {chain.readable_bytes:,} bytes in queue {queue.index}\n"
                    "        it must offer buffers that the device writes there",
                )
            self._offered.append(chain)
            self._room += chain.writable_bytes
        self.deliver()
        return False

    def deliver(self) -> None:
        """Give the guest what waits for it."""
        if self.console is not None:
            self.console.deliver()

    @property
    def room(self) -> int:
        """Bytes that the driver has room for."""
        return self._room if self.state.guest_open else 0

    def receive(self, data: bytes) -> None:
        """Fill the driver's buffers, no more than there is :attr:`room` for."""
        queue = self._device.queues[self.receive_queue]
        while data:
            chain = self._offered.popleft()
            self._room -= chain.writable_bytes
            written = chain.write(data)
            self._device.complete(queue, chain, written)
            data = data[written:]
        self._device.flush(queue)

    def settle(self) -> None:
        """Follow the line: who is there, and whether it takes more."""
        console = self.console
        if console is None:
            return
        if self.state.host_open != console.is_connected:
            self.state.host_open = console.is_connected
            try:
                self._device.tell()
            except GuestError as error:
                self._device.fail(error)
        if self._waits and console.is_ready:
            self._waits = False
            self._device.queue_kicked(self.transmit_queue)


def _ports(options: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return name and path of each port; raises ConfigError."""
    found: list[tuple[str, str]] = []
    while f"port.{len(found)}.name" in options or f"port.{len(found)}.path" in options:
        name, path = (options.get(f"port.{len(found)}.{key}", "") for key in ("name", "path"))
        if not name or not path:
            raise ConfigError(
                f"virtio-console: the port {name or len(found)} has no {'path' if name else 'name'}\n"
                "        write -s SLOT,virtio-console,NAME=PATH"
            )
        if len(name.encode(errors="surrogateescape")) > MAX_NAME or not name.isprintable():
            raise ConfigError(
                f"virtio-console: {name!r} cannot be a port's name\n        use up to {MAX_NAME} characters"
            )
        if name in (other for other, _ in found):
            raise ConfigError(f"virtio-console: two ports are called {name}\n        give each a name of its own")
        found.append((name, path))
    if not 1 <= len(found) <= MAX_PORTS:
        raise ConfigError(
            f"virtio-console: {len(found)} ports\n        give 1 to {MAX_PORTS}, as in -s SLOT,virtio-console,NAME=PATH"
        )
    return found

# SPDX-License-Identifier: BSD-2-Clause
"""A virtio-console with a driver and clients of its sockets."""

import asyncio
import contextlib
import socket
import struct

from ptnetmap.bhyve.devices.virtio_console import VirtioConsole
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import Buffer, MockDriver

DEADLINE = 20
BUFFER = 256
CONTROL_RX, CONTROL_TX = 2, 3
READY, ADD, PORT_READY, OPEN, NAME = 0, 1, 3, 6, 7


def queues(port):
    """The numbers of a port's queues: to the driver, to the device."""
    return (2 * port + 2, 2 * port + 3) if port else (0, 1)


class Pair:
    """A device with a driver, and clients of its sockets; ``turn`` lets the event loop run once."""

    def __init__(self, host, directory, count=2, *, legacy=False, features=(1 << 64) - 1, start=True):
        self.host = host
        host.loop = asyncio.new_event_loop()
        self.paths = [directory / f"port{number}" for number in range(count)]
        text = ",".join(f"org.test.{number}={path}" for number, path in enumerate(self.paths))
        self.device = VirtioConsole(host, Function(0, 5, 0), VirtioConsole.parse_options(text))
        self.driver = MockDriver(self.device, host.memory, legacy=legacy, span=0x20000)
        self.clients = []
        self.features = features
        if start:
            self.start()

    def start(self):
        """Start the driver, with buffers in all queues to it, and let it get ready for all ports."""
        self.driver.start(self.features)
        for index in [CONTROL_RX, *(queues(port)[0] for port in range(len(self.paths)))]:
            for _ in range(8):
                self.driver.queues[index].post([BUFFER])
            self.driver.kick(index)
        self.turn()

    def turn(self, rounds=4):
        for _ in range(rounds):
            self.host.loop.call_soon(self.host.loop.stop)
            self.host.loop.run_forever()

    def until(self, condition):
        deadline = self.host.loop.time() + DEADLINE
        while not condition():
            assert self.host.loop.time() < deadline
            self.turn()

    def say(self, port, event, value):
        """Send a control message."""
        self.send(CONTROL_TX, struct.pack("<IHH", port, event, value))

    def send(self, index, *pieces):
        self.driver.queues[index].send(pieces)
        self.driver.kick(index)
        self.turn()
        self.driver.queues[index].reap()

    def heard(self):
        """What the driver has been told since, as (port, event, value, rest); its buffers go back."""
        return [(*struct.unpack("<IHH", data[:8]), data[8:]) for data in self.got(CONTROL_RX)]

    def got(self, index):
        """The chains that came back in a queue to the driver; as many buffers are offered again."""
        data = [used.data for used in self.driver.queues[index].reap()]
        for _ in data:
            self.driver.queues[index].post([BUFFER])
        self.driver.kick(index)
        self.turn()
        return data

    def open(self, port):
        """Let the guest get ready, and open a port; nothing is left to hear."""
        self.say(0, READY, 1)
        self.say(port, PORT_READY, 1)
        self.say(port, OPEN, 1)
        self.heard()

    def connect(self, port):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.paths[port]))
        client.setblocking(False)
        self.clients.append(client)
        self.until(lambda: self.device.ports[port].console.is_connected)
        return client

    def close(self):
        for client in self.clients:
            client.close()
        self.device.close()
        self.device.close()
        self.host.loop.close()


def received(pair, client, count):
    """Exactly so many bytes from a client's socket."""
    data = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError):
            data.extend(client.recv(1 << 20))
        return len(data) >= count

    pair.until(read)
    assert len(data) == count
    return bytes(data)


def offer_the_same(pair, index, data, count):
    """Offer bytes in so many chains, which all lie in the same place."""
    queue = pair.driver.queues[index]
    place = queue.allocate(len(data))
    pair.host.memory.write(place, data)
    for _ in range(count):
        queue.add([Buffer(place, len(data))])
    pair.driver.kick(index)

# SPDX-License-Identifier: BSD-2-Clause
import gc
import os
import socket
from pathlib import Path

import pytest

from ptnetmap.abi import vhost_user as abi
from ptnetmap.netmap.vhost import Connection, MemoryRegion, message
from ptnetmap.testing.vhost import RecordingDevice

FEATURES = 1 << 5 | 1 << 32 | 1 << 34  # some of the device's own, VIRTIO_F_RING_PACKED among them

# Guest memory is two regions; its user addresses are not its guest addresses.
LOW = MemoryRegion(guest=0, size=0x10_0000, user=0x7F00_0000_0000, offset=0)
HIGH = MemoryRegion(guest=1 << 32, size=0x4000_0000, user=0x7F80_0000_0000, offset=0x1000)


def open_fds():
    listed = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}  # but for the one that listed them


@pytest.fixture(autouse=True)
def _no_leaks():
    """Count descriptors: after each test there are none that were not there before."""
    before = open_fds()
    yield
    if open_fds() - before:
        gc.collect()  # what tracebacks hold
    assert open_fds() - before == set()


class FrontEndScript:
    """Messages to a connection without any socket: ``send`` returns the reply's value, ``refused`` the errno."""

    def __init__(self, **options):
        self.device = RecordingDevice()
        options = {"features": FEATURES, "max_queues": 2, "config_size": 12} | options
        self.connection = Connection(self.device, **options)

    def send(self, name, value=None, fds=(), flags=0):
        number = getattr(abi, f"VHOST_USER_{name}")
        payload = message.REQUESTS[number].payload.encode(value)
        reply = self.connection.receive(number, abi.VHOST_USER_VERSION | flags, payload, list(fds))
        if reply is None:
            return None
        header = message.decode_header(reply.message[: message.HEADER_SIZE])
        assert header.request == number
        assert header.flags == abi.VHOST_USER_VERSION | abi.VHOST_USER_REPLY
        data = reply.message[message.HEADER_SIZE :]
        assert len(data) == header.size
        if message.REQUESTS[number].reply is None:
            return message.ACK.decode(data)
        value = message.REQUESTS[number].reply.decode(data)
        return (value, *reply.fds) if reply.fds else value

    def negotiate(self, features=FEATURES & ~(1 << 34) | abi.VHOST_USER_F_PROTOCOL_FEATURES, protocol_features=0):
        self.send("SET_FEATURES", features)
        self.send("SET_PROTOCOL_FEATURES", protocol_features)

    def set_memory(self, *regions):
        self.send("SET_MEM_TABLE", regions, [os.memfd_create("memory") for _ in regions])

    def address(self, queue=0, at=HIGH.user, flags=0, log=0):
        """Parts of a queue of up to 256 entries, one after the other."""
        return message.VringAddress(queue, flags, at, at + 0x2000, at + 0x1000, log)

    def set_queue(self, queue=0, num=256, base=0):
        self.send("SET_VRING_NUM", message.VringState(queue, num))
        self.send("SET_VRING_BASE", message.VringState(queue, base))
        self.send("SET_VRING_ADDR", self.address(queue))

    def set_file(self, which, queue=0, fd=None):
        fd = os.eventfd(0) if fd is None else fd
        self.send(f"SET_VRING_{which}", message.VringFile(queue, fd >= 0), [fd] if fd >= 0 else [])
        return fd

    def run_queue(self, queue=0, **how):
        self.set_queue(queue, **how)
        return self.set_file("KICK", queue)

    def calls(self):
        """What the device was asked since this was called last."""
        calls, self.device.calls = self.device.calls, []
        return calls

    def close(self):
        self.connection.close()
        self.device.close()


@pytest.fixture
def script():
    made = FrontEndScript()
    yield made
    made.close()


@pytest.fixture
def make_script():
    """Make one with options of its own; the test closes it."""
    return FrontEndScript


@pytest.fixture
def ready(script):
    """Settle features and memory: only queues are missing."""
    script.negotiate()
    script.set_memory(LOW, HIGH)
    script.calls()
    return script


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs

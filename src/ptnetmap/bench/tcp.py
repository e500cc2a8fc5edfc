# SPDX-License-Identifier: BSD-2-Clause
"""Cases of TCP between two network namespaces over a switch, by tap devices that are ports of it.

With offloads the kernel hands over frames of up to 64 KiB without checksums, which pass the switch whole; without, it makes
frames of the MTU, each of which costs it a system call and a way through its protocols.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import fcntl
import os
import socket
import struct
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.pair import Cores
from ptnetmap.bench.tap import available
from ptnetmap.errors import PtnetmapError

SEGMENT = 1448
"""Bytes of TCP in a frame of 1514: what is counted as a packet, however the bytes travel."""

_FRAME = 1514
_BLOCK = 1 << 20
_WITHIN = 30.0
_CLONE_NEWNET = 0x40000000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCETHTOOL = 0x8916, 0x891C, 0x8946
# ETHTOOL_STXCSUM, STSO, SGSO and SGRO; off in the order that the kernel wants, on in the other.
_OFFLOADS = (0x2C, 0x24, 0x1F, 0x17)


class Side:
    """A network namespace with a tap device and an address, and the thread that is in it."""

    def __init__(self, device: str, address: str) -> None:
        self.device = device
        self.address = address
        self.thread = ThreadPoolExecutor(1, device)
        self.fd: int = self.thread.submit(self._enter).result()

    def _enter(self) -> int:
        from ptnetmap.netmap.tapdevice import open_tap

        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            raise PtnetmapError(number, f"a network namespace of its own: {os.strerror(number)}")
        fd = open_tap(self.device)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, address in ((_SIOCSIFADDR, self.address), (_SIOCSIFNETMASK, "255.255.255.0")):
                place = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
                fcntl.ioctl(control, request, struct.pack("16s24s", self.device.encode(), place))
        return fd

    def offload(self, on: bool) -> None:
        """Let the kernel hand over unfinished frames, or not."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for command in reversed(_OFFLOADS) if on else _OFFLOADS:
                value = array.array("I", [command, int(on)])
                request = struct.pack("16sQ16x", self.device.encode(), value.buffer_info()[0])
                fcntl.ioctl(control, _SIOCETHTOOL, request)

    def close(self) -> None:
        """End the thread, and the namespace with it."""
        self.thread.shutdown()


class Stream:
    """Two namespaces, each a port of one switch, and TCP from the first to the second. Ended by :meth:`close`."""

    def __init__(self) -> None:
        from ptnetmap.netmap.daemon.host import Host
        from ptnetmap.netmap.daemon.tapport import TapPort

        self._host = Host()
        self.sides = [Side(f"tap{number}", f"10.0.0.{number}") for number in (1, 2)]
        self._ports = [TapPort(self._host, f"vale0:{side.device}", side.fd) for side in self.sides]
        self._block = os.urandom(_BLOCK)

    def run(self, offloads: bool, seconds: float, batch: int, cores: Cores) -> Result:
        """Send for so long, and compare some of what comes with what was sent. Packets are segments of 1,448 bytes."""
        for side in self.sides:
            side.thread.submit(side.offload, offloads).result()
        listening: Future[int] = Future()
        stop = threading.Event()
        received = self.sides[1].thread.submit(self._receive, listening)
        sent = self.sides[0].thread.submit(self._send, listening.result(_WITHIN), stop)
        time.sleep(seconds)
        stop.set()
        offered = sent.result(_WITHIN)
        octets, nanoseconds = received.result(_WITHIN)
        return Result(octets // SEGMENT, offered // SEGMENT, (offered - octets) // SEGMENT, nanoseconds, octets)

    def _send(self, port: int, stop: threading.Event) -> int:
        sent = 0
        with socket.create_connection((self.sides[1].address, port), _WITHIN) as connection:
            while not stop.is_set():
                connection.sendall(self._block)
                sent += _BLOCK
        return sent

    def _receive(self, listening: Future[int]) -> tuple[int, int]:
        """Return the bytes that came, and the nanoseconds from the first to the last."""
        block = bytearray(_BLOCK)
        blocks = 0
        with socket.create_server((self.sides[1].address, 0)) as server:
            server.settimeout(_WITHIN)
            listening.set_result(server.getsockname()[1])
            connection, _ = server.accept()
        with connection:
            # A timeout of Python's would make the socket one that does not wait for all of a block.
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("qq", int(_WITHIN), 0))
            connection.recv(1, socket.MSG_PEEK)
            first = time.monotonic_ns()
            while connection.recv_into(block, _BLOCK, socket.MSG_WAITALL) == _BLOCK:
                blocks += 1
                if blocks % 16 == 1 and block != self._block:
                    raise PtnetmapError(0, "what came by TCP is not what was sent")
        return blocks * _BLOCK, time.monotonic_ns() - first

    def close(self) -> None:
        """Take the devices off the switch, and remove the namespaces."""
        for port in self._ports:
            port.close()
        for side in self.sides:
            side.close()
        self._host.close()


class _Streams:
    """The stream of this process, which is made when it is first needed."""

    def __init__(self) -> None:
        self._stream: Stream | None = None

    def run(self, offloads: bool, seconds: float, batch: int, cores: Cores) -> Result:
        if self._stream is None:
            self._stream = Stream()
            atexit.register(self._stream.close)
        return self._stream.run(offloads, seconds, batch, cores)


streams = _Streams()


def tcp_cases() -> list[Case]:
    """TCP with offloads against TCP without; none where there can be no tap devices."""
    if not available():
        return []
    rival = "peer/tcp_without_offloads"
    return [
        Case("virtio/tcp_with_offloads", _FRAME, 1, partial(streams.run, True), rival, floor=5.0),
        Case(rival, _FRAME, 1, partial(streams.run, False)),
    ]

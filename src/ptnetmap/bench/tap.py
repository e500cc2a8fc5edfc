# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Cases of a tap device behind a guest's queues, against a bare loop of writes or reads on the same device.

Both run in one thread, so that nothing but the work itself is compared: the driver of the queues is a few stores in the
same loop. The device is in a network namespace of its own, without an address. What it is to receive is queued there
before the clock runs.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ptnetmap.abi import virtio_pci
from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.pair import Cores
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import read, write
from ptnetmap.jit.memory import load16, store16
from ptnetmap.netmap import queueserve
from ptnetmap.netmap.allocator import GLOBAL_ID
from ptnetmap.netmap.queuestate import Region
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.virtioport import Setup, VirtioAdapter

SIZES = (60, 1514)
BATCH = 256
"""Packets that are offered, or wait, at a time; entries of the queues."""

_NAME = "bench"
_HEADER = 12
_BUFFER = 2048
_AVAIL, _USED, _BUFFERS = 4096, 8192, 16384
_MEMORY = _BUFFERS + BATCH * _BUFFER
_GUEST = 1 << 32
_NO_INTERRUPT = 1
_CLONE_NEWNET = 0x40000000
_FEATURES = virtio_pci.VIRTIO_F_VERSION_1 | virtio_pci.VIRTIO_NET_F_MRG_RXBUF


@kernel
def offer_and_serve(k, batch, memory, packets):
    """Offer chains, and serve the queue until nothing moves. Returns the chains that came back."""
    before = load16(memory + _USED + 2)
    store16(memory + _AVAIL + 2, load16(memory + _AVAIL + 2) + packets)
    while queueserve.serve_queue(k, batch) == queueserve.MOVED:
        pass
    return (load16(memory + _USED + 2) - before) & 0xFFFF


@kernel
def write_all(fd, at, length, packets):
    """Write packets, each from its own buffer. Returns how many were taken."""
    taken = 0
    for packet in range(packets):
        if write(fd, at + packet * _BUFFER, length) == length:
            taken += 1
    return taken


@kernel
def read_all(fd, at, packets):
    """Read packets, each into its own buffer, until there are no more. Returns how many came."""
    for packet in range(packets):
        if read(fd, at + packet * _BUFFER, _BUFFER) < 0:
            return packet
    return packets


class Queue:
    """Guest memory with one split queue of buffers, each the chain of its own entry, and the kring that serves it."""

    def __init__(self, adapter: VirtioAdapter, index: int) -> None:
        self.memory = Block("u1", _MEMORY)
        octets = self.memory.items
        octets[:] = 0
        writable = 2 if index == 0 else 0
        entries = octets[: 16 * BATCH].view("<u8,<u4,<u2,<u2")
        for entry in range(BATCH):
            entries[entry] = (_GUEST + _BUFFERS + entry * _BUFFER, _BUFFER, writable, 0)
        self._lengths = entries["f1"]
        octets[_AVAIL + 4 : _AVAIL + 4 + 2 * BATCH].view("<u2")[:] = range(BATCH)
        octets[_AVAIL] = _NO_INTERRUPT
        setup = Setup(BATCH, _GUEST, _GUEST + _AVAIL, _GUEST + _USED, 0, 0)
        adapter.start_queue(index, setup, [Region(_GUEST, _MEMORY, self.memory.address)], _FEATURES)
        self.kring = adapter.queue(index).address

    @property
    def buffers(self) -> int:
        """Address of the buffers."""
        return self.memory.address + _BUFFERS

    def fill(self, packet: bytes) -> None:
        """Have every chain hold this packet, of that length."""
        for entry in range(BATCH):
            at = _BUFFERS + entry * _BUFFER
            self.memory.items[at : at + len(packet)] = list(packet)
        self._lengths[:] = len(packet)

    def move(self, packets: int) -> int:
        """Offer chains and have them served; return how many came back."""
        return offer_and_serve(self.kring, scratch(), self.memory.address, packets)


class Device:
    """A tap device in a namespace of its own, and a port joined to it. Everything is done in one thread, which is there."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "tap")
        self._do(self._open)

    def close(self) -> None:
        """Remove the device, and its namespace with it."""
        for index in range(2):
            self._adapter.stop_queue(index)
        self._sender.close()
        os.close(self._fd)
        self._adapter.drop()
        self._netmap.close()
        self._thread.shutdown()

    def _do(self, work: Callable[..., Result | None], *arguments: object) -> Result | None:
        return self._thread.submit(work, *arguments).result()

    def _open(self) -> None:
        from ptnetmap.netmap.tapdevice import open_tap

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            raise PtnetmapError(number, f"a network namespace of its own: {os.strerror(number)}")
        for name in ("all", "default"):
            knob = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
            if knob.exists():
                knob.write_text("1")
        self._fd = open_tap(_NAME)
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sender.bind((_NAME, 0))
        self._netmap = Netmap()
        allocator = self._netmap.allocators.find(GLOBAL_ID)
        adapter = VirtioAdapter(_NAME, self._netmap.epoch, allocator, 1, BATCH)
        adapter.retain()
        adapter.join_tap(self._fd)
        self._receive, self._transmit = Queue(adapter, 0), Queue(adapter, 1)
        self._adapter = adapter
        for queue in (self._receive, self._transmit):  # compiled before the clock runs
            queue.move(0)
        write_all(self._fd, self._transmit.buffers, 0, 0)
        read_all(self._fd, self._receive.buffers, 0)

    def run(self, whose: str, way: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """Move packets of ``size`` bytes ``out`` to the device or ``in`` from it, by our queue or by a bare loop."""
        result = self._do(self._run, whose, way, size, seconds, cores)
        assert result is not None
        return result

    def _run(self, whose: str, way: str, size: int, seconds: float, cores: Cores) -> Result:
        if cores:
            os.sched_setaffinity(0, {cores[0]})
        frame = bytes.fromhex("02000000000a02000000000b88b5").ljust(size, b"\x55")
        packet = bytes(_HEADER) + frame
        self._transmit.fill(packet)
        moves = {
            ("ours", "out"): lambda: self._transmit.move(BATCH),
            ("bare", "out"): lambda: write_all(self._fd, self._transmit.buffers, len(packet), BATCH),
            ("ours", "in"): lambda: self._receive.move(BATCH),
            ("bare", "in"): lambda: read_all(self._fd, self._receive.buffers, BATCH),
        }
        move = moves[whose, way]
        end = time.monotonic() + seconds
        offered = moved = spent = 0
        while time.monotonic() < end:
            if way == "in":
                for _ in range(BATCH):
                    self._sender.send(frame)
            before = time.monotonic_ns()
            moved += move()
            spent += time.monotonic_ns() - before
            offered += BATCH
        return Result(moved, offered, offered - moved, spent, moved * size)


class _Devices:
    """The device of this process, which is made when it is first needed."""

    def __init__(self) -> None:
        self._device: Device | None = None

    def run(self, *arguments: object) -> Result:
        if self._device is None:
            self._device = Device()
            atexit.register(self._device.close)
        return self._device.run(*arguments)


devices = _Devices()


def available() -> bool:
    """Whether a tap device can be had here, in a namespace of its own: by root, where there is /dev/net/tun."""
    return os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK)


def tap_cases() -> list[Case]:
    """Queues on a tap device, each against a bare loop; none where such a device cannot be made."""
    if not available():
        return []
    cases = []
    for way in ("out", "in"):
        rival = f"peer/tap_loop/{way}"
        for size in SIZES:
            cases.append(
                Case(f"virtio/tap_{way}", size, BATCH, partial(devices.run, "ours", way, size), rival, floor=0.9)
            )
            cases.append(Case(rival, size, BATCH, partial(devices.run, "bare", way, size)))
    return cases

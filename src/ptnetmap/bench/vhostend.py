# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Our end of a vhost-user link, for a driver of somebody else's: a process that serves the socket and moves packets.

It is the worker of a port whose memory may vanish, with a sink and a source in place of the way to other processes: one
thread collects what the driver sends, looks it up, copies it to a port of a switch and counts it there, or fills that
port's buffers and sends them to the driver. ``reflect`` gives the driver its own packets back, in one copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptnetmap.errors import PeerError
from ptnetmap.jit.atomic import load32_acquire
from ptnetmap.jit.block import Block, offsets
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.memory import load32, load64, store32, store64
from ptnetmap.jit.warmup import compile_now
from ptnetmap.netmap.client.virtioport import MemoryRegion, QueueSetup
from ptnetmap.netmap.kring import (
    HEAD_AT,
    HWCUR,
    LOCK,
    NUM_SLOTS,
    PEER_TAIL,
    RING,
    SLOT_SIZE,
    SLOTS,
    STATE,
    STATE_ON,
    TAIL_AT,
    distance,
    enter,
    leave,
)
from ptnetmap.netmap.lease import lock, unlock
from ptnetmap.netmap.queuecollect import collect_virtqueue, complete_virtqueue
from ptnetmap.netmap.queuedeliver import deliver_virtqueue
from ptnetmap.netmap.queuering import queue_suppress_kicks
from ptnetmap.netmap.queueserve import serve_transmit
from ptnetmap.netmap.queuestate import Region as QueueRegion
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.shared import Mapping
from ptnetmap.netmap.sync import rxsync, txsync
from ptnetmap.netmap.vhost.channel import Channel
from ptnetmap.netmap.vhost.connection import Connection
from ptnetmap.netmap.vhost.portdevice import PROTOCOL_FEATURES, PortDevice
from ptnetmap.netmap.virtioport import NET_FEATURES, RING_FEATURES, Setup

STOP, SINK, SOURCE, REFLECT = range(4)

pump_state = np.dtype(
    [
        ("mode", "u4"),
        ("burst", "u4"),
        ("length", "u4"),
        ("_pad", "V4"),
        ("transmit", "u8"),
        ("receive", "u8"),
        ("sink", "u8"),
        ("source", "u8"),
        ("received", "u8"),
        ("sent", "u8"),
        ("bytes", "u8"),
    ]
)
"""What the loop is to do (``mode``), with which krings, and what it has done."""

_MODE = offsets(pump_state)["mode"]
_BURST = offsets(pump_state)["burst"]
_LENGTH = offsets(pump_state)["length"]
_TRANSMIT = offsets(pump_state)["transmit"]
_RECEIVE = offsets(pump_state)["receive"]
_SINK = offsets(pump_state)["sink"]
_SOURCE = offsets(pump_state)["source"]
_RECEIVED = offsets(pump_state)["received"]
_SENT = offsets(pump_state)["sent"]
_BYTES = offsets(pump_state)["bytes"]


@kernel
def pump(state, batch):
    """Move packets as ``mode`` says, until it says STOP."""
    while True:
        mode = load32_acquire(state + _MODE)
        if mode == SINK:
            sink(state, batch)
        elif mode == SOURCE:
            source(state, batch)
        elif mode == REFLECT:
            reflect(state, batch)
        else:
            return 0


@kernel
def sink(state, batch):
    """Take what the driver sends through the switch, and count it as its receiver does."""
    serve_transmit(load64(state + _TRANSMIT), batch)
    k = load64(state + _SINK)
    came = distance(load32(k + HWCUR), load32_acquire(k + PEER_TAIL), load32(k + NUM_SLOTS))
    if came == 0:
        return
    rxsync(k, batch, 0)
    tail = load32(load64(k + TAIL_AT))
    store64(
        state + _RECEIVED,
        load64(state + _RECEIVED) + distance(load32(load64(k + HEAD_AT)), tail, load32(k + NUM_SLOTS)),
    )
    store32(load64(k + HEAD_AT), tail)
    store32(load64(k + HEAD_AT) + 4, tail)
    rxsync(k, batch, 0)


@kernel
def source(state, batch):
    """Send a burst of frames, which are in the buffers already, to the driver."""
    k = load64(state + _SOURCE)
    n = load32(k + NUM_SLOTS)
    head = load32(load64(k + HEAD_AT))
    count = min(distance(head, load32(load64(k + TAIL_AT)), n), load32(state + _BURST))
    at = head
    for _ in range(count):
        store32(load64(k + SLOTS) + at * SLOT_SIZE + 4, load32(state + _LENGTH))
        at = at + 1 if at + 1 < n else 0
    store32(load64(k + HEAD_AT), at)
    store32(load64(k + HEAD_AT) + 4, at)
    txsync(k, batch)
    store64(state + _SENT, load64(state + _SENT) + count)


@kernel
def reflect(state, batch):
    """Give the driver back what it sends."""
    tx = load64(state + _TRANSMIT)
    rx = load64(state + _RECEIVE)
    if not enter(tx):
        return
    if load32(tx + STATE) == STATE_ON and load32(rx + STATE) == STATE_ON:
        _, packets = collect_virtqueue(load64(tx + RING), batch, load32(state + _BURST))
        if packets > 0:
            lock(rx + LOCK)
            done, delivered, octets = deliver_virtqueue(load64(rx + RING), batch, 0, packets, 0, 1514)
            unlock(rx + LOCK)
            complete_virtqueue(load64(tx + RING), batch, done)
            store64(state + _RECEIVED, load64(state + _RECEIVED) + delivered)
            store64(state + _BYTES, load64(state + _BYTES) + octets)
    leave(tx)


class Device(PortDevice):
    """The device of a connection, in this process: its memory may vanish, and this process with it."""

    def __init__(self, adapter) -> None:
        super().__init__(_Ports(adapter), 1)


class _Ports:
    """The one port that there is."""

    def __init__(self, adapter) -> None:
        self.port = _Port(adapter)
        self.set_memory = self.port.set_memory


class _Port:
    """What a :class:`PortDevice` asks of a port, done here: the loop polls, so nobody needs to kick."""

    features = NET_FEATURES | RING_FEATURES

    def __init__(self, adapter) -> None:
        self.running: set[int] = set()
        self._adapter = adapter
        self._regions: list[QueueRegion] = []
        self._mappings: list[Mapping] = []

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        self._mappings = [Mapping(one.fd, one.offset + one.size) for one in regions]
        self._regions = [
            QueueRegion(one.guest, one.size, mapping.address + one.offset)
            for one, mapping in zip(regions, self._mappings, strict=True)
        ]

    def start(self, index: int, setup: QueueSetup, features: int, kick: int, call: int) -> None:
        self._adapter.start_queue(index, Setup(*setup), self._regions, features)
        queue_suppress_kicks(self._adapter.queue(index).block["ring"], 1)
        self.running.add(index)

    def stop(self, index: int) -> tuple[int, int]:
        self.running.discard(index)
        return self._adapter.stop_queue(index)

    def set_mtu(self, mtu: int) -> None:
        """Nothing is segmented here."""


class End:
    """The process: serves the socket at ``path``, does what the lines on standard input say.

    Lines: ``sink``, ``source LENGTH BURST``, ``reflect BURST``, ``stop``, ``stats``; each is answered by a line.
    """

    def __init__(self, path: Path) -> None:
        compile_now(pump)
        self._netmap = Netmap()
        self._adapter = self._netmap._directory.new_virtio("vale0:driver", 1, 1024)
        self._adapter.retain()
        # DPDK's sender takes the buffers that it freed last, which are in the core's cache; a ring of 256 slots is, too.
        self._port = self._netmap.open("vale0:end@conf:tx_slots=256", lossless=True)
        self._state = Block(pump_state)
        self._state["transmit"] = self._adapter.tx[0].address
        self._state["receive"] = self._adapter.rx[0].address
        self._state["sink"] = self._port.rx_krings[0]
        self._state["source"] = self._port.tx_krings[0]
        self._thread: threading.Thread | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def run(self) -> None:
        """Serve until standard input ends."""
        print("ready", flush=True)
        channel: Channel | None = None
        device = Device(self._adapter)
        connection = Connection(device, features=device.offered, protocol_features=PROTOCOL_FEATURES, max_queues=2)
        while True:
            watched = [sys.stdin, self._listener] + ([channel] if channel else [])
            readable, _, _ = select.select(watched, [], [])
            if sys.stdin in readable:
                line = sys.stdin.readline()
                if not line:
                    break
                print(self.do(line.split()), flush=True)
            if self._listener in readable:
                peer, _ = self._listener.accept()
                channel = Channel(peer)
            if channel in readable:
                try:
                    while (received := channel.receive()) is not None:
                        reply = connection.receive(*received)
                        if reply is not None:
                            channel.send(*reply)
                except PeerError as error:
                    if error.errno != errno.ECONNRESET:
                        print(error, file=sys.stderr)
                    break
        self._mode(STOP)

    def do(self, words: list[str]) -> str:
        """Carry out one line."""
        match words:
            case ["stats"]:
                return f"{self._state['received']} {self._state['sent']} {time.monotonic_ns()}"
            case ["sink"]:
                self._mode(SINK)
            case ["source", length, burst]:
                self._fill(int(length))
                self._state["length"], self._state["burst"] = int(length), int(burst)
                self._mode(SOURCE)
            case ["reflect", burst]:
                self._state["burst"] = int(burst)
                self._mode(REFLECT)
            case _:
                self._mode(STOP)
        return "done"

    def _fill(self, length: int) -> None:
        ring = self._port.tx_rings[0]
        frame = bytes.fromhex("ffffffffffff02000000000188b5").ljust(length, b"\x55")
        for slot in range(ring.num_slots):
            ring.buffer(slot)[:length] = np.frombuffer(frame, np.uint8)

    def _mode(self, mode: int) -> None:
        self._state["mode"] = STOP
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._state["mode"] = mode
        if mode != STOP:
            self._thread = threading.Thread(target=lambda: pump(self._state.address, scratch()), daemon=True)
            self._thread.start()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    with contextlib.suppress(KeyboardInterrupt):
        End(Path(sys.argv[1])).run()

# SPDX-License-Identifier: BSD-2-Clause
"""The embedded runtime's cases: pipes and VALE switches, one way and from several senders.

A VALE receiver is lossless, so that the rate means packets that arrived, not packets that were offered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ptnetmap.bench import traffic
from ptnetmap.bench.frame import Case, Result
from ptnetmap.bench.pair import Cores, run_pair
from ptnetmap.jit.block import Block
from ptnetmap.netmap.learning import mac_hash
from ptnetmap.netmap.port import Port
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

SIZES = (60, 256, 1514)
BATCHES = (1, 16, 256)
IDLE_PORTS = 62
ACTIVE_PORTS = 64

FLOORS = {
    ("pipe", 60, 256): 0.6,
    ("vale", 60, 256): 0.5,
    ("vale", 1514, 256): 0.7,
    ("vale/idle_ports", 60, 256): round(1 / 1.1, 4),
}
"""What the ratio of a case is wanted to be at least."""

_FOREVER = 1 << 62
_GIVEN_BACK_AT_ONCE = 256


def runtime_cases() -> list[Case]:
    """Each case at each size and batch; the odd ones at one size and batch."""
    pipe = [_case("pipe", size, batch, _pipe, "roofline/R_zc") for size in SIZES for batch in BATCHES]
    vale = [_case("vale", size, batch, _vale, f"roofline/R_c{size}") for size in SIZES for batch in BATCHES]
    others = [
        _case("vale/idle_ports", 60, 256, partial(_vale, idle=IDLE_PORTS), "vale"),
        _case("vale/2senders", 60, 256, partial(_vale, senders=2), "vale"),
        _case("vale/64active", 60, 256, _all_active, "vale"),
    ]
    return pipe + vale + others


def _case(name: str, size: int, batch: int, run: Callable[..., Result], against: str) -> Case:
    return Case(name, size, batch, partial(run, size), against, floor=FLOORS.get((name, size, batch)))


def mac(number: int) -> bytes:
    """A local MAC address."""
    return bytes((0x02, 0, 0, 0, number >> 8, number & 0xFF))


def fill_buffers(port: Port, destination: bytes, source: bytes, size: int) -> None:
    """Write the frame that is sent again and again into every buffer of a port's TX rings."""
    frame = np.frombuffer((destination + source + b"\x88\xb5").ljust(size, b"\x55"), np.uint8)
    for ring in port.tx_rings:
        for i in range(ring.num_slots):
            ring.buffer(i)[:size] = frame


def _pipe(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    with Netmap() as nm, nm.open("netmap:bench{1") as sender, nm.open("netmap:bench}1") as receiver:
        fill_buffers(sender, mac(2), mac(1), size)
        return _one_way([sender], receiver, size, seconds, batch, cores)


def _vale(size: int, seconds: float, batch: int, cores: Cores, *, senders: int = 1, idle: int = 0) -> Result:
    with Netmap() as nm, nm.open("vale0:rx", lossless=True) as receiver:
        sending = [nm.open(f"vale0:tx{i}") for i in range(senders)]
        waiting = [nm.open(f"vale0:i{i}") for i in range(idle)]
        for number, port in enumerate(sending):
            fill_buffers(port, mac(0), mac(number + 1), size)
        _introduce(receiver, mac(0), [*sending, *waiting])
        return _one_way(sending, receiver, size, seconds, batch, cores)


def introduction(address: bytes) -> bytes:
    """Return a broadcast frame from ``address``, which tells a switch where that is."""
    return b"\xff" * 6 + address + b"\x88\xb5" + bytes(46)


def _introduce(port: Port, address: bytes, others: list[Port]) -> None:
    """Let the switch learn where an address is, and take the frame that told it from everybody's ring."""
    port.send([introduction(address)])
    for other in others:
        other.recv(timeout=0)


def _one_way(senders: list[Port], receiver: Port, size: int, seconds: float, batch: int, cores: Cores) -> Result:
    shared = [Block(traffic.run) for _ in senders]
    figures = shared[0]
    sources = [port.tx_krings[0] for port in senders]
    target = receiver.rx_krings[0]
    deadline = 0

    def send(index: int) -> int:
        return int(traffic.send(sources[index], scratch(), shared[index].address, batch, size, _FOREVER, deadline))

    def receive() -> int:
        return int(traffic.receive(target, scratch(), figures.address, _GIVEN_BACK_AT_ONCE))

    def stop(word: int) -> None:
        for block in shared:
            block["stop"] = word

    def send_all() -> int:
        if len(senders) == 1:
            offered = send(0)
        else:
            others, offered = run_pair(lambda: send(1), lambda: send(0), stop=lambda: stop(2))
            offered += others
        figures["stop"] = 1
        return offered

    send(0)  # nothing is sent: kernels are compiled before there are threads
    figures["stop"] = 1
    receive()
    for block in shared:
        block.items[:] = np.zeros((), traffic.run)
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    offered, received = run_pair(send_all, receive, stop=lambda: stop(2), cores=cores)
    return Result(received, offered, offered - received, figures["last"] - figures["first"], figures["bytes"])


def _apart(count: int) -> list[bytes]:
    """Return ``count`` addresses that have an entry each in the learning table: a collision would be a flood."""
    place = getattr(mac_hash, "py_func", mac_hash)
    entries: dict[int, bytes] = {}
    number = 0
    while len(entries) < count:
        number += 1
        entries.setdefault(place(int.from_bytes(mac(number), "little")), mac(number))
    return list(entries.values())


def _all_active(size: int, seconds: float, batch: int, cores: Cores) -> Result:
    """32 ports send to 32 others, each pair its own addresses: more memory than any cache."""
    pairs = ACTIVE_PORTS // 2
    with Netmap() as nm:
        receivers = [nm.open(f"vale0:r{i}", lossless=True) for i in range(pairs)]
        senders = [nm.open(f"vale0:s{i}") for i in range(pairs)]
        addresses = _apart(ACTIVE_PORTS)
        for i, (sender, receiver) in enumerate(zip(senders, receivers, strict=True)):
            fill_buffers(sender, addresses[i], addresses[pairs + i], size)
            _introduce(receiver, addresses[i], [*receivers, *senders])
        sources = np.array([port.tx_krings[0] for port in senders], np.int64)
        targets = np.array([port.rx_krings[0] for port in receivers], np.int64)
        figures = Block(traffic.run)
        deadline = 0

        def send() -> int:
            n = traffic.send_many(
                sources.ctypes.data, pairs, scratch(), figures.address, batch, size, _FOREVER, deadline
            )
            figures["stop"] = max(figures["stop"], 1)
            return int(n)

        def receive() -> int:
            return int(traffic.receive_many(targets.ctypes.data, pairs, scratch(), figures.address))

        figures["stop"] = 1
        send()
        receive()
        figures.items[:] = np.zeros((), traffic.run)
        deadline = time.monotonic_ns() + int(seconds * 1e9)
        offered, received = run_pair(send, receive, stop=lambda: figures.__setitem__("stop", 2), cores=cores)
        return Result(received, offered, offered - received, figures["last"] - figures["first"], figures["bytes"])

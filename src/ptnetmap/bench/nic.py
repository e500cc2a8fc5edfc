# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Cases of a network interface: a veth pair in a network namespace of its own, one end ours or DPDK's by AF_XDP.

The other end is the kernel's, and the same for whoever is measured. What it sends comes from a packet socket, in a
compiled loop; what it receives is what its own counter says. Each run opens the interface and leaves it, so that all
have the same one in turn.
"""

from __future__ import annotations

import atexit
import errno
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ptnetmap.bench import testpmd, traffic
from ptnetmap.bench.frame import Case, Figure, Probe, Result, figure
from ptnetmap.bench.guestend import GuestEnd
from ptnetmap.bench.guestend import unavailable as no_guest
from ptnetmap.bench.pair import Cores, run_pair, two_cores
from ptnetmap.bench.prompt import Prompt
from ptnetmap.bench.runtime import fill_buffers, mac
from ptnetmap.bench.stage import OwnNetmapd
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns, sendto
from ptnetmap.netmap.nic.netns import Namespace
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

SIZES = (60, 1514)
BATCH = 256
BURSTS = (32, 64, 256)
"""What testpmd may take or give at once; the best is found once for each row."""

OURS, THEIRS = "va", "vb"
"""The end that is measured, and the kernel's."""

_LINK = testpmd.Link("af_xdp", (f"net_af_xdp0,iface={OURS}",) * 2)
_HOST, _PEER = mac(1), mac(2)
_FOREVER = 1 << 62
_CHECK_EVERY = 64
_TRY = 0.1
_QUIET_MS = 300
_WITHIN = 20.0
_GUEST_WITHIN = 60.0
_SHARE_SECONDS, _SHARE_TURNS = 1.0, 500
_MOST_SHARE = 10
_REPORT = 14.88
"""Mpps of a guest in 2015: the line rate of 10 Gbit/s, which no veth has."""
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20
_TABLE = 1 << 16


@kernel
def send_frames(fd, at, length, packets, deadline):
    """Send one frame on a packet socket again and again: ``packets`` or a few more, or until ``deadline``.

    The deadline is of CLOCK_MONOTONIC. Returns how many went.
    """
    sent = 0
    while sent < packets and clock_ns(CLOCK_MONOTONIC) < deadline:
        for _ in range(_CHECK_EVERY):
            if sendto(fd, at, length, 0, 0, 0) == length:
                sent += 1
    return sent


def frame_for(destination: bytes, source: bytes, size: int) -> bytes:
    """Return the frame that is sent again and again."""
    return (destination + source + b"\x88\xb5").ljust(size, b"\x55")


def received_packets(table: str, interface: str) -> int:
    """Packets that an interface has received, of the text of /proc/net/dev; ENODEV if it is not there."""
    for line in table.splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == interface:
            return int(figures.split()[1])
    raise PtnetmapError(errno.ENODEV, f"{interface} has gone from the benchmark's namespace\n        run it again")


class Veth:
    """A pair of interfaces in a namespace of its own, which goes with it; :meth:`close`, or this process's end, does."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        try:
            self.namespace = Namespace()
            self._opened.callback(self.namespace.close)
            self.namespace.run(self._make)
        except BaseException:
            self._opened.close()
            raise

    def _make(self) -> None:
        for which in ("all", "default"):
            knob = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
            if knob.exists():
                knob.write_text("1")
        self._ip(f"link add {OURS} type veth peer name {THEIRS}", f"link set {OURS} up", f"link set {THEIRS} up")
        self._table = os.open("/proc/thread-self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        self._opened.callback(os.close, self._table)
        self._socket = self._opened.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((THEIRS, 0))

    def _ip(self, *commands: str) -> None:
        subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)

    def detach(self) -> None:
        """Take off the XDP program that a killed testpmd leaves behind."""
        self.namespace.run(lambda: self._ip(f"link set dev {OURS} xdp off"))

    def seen(self) -> int:
        """Packets that the kernel's end has received."""
        return received_packets(os.pread(self._table, _TABLE, 0).decode(), THEIRS)

    def send(self, size: int, seconds: float, packets: int = _FOREVER) -> tuple[int, int]:
        """Send from the kernel's end; return how many frames went, in how many nanoseconds."""
        frame = np.frombuffer(frame_for(_HOST, _PEER, size), np.uint8)
        began = time.monotonic_ns()
        sent = int(send_frames(self._socket.fileno(), frame.ctypes.data, size, packets, began + int(seconds * 1e9)))
        return sent, time.monotonic_ns() - began

    def close(self) -> None:
        """Remove it."""
        self._opened.close()


class Bench:
    """The veth pair, the netmapd in its namespace, and what was found best for testpmd."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._veth: Veth | None = None
        self._netmapd: OwnNetmapd | None = None
        self._bursts: dict[tuple[str, int], int] = {}

    @property
    def veth(self) -> Veth:
        """The pair; made if there is none."""
        if self._veth is None:
            self._veth = Veth()
            self._opened.callback(self._veth.close)
        return self._veth

    @property
    def netmapd(self) -> OwnNetmapd:
        """A netmapd in the pair's namespace; started if there is none."""
        if self._netmapd is None:
            self._netmapd = self.veth.namespace.run(OwnNetmapd)
            self._opened.callback(self._netmapd.close)
        return self._netmapd

    def close(self) -> None:
        """End and remove everything."""
        self._veth = self._netmapd = None
        self._opened.close()

    # -- ours -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _port(self) -> Iterator[object]:
        """Open the interface in this process."""
        with ExitStack() as stack:
            netmap = stack.enter_context(self.veth.namespace.run(Netmap))
            yield stack.enter_context(self.veth.namespace.run(lambda: netmap.open(f"netmap:{OURS}")))

    def transmit(self, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """Send through ``netmap:va``."""
        shared = Block(traffic.run)
        with self._port() as port:
            fill_buffers(port, _PEER, _HOST, size)
            kring = port.tx_krings[0]

            def send(wanted: float) -> tuple[int, int]:
                began = time.monotonic_ns()
                deadline = began + int(wanted * 1e9)
                sent = int(traffic.send(kring, scratch(), shared.address, batch, size, _FOREVER, deadline))
                return sent, time.monotonic_ns() - began

            send(0)  # a batch at the most: compiled before the clock runs
            before = self.veth.seen()
            (offered, took), _ = run_pair(
                lambda: send(seconds),
                lambda: None,
                stop=lambda: shared.__setitem__("stop", 2),
                cores=cores or two_cores(),
            )
            received = self.veth.seen() - before
        return Result(received, offered, max(offered - received, 0), took, received * size)

    def receive(self, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """Receive through ``netmap:va``."""
        shared = Block(traffic.run)
        with self._port() as port:
            kring = port.rx_krings[0]

            def receive() -> int:
                return int(traffic.receive(kring, scratch(), shared.address, batch))

            def send() -> tuple[int, int]:
                try:
                    return self.veth.send(size, seconds)
                finally:
                    shared["stop"] = 1

            shared["stop"] = 1
            receive()
            self.veth.send(size, 0)
            shared.items[:] = np.zeros((), traffic.run)
            (offered, took), received = run_pair(
                send, receive, stop=lambda: shared.__setitem__("stop", 2), cores=cores or two_cores()
            )
        return Result(received, offered, offered - received, took, shared["bytes"])

    def share_sending(self, size: int) -> float:
        """Percentage of a sending thread's time that it spends outside of the kernel; it never waits."""
        used = []
        shared = Block(traffic.run)
        with self._port() as port:
            fill_buffers(port, _PEER, _HOST, size)

            def send(seconds: float) -> None:
                before = resource.getrusage(resource.RUSAGE_THREAD)
                deadline = time.monotonic_ns() + int(seconds * 1e9)
                traffic.send(port.tx_krings[0], scratch(), shared.address, BATCH, size, _FOREVER, deadline)
                after = resource.getrusage(resource.RUSAGE_THREAD)
                used[:] = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime

            send(0)
            run_pair(lambda: send(_SHARE_SECONDS), lambda: None, stop=lambda: shared.__setitem__("stop", 2))
        return 100 * used[0] / sum(used)

    def share_receiving(self, size: int) -> float:
        """Percentage of the time of a frame that our receiving takes of it.

        One thread sends frames from the kernel's end, and then takes those that wait: the first is the kernel's time,
        sending and receiving, the second ours with our system calls.
        """
        shared = Block(traffic.run)
        shared["stop"] = 1
        kernels = ours = 0
        with self._port() as port:
            for turn in range(_SHARE_TURNS):
                sent, took = self.veth.send(size, _WITHIN, BATCH)
                began = time.monotonic_ns()
                taken = int(traffic.receive(port.rx_krings[0], scratch(), shared.address, BATCH))
                if turn and taken == sent:  # the first compiles
                    kernels += took
                    ours += time.monotonic_ns() - began
        return 100 * ours / (ours + kernels) if kernels else 100.0

    # -- DPDK's -----------------------------------------------------------------------------------------------------------

    def dpdk(self, way: str, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """The same with testpmd's net_af_xdp, at the burst that suits it best."""
        chosen = cores or two_cores()
        run = self._dpdk_out if way == "transmit" else self._dpdk_in
        sender = 1 if way == "transmit" else 0  # end 1's worker has the first core, as our sender
        with tempfile.TemporaryDirectory(prefix="ptnetmap-testpmd-") as directory:
            command = testpmd.command_line(_LINK, sender, chosen, directory)
            environment = {**os.environ, "RUNTIME_DIRECTORY": directory}
            end = self.veth.namespace.run(lambda: Prompt(command, environment, "testpmd> ", _WITHIN))
            try:
                key = way, size
                if key not in self._bursts:
                    rates = {burst: run(end, size, _TRY, burst, chosen).mpps for burst in BURSTS}
                    self._bursts[key] = max(rates, key=lambda burst: rates[burst])
                return run(end, size, seconds, self._bursts[key], chosen)
            finally:
                end.close()
                self.veth.detach()

    def _dpdk_out(self, end: Prompt, size: int, seconds: float, burst: int, cores: Cores) -> Result:
        for line in testpmd.forwarding(testpmd.ONE_WAY, size, burst).sender:
            end.ask(line)
        before, began = self.veth.seen(), time.monotonic_ns()
        time.sleep(seconds)
        received, took = self.veth.seen() - before, time.monotonic_ns() - began
        end.ask("stop")
        return Result(received, received, 0, took, received * size)

    def _dpdk_in(self, end: Prompt, size: int, seconds: float, burst: int, cores: Cores) -> Result:
        for line in testpmd.forwarding(testpmd.ONE_WAY, size, burst).receiver:
            end.ask(line)
        self.veth.send(size, 0)
        before = testpmd.look(end).rx_packets
        (offered, took), _ = run_pair(
            lambda: self.veth.send(size, seconds), lambda: None, stop=lambda: None, cores=cores
        )
        received = testpmd.look(end).rx_packets - before
        end.ask("stop")
        return Result(received, offered, offered - received, took, received * size)

    # -- passed through ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _guest(self, core: int | None, **settings: object) -> Iterator[GuestEnd]:
        backend = f"ptnetmap:{OURS},mac={_HOST.hex(':')}"
        with GuestEnd(self.netmapd.address, backend, core=core, **settings) as guest:
            yield guest

    def guest_out(self, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """A guest sends through the interface, which is passed through to it."""
        guests, ours = cores or two_cores() or (None, None)
        settings = {"ms": int(seconds * 1e3), "length": size, "batch": batch, "dst": _PEER.hex(":")}
        before = self.veth.seen()
        with self.netmapd.on_core(ours), self._guest(guests, function="tx", **settings) as guest:
            counted = guest.end(seconds + _GUEST_WITHIN)
            received = self.veth.seen() - before
        offered = counted["packets"]
        return Result(received, offered, max(offered - received, 0), counted["nanoseconds"], received * size)

    def guest_in(self, size: int, seconds: float, batch: int, cores: Cores) -> Result:
        """A guest receives from the interface; it has a core for itself, kthread and sender share the other."""
        guests, ours = cores or two_cores() or (None, None)
        with (
            self.netmapd.on_core(ours),
            self._guest(guests, function="rx", quiet=_QUIET_MS, batch=batch) as guest,
        ):
            self.veth.send(size, 0)
            placed = None if ours is None else (ours, guests)
            (offered, took), _ = run_pair(
                lambda: self.veth.send(size, seconds), lambda: None, stop=lambda: None, cores=placed
            )
            counted = guest.end(_GUEST_WITHIN)
        received = counted["packets"]
        return Result(received, offered, offered - received, took, counted["bytes"])


bench = Bench()
"""That of this process."""

atexit.register(bench.close)


def unavailable() -> str | None:
    """Return why no veth pair can be measured here, or None if one can."""
    if os.geteuid() != 0:
        return "a veth pair in a network namespace of its own takes root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed (Debian: apt-get install iproute2)"
    if two_cores() is None:
        return "sender and receiver have a core each, and this process may use one"
    return None


def nic_cases() -> list[Case]:
    """An interface, against testpmd where that is installed, and passed through where a guest can run."""
    if unavailable() is not None:
        return []
    with_dpdk, with_guest = testpmd.available() is None, no_guest() is None
    ways: list[tuple[str, Callable[..., Result], Callable[..., Result]]] = [
        ("transmit", bench.transmit, bench.guest_out),
        ("receive", bench.receive, bench.guest_in),
    ]
    cases = []
    for way, ours, guests in ways:
        rival = f"peer/af_xdp/{way}"
        for size in SIZES:
            against, floor = (rival, 1.0) if with_dpdk else (None, None)
            lossy = way == "receive"
            cases.append(Case(f"nic/{way}", size, BATCH, partial(ours, size), against, floor=floor, lossy=lossy))
            if with_guest:
                report = _REPORT if size == SIZES[0] else None
                run = partial(guests, size)
                cases.append(Case(f"nic/guest_{way}", size, BATCH, run, f"nic/{way}", report, 0.9, lossy))
            if with_dpdk:
                cases.append(Case(rival, size, BATCH, partial(bench.dpdk, way, size), lossy=lossy))
    return cases


def nic_probes() -> list[Probe]:
    """What our code takes of the processor's time, beside the kernel."""
    return [] if unavailable() is not None else [Probe("nic/share", shares)]


def shares() -> list[Figure]:
    """Return our percentage, sending and receiving, at each size."""
    return [
        figure(f"nic/share: our code, {what} {size} B", share(size), "%", limit=_MOST_SHARE)
        for what, share in (("sending", bench.share_sending), ("receiving", bench.share_receiving))
        for size in SIZES
    ]

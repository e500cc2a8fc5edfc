# SPDX-License-Identifier: BSD-2-Clause
"""VALE's learning and flooding against the kernel's bridge: the same frames must reach the same ports of both.

Where the two differ on purpose, a test of its own says what and why; the sequences of the property keep away from it:

- an address takes the table entry of another with the same hash, and the kernel's table has chains;
- the kernel takes no frames from group addresses or from address zero, and no pause frames;
- the kernel's bridge has addresses of its own, and a VALE switch has none;
- frames shorter than an Ethernet header, or longer than the MTU, cannot be sent through a packet socket at all.

No difference: reserved group addresses (the kernel is told to forward them), and frames below 60 bytes (neither pads).
"""

import ctypes
import itertools
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptnetmap
from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.client.session import Session, connect
from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.port import Port

pytestmark = pytest.mark.root

PORTS = range(4)
FEWEST = 2  # a port alone hears no markers
NO_PORT = 255  # NM_BDG_NOPORT: only the switch was found
WITHIN = 30.0  # a deadline for things that must happen, never for how fast
AGAIN = 0.02
STATIONS = 6

BROADCAST = b"\xff" * 6
GROUPS = [BROADCAST, bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")]
RESERVED = [bytes.fromhex(f"0180c20000{last:02x}") for last in (0x00, 0x02, 0x03, 0x0E)]
PAUSE = bytes.fromhex("0180c2000001")
ALL_BUT_PAUSE = 0xFFFD  # of the reserved group addresses, by their last four bits; the kernel forwards no pause frame
OF_BRIDGE = bytes.fromhex("02be00000000")
OF_BRIDGE_PORT = [bytes.fromhex(f"02be000001{port:02x}") for port in PORTS]
OF_MARKER = [bytes.fromhex(f"02ae000000{port:02x}") for port in PORTS]

DATA, MARKER = b"\x88\xb5", b"\x88\xb6"

Arrivals = dict[int, list[bytes]]
"""What has come, by port; ports to which nothing has come are not in it."""

Result = TypeVar("Result")


class Fabric(ABC):
    """Either switch, with up to four ports. ``joined`` is the ports that it has at the moment."""

    def __init__(self) -> None:
        self.joined = set(PORTS)
        self._serial = 0

    def exchange(self, port: int, frames: Sequence[bytes]) -> Arrivals:
        """Send frames from a port, and return what then comes to all ports.

        A broadcast goes behind the frames and takes the same way, so what is not there when it arrives does not come.
        """
        marker = self._marker(port)
        self.send(port, [*frames, marker])
        came = {other: self._until(other, marker) for other in sorted(self.joined - {port})}
        for other in set(PORTS) - came.keys():
            came[other] = self._rest(other)
        data = {other: [frame for frame in got if frame[12:14] != MARKER] for other, got in came.items()}
        return {other: got for other, got in sorted(data.items()) if got}

    def _marker(self, port: int) -> bytes:
        self._serial += 1
        return BROADCAST + OF_MARKER[port] + MARKER + self._serial.to_bytes(46, "big")

    def _until(self, port: int, marker: bytes) -> list[bytes]:
        deadline = time.monotonic() + WITHIN
        got: list[bytes] = []
        while marker not in got:
            left = deadline - time.monotonic()
            assert left > 0, f"port {port} of {type(self).__name__} has not heard a broadcast for {WITHIN:g} s"
            got += self.take(port, left)
        return got

    def _rest(self, port: int) -> list[bytes]:
        got: list[bytes] = []
        while more := self.take(port, 0):
            got += more
        return got

    def toggle(self, port: int) -> None:
        """Let a port leave, unless that were one too many, or join again."""
        if port not in self.joined:
            self.join(port)
            self.joined.add(port)
        elif len(self.joined) > FEWEST:
            self.leave(port)
            self.joined.remove(port)

    def join_all(self) -> None:
        for port in set(PORTS) - self.joined:
            self.toggle(port)

    @abstractmethod
    def send(self, port: int, frames: Sequence[bytes]) -> None:
        """Send frames, in this order."""

    @abstractmethod
    def take(self, port: int, timeout: float) -> list[bytes]:
        """Return at least one frame that has come, unless ``timeout`` seconds pass first."""

    @abstractmethod
    def leave(self, port: int) -> None: ...

    @abstractmethod
    def join(self, port: int) -> None: ...


class Vale(Fabric):
    """A switch of a netmapd of the test's own, with interpreted kernels."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._ports: dict[int, Port] = {}
        for port in PORTS:
            self.join(port)

    def send(self, port: int, frames: Sequence[bytes]) -> None:
        self._ports[port].send(list(frames))

    def take(self, port: int, timeout: float) -> list[bytes]:
        return self._ports[port].recv(timeout=timeout) if port in self._ports else []

    def leave(self, port: int) -> None:
        self._ports.pop(port).close()
        # netmapd hears of it a moment later.
        deadline = time.monotonic() + WITHIN
        while self._session.request(abi.NETMAP_REQ_VALE_LIST, f"vale0:p{port}", {})["nr_port_idx"] != NO_PORT:
            assert time.monotonic() < deadline, f"port {port} does not leave"

    def join(self, port: int) -> None:
        name = f"vale0:p{port}"
        self._ports[port] = ptnetmap.open(name, tx_slots=64, rx_slots=64, socket=self._session.address, start=False)

    def close(self) -> None:
        for port in self._ports.values():
            port.close()


class KernelBridge(Fabric):
    """The bridge ``bridge`` of a network namespace; its ports are veth pairs with packet sockets on the outer ends."""

    def __init__(self, namespace: str) -> None:
        super().__init__()
        self._namespace = namespace
        inside(namespace, turn_off_ipv6)
        ip(
            f"link set bridge address {OF_BRIDGE.hex(':')} up type bridge"
            " stp_state 0 forward_delay 0 ageing_time 360000 mcast_snooping 0",
            *itertools.chain.from_iterable(
                (
                    f"link add name in{port} address {OF_BRIDGE_PORT[port].hex(':')} type veth peer name out{port}",
                    f"link set in{port} up",
                    f"link set out{port} up",
                )
                for port in PORTS
            ),
            namespace=namespace,
        )
        for port in PORTS:
            self.join(port)
        self._sockets = inside(namespace, lambda: [packet_socket(f"out{port}") for port in PORTS])

    def wait_until_it_forwards(self) -> None:
        """Return once every port reaches every other: links take a moment to come up."""
        deadline = time.monotonic() + WITHIN
        for port in PORTS:
            deaf = set(PORTS) - {port}
            while deaf:
                assert time.monotonic() < deadline, f"ports {deaf} of the kernel's bridge do not hear port {port}"
                self.send(port, [self._marker(port)])
                readable, _, _ = select.select([self._sockets[other] for other in deaf], [], [], AGAIN)
                deaf -= {other for other in deaf if self._sockets[other] in readable}
            for other in PORTS:
                self._rest(other)

    def send(self, port: int, frames: Sequence[bytes]) -> None:
        # Each CPU has a queue of its own of what veths have been given: one CPU, one order.
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            for frame in frames:
                self._sockets[port].send(frame)
        finally:
            os.sched_setaffinity(0, allowed)

    def take(self, port: int, timeout: float) -> list[bytes]:
        self._sockets[port].settimeout(timeout)
        try:
            return [self._sockets[port].recv(65536)]
        except (BlockingIOError, TimeoutError):
            return []

    def leave(self, port: int) -> None:
        ip(f"link set in{port} nomaster", namespace=self._namespace)

    def join(self, port: int) -> None:
        ip(
            f"link set in{port} master bridge",
            f"link set in{port} type bridge_slave group_fwd_mask {ALL_BUT_PAUSE}",
            namespace=self._namespace,
        )

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def ip(*commands: str, namespace: str | None = None) -> None:
    """Run commands of iproute2's ip, in a namespace."""
    options = [] if namespace is None else ["-n", namespace]
    subprocess.run(
        ["ip", *options, "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True
    )


def inside(namespace: str, function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own that is in a network namespace; sockets that it makes stay there."""
    outcome: list[Result] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            with Path("/run/netns", namespace).open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            outcome.append(function())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def turn_off_ipv6() -> None:
    """Let the namespace's interfaces send nothing by themselves."""
    for which in ("all", "default"):
        file = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        if file.exists():
            file.write_text("1")


def packet_socket(interface: str) -> socket.socket:
    """Make a socket that receives all frames that come to an interface, whoever they are for, and none that leave."""
    packet_add_membership, packet_mr_promisc, packet_ignore_outgoing, eth_p_all = 1, 1, 23, 3
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(263, packet_ignore_outgoing, 1)  # SOL_PACKET
    promiscuous = struct.pack("iHH8s", socket.if_nametoindex(interface), packet_mr_promisc, 0, b"")
    made.setsockopt(263, packet_add_membership, promiscuous)
    made.bind((interface, eth_p_all))
    return made


@contextmanager
def own_netmapd() -> Iterator[Session]:
    """Run a netmapd with interpreted kernels until the end; a session with it."""
    directory = Path(tempfile.mkdtemp(prefix="netmapd-", dir="/tmp"))
    address = directory / "socket"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NETMAP_SOCKET", str(address))
            patch.setenv("NUMBA_DISABLE_JIT", "1")
            session = connect()
        pid = holder(address.with_name("socket.lock"))
        assert pid is not None
        process = os.pidfd_open(pid)
        try:
            with session:  # while it is open, netmapd stays
                yield session
        finally:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            os.close(process)
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def vale() -> Iterator[Vale]:
    with own_netmapd() as session:
        switch = Vale(session)
        yield switch
        switch.close()


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelBridge]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a network namespace")
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed (Debian: apt-get install iproute2)")
    namespace = f"ptnetmap-{os.getpid()}"
    with ExitStack() as stack:
        try:
            ip(f"netns add {namespace}")
            stack.callback(ip, f"netns del {namespace}")
            ip("link add name bridge type bridge", namespace=namespace)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no bridge can be made in a network namespace here: {error.stderr.strip()}")
        bridge = KernelBridge(namespace)
        stack.callback(bridge.close)
        bridge.wait_until_it_forwards()
        yield bridge


# -- addresses and frames ---------------------------------------------------------------------------------------------


def table_entry(address: bytes) -> int:
    """The entry of VALE's table for an address: Jenkins's mix as in FreeBSD's if_bridge, modulo 1024."""
    a = 0x9E3779B9 + int.from_bytes(address[:4], "little")
    b = 0x9E3779B9 + int.from_bytes(address[4:], "little")
    c = 0
    for first, left, second in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = (a - b - c & 0xFFFFFFFF) ^ c >> first
        b = (b - c - a & 0xFFFFFFFF) ^ a << left & 0xFFFFFFFF
        c = (c - a - b & 0xFFFFFFFF) ^ b >> second
    return c % 1024


NEVER_USED = (b"\x02" + n.to_bytes(5, "big") for n in itertools.count(1))


def new_addresses(count: int) -> list[bytes]:
    """Return addresses that neither switch has seen, and that do not take each other's table entries, or markers'."""
    found: dict[int, bytes] = {}
    for address in NEVER_USED:
        entry = table_entry(address)
        if entry not in map(table_entry, OF_MARKER):
            found.setdefault(entry, address)
        if len(found) == count:
            break
    return list(found.values())


def make_frame(destination: bytes, source: bytes, size: int = 60, serial: int = 0) -> bytes:
    return (destination + source + DATA + serial.to_bytes(4, "big") * 375)[:size]


# -- the property -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A frame, with the numbers of stations for addresses; a destination may also be a group's whole address."""

    source: int
    destination: int | bytes
    size: int


@dataclass(frozen=True)
class Burst:
    """Frames from one port: the ``port``-th, modulo their number, of those that have joined."""

    port: int
    drafts: list[Draft]


@dataclass(frozen=True)
class Change:
    """A port leaves or joins."""

    port: int


STRANGER = STATIONS  # the number of an address that nothing ever comes from
drafts = st.builds(
    Draft,
    st.integers(0, STATIONS - 1),
    st.integers(0, STRANGER) | st.integers(0, STATIONS - 1) | st.sampled_from(GROUPS + RESERVED),
    st.sampled_from([60, 14, 15, 59, 61, 128, 1514]),
)
bursts = st.builds(Burst, st.sampled_from(PORTS), st.lists(drafts, min_size=1, max_size=4))
steps = st.one_of(bursts, bursts, bursts, bursts, st.builds(Change, st.sampled_from(PORTS)))


@settings(max_examples=40, deadline=None, report_multiple_bugs=False)
@given(st.lists(steps, min_size=12, max_size=60))
def test_every_frame_goes_where_the_kernels_bridge_takes_it(
    kernel: KernelBridge, vale: Vale, sequence: list[Burst | Change]
) -> None:
    # Addresses are new each time, so that what the switches know of others need not be forgotten.
    addresses = new_addresses(STATIONS + 1)
    serial = itertools.count()
    for switch in (vale, kernel):
        switch.join_all()
    for step in sequence:
        if isinstance(step, Change):
            for switch in (vale, kernel):
                switch.toggle(step.port)
            continue
        frames = [
            make_frame(
                draft.destination if isinstance(draft.destination, bytes) else addresses[draft.destination],
                addresses[draft.source],
                draft.size,
                next(serial),
            )
            for draft in step.drafts
        ]
        port = sorted(vale.joined)[step.port % len(vale.joined)]
        assert vale.exchange(port, frames) == kernel.exchange(port, frames)


# -- differences ------------------------------------------------------------------------------------------------------


@pytest.fixture
def both(kernel: KernelBridge, vale: Vale) -> Callable[[int, list[bytes]], tuple[Arrivals, Arrivals]]:
    """Send frames on both switches, with all ports; what comes of them on VALE, and on the kernel's bridge."""
    for switch in (vale, kernel):
        switch.join_all()
    return lambda port, frames: (vale.exchange(port, frames), kernel.exchange(port, frames))


Both = Callable[[int, list[bytes]], tuple[Arrivals, Arrivals]]


def test_only_the_kernel_remembers_two_addresses_with_the_same_hash(both: Both) -> None:
    first, asking = new_addresses(2)
    twin = next(address for address in NEVER_USED if table_entry(address) == table_entry(first))
    both(0, [make_frame(BROADCAST, first)])
    both(1, [make_frame(BROADCAST, twin)])
    frame = make_frame(first, asking)

    assert both(2, [frame]) == ({0: [frame], 1: [frame], 3: [frame]}, {0: [frame]})


@pytest.mark.parametrize("source", [b"\x03" + bytes(4) + b"\x07", BROADCAST, bytes(6)], ids=["group", "all", "zero"])
def test_only_vale_forwards_what_comes_from_an_address_that_is_no_stations(both: Both, source: bytes) -> None:
    frame = make_frame(new_addresses(1)[0], source)

    assert both(0, [frame]) == ({1: [frame], 2: [frame], 3: [frame]}, {})


def test_only_vale_forwards_pause_frames(both: Both) -> None:
    frame = make_frame(PAUSE, new_addresses(1)[0])

    assert both(0, [frame]) == ({1: [frame], 2: [frame], 3: [frame]}, {})


@pytest.mark.parametrize("own", [OF_BRIDGE, OF_BRIDGE_PORT[1]], ids=["bridge", "port"])
def test_only_the_kernels_bridge_has_addresses_of_its_own(both: Both, own: bytes) -> None:
    frame = make_frame(own, new_addresses(1)[0])

    assert both(0, [frame]) == ({1: [frame], 2: [frame], 3: [frame]}, {})


def test_neither_pads_short_frames(both: Both) -> None:
    frames = [make_frame(BROADCAST, source, size) for size, source in enumerate(new_addresses(3), 14)]

    assert both(0, frames) == ({1: frames, 2: frames, 3: frames},) * 2

# SPDX-License-Identifier: BSD-2-Clause
"""veth pairs in a network namespace that the test's thread enters, and that goes with the last socket in it."""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.nic.interface import find_interface
from ptnetmap.netmap.nic.netns import Namespace

WITHIN = 30.0  # a deadline for things that must happen, never for how fast
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*commands: str) -> None:
    """Run commands of iproute2's ip."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[Callable[..., None]]:
    """Enter a new network namespace, with no IPv6; run ``ip`` in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a network namespace")
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed (Debian: apt-get install iproute2)")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(_CLONE_NEWNET) != 0:
        os.close(before)
        pytest.skip(f"no network namespace can be made: {os.strerror(ctypes.get_errno())}")
    for which in ("all", "default"):
        file = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        if file.exists():
            file.write_text("1")
    yield ip
    assert _libc.setns(before, _CLONE_NEWNET) == 0
    os.close(before)


@pytest.fixture
def veth(namespace: Callable[..., None]) -> Callable[..., None]:
    """Make the pair ``va``, ``vb``, both up."""
    namespace("link add va type veth peer name vb", "link set va up", "link set vb up")
    return namespace


class Peer:
    """A packet socket on an interface: what programs outside of netmap see and send there."""

    def __init__(self, interface: str) -> None:
        packet_add_membership, packet_mr_promisc, packet_ignore_outgoing, eth_p_all, rcvbufforce = 1, 1, 23, 3, 33
        packet_qdisc_bypass = 20
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, rcvbufforce, 1 << 24)
        self.socket.setsockopt(263, packet_ignore_outgoing, 1)  # SOL_PACKET
        # The queueing discipline drops frames for up to a second after an interface has come up.
        self.socket.setsockopt(263, packet_qdisc_bypass, 1)
        promiscuous = struct.pack("iHH8s", socket.if_nametoindex(interface), packet_mr_promisc, 0, b"")
        self.socket.setsockopt(263, packet_add_membership, promiscuous)
        self.socket.bind((interface, eth_p_all))
        self.socket.settimeout(WITHIN)

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    def recv(self, count: int) -> list[bytes]:
        """Return the next ``count`` frames."""
        return [self.socket.recv(65536) for _ in range(count)]

    def waits(self) -> bool:
        """Whether a frame has come that nobody has received."""
        return bool(select.select([self.socket], [], [], 0)[0])


@pytest.fixture
def peer_of() -> Iterator[Callable[[str], Peer]]:
    """Make packet sockets on interfaces."""
    made: list[Peer] = []

    def make(interface: str) -> Peer:
        made.append(Peer(interface))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


@pytest.fixture
def peer(veth: Callable[..., None], peer_of: Callable[[str], Peer]) -> Peer:
    """The packet socket at the other end of ``va``."""
    return peer_of("vb")


@pytest.fixture
def programs() -> Callable[[str], list[int]]:
    """Tell the numbers of the XDP programs on an interface."""

    def tell(name: str) -> list[int]:
        found = find_interface(name)
        assert found is not None
        return list(found.programs.values())

    return tell


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN
        while not holds():
            assert time.monotonic() < deadline, "it does not come about"
            time.sleep(0.005)

    return wait


@pytest.fixture
def gather() -> Callable[..., list[bytes]]:
    """Receive ``count`` frames from a port."""

    def receive(port, count):
        got = []
        deadline = time.monotonic() + WITHIN
        while len(got) < count:
            assert time.monotonic() < deadline, f"{len(got)} of {count} frames have come"
            got += port.recv(timeout=1)
        return got

    return receive


@pytest.fixture
def netmapd(veth: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Start a netmapd in the namespace, which stays until the end of the test; a pidfd of it."""
    directory = Path(tempfile.mkdtemp(prefix="netmapd-", dir="/tmp"))
    address = directory / "socket"
    monkeypatch.setenv("NETMAP_SOCKET", str(address))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        session = connect()
        pid = holder(address.with_name("socket.lock"))
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        stack.callback(select.select, [process], [], [])
        stack.callback(signal.pidfd_send_signal, process, signal.SIGKILL)
        stack.enter_context(session)
        yield process


@pytest.fixture
def program(netmapd: int) -> Callable[..., contextlib.AbstractContextManager[subprocess.Popen[str]]]:
    """Run one of the tools; it is told to stop at the end of the block."""

    @contextlib.contextmanager
    def run(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", f"ptnetmap.cli.{name}", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)

    return run


@pytest.fixture
def read_until() -> Callable[[subprocess.Popen[str], str], str]:
    """Read what a process prints until a line with some text, and return that."""

    def read(process: subprocess.Popen[str], text: str) -> str:
        said = []
        for line in process.stdout or ():
            said.append(line)
            if text in line:
                return line
        raise AssertionError("".join(said))

    return read


class Elsewhere:
    """A network namespace with a process in it that does nothing, so that interfaces can be moved there."""

    def __init__(self) -> None:
        self._namespace = Namespace()
        self._process = self.run(lambda: subprocess.Popen(["sleep", "infinity"]))
        self.pid = self._process.pid

    def run(self, action):
        """Do something there, and return its result."""
        return self._namespace.run(action)

    def ip(self, *commands: str) -> None:
        """Run commands of iproute2's ip there."""
        self.run(lambda: ip(*commands))

    def socket(self, *arguments: int) -> socket.socket:
        """Make a socket there."""
        made: socket.socket = self.run(lambda: socket.socket(*arguments))
        made.settimeout(WITHIN)
        return made

    def close(self) -> None:
        """End the process, and the namespace with it."""
        self._process.kill()
        self._process.wait()
        self._namespace.close()


@pytest.fixture
def elsewhere(veth: Callable[..., None]) -> Iterator[Elsewhere]:
    """Another namespace, which has ``vb`` with the address 10.9.0.2, while ``va`` has 10.9.0.1."""
    with contextlib.closing(Elsewhere()) as there:
        veth("addr add 10.9.0.1/24 dev va", f"link set vb netns {there.pid}")
        there.ip("link set lo up", "link set vb up", "addr add 10.9.0.2/24 dev vb")
        yield there

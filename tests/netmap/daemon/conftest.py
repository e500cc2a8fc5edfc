# SPDX-License-Identifier: BSD-2-Clause
"""A netmapd in a process of its own, interpreted, and clients that may send it anything."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.frame import MAX_FDS, Frame
from ptnetmap.netmap.wire.hello import Hello, hello_frame
from ptnetmap.netmap.wire.request import Answer, Request, decode_answer

PATIENCE = 30.0
_OWN_SOCKETS = 3  # the listening one, and a pair of asyncio's
_OF_PORTS = re.compile(r"/memfd:netmap-(\d+|atok|ktoa|lanes) ")
_SPACE = socket.CMSG_SPACE(MAX_FDS * 4)


def wait_until(condition: Callable[[], Any], what: str = "", patience: float = PATIENCE) -> Any:
    """Return the first true value of a condition; fail if there is none for too long."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.002)
    return value


def error_name(number: int) -> str:
    """ "OK" for 0, else an errno's name, of two the one that upstream uses."""
    name = errno.errorcode.get(number, str(number)) if number else "OK"
    return "EOPNOTSUPP" if name == "ENOTSUP" else name


@dataclass
class Reply:
    """An answer: ``errno`` 0 or what the request was refused with, and what it wrote back."""

    errno: int
    text: str
    argument: bytes
    answer: Answer | None = None
    fds: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return error_name(self.errno)

    @property
    def fields(self) -> dict[str, Any]:
        assert self.answer is not None, self.text
        return self.answer.fields

    @property
    def statuses(self) -> list[tuple[int, int]]:
        assert self.answer is not None, self.text
        return list(self.answer.statuses)


class RawClient:
    """A connection on which any bytes and descriptors can be sent. All that it received is closed with it."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.received: list[int] = []
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket.connect(str(path))
            except BlockingIOError:  # the backlog is full
                assert time.monotonic() < deadline
                time.sleep(0.002)
            else:
                break

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        while self.received:
            os.close(self.received.pop())

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.socket, [data], list(fds), socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[bytes, list[int]]:
        """The next message, empty at the end of the connection."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 17, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except (ConnectionResetError, BrokenPipeError):
            return b"", []
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        self.received += fds
        return data, list(fds)

    def ended(self) -> bool:
        """Whether the daemon has ended the connection, after what else it may have said."""
        while self.receive()[0]:
            pass
        return True

    def greet(self) -> RawClient:
        self.send(frames.encode(hello_frame(Hello("test"))))
        assert frames.decode(self.receive()[0]).error == 0
        return self

    def post(self, request: Request, fds: Sequence[int] = ()) -> None:
        """Send a request, and do not wait for its answer."""
        self.send(frames.encode(Frame(abi.NIOCCTRL, request.argument)), fds)

    def collect(self, request: Request) -> Reply:
        """Receive the answer to a request that was posted."""
        data, fds = self.receive()
        assert data, "the connection has ended"
        frame = frames.decode(data)
        answer = decode_answer(request, frame.argument) if frame.argument else None
        return Reply(frame.error, frame.text, frame.argument, answer, fds)

    def ask(self, request: Request, fds: Sequence[int] = ()) -> Reply:
        self.post(request, fds)
        return self.collect(request)

    def request(
        self,
        reqtype: int,
        name: str = "",
        options: dict[int, dict[str, Any]] | None = None,
        fds: Sequence[int] = (),
        **body: Any,
    ) -> Reply:
        """Make a request; ``body`` has those of its fields that are not 0."""
        return self.ask(Request(reqtype, name, body or None, options or {}), fds)

    def register(self, name: str, options: Any = None, fds: Sequence[int] = (), **body: Any) -> Reply:
        body.setdefault("nr_mode", abi.NR_REG_ALL_NIC)
        return self.request(abi.NETMAP_REQ_REGISTER, name, options, fds, **body)

    def ioctl(self, number: int, argument: bytes) -> Reply:
        """Make a request that is no NIOCCTRL."""
        self.send(frames.encode(Frame(number, argument)))
        data, fds = self.receive()
        frame = frames.decode(data)
        return Reply(frame.error, frame.text, frame.argument, None, fds)


class Daemon:
    """A netmapd, and its clients in a test."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.path = directory / "s"
        self.log_file = directory / "log"
        self._clients: list[RawClient] = []
        environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "ptnetmap.cli.netmapd", "--foreground", "--socket", str(self.path)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen([*command, *arguments], env=environment, stdout=log, stderr=log, cwd="/")
        try:
            wait_until(lambda: "listens at" in self.log() or not self.alive, "netmapd did not start")
            assert self.alive, self.log()
            self.serves()  # with what is made once, for its life
            wait_until(self.rests, "it keeps something of its first client")
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def raw(self) -> RawClient:
        """A connection that has not said hello."""
        client = RawClient(self.path)
        self._clients.append(client)
        return client

    def client(self) -> RawClient:
        """A connection that has."""
        return self.raw().greet()

    def census(self) -> tuple[int, int]:
        """Numbers of descriptors and threads that the daemon has."""
        return len(self._of("fd")), len(self._of("task"))

    def _of(self, what: str) -> list[str]:
        return [entry.name for entry in Path(f"/proc/{self.pid}/{what}").iterdir()]

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def rests(self) -> bool:
        """Whether it has neither clients nor memory of theirs."""
        links = [_link(self.pid, fd) for fd in self._of("fd")]
        sockets = sum(link.startswith("socket:") for link in links)
        return sockets == _OWN_SOCKETS and not any(_OF_PORTS.match(link) for link in links)

    def settles_at(self, census: tuple[int, int]) -> None:
        """Wait until the daemon has given everything back; fails if it has died."""

        def settled() -> bool:
            assert self.alive, f"netmapd ended with {self.process.returncode}"
            return self.census() == census

        try:
            wait_until(settled)
        except AssertionError:
            links = [_link(self.pid, fd) for fd in self._of("fd")][:60]
            raise AssertionError(f"(descriptors, threads) were {census}, are {self.census()}: {links}") from None

    def serves(self) -> None:
        """Check that a well-behaved newcomer is served: a port of its own, and right answers."""
        with RawClient(self.path).greet() as client:
            bound = client.register("vale9:check", nr_tx_slots=64, nr_rx_slots=64)
            assert bound.errno == 0, bound.text
            assert bound.fields["nr_tx_slots"] == 64
            assert len(bound.fds) == 1
            listed = client.request(abi.NETMAP_REQ_VALE_LIST, "vale9:check")
            assert listed.fields["nr_port_idx"] == 0

    def stop(self) -> int:
        self.close_clients()
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def _link(pid: int, fd: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/{fd}").readlink())
    except OSError:
        return "gone"


@contextlib.contextmanager
def _daemon(*arguments: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="netmapd-") as directory:
        daemon = Daemon(Path(directory), *arguments)
        try:
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="session")
def _living_netmapd() -> Iterator[Callable[[], Daemon]]:
    """Returns the daemon that tests share: another one once a test has ended it."""
    with contextlib.ExitStack() as stack:
        daemons: list[Daemon] = []

        def living() -> Daemon:
            if not daemons or not daemons[-1].alive:
                daemons.append(stack.enter_context(_daemon("--kthreads", "2")))
            return daemons[-1]

        yield living


@pytest.fixture
def netmapd(_living_netmapd: Callable[[], Daemon], request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A netmapd that gets back to where it was: after the test it lives, has all descriptors back, and never failed."""
    daemon = _living_netmapd()
    request.node.netmapd = daemon
    before, said = daemon.census(), len(daemon.log())
    yield daemon
    daemon.close_clients()
    daemon.settles_at(before)
    assert "Traceback" not in daemon.log()[said:]


@pytest.fixture
def error_named() -> Callable[[int], str]:
    """``error_named(95) == "EOPNOTSUPP"``."""
    return error_name


@pytest.fixture
def patiently() -> Callable[..., Any]:
    """``patiently(condition, what)``: wait for it, with a deadline."""
    return wait_until


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show the daemon's log with what failed."""
    report = yield
    daemon = getattr(item, "netmapd", None)
    if report.failed and daemon is not None:
        with contextlib.suppress(OSError):
            report.sections.append(("netmapd's log", daemon.log()[-5000:]))
    return report

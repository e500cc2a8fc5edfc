# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import os
import socket
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices.console import Console, parse_backend
from ptnetmap.bhyve.devices.console.backend import Backend
from ptnetmap.bhyve.devices.console.console import BACKLOG, BUSY, INPUT, LIMIT
from ptnetmap.bhyve.devices.console.wire import End, Wire, inherited
from ptnetmap.errors import ConfigError

DEADLINE = 20


PAIRS = []


class FakePort:
    def __init__(self, room=1 << 20):
        self.limit = room
        self.got = bytearray()
        self.settled = 0

    @property
    def room(self):
        return self.limit - len(self.got)

    def receive(self, data):
        assert len(data) <= self.room
        self.got += data

    def settle(self):
        self.settled += 1


class Pair(Backend):
    """A socket pair, whose other end the test has."""

    def __init__(self, buffer=4096):
        super().__init__("pair")
        self.ours, self.theirs = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.theirs.setblocking(False)
        PAIRS.append(self)

    def open(self):
        if self.ours.fileno() < 0:
            return None
        end = End(self.ours.detach())
        return Wire(end, end)

    def read(self):
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := self.theirs.recv(65536):
                data += chunk
        return bytes(data)

    def close(self):
        self.ours.close()


@pytest.fixture(autouse=True)
def close_pairs():
    yield
    while PAIRS:
        PAIRS.pop().theirs.close()


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr("ptnetmap.bhyve.devices.console.console.RETRY", 0.01)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def wait(loop):
    """Run the loop until a condition holds."""

    async def until(condition):
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.001)

    return lambda condition: loop.run_until_complete(until(condition))


@pytest.fixture
def port():
    return FakePort()


@pytest.fixture
def open_console(loop, port):
    """Open consoles by text or backend, closed at the end."""
    consoles = []

    def open_one(backend, **arguments):
        if isinstance(backend, str):
            backend = parse_backend("com1", backend, lambda command: None)
        consoles.append(Console(backend, port, threading.RLock(), arguments.get("loop", loop)))
        return consoles[-1]

    yield open_one
    for console in consoles:
        console.close(patience=0)


def read_some(fd):
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 1 << 20)
    return b""


def collect(wait, fd, count):
    """Read from ``fd`` while the loop runs, until ``count`` bytes are there."""
    data = bytearray()

    def done():
        data.extend(read_some(fd))
        return len(data) >= count

    wait(done)
    return bytes(data)


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_appended_to(open_console, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    open_console(str(path)).write(b"after\n")

    assert path.read_bytes() == b"before\nafter\n"


def test_a_file_that_is_renamed_or_removed_is_made_anew(open_console, tmp_path):
    path = tmp_path / "log"
    console = open_console(str(path))
    console.write(b"one")
    path.rename(tmp_path / "log.1")
    console.write(b"two")
    path.unlink()
    console.write(b"three")

    assert (tmp_path / "log.1").read_bytes() == b"one"
    assert path.read_bytes() == b"three"


def test_a_device_that_ends_and_swallows_is_fine(open_console, wait, port):
    console = open_console("/dev/null")
    console.write(b"x" * 100_000)
    wait(lambda: console.is_ready)

    assert console.is_connected
    assert port.got == b""


# --- slow and missing readers --------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def open_reader():
    fds = []

    def open_one(path):
        fds.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return fds[-1]

    yield open_one
    for fd in fds:
        os.close(fd)


def test_a_slow_reader_makes_the_transmitter_busy_and_gets_everything_in_order(
    open_console, open_reader, fifo, wait, port
):
    reader = open_reader(fifo)
    console = open_console(str(fifo))
    sent = bytearray()
    while console.is_ready:
        chunk = bytes([len(sent) // 512 % 256]) * 512
        console.write(chunk)
        sent += chunk
    settled = port.settled

    assert len(sent) >= BUSY
    assert collect(wait, reader, len(sent)) == bytes(sent)
    wait(lambda: console.is_ready and port.settled > settled)
    assert console.lost == 0


def test_a_guest_that_does_not_care_is_neither_stopped_nor_believed_without_limit(
    open_console, open_reader, fifo, wait
):
    reader = open_reader(fifo)
    console = open_console(str(fifo))
    for _ in range(2 * LIMIT // 4096):
        console.write(bytes(4096))
    written = 2 * LIMIT - console.lost

    assert LIMIT <= written < LIMIT + (1 << 20)
    assert len(collect(wait, reader, written)) == written


def test_while_nobody_reads_nothing_is_busy_and_the_newest_output_is_kept(open_console, open_reader, fifo, wait):
    console = open_console(str(fifo))
    console.write(b"a" * BACKLOG)
    console.write(b"b" * 100)
    assert console.is_ready
    assert not console.is_connected

    assert collect(wait, open_reader(fifo), BACKLOG) == b"a" * (BACKLOG - 100) + b"b" * 100


def test_a_reader_that_leaves_does_not_hurt_and_another_one_gets_what_comes(open_console, open_reader, fifo, wait):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    console = open_console(str(fifo))
    console.write(b"one")
    assert os.read(reader, 10) == b"one"
    os.close(reader)
    console.write(b"two")

    assert collect(wait, open_reader(fifo), 3) == b"two"


def test_at_the_end_a_reader_still_gets_the_rest(loop, port):
    backend = Pair()
    console = Console(backend, port, threading.RLock(), loop)
    sent = bytes(range(256)) * 2000
    console.write(sent)
    got = bytearray()

    def read():
        backend.theirs.setblocking(True)
        while chunk := backend.theirs.recv(65536):
            got.extend(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    console.close()
    thread.join(DEADLINE)

    assert bytes(got) == sent
    assert console.lost == 0


def test_at_the_end_a_reader_that_is_stuck_is_given_up_and_that_is_said(loop, port, capsys):
    console = Console(Pair(), port, threading.RLock(), loop)
    console.write(bytes(500_000))
    console.close(patience=0)

    assert 0 < console.lost < 500_000
    assert f"pair: {console.lost:,} bytes of output were not read" in capsys.readouterr().err


def test_at_the_end_a_reader_that_has_just_left_is_not_waited_for(loop, port):
    backend = Pair()
    console = Console(backend, port, threading.RLock(), loop)
    console.write(bytes(500_000))
    backend.theirs.close()
    console.close()

    assert not console.is_connected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60_000) | st.just(0), max_size=12), st.booleans())
def test_whatever_is_written_and_read_in_whatever_order_arrives_once_and_in_order(steps, has_loop):
    loop = asyncio.new_event_loop() if has_loop else None
    backend = Pair()
    console = Console(backend, FakePort(), threading.RLock(), loop)
    sent, got = bytearray(), bytearray()
    for i, step in enumerate(steps):
        if step:
            chunk = bytes([i]) * step
            console.write(chunk)
            sent += chunk
        else:
            got += backend.read()
            if loop is not None:
                loop.run_until_complete(asyncio.sleep(0))
    thread = threading.Thread(target=console.close)
    thread.start()
    backend.theirs.setblocking(True)
    while chunk := backend.theirs.recv(65536):
        got += chunk
    thread.join(DEADLINE)
    PAIRS.pop().theirs.close()
    if loop is not None:
        loop.close()

    assert got == sent
    assert console.lost == 0


# --- input ---------------------------------------------------------------------------------------------------------


def test_input_waits_for_room_and_is_never_lost(open_console, wait, port):
    backend = Pair()
    console = open_console(backend)
    port.limit = 1000
    sent = bytes(i % 251 for i in range(40_000))
    backend.theirs.setblocking(True)
    sender = threading.Thread(target=backend.theirs.sendall, args=(sent,))
    sender.start()
    got = bytearray()

    def done():
        assert len(console._input) < INPUT + 4096
        got.extend(port.got)
        port.got.clear()
        console.deliver()
        return len(got) == len(sent)

    wait(done)
    sender.join(DEADLINE)
    assert bytes(got) == sent


def test_a_client_that_leaves_makes_room_for_the_next(open_console, wait, port):
    console = open_console("tcp=127.0.0.1:0")
    address = console.backend.address
    console.write(b"early")
    for greeting in (b"first", b"second"):
        with socket.create_connection(address, DEADLINE) as client:
            client.sendall(greeting)
            wait(lambda expected=greeting: port.got == expected)
            console.write(b"-" + greeting)
            expected = b"early-" + greeting
            client.setblocking(False)
            assert collect(wait, client.fileno(), len(expected)) == expected
            port.got.clear()
        wait(lambda: not console.is_connected)
        console.write(b"early")


def test_a_second_client_waits_for_the_first_to_leave(open_console, wait, port):
    console = open_console("tcp=127.0.0.1:0")
    first = socket.create_connection(console.backend.address, DEADLINE)
    wait(lambda: console.is_connected)
    with first, socket.create_connection(console.backend.address, DEADLINE) as second:
        second.sendall(b"2")
        first.sendall(b"1")
        wait(lambda: port.got == b"1")
        first.close()
        wait(lambda: port.got == b"12")


def test_a_unix_socket_is_ours_alone_and_goes_at_the_end(open_console, wait, tmp_path, port):
    path = tmp_path / "socket"
    console = open_console(f"unix={path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"hello")
        wait(lambda: port.got == b"hello")
    console.close()

    assert not path.exists()


def test_a_socket_left_over_is_replaced_and_one_in_use_is_not(open_console, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    open_console(f"unix={path}")
    with pytest.raises(ConfigError, match="in use"):
        open_console(f"unix={path}")
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="in use"):
        open_console(f"unix={tmp_path / 'file'}")
    assert (tmp_path / "file").read_bytes() == b"precious"


# --- terminals -----------------------------------------------------------------------------------------------------


def test_a_pty_says_its_name_and_serves_one_user_after_the_other(open_console, wait, port, tmp_path, capsys):
    link = tmp_path / "console"
    console = open_console(f"pty={link}")
    name = capsys.readouterr().err.split()[-1]
    assert str(link.readlink()) == name
    console.write(b"boot\n" * 10)
    assert not console.is_connected
    for _ in range(2):
        user = os.open(link, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        assert collect(wait, user, 50) == b"boot\n" * 10
        os.write(user, b"\x03\r")
        wait(lambda: port.got == b"\x03\r")
        port.got.clear()
        os.close(user)
        wait(lambda: not console.is_connected)
        console.write(b"boot\n" * 10)
    console.close()
    assert not link.is_symlink()


def test_a_terminal_is_raw_while_it_is_used(open_console, wait, port):
    master, slave = os.openpty()
    os.set_blocking(master, False)
    console = open_console(os.ttyname(slave))
    console.write(b"a\nb")
    assert collect(wait, master, 3) == b"a\nb"
    os.write(master, b"\x03\x04")
    wait(lambda: port.got == b"\x03\x04")
    console.close()
    os.write(slave, b"a\n")

    assert collect(wait, master, 3) == b"a\r\n"
    os.close(master)
    os.close(slave)


def test_a_terminal_that_is_hung_up_hurts_nobody(open_console, wait):
    master, slave = os.openpty()
    console = open_console(os.ttyname(slave))
    os.close(slave)
    os.close(master)
    wait(lambda: not console.is_connected)
    console.write(b"x")
    assert console.is_ready


# --- descriptors ---------------------------------------------------------------------------------------------------


def test_a_pipe_that_we_inherit_stays_as_it_is():
    reader, writer = os.pipe()
    ours, theirs = inherited(writer), inherited(reader)
    total = 0
    while count := ours.write(bytes(65536)):
        total += count
    while data := theirs.read():
        total -= len(data)

    assert total == 0
    assert os.get_blocking(reader)
    assert os.get_blocking(writer)
    for end in (ours, theirs):
        end.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("make", [os.pipe, os.openpty])
def test_a_blocking_descriptor_is_written_and_read_without_waiting(make):
    reader, writer = make()
    ours, theirs = End(os.dup(writer), cautious=True), End(os.dup(reader), cautious=True)
    assert theirs.read() is None
    total = 0
    while count := ours.write(b"x" * 10_000):
        total += count
    assert total > 0
    assert not ours.wait(0)
    while (data := theirs.read()) and total > 0:
        total -= len(data)
    assert total == 0
    for end in (ours, theirs):
        end.close()
    os.close(reader)
    os.close(writer)


def test_the_end_of_a_pipe_is_seen():
    reader, writer = os.pipe()
    os.close(writer)
    end = End(reader, cautious=True)
    assert end.read() == b""
    end.close()


# --- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("stdoi", "this is none"),
        ("tcp=", "no address"),
        ("tcp=1.2.3.4", "no address"),
        ("tcp=127.0.0.1:99999", "no address"),
        ("tcp=:80", "no address"),
        ("unix=", "this is none"),
        ("/nowhere/log", "No such file"),
        ("/", "Is a directory"),
        ("/dev/nmdm0A", "null-modem"),
    ],
)
def test_what_cannot_be_is_refused_with_advice(text, found):
    with pytest.raises(ConfigError, match=r"(?s)Unable to initialize backend '.*' for LPC device com1") as caught:
        parse_backend("com1", text, lambda command: None)
    assert found in str(caught.value)
    assert "\n        " in str(caught.value)


def test_an_address_of_tcp_can_be_of_ipv6(open_console):
    try:
        socket.socket(socket.AF_INET6).close()
        console = open_console("tcp=[::1]:0")
    except (OSError, ConfigError) as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert console.backend.address[0] == "::1"

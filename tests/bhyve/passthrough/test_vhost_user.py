# SPDX-License-Identifier: BSD-2-Clause
# The vhost-user command as a process of its own, with a real netmapd, and front ends of every kind. The messages are put
# together here, byte by byte.
import contextlib
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ptnetmap.jit.block import Block
from ptnetmap.netmap.queuestate import virtqueue
from ptnetmap.testing import MockDriver

SIZE = 1 << 20
GUEST, USER = 0x1000_0000, 1 << 40
TX = 1
MUTATIONS = 150
PAGE = 4096
BETWEEN = 25

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
NUM, ADDR, BASE, GET_BASE, KICK, CALL, ERR = 8, 9, 10, 11, 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, ENABLE = 15, 16, 18
SET_LOG_BASE = 6
LOG_ALL = 1 << 26  # VHOST_F_LOG_ALL
LOG_SHMFD = 1 << 1  # VHOST_USER_PROTOCOL_F_LOG_SHMFD
ANSWERED = {GET_FEATURES, GET_BASE, GET_PROTOCOL_FEATURES, SET_LOG_BASE}
FEATURES = 1 << 32 | 1 << 30  # VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES
_F_ADD_SEALS, _F_SEAL_SHRINK = 1033, 2


class Guest(MockDriver):
    """A driver of the transmit queue, whose memory is a file, too: what it writes is copied there."""

    def __init__(self):
        super().__init__(8, memory=SIZE, gpa=GUEST)
        self.fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SIZE)
        fcntl.fcntl(self.fd, _F_ADD_SEALS, _F_SEAL_SHRINK)
        self.kick, self.call, self.error = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
        self.start(Block(virtqueue).items[0])
        self.publish()

    def publish(self):
        os.pwrite(self.fd, self.read(self.gpa, SIZE), 0)

    def publish_offered(self):
        """Publish what was offered since, its index last, to a device that may be looking; the used ring is the device's."""
        first, used, after = self.avail, self.used, self.used + 6 + 8 * self.size
        for start, end in ((after, self.gpa + SIZE), (self.gpa, first), (first + 4, used), (first, first + 4)):
            os.pwrite(self.fd, self.read(start, end - start), start - self.gpa)

    def user(self, address):
        return USER + address - GUEST

    def messages(self):
        """All of a session up to where the queue is served: (request, payload, descriptors)."""
        queue = struct.pack("<II", TX, 0)
        parts = map(self.user, (self.desc, self.used, self.avail))
        return [
            (GET_FEATURES, b"", ()),
            (SET_OWNER, b"", ()),
            (SET_FEATURES, struct.pack("<Q", FEATURES), ()),
            (GET_PROTOCOL_FEATURES, b"", ()),
            (SET_MEM_TABLE, struct.pack("<II4Q", 1, 0, GUEST, SIZE, USER, 0), (self.fd,)),
            (NUM, struct.pack("<II", TX, self.size), ()),
            (BASE, queue, ()),
            (ADDR, struct.pack("<II4Q", TX, 0, *parts, 0), ()),
            (CALL, struct.pack("<Q", TX), (self.call,)),
            (ERR, struct.pack("<Q", TX), (self.error,)),
            (ENABLE, struct.pack("<II", TX, 1), ()),
            (KICK, struct.pack("<Q", TX), (self.kick,)),
        ]

    def close(self):
        for fd in (self.fd, self.kick, self.call, self.error):
            os.close(fd)


class Server:
    """``ptnetmap vhost-user vale1:guest``, interpreted."""

    def __init__(self, directory):
        self.path = directory / "vhost"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("ptnetmap"), "vhost-user", "vale1:guest", self.path],
                env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
            )

    def descriptors(self):
        """How many it has while a front end is here, and has said nothing: all before that one have gone by then."""
        with Front(self) as front:
            front.settle()
            return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


class Front:
    """A connection to it."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(str(server.path))  # waits while others are before us
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def tell(self, request, payload=b"", fds=(), *, size=None, flags=1):
        head = struct.pack("<III", request, flags, len(payload) if size is None else size)
        socket.send_fds(self.socket, [head + payload], list(fds))

    def ask(self, request, payload=b"", fds=()):
        self.tell(request, payload, fds)
        _, _, size = struct.unpack("<III", self.socket.recv(12, socket.MSG_WAITALL))
        return self.socket.recv(size, socket.MSG_WAITALL)

    def say(self, messages):
        for request, payload, fds in messages:
            (self.ask if request in ANSWERED else self.tell)(request, payload, fds)

    def settle(self):
        """Return once all that was said has been dealt with."""
        self.ask(GET_FEATURES)


@pytest.fixture
def guest():
    made = Guest()
    yield made
    made.close()


@pytest.fixture
def server(netmapd, tmp_path, patiently):
    made = Server(tmp_path)
    patiently(lambda: made.path.exists() or made.process.poll() is not None, "the server's socket")
    assert made.process.poll() is None, made.log.read_text()
    yield made
    assert made.end() == 0, made.log.read_text()


def check_served(server, host, frame, number):
    """A newcomer is served: what its guest sends arrives."""
    guest = Guest()
    try:
        with Front(server) as front:
            front.say(guest.messages())
            front.settle()
            guest.send([bytes(12) + frame(1, number)])
            guest.publish()
            os.eventfd_write(guest.kick, 1)
            assert host.recv(timeout=60) == [frame(1, number)]
            position = struct.unpack("<II", front.ask(GET_BASE, struct.pack("<II", TX, 0)))
            assert position == (TX, 1)
    finally:
        guest.close()


def test_a_front_end_that_goes_after_any_message_leaves_the_port_to_the_next(
    server, netmapd, guest, peer, frame, patiently
):
    host = peer("vale1:host")
    check_served(server, host, frame, 1)
    before = server.descriptors(), netmapd.census()
    for count in range(len(guest.messages()) + 1):
        with Front(server) as front:
            front.say(guest.messages()[:count])
    for count in (1, 11, 13):  # in the middle of a message
        with Front(server) as front:
            front.socket.sendall(struct.pack("<III", SET_MEM_TABLE, 1, 40)[:count] + bytes(max(0, count - 12)))
    check_served(server, host, frame, 2)
    patiently(lambda: (server.descriptors(), netmapd.census()) == before, "everything is given back")


def test_a_killed_server_leaves_the_port_to_the_next(netmapd, tmp_path, guest, peer, frame, patiently):
    host = peer("vale1:host")
    before = netmapd.census()
    for number in range(2):
        server = Server(tmp_path)
        patiently(partial(_listens, server), "its socket")  # the one before leaves a socket behind
        check_served(server, host, frame, number)
        with Front(server) as front:
            front.say(guest.messages())
            front.settle()
            assert server.end(signal.SIGKILL) == -signal.SIGKILL
    patiently(lambda: netmapd.census() == before, "netmapd gives everything back")


def _listens(server):
    with contextlib.suppress(OSError), Front(server):
        return True
    return False


def test_a_front_end_whose_driver_breaks_a_queue_is_told_and_may_go_on(server, guest, peer, frame, patiently):
    host = peer("vale1:host")
    with Front(server) as front:
        front.say(guest.messages())
        front.settle()
        guest.avail_head["idx"] = 5000
        guest.publish()
        os.eventfd_write(guest.kick, 1)
        assert select.select([guest.error], [], [], 60)[0], "nobody tells the front end"
        assert os.eventfd_read(guest.error) == 1
        patiently(lambda: "queue 1 stands still" in server.log.read_text(), "a line that says why")
        front.ask(GET_BASE, struct.pack("<II", TX, 0))
        guest.avail_head["idx"] = 0
        guest.send([bytes(12) + frame(1, 3)])
        guest.publish()
        front.say(guest.messages()[5:])
        front.settle()
        os.eventfd_write(guest.kick, 1)
        assert host.recv(timeout=60) == [frame(1, 3)]


def test_a_guest_that_is_moved_finds_the_pages_it_was_given_in_the_log(server, guest, peer, frame):
    """As a hypervisor does it: the log comes while the queue is served, and is read after the queue has stopped."""
    host = peer("vale1:host")
    log = os.memfd_create("log", os.MFD_ALLOW_SEALING)
    size = (GUEST + SIZE) // PAGE // 8
    try:
        os.ftruncate(log, size)
        with Front(server) as front:
            assert struct.unpack("<Q", front.ask(GET_FEATURES))[0] & LOG_ALL
            assert struct.unpack("<Q", front.ask(GET_PROTOCOL_FEATURES))[0] & LOG_SHMFD
            front.tell(SET_PROTOCOL_FEATURES, struct.pack("<Q", LOG_SHMFD))
            guest.send([bytes(12) + frame(1, 1)])
            guest.publish()
            front.say([*guest.messages(), (SET_LOG_BASE, struct.pack("<QQ", size, 0), (log,))])
            os.eventfd_write(guest.kick, 1)
            assert host.recv(timeout=60) == [frame(1, 1)]
            assert not any(os.pread(log, size, 0)), "logged, and nobody asked for it"
            front.tell(SET_FEATURES, struct.pack("<Q", FEATURES | LOG_ALL))
            front.settle()
            guest.send([bytes(12) + frame(1, 2)])
            guest.publish_offered()
            os.eventfd_write(guest.kick, 1)
            assert host.recv(timeout=60) == [frame(1, 2)]
            front.ask(GET_BASE, struct.pack("<II", TX, 0))
        pages = {8 * at + bit for at, byte in enumerate(os.pread(log, size, 0)) for bit in range(8) if byte >> bit & 1}
        assert pages == {guest.used // PAGE}
    finally:
        os.close(log)


@contextlib.contextmanager
def other_files(directory):
    """Descriptors of what a front end has no business to send."""
    (directory / "file").write_bytes(bytes(100))
    pipe = os.pipe()
    fds = [
        os.open(directory / "file", os.O_RDWR),
        os.open(directory / "file", os.O_PATH),
        os.open(directory, os.O_RDONLY),
        os.open("/dev/null", os.O_RDWR),
        os.memfd_create("empty", os.MFD_ALLOW_SEALING),
        os.memfd_create("unsealed"),
        os.eventfd(0, os.EFD_NONBLOCK),
        *pipe,
    ]
    os.eventfd_write(fds[6], 2**64 - 2)  # one more, and who writes waits
    yield fds
    for fd in fds:
        os.close(fd)


def mutated(messages, rng, others):
    """A session with one to three faults: messages as (request, payload, descriptors, size, flags)."""
    session = [[request, bytearray(payload), list(fds), None, 1] for request, payload, fds in messages]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(session))
        message = session[at]
        match rng.randrange(9):
            case 0:
                del session[at]
            case 1:
                session.insert(rng.randrange(len(session)), [message[0], bytearray(message[1]), *message[2:]])
            case 2:
                other = rng.randrange(len(session))
                session[at], session[other] = session[other], message
            case 3:
                message[1] = message[1][: rng.randint(0, len(message[1]))] + rng.randbytes(rng.choice([0, 1, 8, 300]))
            case 4:
                message[3] = rng.choice([0, 1, 7, 4096, 2**31, 2**32 - 1])
            case 5 if message[1]:
                place = rng.randrange(len(message[1]))
                message[1][place : place + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8)])
            case 6:
                message[2] = [rng.choice(others) for _ in range(rng.choice([0, 1, 2, 9]))]
            case 7:
                message[0] = rng.choice([0, *range(1, 45), 2**32 - 1])
            case _:
                message[4] = rng.choice([0, 2, 5, 9, 0xFFFFFFFF])
        if not session:
            return session
    return session


def test_no_session_however_wrong_harms_the_server_or_the_next_front_end(
    server, netmapd, guest, peer, frame, patiently, tmp_path
):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    host = peer("vale1:host")
    check_served(server, host, frame, 0)
    before = server.descriptors(), netmapd.census()
    with other_files(tmp_path) as others:
        for number in range(1, MUTATIONS + 1):
            with Front(server) as front, contextlib.suppress(OSError):
                front.socket.settimeout(0.02)  # not all of this is answered
                for request, payload, fds, size, flags in mutated(guest.messages(), rng, others):
                    front.tell(request, bytes(payload), fds, size=size, flags=flags)
                    if request in ANSWERED:
                        with contextlib.suppress(TimeoutError):
                            front.socket.recv(1000)
            assert server.process.poll() is None, server.log.read_text()
            if number % BETWEEN == 0:
                check_served(server, host, frame, number)
    patiently(lambda: (server.descriptors(), netmapd.census()) == before, "everything is given back")

# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import os
import resource
import select
import socket
import struct

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.frame import HELLO, MAX_FDS, MAX_FRAME, Frame
from ptnetmap.netmap.wire.hello import Hello, hello_frame
from ptnetmap.netmap.wire.request import BODIES, Request

CLIENTS = 1000
GREETING = frames.encode(hello_frame(Hello("test")))
quickly = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def requests():
    """One request of each type, as it would be granted, or refused for what there is not."""
    options = {abi.NETMAP_REQ_CSB_ENABLE: {abi.NETMAP_REQ_OPT_CSB: {}}}
    bodies = {
        abi.NETMAP_REQ_REGISTER: {"nr_mode": abi.NR_REG_ALL_NIC},
        abi.NETMAP_REQ_VALE_ATTACH: {"reg": {"nr_mode": abi.NR_REG_ALL_NIC}},
        abi.NETMAP_REQ_PORT_HDR_SET: {"nr_hdr_len": 12},
        abi.NETMAP_REQ_VALE_POLLING_ENABLE: {"nr_mode": 1, "nr_num_polling_cpus": 1},
        **{number: {"room": 1000} for number in extension.TEXT_REQUESTS},
        extension.NOTIFIERS: {"count": 3},
    }
    return [
        Request(number, "vale0:f", bodies.get(number, {}) if codec else None, options.get(number, {}))
        for number, codec in BODIES.items()
        if number != abi.NETMAP_REQ_VALE_NEWIF  # what it makes would stay
    ]


def valid_frames():
    """A frame of each kind that a client may send."""
    legacy = struct.pack("<16sI", b"vale0:f", 11).ljust(60, b"\0")
    built = [Frame(abi.NIOCREGIF, legacy), Frame(abi.NIOCGINFO, legacy)]
    built += [Frame(abi.NIOCCTRL, request.argument) for request in requests()]
    return [GREETING] + [frames.encode(frame) for frame in built]


VALID = valid_frames()


def makes_something_that_stays(data):
    """Whether it might create a persistent port, which the next example would meet."""
    reqtype = int.from_bytes(data[26:28], "little")
    command = int.from_bytes(data[66:68], "little")
    return reqtype == abi.NETMAP_REQ_VALE_NEWIF or command == abi.NETMAP_BDG_NEWIF


def answer_of(client):
    """The next answer, or None at the end of the connection; anything else fails."""
    data, _ = client.receive()
    return frames.decode(data) if data else None


def provoke(netmapd, data, fds=(), greeted=True):
    """Send a message on a new connection; return its answer."""
    with netmapd.raw() as client:
        if greeted:
            client.greet()
        client.send(data, fds)
        return answer_of(client)


# -- bytes -------------------------------------------------------------------------------------------------------------


@quickly
@given(data=st.binary(min_size=1, max_size=300), greeted=st.booleans())
@example(data=b"\0" * 24, greeted=True)
@example(data=frames.encode(Frame(abi.NIOCTXSYNC)), greeted=False)
def test_any_bytes_are_answered_with_an_error(netmapd, data, greeted):
    answer = provoke(netmapd, data, greeted=greeted)

    assert answer is not None
    assert answer.error
    assert answer.text
    netmapd.serves()


@quickly
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 250), st.sampled_from([0, 1, 2, 127, 128, 255, 64])), max_size=6),
    size=st.integers(0, 300),
    cut=st.booleans(),
)
def test_frames_with_changes_are_answered(netmapd, data, changes, size, cut):
    changed = bytearray(data)
    for at, value in changes:
        if at < len(changed):
            changed[at] = value
    changed = changed[: max(1, size)] if cut else changed
    assume(not makes_something_that_stays(changed))

    assert provoke(netmapd, bytes(changed)) is not None
    netmapd.serves()


@quickly
@given(
    order=st.lists(st.sampled_from(VALID), min_size=2, max_size=6),
    reads=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_valid_frames_in_any_order_are_answered_in_theirs(netmapd, order, reads):
    waits = frames.encode(Frame(abi.NIOCCTRL, Request(abi.NETMAP_REQ_SYNC_KLOOP_START, "", {}).argument))
    assume(waits not in order)
    with netmapd.client() as client:
        owed = []
        for data, read in zip(order, reads, strict=False):
            client.send(data)
            owed.append(frames.read_header(data).ioctl)
            while read and owed:
                assert answer_of(client).ioctl == owed.pop(0)
        for ioctl in owed:
            assert answer_of(client).ioctl == ioctl


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 100_000, 1 << 20])
def test_a_message_that_is_too_long_ends_its_connection(netmapd, size):
    data = VALID[1] + bytes(size - len(VALID[1]))
    with netmapd.client() as client:
        client.send(data)

        assert frames.decode(client.receive()[0]).error == 90
        assert client.ended()
    netmapd.serves()


def test_a_message_of_nothing_ends_its_connection(netmapd):
    with netmapd.client() as client:
        client.socket.send(b"")
        assert client.ended()


@pytest.mark.parametrize("data", VALID[1:4])
def test_before_the_hello_nothing_is_served(netmapd, data):
    with netmapd.raw() as client:
        client.send(data)

        assert answer_of(client).error == 71
        assert client.ended()


def test_a_second_hello_is_refused_and_the_connection_goes_on(netmapd):
    client = netmapd.client()
    client.send(GREETING)

    assert answer_of(client).error
    assert client.register("vale0:a").errno == 0


@pytest.mark.parametrize("protocol", [0, 2, 65535])
def test_another_protocol_is_told_which_one_this_is(netmapd, protocol):
    data = bytearray(GREETING)
    struct.pack_into("<H", data, 4, protocol)
    with netmapd.raw() as client:
        client.send(bytes(data))
        answer = answer_of(client)

        assert (answer.ioctl, answer.error) == (HELLO, 93)
        assert client.ended()


# -- descriptors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fds():
    """Descriptors of all kinds."""
    a, b = socket.socketpair()
    epoll = select.epoll()
    made = [*os.pipe(), a.detach(), b.detach(), os.dup(epoll.fileno()), os.open("/", os.O_RDONLY)]
    made += [os.open("/dev/null", os.O_RDWR), os.open(__file__, os.O_RDONLY), os.eventfd(0), os.memfd_create("m")]
    made += [os.open("/proc/self", os.O_PATH), os.pidfd_open(os.getpid())]
    epoll.close()
    yield made
    for fd in made:
        os.close(fd)


@pytest.mark.parametrize("data", [GREETING, VALID[1], b"garbage"], ids=["hello", "request", "garbage"])
def test_as_many_descriptors_as_a_message_can_carry_are_all_closed(netmapd, patiently, fds, data):
    before = netmapd.census()[0]
    for _ in range(20):
        provoke(netmapd, data, (fds * 30)[:MAX_FDS], greeted=data is not GREETING)
    with netmapd.client() as client:
        for _ in range(20):
            client.send(VALID[-1], [fds[6]] * MAX_FDS)
            assert answer_of(client) is not None
        patiently(lambda: netmapd.census()[0] == before + 1, "all of them closed")


def test_descriptors_of_every_kind_with_every_request_are_closed(netmapd, fds):
    for request in requests():
        with netmapd.client() as client:
            if request.reqtype != abi.NETMAP_REQ_REGISTER:
                client.register("vale0:a")
            client.post(request, fds)
            assert answer_of(client) is not None


def test_descriptors_in_messages_that_were_never_read_are_closed(netmapd, fds):
    for _ in range(5):
        with netmapd.raw() as client:
            client.send(b"garbage", fds)  # ends the connection; what follows waits in it
            with contextlib.suppress(BrokenPipeError):
                for _ in range(5):
                    client.send(VALID[1], fds)
    netmapd.serves()


def test_a_descriptor_that_takes_long_to_close_keeps_nobody_waiting(netmapd):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as lingering:
        lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
        lingering.connect(listener.getsockname())
        peer, _ = listener.accept()
        lingering.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                lingering.send(bytes(1 << 16))  # until nobody takes more: it lingers until somebody does
        client = netmapd.client()
        client.send(VALID[1], [lingering.fileno()])
        os.close(lingering.detach())  # the last one to close it is the daemon
        answer_of(client)

        netmapd.serves()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # with a reset, which ends the waiting


# -- clients that do not do their part ---------------------------------------------------------------------------------


def test_a_client_that_never_reads_its_answers_keeps_nobody_waiting(netmapd):
    request = Request(extension.AUDIT, "", {"room": 30000})
    client = netmapd.client()
    client.register("vale0:a")
    client.socket.setblocking(False)
    asked = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            client.post(request)
            asked += 1

    for _ in range(5):
        netmapd.serves()
    client.socket.setblocking(True)
    assert all(client.collect(request).errno == 0 for _ in range(asked))
    assert client.request(abi.NETMAP_REQ_VALE_LIST, "vale0:a").errno == 0


def test_a_client_that_never_reads_descriptors_keeps_them_and_nobody_waiting(netmapd):
    request = Request(extension.NOTIFIERS, "", {"count": 32})
    lazy = [netmapd.client() for _ in range(5)]
    for client in lazy:
        client.register("vale0:a", nr_tx_rings=16, nr_rx_rings=16)
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.post(request)
    netmapd.serves()
    for client in lazy:
        client.close()
    netmapd.serves()


@pytest.mark.parametrize("greeted", [False, True])
def test_a_thousand_connections_come_and_go(netmapd, greeted):
    for i in range(CLIENTS):
        with netmapd.raw() as client:
            if greeted:
                client.send(GREETING)
            if i % 100 == 0:
                netmapd.serves()
    netmapd.serves()


@pytest.fixture
def many():
    """Room for a connection of each client in this process; the daemon's own room is the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 16 * CLIENTS:
        pytest.skip(f"the hard limit of open files is {hard}: raise it to {16 * CLIENTS} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_idle_clients_are_served_when_they_wake_up(netmapd, many):
    clients = [netmapd.raw() for _ in range(CLIENTS)]
    for client in clients:
        client.send(GREETING)
    for client in clients:
        assert answer_of(client).error == 0
    netmapd.serves()


@pytest.mark.slow
def test_a_thousand_clients_have_a_port_each(netmapd, many):
    clients = [netmapd.client() for _ in range(CLIENTS)]
    for i, client in enumerate(clients):
        assert client.register(f"vale{i % 7}:{i}", nr_tx_slots=16, nr_rx_slots=16).errno == 0
        client.socket.settimeout(120)
    listed = [clients[i].request(abi.NETMAP_REQ_VALE_LIST, f"vale{i % 7}:{i}").errno for i in range(CLIENTS)]
    assert set(listed) == {0}
    netmapd.serves()


def test_a_client_that_has_said_all_is_answered_and_let_go(netmapd):
    client = netmapd.client()
    client.post(Request(abi.NETMAP_REQ_REGISTER, "vale0:a", {"nr_mode": abi.NR_REG_ALL_NIC}))
    client.socket.shutdown(socket.SHUT_WR)

    assert answer_of(client).error == 0
    assert client.ended()
    netmapd.serves()


def test_a_client_that_will_not_hear_is_let_go(netmapd):
    client = netmapd.client()
    client.socket.shutdown(socket.SHUT_RD)
    with contextlib.suppress(BrokenPipeError):
        client.post(Request(abi.NETMAP_REQ_REGISTER, "vale0:a", {"nr_mode": abi.NR_REG_ALL_NIC}))
    netmapd.serves()


# -- a daemon without descriptors to spare -----------------------------------------------------------------------------


@contextlib.contextmanager
def limited(daemon, limit):
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)


def try_all(daemon):
    """Connect and bind as far as that goes; return what became of it."""
    client = daemon.raw()
    try:
        client.send(GREETING)
        if (greeting := answer_of(client)) is None:
            return "turned away"
        assert greeting.error == 0
        bound = client.register("vale0:a", nr_tx_slots=16, nr_rx_slots=16)
        if bound.errno == 0:
            return client.request(extension.NOTIFIERS, count=2).name
        return bound.name
    except BrokenPipeError:
        return "turned away"
    finally:
        client.close()


@pytest.mark.parametrize("spare", range(18))
def test_a_daemon_without_descriptors_refuses_and_recovers(netmapd, spare):
    with limited(netmapd, netmapd.census()[0] + spare):
        outcomes = {try_all(netmapd) for _ in range(3)}

    assert outcomes <= {"OK", "EMFILE", "turned away"}
    netmapd.serves()


def test_a_daemon_that_cannot_even_turn_clients_away_recovers(netmapd):
    with limited(netmapd, 3):
        waiting = netmapd.raw()
        waiting.send(GREETING)

    answer_of(waiting)
    netmapd.serves()


def test_descriptors_that_the_daemon_has_no_room_for_end_the_connection(netmapd, fds):
    client = netmapd.client()
    with limited(netmapd, netmapd.census()[0] + 3):
        client.send(VALID[1], fds)
        assert answer_of(client).error == 24
        assert client.ended()
    netmapd.serves()

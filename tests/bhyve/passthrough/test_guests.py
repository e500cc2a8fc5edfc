# SPDX-License-Identifier: BSD-2-Clause
"""Real guests with ports that are passed through: bhyve with the built-in guest, and a netmapd of the test's own."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

import ptnetmap
from ptnetmap.bench.guestend import PTNET, VIRTIO_NET, GuestEnd
from ptnetmap.bench.stage import OwnNetmapd
from ptnetmap.cli.bhyvectl import main as bhyvectl
from ptnetmap.errors import PortError, PtnetmapError
from ptnetmap.guest.traffic import NUMBER_AT
from ptnetmap.netmap.wire import extension

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="there is no /dev/kvm"),
]

DEADLINE = 120
FILLER = 0x55
FRONTS = [PTNET, VIRTIO_NET]
LINKS = [
    ("ptvale{n}:guest", "vale{n}:host"),
    ("ptnetmap:x{n}{{1", "netmap:x{n}}}1"),
    ("ptnetmap:x{n}}}1", "netmap:x{n}{{1"),
]
MAC = bytes.fromhex("020000000002")


@pytest.fixture(scope="module")
def netmapd():
    own = OwnNetmapd()
    yield own
    own.close()


numbers = iter(range(1, 1000))


@pytest.fixture(params=LINKS, ids=["vale", "master", "slave"])
def names(request):
    n = next(numbers)
    return tuple(name.format(n=n) for name in request.param)


@pytest.fixture(params=FRONTS)
def front(request):
    return request.param


def guest(netmapd, backend, front=PTNET, **settings):
    return GuestEnd(netmapd.address, backend, front, **settings)


def numbers_in(frames):
    return frames[:, NUMBER_AT : NUMBER_AT + 8].copy().view(np.uint64)[:, 0]


def receive_numbered(port, count, length):
    out = np.zeros(512 * length, np.uint8)
    seen = 0
    while seen < count:
        filled, lengths = port.recv_into(out, limit=512, timeout=DEADLINE)
        assert len(lengths), f"{seen} of {count} frames came"
        assert (lengths == length).all()
        frames = filled.reshape(-1, length)
        assert (numbers_in(frames) == np.arange(seen, seen + len(frames))).all()
        assert (frames[:, NUMBER_AT + 8 :] == FILLER).all()
        seen += len(frames)
    return seen


def test_all_that_a_guest_sends_arrives_in_order_and_unchanged(netmapd, names, front):
    backend, name = names
    count = 20_000
    with (
        ptnetmap.open(name, lossless="vale" in name, socket=netmapd.address) as port,
        guest(netmapd, backend, front, function="tx", count=count, length=128, numbered="") as sender,
    ):
        assert receive_numbered(port, count, 128) == count
        assert sender.end(DEADLINE)["packets"] == count


def numbered_frames(first, count):
    frames = np.full((count, 100), FILLER, np.uint8)
    frames[:, :14] = np.frombuffer(b"\xff" * 6 + MAC + b"\x88\xb5", np.uint8)
    frames[:, NUMBER_AT : NUMBER_AT + 8] = np.arange(first, first + count, dtype=np.uint64)[:, None].view(np.uint8)
    return frames


def test_all_that_a_host_sends_arrives_in_the_guest_in_order(netmapd, names, front):
    backend, name = names
    count, at_once = 20_000, 500
    settings = {"function": "rx", "count": count, "numbered": ""}
    with (
        ptnetmap.open(name, socket=netmapd.address) as port,
        guest(netmapd, f"{backend},lossless=true" if "vale" in name else backend, front, **settings) as receiver,
    ):
        for first in range(0, count, at_once):
            assert port.send(numbered_frames(first, at_once), timeout=DEADLINE) == at_once
        figures = receiver.end(DEADLINE)
    assert (figures["packets"], figures["bytes"], figures["wrong"]) == (count, 100 * count, 0)


def ordinary(netmapd, n, **settings):
    """A guest whose virtio-net is an ordinary one, on a port of a switch."""
    return GuestEnd(
        netmapd.address, f"vale{n}:guest,lossless=true", VIRTIO_NET, program=VIRTIO_NET, memdev=False, **settings
    )


@pytest.mark.parametrize("make", [guest, ordinary])
def test_a_guest_sends_no_faster_than_its_rate(netmapd, make):
    n, count, rate = next(numbers), 500, 2000
    where = f"ptvale{n}:guest" if make is guest else n
    with (
        ptnetmap.open(f"vale{n}:host", lossless=True, socket=netmapd.address) as port,
        make(netmapd, where, function="tx", count=count, rate=rate, numbered="", length=60) as sender,
    ):
        assert receive_numbered(port, count, 60) == count
        figures = sender.end(DEADLINE)
    assert figures["packets"] == count
    assert figures["nanoseconds"] >= 1e9 * count / rate * 0.999


def test_all_that_a_guest_sends_by_an_ordinary_virtio_net_arrives_in_order_and_unchanged(netmapd):
    n, count = next(numbers), 20_000
    with (
        ptnetmap.open(f"vale{n}:host", lossless=True, socket=netmapd.address) as port,
        ordinary(netmapd, n, function="tx", count=count, length=128, numbered="") as sender,
    ):
        assert receive_numbered(port, count, 128) == count
        figures = sender.end(DEADLINE)
    assert (figures["packets"], figures["wrong"]) == (count, 0)


def test_all_that_a_host_sends_arrives_in_order_at_an_ordinary_virtio_net(netmapd):
    n, count, at_once = next(numbers), 20_000, 500
    with (
        ptnetmap.open(f"vale{n}:host", socket=netmapd.address) as port,
        ordinary(netmapd, n, function="rx", count=count, numbered="") as receiver,
    ):
        for first in range(0, count, at_once):
            assert port.send(numbered_frames(first, at_once), timeout=DEADLINE) == at_once
        figures = receiver.end(DEADLINE)
    assert (figures["packets"], figures["bytes"], figures["wrong"]) == (count, 100 * count, 0)


def test_two_guests_on_a_switch_lose_nothing(netmapd, front):
    count = 100_000
    with (
        guest(netmapd, "ptvale804:b,lossless=true", front, function="rx", count=count, numbered="") as receiver,
        guest(netmapd, "ptvale804:a", front, function="tx", count=count, numbered="") as sender,
    ):
        assert sender.end(DEADLINE)["packets"] == count
        figures = receiver.end(DEADLINE)
    assert (figures["packets"], figures["wrong"]) == (count, 0)


def test_a_guest_sleeps_while_nothing_comes_and_wakes_when_something_does(netmapd, front):
    with (
        ptnetmap.open("vale800:host", socket=netmapd.address) as port,
        guest(netmapd, "ptvale800:guest", front, function="rx", count=3, wait="halt") as receiver,
    ):
        for _ in range(3):
            time.sleep(0.2)  # not to wait for anything, but to let the guest halt
            assert port.send(numbered_frames(0, 1), timeout=DEADLINE) == 1
        figures = receiver.end(DEADLINE)
    assert figures["packets"] == 3
    assert figures["halts"] >= 3


@pytest.mark.parametrize("function", ["ping", "pong"])
def test_round_trips_between_guest_and_host(netmapd, names, front, function):
    backend, name = names
    with ptnetmap.open(name, socket=netmapd.address) as port:
        if function == "ping":
            with guest(netmapd, backend, front, function="ping", count=50) as pinging:
                trips = 0
                while len(frame := port.recv(1, timeout=DEADLINE)[0]) == 60:
                    trips += port.send([frame])
                figures = pinging.end(DEADLINE)
            assert trips == figures["trips"] == 50
            assert 0 < figures["median_ns"] <= figures["p99_ns"]
        else:
            with guest(netmapd, backend, front, function="pong", count=50) as answering:
                port.recv(1, timeout=DEADLINE)  # it announces itself
                for _ in range(50):
                    port.send([b"\xff" * 6 + MAC + bytes(48)])
                    (answer,) = port.recv(1, timeout=DEADLINE)
                    assert answer[:6] == MAC
                assert answering.end(DEADLINE)["packets"] == 50


def exchange(a, b):
    """Send 64 frames from a to b, and return whether all came."""
    assert a.send(numbered_frames(0, 64), timeout=DEADLINE) == 64
    return len(receive(b, 64)) == 64


def receive(port, count):
    got = []
    while len(got) < count and (more := port.recv(count - len(got), timeout=DEADLINE)):
        got += more
    return got


def violations_of(netmapd, backend):
    """Rings of a guest's port that were found overwritten, and slots that named no buffer; 0 once it is gone."""
    name = backend.removeprefix("ptnetmap:").removeprefix("pt")
    try:
        counted = extension.stats_fields(netmapd.session.request(extension.PORT_STATS, name, {}))
    except PortError:
        return 0
    return counted["reinits"] + counted["truncated"] + counted["drops"].get("bad_slot", 0)


def test_the_hostile_guest_harms_nobody_else(netmapd, names, front):
    backend, name = names
    writes = 100_000_000
    with (
        ptnetmap.open(name, socket=netmapd.address) as port,
        ptnetmap.open("vale900:a", socket=netmapd.address) as a,
        ptnetmap.open("vale900:b", lossless=True, socket=netmapd.address) as b,
        guest(netmapd, backend, front, program="hostile", count=writes) as attacker,
    ):
        assert exchange(a, b)
        violations = 0
        while not attacker.has_ended():
            assert exchange(a, b)
            port.recv(512, timeout=0)
            violations = max(violations, violations_of(netmapd, backend))
        assert attacker.end(DEADLINE)["writes"] == writes
        assert violations > 0
    # Every buffer has one owner again, and its port can be had once more.
    assert [entry for entry in extension.introspect(netmapd.session.request, extension.AUDIT) if not entry["ok"]] == []
    with guest(netmapd, backend, front, function="tx", count=10) as again:
        assert again.end(DEADLINE)["packets"] == 10


@pytest.mark.parametrize("seed", [1, 22, 333])
def test_junk_at_every_register_ends_the_machine_at_most(netmapd, front, seed):
    with guest(netmapd, f"ptvale803:{seed}", front, program="junk", count=20_000, seed=seed) as machine:
        code, said = machine.wait(DEADLINE)
    assert code in (0, 1, 2, 3, 4), said
    assert "Traceback" not in said
    assert "a device model failed" not in said
    with guest(netmapd, f"ptvale803:{seed}", front, function="tx", count=10) as again:
        assert again.end(DEADLINE)["packets"] == 10


def test_a_guest_says_which_memory_it_looked_for(netmapd):
    with pytest.raises(PtnetmapError) as failure:
        guest(netmapd, "ptvale801:guest", memdev=False, function="tx")
    assert failure.value.errno == errno.ECHILD
    assert "none shows memory" in str(failure.value)


@pytest.mark.parametrize("order", ["--inject-nmi", "--get-stats", "--force-reset", "--force-poweroff"])
def test_a_guest_that_never_comes_out_can_be_told_something(netmapd, monkeypatch, order):
    with guest(netmapd, "ptvale805:busy", function="tx", ms=1000 * DEADLINE) as busy:
        environment = Path(f"/proc/{busy.pid}/environ").read_bytes().decode().split("\0")
        monkeypatch.setenv(
            "XDG_RUNTIME_DIR", dict(pair.split("=", 1) for pair in environment if pair)["XDG_RUNTIME_DIR"]
        )
        assert bhyvectl([f"--vm=bench-{os.getpid()}", order]) == 0
        if order.startswith("--force"):
            busy.wait(DEADLINE)


def test_a_killed_machine_gives_its_port_back(netmapd, front):
    backend = f"ptvale802:{FRONTS.index(front)}"
    with guest(netmapd, backend, front, function="rx") as machine:
        machine.kill()
    with guest(netmapd, backend, front, function="tx", count=10) as again:
        assert again.end(DEADLINE)["packets"] == 10

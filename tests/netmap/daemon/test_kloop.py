# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import fcntl
import mmap
import os
import random
import select
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.daemon.watchdog import Watchdog
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.option import FilePlace
from ptnetmap.netmap.wire.request import Request

CSB = abi.NETMAP_REQ_OPT_CSB
EVENTFDS = abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS
MODE = abi.NETMAP_REQ_OPT_SYNC_KLOOP_MODE
TX, RX = 0, 1
ENTRY = 64
FULL = 2**64 - 2
STOP = Request(abi.NETMAP_REQ_SYNC_KLOOP_STOP)
PATIENCE_MS = 30_000


def frame(source, fill=0, size=60):
    return (b"\xff" * 6 + bytes([2, 0, 0, 0, 0, source]) + b"\x88\xb5" + bytes([fill]) * size)[:size]


def memory(size, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW):
    fd = os.memfd_create("csb", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def csb_option(count=2, fd=0, at=0):
    places = {"csb_atok": int(FilePlace(fd, at)), "csb_ktoa": int(FilePlace(fd, at + count * ENTRY))}
    return {CSB: places}


def pairs(kicks, irqs):
    return [{"ioeventfd": kick, "irqfd": irq} for kick, irq in zip(kicks, irqs, strict=True)]


class Guest:
    """A port in CSB mode, and the other side of its CSB."""

    def __init__(self, netmapd, name, *, slots=64, register=True, at=0):
        self.client = netmapd.client()
        self.name = name
        self.memfd = memory(max(4096, at + 4 * ENTRY))
        entries = mmap.mmap(self.memfd, 4 * ENTRY + at % mmap.PAGESIZE, offset=at - at % mmap.PAGESIZE)
        words = np.frombuffer(entries, np.uint32, offset=at % mmap.PAGESIZE).reshape(-1, ENTRY // 4)
        self.atok, self.ktoa = words[:2], words[2:4]
        self.kicks = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.irqs = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        shape = {"nr_tx_slots": slots, "nr_rx_slots": slots, "nr_flags": abi.NR_EXCLUSIVE}
        options = csb_option(at=at) if register else None
        self.bound = self.client.register(name, options, [self.memfd] if register else [], **shape)
        assert self.bound.errno == 0, self.bound.text
        self.n = slots
        region = mmap.mmap(self.bound.fds[0], self.bound.fields["nr_memsize"])
        described = extension.introspect(
            lambda number, name, body: self.client.request(number, name, **body).fields, extension.BINDING
        )
        self.slots, self.headers = [], []
        for ring in described["rings"]:
            self.headers.append(np.frombuffer(region, abi.ring, 1, ring["offset"])[0])
            self.slots.append(np.frombuffer(region, abi.slot, slots, ring["offset"] + abi.ring.itemsize))
        self._buffers = described["rings"][0]["offset"] + int(self.headers[0]["buf_ofs"])
        self._region = np.frombuffer(region, np.uint8)
        self.started = None

    def close(self):
        for fd in (self.memfd, *self.kicks, *self.irqs):
            os.close(fd)

    def start(self, options=None, fds=(), **body):
        """Start the loop without waiting for its end."""
        self.started = Request(abi.NETMAP_REQ_SYNC_KLOOP_START, "", body, options or {})
        self.client.post(self.started, fds)

    def start_with_events(self, options=None):
        self.start({EVENTFDS: {"eventfds": pairs([0, 1], [2, 3])}, **(options or {})}, [*self.kicks, *self.irqs])

    def stop(self):
        """Stop the loop; return the answers, STOP's and START's."""
        self.client.post(STOP)
        return self.client.collect(STOP), self.client.collect(self.started)

    def buffer(self, index):
        start = self._buffers + int(index) * 2048
        return self._region[start : start + 2048]

    def put(self, *frames):
        """Fill TX slots, and release them."""
        head = int(self.atok[TX][0])
        for data in frames:
            slot = self.slots[TX][head]
            self.buffer(slot["buf_idx"])[: len(data)] = np.frombuffer(data, np.uint8)
            slot["len"], slot["flags"] = len(data), 0
            head = (head + 1) % self.n
        self.release(TX, head)

    def release(self, ring, head):
        self.atok[ring][1] = head
        self.atok[ring][0] = head

    def kick(self, ring):
        if self.ktoa[ring][2]:
            os.eventfd_write(self.kicks[ring], 1)

    def send(self, *frames):
        self.put(*frames)
        self.kick(TX)

    def received(self):
        """Take what has come, and give the slots back."""
        tail = int(self.ktoa[RX][1])
        head, frames = int(self.atok[RX][0]), []
        while head != tail:
            slot = self.slots[RX][head]
            frames.append(bytes(self.buffer(slot["buf_idx"])[: int(slot["len"])]))
            head = (head + 1) % self.n
        if frames:
            self.release(RX, head)
            self.kick(RX)
        return frames

    def sent(self):
        return int(self.ktoa[TX][0]) == int(self.atok[TX][0])

    def parked(self):
        return bool(self.ktoa[TX][2])


@pytest.fixture
def guest(netmapd):
    """Makes ports in CSB mode."""
    with contextlib.ExitStack() as stack:

        def make(name, **options):
            made = Guest(netmapd, name, **options)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def two(guest):
    """Two ports in CSB mode on a switch, their loops running."""
    a, b = guest("vale0:a"), guest("vale0:b")
    for one in (a, b):
        one.start_with_events()
    return a, b


def exchange(a, b, patiently, rounds=5):
    """Check that ports reach each other."""
    for i in range(rounds):
        for sender, reader in ((a, b), (b, a)):
            data = frame(1 if sender is a else 2, i)
            sender.send(data)
            got = []
            patiently(lambda reader=reader, got=got: got.extend(reader.received()) or got, "a frame")
            assert got == [data]


def reach(sender, reader, data, patiently):
    """Check that a frame arrives, among others perhaps."""
    got = []
    sender.send(data)
    patiently(lambda: got.extend(reader.received()) or data in got, "a frame")


# -- what a loop does --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["events", "sleep", "direct", "no irqs"])
def test_packets_move_through_the_memory_that_a_client_brought(guest, patiently, how):
    a, b = guest("vale0:a"), guest("vale0:b")
    for one in (a, b):
        if how == "events":
            one.start_with_events()
        elif how == "direct":
            one.start_with_events({MODE: {"mode": 3}})
        elif how == "no irqs":
            one.start({EVENTFDS: {"eventfds": pairs([0, 1], [-1, -1])}}, one.kicks)
        else:
            one.start(sleep_us=500)

    exchange(a, b, patiently)
    assert [[reply.name for reply in one.stop()] for one in (a, b)] == [["OK", "OK"]] * 2


def test_a_csb_is_where_its_file_says_however_large_that_is(guest, patiently):
    a, b = guest("vale0:a", at=2**46 + 64), guest("vale0:b", at=5 * ENTRY)
    for one in (a, b):
        one.start_with_events()

    exchange(a, b, patiently)


def test_a_csb_enabled_later_takes_over(guest, patiently):
    a, b = guest("vale0:a"), guest("vale0:b", register=False)
    enabled = b.client.request(abi.NETMAP_REQ_CSB_ENABLE, "", csb_option(), [b.memfd])

    assert (enabled.errno, enabled.statuses) == (0, [(CSB, 0)])
    for one in (a, b):
        one.start_with_events()
    exchange(a, b, patiently)


def test_the_entries_of_a_new_csb_say_where_the_rings_stand(guest):
    a = guest("vale0:a")

    assert a.atok[:, :4].tolist() == [[0, 0, 1, 1]] * 2
    assert a.ktoa[:, :3].tolist() == [[0, 63, 1], [0, 0, 1]]


def test_interrupts_come_as_long_as_they_are_wanted(two, patiently):
    a, b = two
    for wanted in (1, 0, 1):
        b.atok[RX][2] = wanted
        a.send(frame(1))
        patiently(b.received, "a frame")
        if wanted:
            assert select.select([b.irqs[RX]], [], [], PATIENCE_MS / 1000)[0]
            os.eventfd_read(b.irqs[RX])
        patiently(lambda: a.sent() and a.parked() and b.ktoa[RX][2] == 0, "rest")
        assert select.select([b.irqs[RX]], [], [], 0)[0] == []
        assert b.atok[RX][2] == wanted


def test_a_ring_asks_for_kicks_when_it_rests_and_one_is_enough(two, patiently):
    a, b = two
    exchange(a, b, patiently, 1)  # at the beginning, kicks are asked for in any case
    for i in range(5):
        patiently(a.parked, "rest")
        a.put(frame(1, i))
        os.eventfd_write(a.kicks[TX], 1)
        assert patiently(b.received, "a frame") == [frame(1, i)]
    patiently(a.parked, "rest")


def test_a_ring_filled_at_once_is_sent_by_halves_and_loses_nothing(two, patiently):
    a, b = two
    frames = [frame(1, i) for i in range(a.n - 1)]
    a.send(*frames)
    got = []
    patiently(lambda: got.extend(b.received()) or len(got) == len(frames), "all frames")

    assert got == frames
    patiently(lambda: a.ktoa[TX][1] == (a.n - 2) % a.n, "space")


def test_a_loop_can_be_stopped_and_started_and_goes_on_where_it_was(two, patiently):
    a, b = two
    for i in range(3):
        exchange(a, b, patiently, 1)
        assert [reply.name for reply in a.stop()] == ["OK", "OK"]
        a.put(frame(1, 50 + i))
        assert b.received() == []
        a.start_with_events()
        assert patiently(b.received, "a frame") == [frame(1, 50 + i)]


def test_options_of_a_loop_that_has_ended_have_their_statuses(guest):
    a = guest("vale0:a")
    a.start_with_events({MODE: {"mode": 0}})

    assert a.stop()[1].statuses == [(EVENTFDS, 0), (MODE, 0)]


def test_a_loop_that_runs_is_told_of_and_moves_to_another_kthread(netmapd, two, patiently):
    a, b = two
    for number in (1, 0, 1):
        reply = netmapd.client().request(extension.KTHREAD_MOVE, "vale0:a", kthread=number)
        assert reply.errno == 0, reply.text
        exchange(a, b, patiently, 1)
    ask = netmapd.client().request
    ports = extension.introspect(lambda number, name, body: ask(number, name, **body).fields, extension.PORT_LIST)
    assert [port["kthread"] for port in ports if "vale0:a" in port["name"]] == [1]
    a.stop()
    assert netmapd.client().request(extension.KTHREAD_MOVE, "vale0:a", kthread=0).name == "EINVAL"


def test_a_client_that_goes_while_its_loop_runs_takes_nothing_along(netmapd, guest, two, patiently):
    a, b = two
    c = guest("vale0:c")
    c.start_with_events()
    exchange(a, b, patiently, 1)
    a.send(*[frame(1, i) for i in range(20)])
    a.client.close()

    patiently(lambda: netmapd.client().request(abi.NETMAP_REQ_VALE_LIST, "vale0:a").fields["nr_port_idx"] == 255)
    reach(b, c, frame(2, 99), patiently)
    reach(c, b, frame(3, 98), patiently)


def test_fifty_loops_later_there_are_as_many_descriptors_as_before(netmapd, guest, patiently):
    a = guest("vale0:a")
    before = netmapd.census()[0]
    for i in range(50):
        if i % 2:
            a.start_with_events()
        else:
            a.start(sleep_us=1000)
        assert [reply.name for reply in a.stop()] == ["OK", "OK"]
        assert a.client.request(abi.NETMAP_REQ_CSB_ENABLE, "", csb_option(), [a.memfd]).errno == 0

    patiently(lambda: netmapd.census()[0] == before, "as many as before")


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_loop_without_csb_or_that_runs_is_refused(guest, netmapd):
    a = guest("vale0:a")
    plain = netmapd.client()
    plain.register("vale0:b", nr_flags=abi.NR_EXCLUSIVE)
    a.start_with_events()

    assert a.client.request(abi.NETMAP_REQ_SYNC_KLOOP_START).name == "EBUSY"
    assert a.client.request(abi.NETMAP_REQ_CSB_ENABLE, "", csb_option(), [a.memfd]).name == "EBUSY"
    assert plain.request(abi.NETMAP_REQ_SYNC_KLOOP_START).name == "EINVAL"
    assert plain.request(abi.NETMAP_REQ_SYNC_KLOOP_STOP).errno == 0
    assert [reply.name for reply in a.stop()] == ["OK", "OK"]


@pytest.mark.parametrize(
    ("options", "sleep_us", "expected"),
    [
        ({}, 1_000_001, "EINVAL"),
        ({EVENTFDS: {"eventfds": pairs([0], [1])}}, 0, "EINVAL"),
        ({EVENTFDS: {"eventfds": pairs([0, 1, 2], [1, 2, 3])}}, 0, "EINVAL"),
        ({EVENTFDS: {"eventfds": pairs([0, 1], [2, 4])}}, 0, "EBADF"),
        ({EVENTFDS: {"eventfds": pairs([0, 2**31 - 1], [2, 3])}}, 0, "EBADF"),
        ({EVENTFDS: {"eventfds": pairs([0, 1], [2, 3]), "nro_size": 43}}, 0, "EINVAL"),
        ({MODE: {"mode": 4}}, 0, "EINVAL"),
        ({MODE: {"mode": 1}}, 0, "EINVAL"),
        ({EVENTFDS: {"eventfds": pairs([0, -1], [2, 3])}, MODE: {"mode": 2}}, 0, "EINVAL"),
    ],
)
def test_a_loop_that_cannot_be_is_refused_and_another_one_starts(guest, options, sleep_us, expected):
    a = guest("vale0:a")
    a.start(options, [*a.kicks, *a.irqs], sleep_us=sleep_us)

    assert a.client.collect(a.started).name == expected
    a.start_with_events()
    assert [reply.name for reply in a.stop()] == ["OK", "OK"]


@pytest.fixture
def strange():
    """Descriptors of all kinds but eventfds."""
    a, b = socket.socketpair()
    epoll = select.epoll()
    fds = [*os.pipe(), a.detach(), b.detach(), os.dup(epoll.fileno()), os.open("/", os.O_RDONLY)]
    fds += [os.open("/dev/null", os.O_RDWR), os.open(__file__, os.O_RDONLY), os.pidfd_open(os.getpid())]
    epoll.close()
    yield fds
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("as_irq", [False, True])
def test_an_eventfd_that_is_none_is_refused(guest, strange, as_irq):
    a = guest("vale0:a")
    for fd in [*strange, a.memfd]:
        fds = [a.kicks[0], fd] if as_irq else [fd, a.irqs[0]]
        a.start({EVENTFDS: {"eventfds": pairs([0, 0], [1, 1])}}, fds)
        assert a.client.collect(a.started).name == "EINVAL"


def test_memory_of_a_csb_that_is_none_is_refused(netmapd, strange):
    client = netmapd.client()
    eventfd = os.eventfd(0)
    for fd in [*strange, eventfd]:
        assert client.register("vale0:a", csb_option(), [fd], nr_flags=abi.NR_EXCLUSIVE).name == "EINVAL"
    os.close(eventfd)
    assert client.register("vale0:a").errno == 0


@pytest.mark.parametrize(
    ("option", "seals", "size", "flags", "expected"),
    [
        (csb_option(), fcntl.F_SEAL_SHRINK, 4 * ENTRY - 1, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(), fcntl.F_SEAL_SHRINK, 0, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(), fcntl.F_SEAL_SEAL, 4096, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(), fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EFAULT"),
        (csb_option(at=8), fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(at=4096), fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(at=2**47), fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EINVAL"),
        (csb_option(fd=1), fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EFAULT"),
        (csb_option(fd=0xFFFF), fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EFAULT"),
        (csb_option(), fcntl.F_SEAL_SHRINK, 4096, 0, "EINVAL"),
        ({CSB: {"csb_atok": 0x10, "csb_ktoa": 0x800}}, fcntl.F_SEAL_SHRINK, 4096, abi.NR_EXCLUSIVE, "EINVAL"),
    ],
)
def test_a_csb_that_cannot_be_is_refused_and_undoes_the_registration(netmapd, option, seals, size, flags, expected):
    client, fd = netmapd.client(), memory(size, seals)
    refused = client.register("vale0:a", option, [fd], nr_flags=flags)
    os.close(fd)

    assert refused.name == expected
    assert client.request(abi.NETMAP_REQ_VALE_LIST).name == "ENOENT"
    assert client.register("vale0:a").errno == 0


def test_memory_that_can_still_be_sealed_is_sealed(guest, netmapd):
    client, fd = netmapd.client(), memory(4096, 0)

    assert client.register("vale0:a", csb_option(), [fd], nr_flags=abi.NR_EXCLUSIVE).errno == 0
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)


def test_ports_that_no_kthread_serves_take_no_csb(netmapd):
    client, fd = netmapd.client(), memory(4096)

    assert client.register("vale0:a{1", csb_option(), [fd], nr_flags=abi.NR_EXCLUSIVE).name == "EOPNOTSUPP"
    os.close(fd)


# -- what a hostile guest does -----------------------------------------------------------------------------------------


def stats(guest):
    return guest.client.request(extension.PORT_STATS).fields


def test_indices_that_change_all_the_time_cost_only_their_owner(guest, two, patiently):
    a, b = two
    hostile = guest("vale1:h")
    hostile.start_with_events()
    over = threading.Event()
    wild = random.Random(1)

    def flip():
        values = [0, 1, 62, 63, 64, 65, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, *range(2, 60, 7)]
        while not over.is_set():
            for ring in (TX, RX):
                hostile.atok[ring][wild.randrange(4)] = wild.choice(values)
                hostile.ktoa[ring][wild.randrange(3)] = wild.choice(values)
                os.eventfd_write(hostile.kicks[ring], 1)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        exchange(a, b, patiently, 10)
        patiently(lambda: reinits(hostile), "reinits")
    finally:
        over.set()
        thread.join()
    exchange(a, b, patiently)
    assert stats(a)["tx"]["reinits"] + stats(b)["rx"]["reinits"] == 0


def reinits(hostile):
    fields = stats(hostile)
    return fields["tx"]["reinits"] + fields["rx"]["reinits"]


@pytest.mark.parametrize("index", [64, 65, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("ring", [TX, RX])
def test_an_index_outside_the_ring_is_put_right_and_counted(two, patiently, ring, index):
    a, b = two
    a.release(ring, index)
    os.eventfd_write(a.kicks[ring], 1)
    patiently(lambda: a.atok[ring][0] < a.n and a.atok[ring][1] < a.n, "a ring reinit")

    assert stats(a)[("tx", "rx")[ring]]["reinits"] >= 1
    exchange(a, b, patiently, 1)


@pytest.mark.parametrize("index", [0, 1, 2**32 - 1, 2**31, "beyond", "of the RX ring"])
def test_a_slot_that_names_no_buffer_of_its_own_sends_nothing_of_others(guest, two, patiently, index):
    a, b = two
    total = a.client.request(abi.NETMAP_REQ_POOLS_INFO_GET).fields["nr_buf_pool_objtotal"]
    named = {"beyond": total, "of the RX ring": int(a.slots[RX]["buf_idx"][5])}.get(index, index)
    a.put(frame(1, 1), frame(1, 2), frame(1, 3))
    a.slots[TX]["buf_idx"][1] = named
    a.kick(TX)
    got = []
    patiently(lambda: got.extend(b.received()) or a.sent(), "the end")
    patiently(lambda: got.extend(b.received()) or len(got) >= 2, "the good ones")

    if index == "of the RX ring":
        assert [got[0], got[-1]] == [frame(1, 1), frame(1, 3)]
    else:
        assert got == [frame(1, 1), frame(1, 3)]
        assert stats(a)["tx"]["bad_slot"] + stats(a)["tx"]["too_short"] == 1


@pytest.mark.parametrize("length", [2049, 0xFFFF])
def test_a_slot_longer_than_its_buffer_is_dropped_and_counted(two, patiently, length):
    a, b = two
    a.put(frame(1, 1), frame(1, 2))
    a.slots[TX]["len"][0] = length
    a.kick(TX)

    assert patiently(b.received, "the good one") == [frame(1, 2)]
    assert stats(a)["tx"]["bad_slot"] == 1


def test_pointers_of_another_process_are_not_followed(netmapd, two, patiently):
    a, b = two
    maps = Path(f"/proc/{netmapd.pid}/maps").read_text().splitlines()
    readable = next(int(line.split("-")[0], 16) for line in maps if line.split()[1].startswith("r"))
    a.put(frame(1, 1), frame(1, 2))
    a.slots[TX]["flags"][0] = abi.NS_INDIRECT
    a.slots[TX]["ptr"][0] = readable
    a.kick(TX)

    assert patiently(b.received, "the good one") == [frame(1, 2)]
    assert stats(a)["tx"]["bad_indirect"] == 1


def test_slots_of_all_kinds_cost_only_their_owner(guest, two, patiently):
    a, b = two
    hostile = guest("vale1:h")
    hostile.start_with_events()
    wild = np.random.default_rng(7)
    for _ in range(30):
        for ring in (TX, RX):
            raw = hostile.slots[ring].view(np.uint32)
            raw[:] = wild.choice(np.array([0, 1, 2, 70, 0xFFFFFFFF, 0x10000040, 60, 2048], np.uint32), raw.shape)
            head = (int(hostile.ktoa[ring][1]) - ring) % hostile.n if ring == TX else int(hostile.ktoa[ring][1])
            hostile.release(ring, head)
            os.eventfd_write(hostile.kicks[ring], 1)
    patiently(lambda: hostile.ktoa[TX][2], "rest")
    exchange(a, b, patiently)
    audits = extension.introspect(
        lambda number, name, body: a.client.request(number, name, **body).fields, extension.AUDIT
    )
    owned = {a.bound.fields["nr_mem_id"], b.bound.fields["nr_mem_id"]}
    assert [one["ok"] for one in audits if one["mem_id"] in owned] == [True, True]


def test_both_halves_of_a_csb_in_one_place_cost_only_their_owner(netmapd, two, patiently):
    client, fd = netmapd.client(), memory(4096)
    kick = os.eventfd(0)
    assert client.register("vale1:h", {CSB: {}}, [fd], nr_flags=abi.NR_EXCLUSIVE).errno == 0
    client.post(
        Request(abi.NETMAP_REQ_SYNC_KLOOP_START, "", {}, {EVENTFDS: {"eventfds": pairs([0, 0], [0, 0])}}), [kick]
    )
    for _ in range(100):
        os.eventfd_write(kick, 1)
    exchange(*two, patiently)
    for opened in (fd, kick):
        os.close(opened)


# -- interrupts that block ---------------------------------------------------------------------------------------------


@pytest.fixture
def blocking(netmapd, guest, two, patiently):
    """A third port, on the same kthread as the other two, and an interrupt of its that blocks its writers."""
    mean = guest("vale0:m")
    os.set_blocking(mean.irqs[RX], True)
    mean.start_with_events()
    for name in ("vale0:a", "vale0:b", "vale0:m"):
        assert netmapd.client().request(extension.KTHREAD_MOVE, name, kthread=0).errno == 0
    return mean


def test_a_client_that_fills_its_interrupt_holds_up_nobody(two, blocking, patiently):
    exchange(*two, patiently, 1)
    os.eventfd_read(blocking.irqs[RX])
    os.eventfd_write(blocking.irqs[RX], FULL)

    exchange(*two, patiently)
    two[0].client.close()  # the control thread waits for the kthread, too
    reach(two[1], blocking, frame(2, 99), patiently)
    assert [reply.name for reply in blocking.stop()] == ["OK", "OK"]


def test_a_client_that_fills_its_interrupt_again_and_again_holds_up_nobody(netmapd, two, blocking, patiently):
    fd, over = blocking.irqs[RX], threading.Event()

    def fill():
        while not over.is_set():
            os.write(fd, FULL.to_bytes(8, "little"))

    threads = [threading.Thread(target=fill) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        exchange(*two, patiently)
        netmapd.serves()
        assert [reply.name for reply in blocking.stop()] == ["OK", "OK"]
        exchange(*two, patiently)
    finally:
        over.set()
        os.set_blocking(fd, False)
        while any(thread.is_alive() for thread in threads):
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            time.sleep(0.001)


class Interrupts:
    """Stands for a service and its kthread, as far as the watchdog looks at them."""

    def __init__(self, fd):
        self.block = {"irqfd": fd}
        self.kthread = self
        self.interrupted = 0

    def interrupt(self):
        self.interrupted += 1


def test_an_interrupt_that_is_full_is_muted_and_counted_once_and_its_kthread_does_not_stay_in_it(patiently):
    full, honest, none = Interrupts(os.eventfd(0)), Interrupts(os.eventfd(5)), Interrupts(-1)
    fds = [full.block["irqfd"], honest.block["irqfd"]]
    watchdog = Watchdog()
    watchdog.watch([full, honest, none])
    try:
        for _ in range(2):
            os.eventfd_write(fds[0], FULL)
            before = full.interrupted
            patiently(lambda before=before: full.interrupted > before + 1, "an end of the writes that came late, too")
            os.eventfd_read(fds[0])
    finally:
        watchdog.forget([full, honest, none])

    assert (watchdog.muted, honest.interrupted) == (1, 0)
    assert (full.block["irqfd"], honest.block["irqfd"]) == (-1, fds[1])
    assert os.eventfd_read(fds[1]) == 5
    for fd in fds:
        os.close(fd)


def test_a_client_may_read_its_interrupts_blocking(two, blocking):
    two[0].send(frame(1))

    assert os.get_blocking(blocking.irqs[RX])
    assert os.eventfd_read(blocking.irqs[RX]) >= 1


class Sleeper:
    """Stands for a kthread, as far as the watchdog looks at it."""

    def __init__(self):
        self.block = {"asleep_since": 1, "watchdog_waits": 0, "watchdog": -1}

    def wake(self):
        self.block["asleep_since"] = 0
        if self.block["watchdog_waits"]:
            self.block["watchdog_waits"] = 0
            os.eventfd_write(self.block["watchdog"], 1)


def test_the_watchdog_sleeps_until_a_kthread_wakes_up_and_looks_while_one_is_awake(patiently):
    sleepers, full = [Sleeper(), Sleeper()], Interrupts(os.eventfd(0))
    fd = full.block["irqfd"]
    watchdog = Watchdog(sleepers)
    watchdog.watch([full])
    try:
        patiently(lambda: watchdog.looks and sleepers[1].block["watchdog_waits"], "a first look")
        os.eventfd_write(fd, FULL)
        assert (watchdog.looks, watchdog.muted) == (1, 0)
        sleepers[1].wake()
        patiently(lambda: watchdog.muted, "a look")
        patiently(lambda: watchdog.looks > 5, "looks")
    finally:
        watchdog.forget([full])
    patiently(lambda: not watchdog._running, "its end")
    os.close(fd)

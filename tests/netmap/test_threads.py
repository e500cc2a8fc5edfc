# SPDX-License-Identifier: BSD-2-Clause
# Several threads at once. Counts are bounded, waits have deadlines, and nothing sleeps to wait.
import errno
import os
import random
import threading
import time

import numpy as np
import pytest
from numba import config

from ptnetmap.errors import PortError
from ptnetmap.jit.block import view
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.memory import load8, load32, store16, store32, store64
from ptnetmap.netmap.lookup import Lookup
from ptnetmap.netmap.port import POLLIN
from ptnetmap.netmap.view import BROADCAST

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="interpreted kernels hold the GIL: nothing runs at once")

PATIENCE = 30.0  # seconds that no test takes unless something hangs


def stamped(sender, count, *, target=0, size=60):
    """Frames of one sender as an array: addresses 02:00:00:00:00:N, then the sender's number and a running one."""
    frames = np.zeros((count, size), np.uint8)
    frames[:, 0:6] = (2, 0, 0, 0, 0, target)
    frames[:, 6:12] = (2, 0, 0, 0, 0, sender)
    frames[:, 12:14] = (0x88, 0xB5)
    frames[:, 14:18] = np.arange(count, dtype="<u4").view(np.uint8).reshape(count, 4)
    frames[:, 18] = sender
    frames[:, 19:] = (frames[:, 14] ^ sender)[:, np.newaxis]
    return frames


def receive(port, count, *, limit=256):
    """Receive ``count`` frames of equal size; return them as an array."""
    deadline = time.monotonic() + PATIENCE
    parts = []
    have = 0
    out = np.zeros(1 << 18, np.uint8)
    while have < count:
        assert time.monotonic() < deadline, f"{have} of {count} frames have come: the rest is lost or stuck"
        data, lengths = port.recv_into(out, limit, timeout=1.0)
        if len(lengths):
            assert (lengths == lengths[0]).all()
            parts.append(data.reshape(len(lengths), int(lengths[0])).copy())
            have += len(lengths)
    return np.concatenate(parts)


def numbers(frames):
    return np.ascontiguousarray(frames[:, 14:18]).view("<u4").reshape(-1)


def assert_whole_and_in_order(frames, sender, count):
    mine = frames[frames[:, 18] == sender]
    assert np.array_equal(numbers(mine), np.arange(count)), f"sender {sender}: frames lost, doubled or out of order"
    assert (mine[:, 19:] == (mine[:, 14] ^ sender)[:, np.newaxis]).all(), f"sender {sender}: bytes of another frame"


def to_zero(packets, lengths, source, table, ports, rings):
    """All to port 0."""
    for i in range(len(packets)):
        ports[i] = 0
        rings[i] = 0


@pytest.fixture(scope="module")
def all_to_port_0():
    return Lookup(to_zero)


@pytest.mark.parametrize("slots", [8, 1024])
def test_several_senders_to_a_lossless_port_lose_nothing_and_keep_their_order(nm, meanwhile, all_to_port_0, slots):
    count, senders = 20_000, 4
    sink = nm.open("vale0:sink", rx_slots=slots, lossless=True)
    nm.switch("vale0").lookup = all_to_port_0
    ports = [nm.open(f"vale0:s{i}", tx_slots=256) for i in range(senders)]
    results = [meanwhile(port.send, stamped(i, count), timeout=PATIENCE) for i, port in enumerate(ports)]
    frames = receive(sink, count * senders)
    assert [result() for result in results] == [count] * senders
    for i in range(senders):
        assert_whole_and_in_order(frames, i, count)
    assert sink.stats.rx_packets == count * senders
    assert sink.stats.missed == 0
    assert all(port.stats.tx_packets == count and port.stats.dropped == 0 for port in ports)


def test_several_senders_to_a_lossy_port_lose_only_what_is_counted(nm, meanwhile, all_to_port_0):
    count, senders = 20_000, 4
    sink = nm.open("vale0:sink", rx_slots=64)
    nm.switch("vale0").lookup = all_to_port_0
    ports = [nm.open(f"vale0:s{i}", tx_slots=256) for i in range(senders)]
    results = [meanwhile(port.send, stamped(i, count), timeout=PATIENCE) for i, port in enumerate(ports)]
    parts = []
    done = False
    while not done:
        done = all(port.stats.tx_packets == count for port in ports)
        parts += sink.recv(timeout=0)
    assert [result() for result in results] == [count] * senders
    parts += sink.recv(4096, timeout=0)
    frames = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 60)
    for i in range(senders):
        assert (np.diff(numbers(frames[frames[:, 18] == i]).astype(np.int64)) > 0).all(), "out of order, or doubled"
    stats = sink.stats
    assert len(frames) == stats.rx_packets
    assert stats.rx_packets + stats.missed == count * senders
    assert sum(port.stats.drops.get("no_room", 0) for port in ports) == stats.missed


def test_threads_that_share_one_port_and_ring_lose_no_frame_and_tear_none(nm, meanwhile, all_to_port_0):
    count, rings = 10_000, 4
    sink = nm.open("vale0:sink", rx_slots=128, lossless=True)
    nm.switch("vale0").lookup = all_to_port_0
    port = nm.open("vale0:many", tx_rings=rings, rx_rings=1, tx_slots=64)
    results = [meanwhile(port.send, stamped(i, count), timeout=PATIENCE, ring=i) for i in range(rings)]
    frames = receive(sink, count * rings)
    assert [result() for result in results] == [count] * rings
    for i in range(rings):
        assert_whole_and_in_order(frames, i, count)


def test_a_sender_of_which_a_lossless_port_took_a_part_is_told_of_new_room(nm):
    sink = nm.open("vale0:sink", rx_slots=4, lossless=True)
    port = nm.open("vale0:source", tx_slots=16)
    state = port._tx_states[0]
    eventfd = state.make_eventfd()
    for data in stamped(1, 5, target=255):
        assert port.inject(data.tobytes())
    view(state.block["need_kick_at"], "u4", 1, state)[0] = 1  # as a sender does before its last look and its sleep
    port.txsync()
    assert state.block["hwcur"] == 3, "three of five fit"
    assert len(sink.recv(timeout=0)) == 3
    assert os.eventfd_read(eventfd) > 0  # raises BlockingIOError if nobody has written


def test_a_wake_up_adds_one_to_the_eventfd(nm):
    a, b = nm.open("vale0:x{1"), nm.open("vale0:x}1")
    state = b._rx_states[0]
    eventfd = state.make_eventfd()
    view(state.block["need_kick_at"], "u4", 1, state)[0] = 1
    a.send(b"wake up", timeout=0)
    assert os.eventfd_read(eventfd) == 1


# -- replacing the lookup


def tagging(packets, lengths, source, table, ports, rings):
    """Port by address; the table says which ring. A batch that saw half a replacement would show it."""
    tag = table[0]
    for i in range(len(packets)):
        ports[i] = load8(packets[i] + 5)
        rings[i] = tag if table[1] == tag and table[2] == 0xA else 9


def tagging_twice(packets, lengths, source, table, ports, rings):
    """As the other, and refuses the other's tables."""
    tag = table[0]
    for i in range(len(packets)):
        ports[i] = load8(packets[i] + 5)
        rings[i] = tag if table[1] == tag and table[2] == 0xB else 9


def test_a_lookup_replaced_a_thousand_times_under_traffic_is_never_seen_in_part_and_loses_nothing(nm, meanwhile):
    most, senders, rings = 100_000, 2, 4
    functions = (tagging, tagging, tagging_twice, tagging_twice)
    tables = [np.array([tag, tag, kind], np.int64) for tag, kind in ((0, 0xA), (1, 0xA), (2, 0xB), (3, 0xB))]
    lookups = [Lookup(fn, table) for fn, table in zip(functions, tables, strict=True)]
    nm.open("vale0:sink", rx_rings=rings, rx_slots=256, lossless=True)
    switch = nm.switch("vale0")
    switch.lookup = lookups[0]
    ports = [nm.open(f"vale0:s{i}", tx_slots=128) for i in range(senders)]
    replaced, sent_all = threading.Event(), threading.Event()

    def send(i):
        frames = stamped(i, most)
        sent = 0
        while sent < most and not (replaced.is_set() and sent >= 1000):
            chunk = frames[sent : sent + 500]
            assert ports[i].send(chunk, timeout=PATIENCE) == len(chunk)
            sent += len(chunk)
        return sent

    def collect(ring):
        frames = []
        with nm.open(f"vale0:sink-{ring}/R") as port:
            while True:
                over = sent_all.is_set()
                some = port.recv(1024, timeout=0 if over else 0.05)
                frames += some
                if over and not some:
                    return frames

    readers = [meanwhile(collect, ring) for ring in range(rings)]
    sending = [meanwhile(send, i) for i in range(senders)]
    try:
        for i in range(1000):
            switch.lookup = lookups[i % 4]
            time.sleep(0)  # lets go of the GIL
    finally:
        replaced.set()
        counts = [sender() for sender in sending]
        sent_all.set()
    by_ring = [np.frombuffer(b"".join(reader()), np.uint8).reshape(-1, 60) for reader in readers]
    frames = np.concatenate(by_ring)
    for i, count in enumerate(counts):
        assert np.array_equal(np.sort(numbers(frames[frames[:, 18] == i])), np.arange(count)), "frames lost or doubled"
        for ring in by_ring:
            assert (np.diff(numbers(ring[ring[:, 18] == i]).astype(np.int64)) > 0).all(), "out of order within a ring"
    assert all(len(ring) for ring in by_ring), "some lookup was never used"
    assert all(port.stats.dropped == 0 for port in ports)


# -- ports that come and go


def test_ports_attach_and_detach_open_and_close_under_traffic_without_harm(nm, meanwhile):
    count = 60_000
    sink = nm.open("vale0:sink", rx_slots=256, lossless=True)
    source = nm.open("vale0:source", tx_slots=256)
    nm.create("joiner", tx_slots=8, rx_slots=8)
    stop = threading.Event()

    def come_and_go():
        rounds = 0
        while rounds < 200 or not stop.is_set():
            nm.attach("vale0:joiner")
            with nm.open("vale0:visitor", rx_slots=16, tx_slots=16) as visitor, nm.open("vale0:sink/rt") as monitor:
                visitor.send(stamped(7, 3, target=2), timeout=0)
                visitor.recv(timeout=0)
                monitor.recv(timeout=0)
            nm.detach("vale0:joiner")
            rounds += 1
        return rounds

    sink.send(stamped(0, 1, target=1))  # so that the switch learns where 02:...:00 is
    rounds = meanwhile(come_and_go)
    sent = meanwhile(source.send, stamped(1, count), timeout=PATIENCE)
    parts, have = [], 0
    deadline = time.monotonic() + PATIENCE
    while have < count:
        assert time.monotonic() < deadline, f"{have} of {count} frames have come"
        for data in sink.recv(1024, timeout=1.0):
            if data[18] == 1:
                parts.append(data)
                have += 1
    assert sent() == count
    stop.set()
    assert rounds() >= 200
    assert_whole_and_in_order(np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 60), 1, count)
    nm.delete("joiner")


def test_a_reader_that_keeps_closing_and_opening_its_port_never_gets_a_torn_or_foreign_frame(nm, meanwhile):
    source = nm.open("vale0:source", tx_slots=256)
    stop = threading.Event()

    def pour():
        frames = stamped(1, 512, target=255)
        frames[:, 0:6] = 255
        while not stop.is_set():
            source.send(frames, timeout=PATIENCE)

    poured = meanwhile(pour)
    seen = 0
    rounds = 0
    deadline = time.monotonic() + PATIENCE
    while rounds < 200 or (seen == 0 and time.monotonic() < deadline):
        with nm.open("vale0:reader", rx_slots=32) as reader:
            for data in reader.recv(timeout=0):
                assert data[18] == 1
                assert data[19:] == bytes([data[14] ^ 1]) * 41
                seen += 1
        rounds += 1
    stop.set()
    poured()
    assert seen > 0


# -- pipes


@pytest.mark.parametrize("slots", [4, 64, 1024])
def test_a_pipe_between_threads_of_random_speed_loses_nothing_and_keeps_the_order(nm, meanwhile, slots):
    count = 30_000
    a = nm.open("vale0:x{1", tx_slots=slots, rx_slots=slots)
    b = nm.open("vale0:x}1", tx_slots=slots, rx_slots=slots)
    frames = stamped(3, count)

    def stutter():
        rng = random.Random(1)
        sent = 0
        while sent < count:
            n = rng.choice([1, 2, 3, 50, 700])
            sent += a.send(frames[sent : sent + n], timeout=PATIENCE)
            for _ in range(rng.randrange(3)):
                os.sched_yield()
        return sent

    sent = meanwhile(stutter)
    rng = random.Random(2)
    out = np.zeros(1 << 18, np.uint8)
    parts, have = [], 0
    while have < count:
        data, lengths = b.recv_into(out, rng.choice([1, 5, 200, 4000]), timeout=PATIENCE)
        assert len(lengths), f"{have} of {count} frames have come"
        parts.append(data.copy())
        have += len(lengths)
    assert sent() == count
    assert_whole_and_in_order(np.concatenate(parts).reshape(-1, 60), 3, count)
    assert a.stats.tx_packets == b.stats.rx_packets == count


def test_more_waiting_threads_than_cores_all_make_progress(nm, meanwhile):
    pairs, count = 4, 2_000
    finished = []
    for i in range(pairs):
        a = nm.open(f"vale0:x{{{i + 1}", tx_slots=8, rx_slots=8)
        b = nm.open(f"vale0:x}}{i + 1}", tx_slots=8, rx_slots=8)
        finished.append((meanwhile(a.send, stamped(i, count), timeout=PATIENCE), meanwhile(receive, b, count)))
    for i, (sent, received) in enumerate(finished):
        assert sent() == count
        assert_whole_and_in_order(received(), i, count)


def test_frames_go_round_a_ring_of_waiting_threads(nm, meanwhile):
    stages, count = 4, 500
    links = [
        (nm.open(f"vale0:x{{{i + 1}", tx_slots=4, rx_slots=4), nm.open(f"vale0:x}}{i + 1}", tx_slots=4, rx_slots=4))
        for i in range(stages + 1)
    ]

    def pass_on(i):
        done = 0
        while done < count:
            frames = links[i][1].recv(2, timeout=PATIENCE)
            assert frames
            assert links[i + 1][0].send(frames, timeout=PATIENCE) == len(frames)
            done += len(frames)

    middle = [meanwhile(pass_on, i) for i in range(stages)]
    sent = meanwhile(links[0][0].send, stamped(1, count), timeout=PATIENCE)
    assert_whole_and_in_order(receive(links[-1][1], count), 1, count)
    assert sent() == count
    for stage in middle:
        stage()


# -- closing


def closed_error(call):
    try:
        call()
    except PortError as error:
        return error.errno
    return None


@pytest.mark.parametrize("what", ["recv", "poll", "send", "lossless"])
def test_closing_a_port_ends_the_waits_of_others_on_it(nm, meanwhile, what):
    for _ in range(20):
        started = threading.Event()
        if what == "lossless":
            sink = nm.open("vale0:sink", rx_slots=4, lossless=True)
            port = nm.open("vale0:p", tx_slots=8)
        else:
            port, sink = nm.open("vale0:x{1", tx_slots=4), nm.open("vale0:x}1")
        frames = stamped(1, 50, target=255)
        frames[:, 0:6] = 255

        def wait(port=port, frames=frames, started=started):
            started.set()
            if what == "recv":
                port.recv()
            elif what == "poll":
                port.poll(POLLIN)
            else:
                port.send(frames)

        outcome = meanwhile(closed_error, wait)
        assert started.wait(PATIENCE)
        port.close()
        assert outcome() == errno.EBADF
        sink.close()


def test_a_held_sender_goes_on_when_the_lossless_port_closes(nm, meanwhile):
    for _ in range(20):
        sink = nm.open("vale0:sink", rx_slots=4, lossless=True)
        port = nm.open("vale0:p", tx_slots=8)
        frames = stamped(1, 50)
        frames[:, 0:6] = 255
        sent = meanwhile(port.send, frames, timeout=PATIENCE)
        assert sink.poll(POLLIN, PATIENCE)
        sink.close()
        assert sent() == 50
        assert port.stats.tx_packets == 50
        port.close()


def test_closing_under_traffic_in_both_directions_leaves_the_others_running(nm, meanwhile):
    sink = nm.open("vale0:sink", rx_slots=64)
    for _ in range(50):
        ports = [nm.open(f"vale0:s{i}", tx_slots=32, rx_slots=32) for i in range(3)]
        frames = stamped(1, 2_000)
        frames[:, 0:6] = 255
        calls = [meanwhile(closed_error, lambda p=p, f=frames: p.send(f, timeout=PATIENCE)) for p in ports]
        for port in ports:
            port.close()
        assert all(call() in (None, errno.EBADF) for call in calls)
        sink.recv(1024, timeout=0)
    with nm.open("vale0:last") as last:
        sink.recv(4096, timeout=0)
        last.send(stamped(2, 1, target=255), timeout=PATIENCE)


# -- a user who overwrites its rings while the kernels read them

_WORDS = (0, 1, 5, 7, 8, 4097, 4098, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@kernel
def spoil(ring, slots, count, words, stop, seed):
    """Overwrite indices and slots of a ring with anything, until told to stop. Returns how often."""
    state = seed
    rounds = 0
    while load32(stop) == 0:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
        value = load32(words + 4 * ((state >> 33) % 10))
        if (state >> 20) & 1:
            value = (state >> 16) & 0xFFFFFFFF
        slot = slots + 16 * ((state >> 40) % count)
        what = (state >> 50) % 8
        if what == 0:
            store32(ring + 20, value)
        elif what == 1:
            store32(ring + 24, value)
        elif what == 2:
            store32(ring + 28, value)
        elif what == 3:
            store32(ring + 20, value % count)
            store32(ring + 24, value % count)
        elif what == 4:
            store32(slot, value)
        elif what == 5:
            store16(slot + 4, value)
        elif what == 6:
            store16(slot + 6, value & ~0x10)
        else:
            store64(slot, value)
        rounds += 1
    return rounds


def to_sink_from_1(packets, lengths, source, table, ports, rings):
    """The batches of port 1 to port 0, all others to everybody."""
    for i in range(len(packets)):
        ports[i] = 0 if source == 1 else BROADCAST


def test_a_ring_overwritten_while_it_is_read_harms_only_its_owner(lax, meanwhile):
    nm, count = lax, 2_000
    sink = nm.open("vale0:sink", rx_slots=128, lossless=True)
    # A learning switch would be misled, and rightly: a frame that the vandal received and sends again, by a slot that
    # names the other ring's buffer, says that the sink's address is at the vandal's port.
    nm.switch("vale0").lookup = Lookup(to_sink_from_1)
    source = nm.open("vale0:source", tx_slots=64)
    vandal = nm.open("vale0:vandal", tx_slots=8, rx_slots=8)
    words = np.array(_WORDS, np.uint32)
    flag = np.ones(1, np.uint32)
    address = vandal._region.address
    assert (
        spoil(address, address, 8, words.ctypes.data, flag.ctypes.data, 1) == 0
    )  # compiled now, not beside the traffic
    flag[0] = 0
    writers = [
        meanwhile(
            spoil, address + ring.offset, address + ring.offset + 256, 8, words.ctypes.data, flag.ctypes.data, 17 + i
        )
        for i, ring in enumerate(vandal.tx_rings + vandal.rx_rings)
    ]
    stop = threading.Event()

    def provoke():
        while not stop.is_set():
            vandal.txsync()
            vandal.rxsync()

    provoked = meanwhile(provoke)
    sent = meanwhile(source.send, stamped(1, count), timeout=PATIENCE)
    genuine, have = [], 0
    deadline = time.monotonic() + PATIENCE
    while have < count and time.monotonic() < deadline:
        for data in sink.recv(1024, timeout=1.0):
            if len(data) == 60 and data[6:12] == b"\x02\0\0\0\0\x01" and data[18] == 1:
                genuine.append(data)
                have += 1
    flag[0] = 1
    stop.set()
    provoked()
    assert all(writer() > 0 for writer in writers)
    assert sent() == count
    frames = np.frombuffer(b"".join(genuine), np.uint8).reshape(-1, 60)
    assert_whole_and_in_order(frames, 1, count)
    honest = {sink.mem_id, source.mem_id}
    assert all(audit.ok for audit in nm.audit() if audit.allocator in honest)
    assert sink.stats.reinits == source.stats.reinits == 0
    vandal.close()
    assert all(audit.ok for audit in nm.audit())

# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ptnetmap
from ptnetmap import POLLIN, POLLOUT, PortError
from ptnetmap.abi import netmap as abi
from ptnetmap.cli import vale_ctl
from ptnetmap.netmap.client.error import DaemonGoneError
from ptnetmap.netmap.client.session import connect
from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.daemon.place import beside
from ptnetmap.netmap.wire import extension

DEADLINE = 60
BROADCAST = b"\xff" * 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A socket where netmapd starts by itself when a test opens a port; whichever is there at the end is ended."""
    directory = tmp_path_factory.mktemp("netmapd")
    directory.chmod(0o700)
    path = directory / "netmap"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETMAP_SOCKET", str(path))
        yield path
    end(path, signal.SIGTERM)


def pid_of(path):
    return holder(beside(path, "lock"))


def end(path, number):
    pid = pid_of(path)
    if pid:
        os.kill(pid, number)
        until(lambda: "Z" in state_of(pid))


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def until(condition):
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return value


def frame(number, destination=BROADCAST, source=1, size=60):
    return destination + bytes([2, 0, 0, 0, 0, source]) + b"\x08\x00" + number.to_bytes(4, "big") + bytes(size - 18)


def numbers(frames):
    return [int.from_bytes(one[14:18], "big") for one in frames]


def receive(port, count, timeout=DEADLINE):
    got = []
    deadline = time.monotonic() + timeout
    while len(got) < count and time.monotonic() < deadline:
        got += port.recv(count - len(got), timeout=0.5)
    return got


def ask(reqtype, name=""):
    with connect(start=False) as session:
        return extension.introspect(session.request, reqtype, name)


def assert_audited():
    for one in ask(extension.AUDIT):
        assert one["ok"], one["report"]


def child(code):
    """A Python process that runs ``code`` and says something when it is ready."""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


# -- packets ---------------------------------------------------------------------------------------------------------


def test_ports_on_a_switch_exchange_frames_in_order(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b", lossless=True) as b:
        reader = threading.Thread(target=lambda: got.extend(receive(b, 3000)))
        got = []
        reader.start()
        assert a.send([frame(i) for i in range(3000)], timeout=DEADLINE) == 3000
        reader.join()
        assert numbers(got) == list(range(3000))
        b.send([frame(1, bytes([2, 0, 0, 0, 0, 1]), 2)])
        assert numbers(receive(a, 1)) == [1]
        assert a.stats.tx_packets == 3000
        assert b.stats.rx_packets == 3000
        assert_audited()


def test_a_process_and_another_exchange_frames_through_a_pipe(place):
    with ptnetmap.open("netmap:p{1") as here:
        there = child(
            "import ptnetmap\n"
            "port = ptnetmap.open('netmap:p}1')\n"
            "print('ready', flush=True)\n"
            "for frame in port: port.send(frame)\n"
        )
        try:
            assert here.send([frame(i) for i in range(500)], timeout=DEADLINE) == 500
            assert numbers(receive(here, 500)) == list(range(500))
            assert here.stats.tx_packets == 500
            assert_audited()
        finally:
            kill(there)


def test_a_full_pipe_holds_its_sender_back_and_loses_nothing(place):
    with ptnetmap.open("netmap:p{1") as a, ptnetmap.open("netmap:p}1") as b:
        assert a.send([frame(i) for i in range(2000)], timeout=0) == 1023
        assert numbers(receive(b, 1023)) == list(range(1023))
        assert a.send([frame(7)], timeout=DEADLINE) == 1
        assert numbers(receive(b, 1)) == [7]


def test_frames_longer_than_a_buffer_and_several_rings_work_as_embedded(place):
    with ptnetmap.open("vale0:a", tx_rings=2, rx_rings=3) as a, ptnetmap.open("vale0:b", rx_rings=2, rx_slots=64) as b:
        assert (len(a.tx_rings), len(a.rx_rings), len(b.rx_rings), b.rx_rings[0].num_slots) == (2, 3, 2, 64)
        a.send([frame(1, size=5000)], ring=0)
        assert [len(one) for one in receive(b, 1)] == [5000]
        a.send([frame(2)], ring=1)
        assert numbers(receive(b, 1)) == [2]


def test_rings_can_be_used_without_copies(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b:
        ring = a.tx_rings[0]
        for i in range(3):
            ring.buffer(i)[:60] = np.frombuffer(frame(i), np.uint8)
            ring.slots[i]["len"] = 60
        ring.advance(3)
        a.txsync()
        assert ring.space() == 1023, "a sync waits until the kthread has taken everything"
        assert b.poll(POLLIN, timeout=DEADLINE) & POLLIN
        ring = b.rx_rings[0]
        assert numbers(ring.packet(i).tobytes() for i in range(ring.space())) == [0, 1, 2]


def test_indirect_slots_are_fetched_by_their_own_process_and_by_no_other(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b:
        elsewhere = np.frombuffer(bytearray(frame(5)), np.uint8)
        ring = a.tx_rings[0]
        ring.slots[0] = (ring.slots[0]["buf_idx"], 60, abi.NS_INDIRECT, elsewhere.ctypes.data)
        ring.advance(1)
        a.txsync()
        assert numbers(receive(b, 1)) == [5]
        # What a hostile process does: publish such a slot itself. netmapd must not follow the pointer in its own memory.
        ring.slots[1] = (ring.slots[1]["buf_idx"], 60, abi.NS_INDIRECT, elsewhere.ctypes.data)
        a._tx_states[0].block["indirect"] = 0
        ring.advance(1)
        a.txsync()
        assert a.stats.drops == {"bad_indirect": 1}


def test_a_monitor_sees_what_passes_through_a_port_of_another_process(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b, ptnetmap.open("vale0:a/rt") as monitor:
        a.send([frame(1)])
        b.send([frame(2, source=2)])
        assert sorted(numbers(receive(monitor, 2))) == [1, 2]
        with pytest.raises(PortError) as refused:
            ptnetmap.open("netmap:p{1/r")
        assert refused.value.errno == errno.EOPNOTSUPP


def test_a_port_opened_twice_is_one_port(place):
    with ptnetmap.open("vale0:a") as first, ptnetmap.open("vale0:a") as second, ptnetmap.open("vale0:b") as b:
        first.send([frame(1)])
        second.send([frame(2)])
        first.send([frame(3)])
        assert numbers(receive(b, 3)) == [1, 2, 3]
        second.close()
        first.send([frame(4)])
        assert numbers(receive(b, 1)) == [4]


def test_extra_buffers_and_null_ports_share_memory_as_embedded(place):
    with ptnetmap.open("vale0:a", extra_bufs=5) as a:
        assert a.extra_bufs == 5
        assert len(a.claims()) == 5
        with ptnetmap.open(f"netmap:p{{1@{a.mem_id}") as pipe:
            assert pipe.mem_id == a.mem_id
    with ptnetmap.open("vale0:b"):
        assert_audited()


def test_an_exclusive_port_is_alone(place):
    with ptnetmap.open("vale0:a/x"):
        with pytest.raises(PortError) as refused:
            ptnetmap.open("vale0:a")
        assert refused.value.name == "EBUSY"
    ptnetmap.open("vale0:a").close()


# -- waiting ---------------------------------------------------------------------------------------------------------


def test_a_descriptor_works_with_poll_epoll_and_asyncio(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b") as b:
        poller = select.poll()
        poller.register(b.fileno(), select.POLLIN)
        assert poller.poll(0) == []
        a.send([frame(i) for i in range(3)])
        assert poller.poll(DEADLINE * 1000)
        assert numbers(b.recv(1)) == [0]
        assert poller.poll(DEADLINE * 1000), "there is more"
        assert numbers(receive(b, 2)) == [1, 2]
        assert b.recv(timeout=0) == []
        assert poller.poll(0) == []

        async def wait():
            readable = asyncio.Event()
            asyncio.get_running_loop().add_reader(b.fileno(), readable.set)
            a.send([frame(9)])
            await asyncio.wait_for(readable.wait(), DEADLINE)
            asyncio.get_running_loop().remove_reader(b.fileno())
            return numbers(b.recv())

        assert asyncio.run(wait()) == [9]


@pytest.mark.parametrize("names", [("vale0:a", "vale0:b"), ("netmap:p{1", "netmap:p}1")])
def test_sleeping_ends_are_woken_for_every_packet(place, names):
    with ptnetmap.open(names[0]) as a, ptnetmap.open(names[1]) as b:
        answered = []

        def answer():
            for _ in range(20):
                answered.extend(got := numbers(b.recv(1, timeout=DEADLINE)))
                b.send([frame(got[0], source=2)])

        thread = threading.Thread(target=answer)
        thread.start()
        for i in range(20):
            if i % 5 == 0:
                time.sleep(0.02)  # not to wait for anything, but to let the kthread park the rings
            a.send([frame(i)])
            assert numbers(a.recv(1, timeout=DEADLINE)) == [i]
        thread.join()
        assert answered == list(range(20))


def test_a_lossless_port_that_is_full_holds_a_sender_of_another_process_back(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b", lossless=True, rx_slots=16) as b:
        assert b.lossless
        assert a.send([frame(i) for i in range(40)], timeout=0.2) == 40
        assert a.poll(POLLOUT, timeout=0)
        assert numbers(receive(b, 40)) == list(range(40))
        assert b.stats.missed == 0


def test_any_client_may_make_a_port_lossless_by_its_name_and_take_that_back(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b", rx_slots=16) as b:
        for command in ("--lossless", "--lossy"):
            assert vale_ctl.main([command, "vale0:b"]) == 0
            assert b.lossless is (command == "--lossless")
        assert a.send([frame(i) for i in range(40)], timeout=DEADLINE) == 40
        assert vale_ctl.main(["--lossless", "vale0:nobody"]) == 1


# -- deaths ----------------------------------------------------------------------------------------------------------

SENDER = """
import ptnetmap, itertools
port = ptnetmap.open({name!r})
frame = bytes.fromhex("ffffffffffff0200000000090800") + bytes(46)
print("ready", flush=True)
while True:
    port.send([frame] * 200, timeout=1)
"""


@pytest.mark.parametrize("name", ["vale0:dying", "netmap:q{1"])
def test_a_killed_sender_leaves_everybody_else_running_and_no_buffer_lost(place, name):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b", lossless=True) as b:
        for _ in range(3):
            with ptnetmap.open("netmap:q}1") if name.startswith("netmap") else ptnetmap.open("vale0:c") as reader:
                dying = child(SENDER.format(name=name))
                assert receive(reader, 100)
                kill(dying)
                until(
                    lambda: (
                        name.partition(":")[2]
                        not in {one["name"].partition(":")[2] for one in ask(extension.PORT_LIST)}
                    )
                )
                b.recv(100000, timeout=0)
                a.send([frame(77)])
                until(lambda: 77 in numbers(b.recv(timeout=1)))
                assert_audited()
        assert_audited()


def test_a_pipe_goes_on_with_a_new_reader_where_the_killed_one_was(place):
    with ptnetmap.open("netmap:q{1") as sender:
        reader = (
            child(
                "import ptnetmap\n"
                "port = ptnetmap.open('netmap:q}1')\n"
                "port.recv(10)\n"
                "ring = port.rx_rings[0]\n"
                "ring.slots['buf_idx'][:] = 3\n"
                "print('ready', flush=True)\n"
                "input()\n"
            )
            if sender.send([frame(i) for i in range(100)])
            else None
        )
        kill(reader)
        until(lambda: len(ask(extension.PORT_LIST)) == 1)
        assert_audited()
        with ptnetmap.open("netmap:q}1") as again:
            got = receive(again, 90, timeout=0.5)
            assert len(got) <= 90, "frames in buffers that the dead process gave away are empty, and skipped"
            sender.send([frame(i) for i in range(2000, 2600)])
            assert numbers(receive(again, 600))[-1] == 2599
        assert_audited()


@pytest.mark.parametrize("name", ["vale0:a", "netmap:p{1"])
def test_a_port_says_at_once_that_netmapd_has_gone(place, name):
    port = ptnetmap.open(name)
    watched = select.poll()
    watched.register(port.fileno(), select.POLLIN)
    outcome = []

    def wait():
        try:
            port.recv()
        except PortError as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    end(place, signal.SIGKILL)
    waiting.join(DEADLINE)
    assert [type(error) for error in outcome] == [DaemonGoneError]
    assert str(place) in str(outcome[0])
    assert watched.poll(DEADLINE * 1000)
    for action in (port.txsync, port.rxsync, port.recv, lambda: port.send([frame(1)]), lambda: port.stats):
        with pytest.raises(DaemonGoneError):
            action()
    port.close()
    port.close()


def test_a_port_that_reconnects_goes_on_at_the_next_netmapd(place):
    with ptnetmap.open("vale0:a", reconnect=True) as a, ptnetmap.open("vale0:b", reconnect=True) as b:
        poller = select.poll()
        poller.register(b.fileno(), select.POLLIN)
        a.send([frame(1)])
        assert numbers(receive(b, 1)) == [1]
        generation = a.generation
        for i in range(2):
            end(place, signal.SIGKILL)
            assert b.recv(timeout=0.01) == [] or b.generation != generation
            until(lambda i=i: a.send([frame(10 + i)], timeout=DEADLINE) and b.recv(timeout=0.2))
            assert a.generation == b.generation != generation
            generation = a.generation
        a.send([frame(5)])
        assert poller.poll(DEADLINE * 1000)
        assert 5 in numbers(receive(b, 1))
        assert_audited()


def test_a_port_closed_while_another_thread_waits_on_it_ends_the_wait(place):
    port = ptnetmap.open("vale0:a")
    outcome = []

    def wait():
        try:
            port.recv()
        except PortError as error:
            outcome.append(error.name)

    waiting = threading.Thread(target=wait)
    waiting.start()
    port.close()
    waiting.join(DEADLINE)
    assert outcome == ["EBADF"]


STORM = """
import os, ptnetmap
port = ptnetmap.open("vale0:storm")
kicks = [ring.block["peer_eventfd"] for ring in port.rings]
print("ready", flush=True)
for _ in range(200_000):
    for kick in kicks:
        os.eventfd_write(kick, 1)
print("over", flush=True)
input()
"""


def test_a_storm_of_kicks_disturbs_nobody_and_ends_when_it_ends(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("vale0:b", lossless=True) as b:
        storm = child(STORM)
        try:
            for i in range(20):
                a.send([frame(100 * i + k) for k in range(100)], timeout=DEADLINE)
                assert numbers(receive(b, 100)) == list(range(100 * i, 100 * i + 100))
            assert storm.stdout.readline() == "over\n"
            until(lambda: is_still(pid_of(place), 0.1))
        finally:
            kill(storm)


def switches_of(pid):
    """How often each thread of a process has given its core away, which it does when it goes to sleep."""
    return {
        task.name: [line for line in (task / "status").read_text().splitlines() if "ctxt_switches" in line]
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def is_still(pid, seconds):
    """Whether no thread of a process has run for some time."""
    before = switches_of(pid)
    time.sleep(seconds)  # the time in which nothing happens
    return switches_of(pid) == before


def test_a_netmapd_with_a_hundred_idle_ports_does_nothing_at_all(place):
    with contextlib.ExitStack() as stack:
        for i in range(100):
            stack.enter_context(ptnetmap.open(f"vale{i % 4}:p{i}"))
        until(lambda: is_still(pid_of(place), 0.2))
        assert is_still(pid_of(place), 1)


# -- what there is ---------------------------------------------------------------------------------------------------


def test_netmapd_tells_of_its_ports_kthreads_and_counters(place):
    with ptnetmap.open("vale0:a") as a, ptnetmap.open("netmap:p{1"):
        a.send([frame(1)])
        ports = {one["name"]: one for one in ask(extension.PORT_LIST)}
        assert ports["vale0:a"]["pid"] == os.getpid()
        assert ports["vale0:a"]["kthread"] == 0
        assert ports["p{1"]["kind"] == "pipe"
        assert [one["ports"] for one in ask(extension.KTHREAD_LIST)] == [["vale0:a"]]
        top = ask(extension.TOP)
        assert {one["name"] for one in top["ports"]} == {"vale0:a", "p{1"}
        assert a.generation == top["generation"]


LATER = """
import sys
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon import server
host = Host()
before = set(sys.modules)
for name in ("vale0:a", "netmap:x{1"):
    host.open(name).close()
host.close()
print(sorted(set(sys.modules) - before))
"""


def test_a_daemon_imports_nothing_later_as_there_may_be_no_descriptor_left_to_do_it_with():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", LATER], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

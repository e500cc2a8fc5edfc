# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import select
import threading

import pytest
from numba import config

from ptnetmap.netmap import binding
from ptnetmap.netmap.port import POLLIN, POLLOUT
from ptnetmap.netmap.scratch import scratch

pytestmark = pytest.mark.interpreted


def readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_the_file_descriptor_is_readable_while_there_are_packets(small, frame):
    tx, rx = small
    fd = rx.fileno()
    assert not readable(fd)
    tx.send([frame()] * 3)
    assert readable(fd)
    rx.recv(1, timeout=0)
    assert readable(fd)
    rx.recv(2, timeout=0)
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


def test_the_file_descriptor_tells_of_packets_that_came_before_it(small, frame):
    tx, rx = small
    tx.send(frame())
    assert readable(rx.fileno())
    assert rx.fileno() == rx.fileno()


def test_a_file_descriptor_for_space_is_readable_while_there_is_some(small, frame):
    tx, rx = small
    fd = tx.fileno(POLLOUT)
    assert readable(fd)
    tx.send([frame()] * 7)
    tx.txsync()
    assert not readable(fd)
    rx.recv(1, timeout=0)
    assert readable(fd)


def test_a_file_descriptor_for_both_is_readable_when_either_holds(small, frame):
    tx, rx = small
    rx.send([frame()] * 7)
    fd = rx.fileno(POLLIN | POLLOUT)
    rx.txsync()
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


def test_the_file_descriptor_works_with_epoll(small, frame):
    tx, rx = small
    with select.epoll() as epoll:
        epoll.register(rx.fileno(), select.EPOLLIN)
        assert epoll.poll(0) == []
        tx.send([frame()] * 2)
        assert [fd for fd, _ in epoll.poll(30)] == [rx.fileno()]
        rx.recv(timeout=0)
        assert epoll.poll(0) == []
        epoll.unregister(rx.fileno())


def test_the_file_descriptor_wakes_a_thread_that_sleeps_in_select(small, frame, meanwhile):
    tx, rx = small
    fd = rx.fileno()
    entered = threading.Event()

    def sleep():
        entered.set()
        return select.select([fd], [], [], 30)[0]

    woken = meanwhile(sleep)
    entered.wait()
    tx.send(frame())
    assert woken() == [fd]


def test_the_file_descriptor_works_with_asyncio(small, frame):
    tx, rx = small

    async def receive(count):
        received = []
        done = asyncio.get_running_loop().create_future()

        def on_readable():
            received.extend(rx.recv(timeout=0))
            if len(received) == count and not done.done():
                done.set_result(None)

        loop = asyncio.get_running_loop()
        loop.add_reader(rx.fileno(), on_readable)
        try:
            for i in range(count):
                await loop.run_in_executor(None, tx.send, frame(fill=i))
            await asyncio.wait_for(done, 30)
        finally:
            loop.remove_reader(rx.fileno())
        return received

    assert asyncio.run(receive(20)) == [frame(fill=i) for i in range(20)]


def test_the_file_descriptors_of_a_switchs_ports_follow_the_traffic(switch, frame):
    a, b = switch
    fds = [a.fileno(), b.fileno()]
    a.send(frame())
    assert [readable(fd) for fd in fds] == [False, True]
    b.recv(timeout=0)
    b.send(frame(1, 2))
    assert [readable(fd) for fd in fds] == [True, False]


def test_a_wait_that_gives_up_leaves_the_file_descriptor_in_step(small, frame):
    tx, rx = small
    fd = rx.fileno()
    rx.recv(timeout=0.01)
    assert not readable(fd)
    tx.send(frame())
    assert readable(fd)


@pytest.mark.skipif(not config.DISABLE_JIT, reason="calls a piece of a kernel, which only interpreted Python can")
def test_preparing_to_sleep_with_packets_in_the_ring_leaves_the_file_descriptor_readable(small, frame):
    # What a wait does when packets come after it has looked, and before it prepares to sleep.
    tx, rx = small
    fd = rx.fileno()
    tx.send([frame()] * 2)
    assert binding.expect(rx._binding.address, scratch(), POLLIN, 0) > 0
    rx.recv(1, timeout=0)
    assert readable(fd)

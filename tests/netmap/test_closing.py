# SPDX-License-Identifier: BSD-2-Clause
import contextlib
import errno
import gc
import os
from pathlib import Path

import pytest

from ptnetmap.errors import PortError
from ptnetmap.netmap.port import POLLIN, POLLOUT
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

pytestmark = pytest.mark.interpreted


def test_a_closed_port_refuses_everything(small, frame):
    tx, _ = small
    tx.close()
    tx.close()
    assert tx.closed
    for action in (
        tx.txsync,
        tx.rxsync,
        tx.poll,
        tx.recv,
        tx.fileno,
        lambda: tx.send(frame()),
        lambda: tx.inject(frame()),
        lambda: tx.dispatch(print),
    ):
        with pytest.raises(PortError) as refused:
            action()
        assert refused.value.errno == errno.EBADF


@pytest.mark.parametrize(
    "wait",
    [
        lambda port, _: port.poll(POLLIN),
        lambda port, _: port.recv(),
        lambda port, frame: port.send([frame] * 20),
        lambda port, _: port.poll(POLLOUT),
    ],
    ids=["poll in", "recv", "send", "poll out"],
)
def test_closing_a_port_ends_another_threads_wait_on_it(small, frame, meanwhile, wait, wait_until_asleep):
    tx, _ = small
    tx.send([frame()] * 7)
    waiting = meanwhile(wait, tx, frame())
    wait_until_asleep(tx)
    tx.close()
    with pytest.raises(PortError) as refused:
        waiting()
    assert refused.value.errno == errno.EBADF


def test_closing_a_port_ends_a_wait_for_a_lossless_one(patient, frame, meanwhile, wait_until_asleep):
    a, _ = patient
    waiting = meanwhile(a.send, [frame()] * 10)
    wait_until_asleep(a)
    a.close()
    with pytest.raises(PortError) as refused:
        waiting()
    assert refused.value.errno == errno.EBADF


def test_closing_a_port_under_busy_threads_ends_them_all_with_ebadf(nm, frame, meanwhile):
    for _ in range(5):
        a, b = nm.open("vale0:a"), nm.open("vale0:b")
        batch = [frame()] * 64

        def forever(step):
            while True:
                step()

        threads = [
            meanwhile(forever, lambda a=a, batch=batch: a.send(batch)),
            meanwhile(forever, lambda b=b: b.recv(timeout=1)),
        ]
        while b.stats.rx_packets < 200:
            os.sched_yield()
        a.close()
        b.close()
        for thread in threads:
            with pytest.raises(PortError) as refused:
                thread()
            assert refused.value.errno == errno.EBADF


def test_closing_one_descriptor_does_not_end_a_wait_on_another(nm, frame, meanwhile, wait_until_asleep):
    with nm.open("vale0:a") as first, nm.open("vale0:a") as second, nm.open("vale0:b") as b:
        ready = meanwhile(second.poll, POLLIN)
        wait_until_asleep(second)
        first.close()
        b.send(frame())
        assert ready() == POLLIN


def test_closing_the_runtime_closes_its_ports(frame):
    nm = Netmap()
    ports = [nm.open("vale0:a"), nm.open("netmap:p{1")]
    nm.close()
    assert all(port.closed for port in ports)
    assert nm.list() == []


def open_files():
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that iterdir itself has
            found.add((entry.name, str(entry.readlink())))
    return found


def test_closing_gives_all_file_descriptors_back(frame):
    scratch()  # this thread's memory has one
    gc.collect()
    before = open_files()
    with Netmap() as nm, nm.open("vale0:a") as a, nm.open("vale0:b") as b, nm.open("vale0:b/r"):
        b.fileno()
        a.fileno(POLLOUT)
        a.send(frame())
        b.recv()
        b.recv(timeout=0.01)
        assert len(open_files()) > len(before) + 6
    del nm, a, b
    gc.collect()
    assert open_files() == before

# SPDX-License-Identifier: BSD-2-Clause
# Guest memory that its owner can cut short: netmapd refuses it, a worker takes it, and alone ends by it.
import os

import numpy as np
import pytest

from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap.client.virtioport import MemoryRegion, QueueSetup, VirtioPort
from ptnetmap.netmap.queuestate import virtqueue
from ptnetmap.netmap.vhost.ports import Ports
from ptnetmap.testing import MockDriver

SIZE = 1 << 20
TX = 1


class Shared(MockDriver):
    """A driver whose memory is a file, too: what it writes is copied there."""

    def __init__(self, fd):
        super().__init__(8, memory=SIZE)
        self.fd = fd
        os.ftruncate(fd, SIZE)
        self.start(Block(virtqueue).items[0])
        self.publish()

    def publish(self):
        os.pwrite(self.fd, self.read(self.gpa, SIZE), 0)

    @property
    def region(self):
        return MemoryRegion(self.gpa, SIZE, self.fd, 0)

    @property
    def setup(self):
        return QueueSetup(self.size, self.desc, self.avail, self.used)

    def used_index(self):
        return int(np.frombuffer(os.pread(self.fd, 4, self.used - self.gpa), "<u2")[1])


@pytest.fixture
def driver(tmp_path):
    fd = os.open(tmp_path / "memory", os.O_RDWR | os.O_CREAT)
    yield Shared(fd)
    os.close(fd)


@pytest.fixture
def ports(netmapd):
    told = []
    with Ports(lambda socket: VirtioPort("vale1:guest", socket=socket), told.append) as made:
        made.told = told
        yield made


def test_netmapd_takes_no_memory_that_may_vanish(netmapd, driver):
    with VirtioPort("vale1:guest") as port, pytest.raises(PortError, match="no memfd"):
        port.set_memory([driver.region])


def test_a_worker_takes_it_and_relays_to_a_port_of_netmapd(netmapd, ports, driver, peer, frame, patiently):
    host = peer("vale1:host")
    ports.set_memory([driver.region])
    assert ports.has_worker
    assert len(ports.told) == 1
    kick = os.eventfd(0)
    driver.send([bytes(10) + frame(1, 7)])
    driver.publish()
    ports.port.start(TX, driver.setup, 0, kick, -1)
    assert host.recv(timeout=60) == [frame(1, 7)]
    patiently(lambda: driver.used_index() == 1, "the used element")
    ports.reset()
    assert not ports.has_worker
    os.close(kick)


def test_memory_that_vanishes_ends_the_worker_alone(netmapd, ports, driver, peer, frame, patiently):
    host = peer("vale1:host")
    ports.set_memory([driver.region])
    kick = os.eventfd(0)
    ports.port.start(TX, driver.setup, 0, kick, -1)
    os.ftruncate(driver.fd, 0)
    os.eventfd_write(kick, 1)
    patiently(lambda: ports.port.gone, "the worker's end")
    other = peer("vale1:other")
    other.send([frame(2)])
    assert host.recv(timeout=60) == [frame(2)]
    ports.reset()
    assert not ports.port.gone
    os.close(kick)

# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bhyve.devices.virtio_rnd import MAX_BYTES, VirtioRnd
from ptnetmap.bhyve.pci.device import DEVICES
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.mock import MockDriver


@pytest.fixture(params=["legacy", "modern"])
def driver(request, host):
    device = VirtioRnd(host, Function(0, 4, 0), {})
    driver = MockDriver(device, host.memory, legacy=request.param == "legacy")
    driver.start()
    yield driver
    device.close()


def test_it_is_found_under_bhyves_name_and_ids(driver):
    assert DEVICES["virtio-rnd"] is VirtioRnd
    assert driver.config(0, 4) == 0x1005_1AF4
    assert driver.config(0x2C, 4) == 0x0004_1AF4
    assert driver.config(8, 4) >> 24 == 0x10


def test_every_chain_gets_other_bytes(driver):
    queue = driver.queues[0]
    for _ in range(4):
        queue.post([20, 44])
    driver.kick(0)
    answers = queue.reap()
    assert [used.length for used in answers] == [64] * 4
    assert len({used.data for used in answers}) == 4


def test_a_long_chain_gets_a_part(driver):
    driver.queues[0].post([MAX_BYTES + 100])
    driver.kick(0)
    [used] = driver.queues[0].reap()
    assert used.length == MAX_BYTES


def test_a_chain_with_something_to_read_needs_a_reset(driver):
    driver.queues[0].send([b"seed"], [4])
    driver.kick(0)
    assert driver.needs_reset
    assert driver.queues[0].reap() == []
    driver.start()
    driver.queues[0].post([4])
    driver.kick(0)
    assert len(driver.queues[0].reap()) == 1

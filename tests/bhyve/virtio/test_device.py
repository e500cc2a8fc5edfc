# SPDX-License-Identifier: BSD-2-Clause
import logging
from pathlib import Path

import pytest

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.virtio.device import LEGACY_BAR, MODERN_BAR
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.bhyve.virtio.modern import COMMON, DEVICE

FDS = Path("/proc/self/fd")
MESSAGE = pci.MSI_INTEL_ADDR_BASE


def make_driver(device, legacy=False, **more):
    return MockDriver(device, device.host.memory, legacy=legacy, **more)


def echo_once(driver, data=b"abc"):
    driver.queues[0].send([data], [len(data)])
    driver.kick(0)
    return [used.data for used in driver.queues[0].reap()]


def is_serving(driver):
    return echo_once(driver) == [b"cba"]


# --- serving


def test_a_chain_is_answered_and_the_vector_of_its_queue_sent(driver):
    assert echo_once(driver, b"hello") == [b"olleh"]
    assert driver.device.host.interrupts.messages == [(MESSAGE, 0x41)]
    assert driver.isr() == 0


@pytest.mark.parametrize("legacy", [True, False])
def test_without_msix_the_pin_is_asserted_until_the_status_is_read(echo, legacy):
    PciBus(echo.host).add(echo)
    interrupts = echo.host.interrupts
    driver = make_driver(echo, legacy, msix=False)
    driver.start()
    assert is_serving(driver)
    assert interrupts.high
    assert driver.isr() == abi.VIRTIO_ISR_QUEUE
    assert interrupts.high == set()
    assert driver.isr() == 0
    assert interrupts.messages == []


def test_many_chains_make_one_interrupt(driver):
    for _ in range(5):
        driver.queues[0].send([b"ab"], [2])
    driver.kick(0)
    assert len(driver.queues[0].reap()) == 5
    assert driver.device.host.interrupts.messages == [(MESSAGE, 0x41)]


def test_a_vector_that_does_not_exist_reads_back_as_none(driver):
    vectors = len(driver.device.msix.vectors)
    for value, there in ((vectors - 1, vectors - 1), (vectors, 0xFFFF), (0xFFFE, 0xFFFF), (0xFFFF, 0xFFFF)):
        if driver.legacy:
            for register in (abi.VIRTIO_MSI_CONFIG_VECTOR, abi.VIRTIO_MSI_QUEUE_VECTOR):
                driver.bar_write(0, abi.VIRTIO_PCI_QUEUE_SEL, 2, 0)
                driver.bar_write(0, register, 2, value)
                assert driver.bar_read(0, register, 2) == there
        else:
            driver.write("queue_select", 0)
            for name in ("config_msix_vector", "queue_msix_vector"):
                driver.write(name, value)
                assert driver.read(name) == there
    assert is_serving(driver)
    assert driver.device.host.interrupts.messages == []


def test_msi_comes_with_the_interrupt_status(make_echo):
    device = make_echo(host={"virtio_msix": "false"})
    driver = make_driver(device, legacy=True)
    driver.start()
    assert not driver.msix
    capability = device.msi.capability.offset
    device.config_write(capability + 4, 4, MESSAGE)
    device.config_write(capability + 12, 2, 0x55)
    device.config_write(capability + 2, 2, pci.PCIM_MSICTRL_MSI_ENABLE)
    assert is_serving(driver)
    assert device.host.interrupts.messages == [(MESSAGE, 0x55)]
    assert driver.isr() == abi.VIRTIO_ISR_QUEUE


def test_what_was_offered_before_the_driver_was_ready_is_answered_then(echo):
    driver = make_driver(echo)
    driver.start()
    driver.status = 0
    driver.status = abi.VIRTIO_STATUS_ACKNOWLEDGE | abi.VIRTIO_STATUS_DRIVER
    driver.accept(driver.offered())
    driver.set_up_queues()
    driver.queues[0].send([b"abc"], [3])
    driver.kick(0)
    assert driver.queues[0].reap() == []
    driver.status = driver.status | abi.VIRTIO_STATUS_DRIVER_OK
    assert [used.data for used in driver.queues[0].reap()] == [b"cba"]


def test_a_legacy_driver_may_use_its_queues_before_it_is_ready(echo):
    driver = make_driver(echo, legacy=True)
    driver.start()
    driver.status = 0
    driver.accept(driver.offered())
    driver.set_up_queues()
    assert is_serving(driver)


def test_a_kick_for_no_queue_is_ignored(driver):
    driver.bar_write(LEGACY_BAR, abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, 0xFFFF)
    driver.bar_write(MODERN_BAR, 0x3FFC, 2, 0)
    assert is_serving(driver)


def test_violations_need_a_reset_are_told_to_the_driver_and_shown_once(driver, caplog):
    device = driver.device
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            device.host.interrupts.messages.clear()
            driver.queues[0].offer(999)
            driver.kick(0)
            assert driver.needs_reset
            assert device.host.interrupts.messages == [(MESSAGE, 0x40)]
            assert device.violations == number + 1
            assert device.told[-1] == "stopped"
            assert echo_once(driver) == []
            driver.start()
            assert is_serving(driver)
    assert [record.getMessage() for record in caplog.records] == [
        "virtio-echo at 3:0: virtqueue 0: descriptor 999 of chain 999 is outside its table of 16"
    ]


def test_chains_before_a_bad_one_are_returned(driver):
    driver.queues[0].send([b"ab"], [2])
    driver.queues[0].offer(999)
    driver.kick(0)
    assert driver.needs_reset
    assert [used.data for used in driver.queues[0].reap()] == [b"ba"]
    assert driver.device.host.interrupts.messages == [(MESSAGE, 0x41), (MESSAGE, 0x40)]


# --- configuration


def test_the_devices_configuration_is_behind_either_registers(echo):
    config = bytes(range(10, 20))
    assert make_driver(echo).read_config(0, 12) == config + b"\0\0"
    legacy = make_driver(echo, legacy=True, msix=False)
    assert legacy.read_config(0, 8) == config[:8]
    legacy.msix = True
    legacy.start()
    assert legacy.read_config(0, 8) == config[:8]


def test_a_changed_configuration_has_another_generation_and_interrupts(driver):
    device = driver.device
    modern = make_driver(device)
    before = modern.read("config_generation")
    device.device_config_changed()
    assert modern.read("config_generation") == before + 1
    assert device.host.interrupts.messages == [(MESSAGE, 0x40)]


def test_a_driver_that_is_not_ready_hears_of_no_change(echo):
    driver = make_driver(echo, msix=False)
    echo.device_config_changed()
    assert driver.isr() == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_bars_are_reached_through_configuration_space(echo, size):
    [window] = [c for c in echo.config.capabilities if echo.config.read(c.offset + 3, 1) == abi.VIRTIO_PCI_CAP_PCI_CFG]

    def aim(bar, offset, length):
        echo.config_write(window.offset + 4, 1, bar)
        echo.config_write(window.offset + 8, 4, offset)
        echo.config_write(window.offset + 12, 4, length)

    data = window.offset + 16
    aim(MODERN_BAR, DEVICE + 4, size)
    assert echo.config_read(data, size) == int.from_bytes(bytes(range(14, 14 + size)), "little")
    aim(MODERN_BAR, COMMON + 22, 2)
    echo.config_write(data, 2, 5)
    assert echo.negotiation.queue_select == 5
    aim(LEGACY_BAR, abi.VIRTIO_PCI_QUEUE_SEL, 2)
    assert echo.config_read(data, 2) == 5
    for nowhere in ((1, 0, 4), (3, 0, 4), (MODERN_BAR, 0x4000, 4), (MODERN_BAR, 2, 4), (MODERN_BAR, 22, 3)):
        aim(*nowhere)
        echo.config_write(data, 2, 6)
        assert echo.negotiation.queue_select == 5
        echo.config_read(data, 4)


def test_a_read_of_several_registers_takes_the_interrupt_status_with_it(echo):
    driver = make_driver(echo, legacy=True, msix=False)
    driver.start()
    assert is_serving(driver)
    assert driver.bar_read(0, abi.VIRTIO_PCI_QUEUE_NOTIFY, 4) >> 24 == abi.VIRTIO_ISR_QUEUE
    assert driver.isr() == 0


# --- life cycle


def test_power_on_reset_forgets_driver_and_vectors(driver):
    device = driver.device
    device.reset()
    assert device.negotiation.status == 0
    assert not device.msix.enabled
    driver.start()
    assert is_serving(driver)


def test_nothing_is_left_open(make_echo):
    before = set(FDS.iterdir())
    device = make_echo()
    driver = make_driver(device)
    driver.start()
    device.hand_over(1)
    device.config_write(device.msix.capability.offset + 2, 2, 0)
    device.hand_over(1)
    device.close()
    device.host.close()
    assert set(FDS.iterdir()) <= before

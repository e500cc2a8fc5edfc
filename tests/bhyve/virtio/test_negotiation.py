# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.virtio.device import LEGACY_BAR, MODERN_BAR, MSIX_BAR
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import ConfigError

OWN = 1 << 5 | 1 << 16
RING = abi.VIRTIO_F_INDIRECT_DESC | abi.VIRTIO_F_EVENT_IDX
ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK = 1, 2, 8, 4


def make_driver(device, legacy=False, **more):
    return MockDriver(device, device.host.memory, legacy=legacy, **more)


def test_both_kinds_of_registers_negotiate_the_same_features(echo):
    legacy, modern = make_driver(echo, legacy=True), make_driver(echo)
    assert legacy.offered() == OWN | RING | abi.VIRTIO_F_ANY_LAYOUT
    assert modern.offered() == OWN | RING | abi.VIRTIO_F_VERSION_1
    for wanted in (OWN | RING, OWN, 1 << 5 | abi.VIRTIO_F_EVENT_IDX):
        accepted = []
        for driver, also in ((legacy, 0), (modern, abi.VIRTIO_F_VERSION_1)):
            driver.status = 0
            assert driver.accept(wanted | also)
            accepted.append(echo.negotiation.accepted & ~abi.VIRTIO_F_VERSION_1)
            queue = echo.queues[0]
            assert queue.event_idx == bool(wanted & abi.VIRTIO_F_EVENT_IDX)
            assert queue.indirect == bool(wanted & abi.VIRTIO_F_INDIRECT_DESC)
        assert accepted == [wanted, wanted]


@pytest.mark.parametrize(
    "features",
    [
        OWN | RING,  # a modern driver has to take VERSION_1
        OWN | abi.VIRTIO_F_VERSION_1 | 1 << 33,
        OWN | abi.VIRTIO_F_VERSION_1 | abi.VIRTIO_F_ANY_LAYOUT,
        abi.VIRTIO_F_VERSION_1,  # the device needs bit 5
    ],
)
def test_features_that_cannot_be_had_are_refused(echo, features):
    driver = make_driver(echo)
    driver.status = ACKNOWLEDGE | DRIVER
    assert not driver.accept(features)
    assert driver.accept(OWN | abi.VIRTIO_F_VERSION_1)


def test_a_legacy_driver_gets_no_feature_that_was_not_offered(echo):
    driver = make_driver(echo, legacy=True)
    assert not driver.accept(0xFFFFFFFF)
    assert driver.bar_read(0, abi.VIRTIO_PCI_GUEST_FEATURES, 4) == driver.offered()


def test_features_are_settled_once(driver):
    before = driver.device.negotiation.accepted
    driver.accept(0)
    assert driver.device.negotiation.accepted == before


def test_a_modern_driver_is_not_ready_before_features_are_settled(echo):
    driver = make_driver(echo)
    driver.status = ACKNOWLEDGE | DRIVER | DRIVER_OK
    assert driver.status == ACKNOWLEDGE | DRIVER
    assert "started" not in echo.told


def test_a_driver_adds_bits_of_status_and_takes_none_back(driver):
    before = driver.status
    driver.status = ACKNOWLEDGE | abi.VIRTIO_STATUS_NEEDS_RESET | abi.VIRTIO_STATUS_FAILED
    assert driver.status == before | abi.VIRTIO_STATUS_FAILED


def test_a_reset_leaves_nothing_of_a_driver(echo, driver):
    driver.queues[0].post([1])
    driver.status = 0
    fresh = make_driver(echo)
    assert echo.told[-1] == "stopped"
    assert (fresh.status, echo.negotiation.accepted, echo.negotiation.isr) == (0, 0, 0)
    for index, size in enumerate(echo.queue_sizes):
        fresh.write("queue_select", index)
        values = [fresh.read(f"queue_{name}") for name in ("size", "msix_vector", "enable", "notify_off")]
        assert values == [size, abi.VIRTIO_MSI_NO_VECTOR, 0, index]
        assert [fresh.read(f"queue_{name}") for name in ("desc", "driver", "device")] == [0, 0, 0]


def test_a_queue_that_is_not_there_has_no_entries(echo):
    legacy, modern = make_driver(echo, legacy=True), make_driver(echo)
    legacy.bar_write(0, abi.VIRTIO_PCI_QUEUE_SEL, 2, 7)
    assert legacy.bar_read(0, abi.VIRTIO_PCI_QUEUE_NUM, 2) == 0
    assert (modern.read("queue_select"), modern.read("queue_size")) == (7, 0)
    modern.write("queue_enable", 1)
    legacy.bar_write(0, abi.VIRTIO_PCI_QUEUE_PFN, 4, 16)
    assert not modern.needs_reset
    assert modern.read("num_queues") == 2


def test_a_modern_driver_chooses_the_size_of_its_queues(echo):
    driver = make_driver(echo)
    driver.start(size=4)
    driver.queues[0].send([b"abc"], [3])
    driver.kick(0)
    assert [used.data for used in driver.queues[0].reap()] == [b"cba"]
    assert echo.queues[0].state.size == 4


def test_an_enabled_queue_stays_where_it_is(driver):
    before = driver.device.queues[0].state
    if not driver.legacy:
        driver.write("queue_select", 0)
        for name, value in (("size", 2), ("desc", 0), ("driver", 0), ("device", 0), ("enable", 0)):
            driver.write(f"queue_{name}", value)
    assert driver.device.queues[0].state == before


def test_page_zero_takes_a_legacy_queue_out_of_use(echo):
    driver = make_driver(echo, legacy=True)
    driver.start()
    driver.bar_write(0, abi.VIRTIO_PCI_QUEUE_SEL, 2, 0)
    driver.bar_write(0, abi.VIRTIO_PCI_QUEUE_PFN, 4, 0)
    assert not echo.queues[0].enabled
    driver.queues[0].post([1])
    driver.kick(0)
    assert not driver.queues[0].reap()
    assert not driver.needs_reset


@pytest.mark.parametrize("legacy", [True, False])
def test_a_queue_outside_of_memory_needs_a_reset(echo, legacy):
    driver = make_driver(echo, legacy)
    driver.start()
    driver.status = 0
    driver.accept(driver.offered())
    driver.queues[0].desc = (1 << 44) - 4096
    driver.place(driver.queues[0], vector=1)
    assert driver.needs_reset
    assert "not in guest memory" in str(echo.error)


@pytest.mark.parametrize(
    ("options", "bars", "device_id", "revision"),
    [
        ({}, {LEGACY_BAR, MSIX_BAR, MODERN_BAR}, 0x1003, 0),
        ({"legacy": "false"}, {MSIX_BAR, MODERN_BAR}, 0x1043, 1),
        ({"modern": "no"}, {LEGACY_BAR, MSIX_BAR}, 0x1003, 0),
    ],
)
def test_either_kind_of_registers_can_be_left_out(make_echo, options, bars, device_id, revision):
    device = make_echo(options)
    driver = make_driver(device, legacy=LEGACY_BAR in bars)
    assert set(device.bars) == bars
    assert driver.config(0, 4) == device_id << 16 | abi.VIRTIO_PCI_VENDOR
    assert (driver.config(8, 1), driver.config(0x2C, 4)) == (revision, 3 << 16 | abi.VIRTIO_PCI_VENDOR)
    driver.start()
    driver.queues[0].send([b"abc"], [3])
    driver.kick(0)
    assert [used.data for used in driver.queues[0].reap()] == [b"cba"]


@pytest.mark.parametrize("options", [{"legacy": "false", "modern": "false"}, {"legacy": "perhaps"}])
def test_impossible_options_are_refused(make_echo, options):
    with pytest.raises(ConfigError):
        make_echo(options)

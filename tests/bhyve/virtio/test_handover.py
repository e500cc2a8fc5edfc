# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import contextlib
import errno
import os
import threading

import pytest

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.device import LEGACY_BAR, MODERN_BAR
from ptnetmap.bhyve.virtio.doorbell import Place
from ptnetmap.bhyve.virtio.mock import MockDriver
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.ioeventfd import HandlerGroup, IoHandlers

MESSAGE = pci.MSI_INTEL_ADDR_BASE


class Handle:
    """What KVM would be asked for."""

    closed = False
    refuses = False

    def __init__(self):
        self.requests = 0

    def call(self, name, *arguments):
        if self.refuses:
            raise HypervisorError(errno.EINVAL, name)
        self.requests += 1


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def make_machine(make_host, loop):
    """Make a machine with a loop, and with KVM's I/O handlers as ``host.handlers``."""

    def make(kvm=True):
        host = make_host(vm=kvm)
        host.loop = loop
        if kvm:
            host.handle = Handle()
            host.handlers = IoHandlers(host.handle)
            host.vm.handler_group = lambda kind, base=None: HandlerGroup(host.handlers, kind, base)
        return host

    return make


def run_until(loop, condition):
    """Let the loop run until something is true, for ten seconds at the most."""

    async def wait():
        while not condition():
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(wait(), 10))


def counted(fd):
    """What an eventfd's counter was; 0 if nothing."""
    with contextlib.suppress(BlockingIOError):
        return os.eventfd_read(fd)
    return 0


def echo_in(host, cls, **more):
    device = cls(host, **more)
    bus = PciBus(host)
    bus.add(device)
    bus.start()
    return device, bus


@pytest.fixture
def echo_class(echo):
    return type(echo)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_queue_can_be_served_by_somebody_else(echo, legacy):
    driver = MockDriver(echo, echo.host.memory, legacy=legacy)
    driver.start()
    assert echo.told[-1] == "started"
    handover = echo.hand_over(1)
    mock = driver.queues[1]
    state = handover.state
    assert (state.enabled, state.size, state.vector) == (True, 8, 2)
    assert (state.desc, state.avail, state.used) == (mock.desc, mock.avail, mock.used)
    assert counted(handover.kick) == 1  # for what was offered before the driver was ready
    mock.post([4])
    driver.kick(1)
    assert counted(handover.kick) == 1
    assert mock.reap() == []
    os.eventfd_write(handover.interrupt, 1)
    echo.host.interrupts.poll()
    assert echo.host.interrupts.messages == [(MESSAGE, 0x42)]


def test_a_queue_without_a_vector_has_no_interrupt(echo):
    driver = MockDriver(echo, echo.host.memory)
    driver.start()
    echo.told.clear()
    driver.write("queue_select", 1)
    driver.write("queue_msix_vector", abi.VIRTIO_MSI_NO_VECTOR)
    assert echo.told == [1]
    assert echo.hand_over(1).interrupt is None


def test_whoever_serves_hears_that_the_interrupt_goes_another_way(echo):
    driver = MockDriver(echo, echo.host.memory)
    driver.start()
    first = echo.hand_over(1).interrupt
    echo.told.clear()
    echo.config_write(echo.msix.capability.offset + 2, 2, 0)
    assert echo.told == [1]
    assert echo.hand_over(1).interrupt != first


@pytest.mark.parametrize("kvm", [True, False])
def test_the_pin_is_reached_through_the_loop(make_machine, loop, echo_class, kvm):
    host = make_machine(kvm)
    device, bus = echo_in(host, echo_class)
    driver = MockDriver(device, host.memory, msix=False)
    driver.start()
    os.eventfd_write(device.hand_over(1).interrupt, 1)
    run_until(loop, lambda: host.interrupts.high)
    assert driver.isr() == abi.VIRTIO_ISR_QUEUE
    assert host.interrupts.high == set()
    bus.close()


@pytest.mark.parametrize("legacy", [True, False])
def test_kicks_are_served_on_the_loop(make_machine, loop, echo_class, legacy):
    host = make_machine(kvm=False)
    device, bus = echo_in(host, echo_class)
    driver = MockDriver(device, host.memory, legacy=legacy)
    driver.start()
    for _ in range(8):
        driver.queues[0].send([b"abc"], [3])
    vcpu = threading.Thread(target=driver.kick, args=(0,))
    vcpu.start()
    vcpu.join()
    assert driver.queues[0].reap() == []
    run_until(loop, lambda: int(driver.queues[0].used_head["idx"][0]) == 8)
    assert [used.data for used in driver.queues[0].reap()] == [b"cba"] * 8
    bus.close()


def places_of(device, bus, index):
    return {
        Place("port", bus.decoded(device, LEGACY_BAR) + abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, index),
        Place("mmio", bus.decoded(device, MODERN_BAR) + 0x3000 + 4 * index, 2, None),
    }


def test_kvm_rings_at_both_places_wherever_the_bars_are(make_machine, loop, echo_class):
    host = make_machine()
    device, bus = echo_in(host, echo_class)
    driver = MockDriver(device, host.memory)
    driver.start()
    kick = device.hand_over(1).kick
    for round_ in range(2):
        counted(kick)
        assert set(device.hand_over(1).places) == places_of(device, bus, 1)
        for place in device.hand_over(1).places:
            assert host.handlers.dispatch(place.kind, place.address, 2, True, 1)
            assert counted(kick) == 1
            assert host.handlers.dispatch(place.kind, place.address, 2, True, 0)
            assert counted(kick) == (place.kind == "mmio")  # the port's value says which queue is meant
        counted(kick)
        driver.queues[0].send([b"abc"], [3])
        place = next(place for place in device.hand_over(0).places if place.kind == "port")
        assert host.handlers.dispatch("port", place.address, 2, True, 0)
        run_until(loop, lambda done=round_ + 1: int(driver.queues[0].used_head["idx"][0]) == done)
        old = device.hand_over(1).places
        bus.write_config(device.function, device.bars[LEGACY_BAR].offset, 4, 0x4000)
        bus.write_config(device.function, device.bars[MODERN_BAR].offset, 4, 0xC8000000)
        if round_ == 0:
            assert not any(host.handlers.dispatch(p.kind, p.address, 2, True, 1) for p in old)
    bus.write_config(device.function, pci.PCIR_COMMAND, 2, 0)
    assert device.hand_over(1).places == ()
    assert not host.handlers.dispatch("port", 0x4010, 2, True, 1)
    bus.close()
    assert len(host.handlers) == 0


def test_two_devices_at_one_place_harm_nobody(make_machine, echo_class):
    host = make_machine()
    bus = PciBus(host)
    devices = [echo_class(host, function) for function in (Function(0, 3, 0), Function(0, 4, 0))]
    for device in devices:
        bus.add(device)
    bus.start()
    for device in devices:
        bus.write_config(device.function, device.bars[LEGACY_BAR].offset, 4, 0x6000)
        bus.write_config(device.function, device.bars[MODERN_BAR].offset, 4, 0xC8000000)
    first, second = (device.hand_over(1).kick for device in devices)
    assert host.handlers.dispatch("port", 0x6000 + abi.VIRTIO_PCI_QUEUE_NOTIFY, 2, True, 1)
    assert counted(first) + counted(second) == 1
    bus.close()


def test_where_kvm_refuses_the_register_itself_rings(make_machine, loop, echo_class):
    host = make_machine()
    host.handle.refuses = True
    device, bus = echo_in(host, echo_class)
    driver = MockDriver(device, host.memory)
    driver.start()
    driver.queues[0].send([b"abc"], [3])
    driver.kick(0)
    run_until(loop, lambda: int(driver.queues[0].used_head["idx"][0]) == 1)
    bus.close()


def test_a_driver_that_never_stops_offering_lets_others_have_their_turn(make_machine, loop, echo_class):
    host = make_machine(kvm=False)
    device, bus = echo_in(host, echo_class)
    driver = MockDriver(device, host.memory)
    driver.start()
    queue = driver.queues[0]
    answered = 0
    handle = device.handle

    def handle_and_offer(served, chain):
        nonlocal answered
        answered += 1
        handle(served, chain)
        queue.reap()
        queue.post([1])

    device.handle = handle_and_offer
    queue.post([1])
    driver.kick(0)
    turns = []
    loop.call_later(0, turns.append, 1)
    run_until(loop, lambda: turns and answered > 3 * device.queue_sizes[0])
    assert not driver.needs_reset
    bus.close()

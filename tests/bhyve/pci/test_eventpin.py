# SPDX-License-Identifier: BSD-2-Clause
"""The pin of a device whose events others write to its vectors' eventfds."""

import os

import pytest

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.device import PciDevice
from ptnetmap.bhyve.pci.eventpin import EventPin
from ptnetmap.bhyve.pci.function import Function

pytestmark = pytest.mark.interpreted

PLACE = Function(0, 4, 0)
ENABLED = pci.PCIM_CMD_PORTEN | pci.PCIM_CMD_MEMEN


class Loop:
    """An event loop that runs what it is given at once, and listens when told to."""

    def __init__(self):
        self.readers = {}

    def call_soon_threadsafe(self, function):
        function()

    def add_reader(self, fd, function, *arguments):
        self.readers[fd] = lambda: function(*arguments)

    def remove_reader(self, fd):
        del self.readers[fd]

    def turn(self):
        for function in list(self.readers.values()):
            function()


class Device(PciDevice):
    name = ""

    def __init__(self, host, function, options):
        super().__init__(host, function, options)
        self.identify(vendor_id=0x1B36, device_id=0x000D, class_code=0x020000)
        self.add_msix(2, 2)
        self.pin_of_events = EventPin(self)
        self.in_use = False

    def use(self, on):
        self.in_use = on
        self.pin_of_events.settle(in_use=on)

    def config_changed(self, effect):
        super().config_changed(effect)
        self.pin_of_events.settle(in_use=self.in_use)

    def close(self):
        self.pin_of_events.close()
        super().close()


@pytest.fixture
def device(host, bus):
    host.loop = Loop()
    device = Device(host, PLACE, {})
    bus.add(device)
    bus.start()
    return device


def event(device, vector=0):
    os.eventfd_write(device.msix.vectors[vector].eventfd, 1)
    device.host.loop.turn()


def high(device):
    return bool(device.host.interrupts.high)


def command(bus, value):
    bus.write_config(PLACE, pci.PCIR_COMMAND, 2, ENABLED | value)


def status(bus):
    return bool(bus.read_config(PLACE, pci.PCIR_STATUS, 2) & pci.PCIM_STATUS_INTxSTATE)


def enable_msix(device, bus, on):
    bus.write_config(PLACE, device.msix.capability.offset + 2, 2, pci.PCIM_MSIXCTRL_MSIX_ENABLE if on else 0)


@pytest.mark.parametrize("vector", [0, 1])
def test_an_event_raises_the_pin_until_the_guest_disables_it(device, bus, vector):
    device.use(True)
    event(device, vector)
    assert (high(device), status(bus)) == (True, True)
    command(bus, pci.PCIM_CMD_INTxDIS)
    assert (high(device), status(bus)) == (False, False)
    command(bus, 0)
    assert (high(device), status(bus)) == (False, False)


def test_what_comes_while_it_is_disabled_raises_it_afterwards(device, bus):
    device.use(True)
    command(bus, pci.PCIM_CMD_INTxDIS)
    event(device)
    assert (high(device), status(bus)) == (False, True)
    command(bus, pci.PCIM_CMD_INTxDIS | pci.PCIM_CMD_BUSMASTEREN)
    command(bus, 0)
    assert high(device)


def test_with_messages_nobody_listens(device, bus):
    device.use(True)
    event(device)
    enable_msix(device, bus, True)
    assert not high(device)
    assert device.host.loop.readers == {}
    enable_msix(device, bus, False)
    event(device)
    assert high(device)


def test_a_device_that_is_not_in_use_raises_nothing(device):
    assert device.host.loop.readers == {}
    device.use(True)
    event(device)
    device.use(False)
    assert not high(device)
    assert device.host.loop.readers == {}

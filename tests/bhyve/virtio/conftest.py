# SPDX-License-Identifier: BSD-2-Clause
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio.device import VirtioDevice
from ptnetmap.bhyve.virtio.mock import MockDriver

PLACE = Function(0, 3, 0)


class Echo(VirtioDevice):
    """Queue 0 returns what it was sent, reversed; queue 1 is for whoever takes it over. Notes what it is told."""

    name = "virtio-echo"
    virtio_id = abi.VIRTIO_ID_CONSOLE
    class_code = pci.PCIC_OTHER << 16
    queue_sizes = (16, 8)

    def __init__(self, host, function=PLACE, options=None, **more):
        self.told = []
        more = {"features": 1 << 5 | 1 << 16, "device_config": bytes(range(10, 20)), "external": (1,)} | more
        super().__init__(host, function, options or {}, **more)

    def handle(self, queue, chain):
        data = chain.read(chain.readable_bytes)
        self.complete(queue, chain, chain.write(data[::-1]))

    def started(self):
        self.told.append("started")

    def stopped(self):
        self.told.append("stopped")

    def queue_changed(self, index):
        self.told.append(index)

    def features_acceptable(self, features):
        return bool(features & 1 << 5)


@pytest.fixture
def make_echo(make_host: Callable[..., Any]) -> Iterator[Callable[..., Echo]]:
    """Make devices, each in a machine of its own; machine options by ``host``, a dict."""
    devices: list[Echo] = []

    def make(options: Any = None, *, host: Any = None, **more: Any) -> Echo:
        devices.append(Echo(make_host(**(host or {})), PLACE, options, **more))
        return devices[-1]

    yield make
    for device in devices:
        device.close()
        device.close()
        assert all(route.closed for route in device.host.interrupts.routes)


@pytest.fixture
def echo(make_echo: Callable[..., Echo]) -> Echo:
    """A device in a machine without KVM and without an event loop: kicks are served at once."""
    return make_echo()


@pytest.fixture(params=["legacy", "modern"])
def driver(request: pytest.FixtureRequest, echo: Echo) -> MockDriver:
    """A driver of it, started, by either kind of registers."""
    driver = MockDriver(echo, echo.host.memory, legacy=request.param == "legacy")
    driver.start()
    return driver

# SPDX-License-Identifier: BSD-2-Clause
from collections.abc import Callable
from typing import Any

import pytest

from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.device import PciDevice
from ptnetmap.bhyve.pci.function import Function


class Probe(PciDevice):
    """Every byte of its BARs reads as a number of its own; notes what it is told."""

    name = "probe"

    def __init__(self, host, function, options, bars=()):
        super().__init__(host, function, options)
        self.identify(vendor_id=0x3333, device_id=2, class_code=0xFF0102, subsystem_vendor_id=4, subsystem_id=5)
        for number, kind, size in bars:
            self.add_bar(number, kind, size)
        self.calls = []
        self.moves = []

    def byte(self, bar, offset):
        return (hash((self.function, bar)) + offset) & 0x7F

    def bar_read(self, bar, offset, size):
        assert 0 <= offset <= offset + size <= self.bars[bar].size
        return sum(self.byte(bar, offset + i) << 8 * i for i in range(size))

    def bar_write(self, bar, offset, size, value):
        self.calls.append((bar, offset, size, value))

    def bar_moved(self, bar, address):
        self.moves.append((bar, address))


@pytest.fixture
def make_device(host: Any) -> Callable[..., Probe]:
    """Make a device: its place as text, its BARs as (number, kind, bytes)."""

    def make(place: str = "3", *bars: tuple[int, BarKind, int], host: Any = host) -> Probe:
        return Probe(host, Function.parse(place), {}, bars)

    return make

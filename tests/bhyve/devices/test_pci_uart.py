# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import pci
from ptnetmap.bhyve.devices import uart as chip
from ptnetmap.bhyve.devices.pci_uart import PciUart
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

PLACE = Function(0, 4, 0)


@pytest.fixture
def uart(bus, host, tmp_path):
    uart = PciUart(host, PLACE, PciUart.parse_options(str(tmp_path / "log,a=b")))
    bus.add(uart)
    bus.start()
    return uart


def test_it_is_a_uart_that_guests_know(bus, uart):
    assert bus.read_config(PLACE, pci.PCIR_VENDOR, 4) == 0x2000131F
    assert bus.read_config(PLACE, pci.PCIR_REVID, 4) >> 24 == pci.PCIC_SIMPLECOMM


def test_it_sends_to_its_path_and_interrupts_by_its_pin(bus, host, uart, tmp_path):
    port = bus.decoded(uart, 0)
    gsi = 16 + uart.pin.wire
    host.ports.write(port + chip.IER, 1, chip.IER_TX)
    assert gsi in host.interrupts.high
    assert host.ports.read(port + chip.IIR, 1) == chip.IIR_TX
    assert host.interrupts.high == set()
    host.ports.write(port, 1, ord("!"))
    assert gsi in host.interrupts.high
    bus.reset()

    assert host.interrupts.high == set()
    assert (tmp_path / "log,a=b").read_bytes() == b"!"


def test_a_path_that_cannot_be_is_refused(host):
    with pytest.raises(ConfigError, match="uart 4:0"):
        PciUart(host, PLACE, {"path": "nonsense"})

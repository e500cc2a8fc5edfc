# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.abi import pci
from ptnetmap.bhyve.boot.platform import COM
from ptnetmap.bhyve.devices import uart as chip
from ptnetmap.bhyve.devices.lpc import COM_PORTS, Lpc
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

PLACE = Function(0, 1, 0)


@pytest.fixture
def lpc(bus):
    return bus.create(PLACE, "lpc", {})


def test_the_tables_describe_the_ports_that_are_there():
    assert {name: (port.port, port.irq) for name, port in COM.items()} == dict(COM_PORTS)


def test_it_is_an_isa_bridge(bus, lpc):
    bus.start()
    assert bus.read_config(PLACE, pci.PCIR_VENDOR, 4) == 0x70008086
    assert bus.read_config(PLACE, pci.PCIR_REVID, 4) == 0x06010000


@pytest.mark.parametrize("name", COM_PORTS)
def test_every_serial_port_is_a_16550a_at_its_place(host, lpc, name):
    port, irq = COM_PORTS[name]
    host.ports.write(port + chip.FCR, 1, chip.FCR_ENABLE)
    assert host.ports.read(port + chip.IIR, 1) == chip.IIR_FIFOS | chip.IIR_NONE
    host.ports.write(port + chip.IER, 1, chip.IER_TX)
    assert host.interrupts.high == {irq}
    assert host.ports.read(port + chip.IER, 2) == chip.IER_TX | (chip.IIR_FIFOS | chip.IIR_TX) << 8
    assert host.interrupts.high == set()


def test_an_interrupt_that_two_ports_share_is_high_while_either_wants_it(host, lpc):
    for name in ("com1", "com3"):
        host.ports.write(COM_PORTS[name][0] + chip.IER, 1, chip.IER_TX)
    host.ports.read(0x3F8 + chip.IIR, 1)
    assert host.interrupts.high == {4}
    host.ports.read(0x3E8 + chip.IIR, 1)

    assert host.interrupts.lines[4].levels == [True, False]


def test_output_goes_to_the_configured_file(make_host, tmp_path):
    path = tmp_path / "console"
    host = make_host(**{"lpc.com1.path": str(path)})
    bus = PciBus(host)
    bus.create(PLACE, "lpc", {})
    for byte in b"hello\n":
        host.ports.write(0x3F8, 1, byte)
    host.ports.write(0x2F8, 1, ord("x"))
    bus.close()

    assert path.read_bytes() == b"hello\n"


def test_the_wires_routing_registers_are_the_buses(bus, lpc):
    bus.start()
    bus.write_config(PLACE, 0x60, 1, 0x8B)
    bus.write_config(PLACE, 0x68, 4, 0x0B0A0903)

    assert bus.read_config(PLACE, 0x60, 1) == bus.intx.read(0) == 0x8B
    assert [bus.intx.read(wire) for wire in range(4, 8)] == [3, 9, 10, 11]
    assert bus.read_config(PLACE, 0x68, 4) == 0x0B0A0903
    assert bus.read_config(PLACE, 0x64, 4) == 0


def test_there_is_only_one(bus, lpc):
    with pytest.raises(ConfigError, match=r"Only one LPC bridge is allowed\."):
        bus.create(Function(0, 2, 0), "lpc", {})


def test_it_is_on_bus_0_only(host):
    with pytest.raises(ConfigError, match=r"LPC bridge can be present only on bus 0\."):
        Lpc(host, Function(1, 0, 0), {})


def test_a_backend_that_cannot_be_leaves_nothing_behind(make_host):
    host = make_host(**{"lpc.com2.path": "/nowhere/at/all"})
    message = "Unable to initialize backend '/nowhere/at/all' for LPC device com2"
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            Lpc(host, PLACE, {})
    assert all(line.closed for line in host.interrupts.lines.values())


def test_stdio_is_for_one_port_only(make_host):
    host = make_host(**{"lpc.com1.path": "stdio", "lpc.com2.path": "stdio"})
    with pytest.raises(ConfigError, match="LPC device com2: stdio is connected to com1"):
        Lpc(host, PLACE, {})


def test_a_reset_brings_the_ports_back_to_their_first_state(bus, host, lpc):
    bus.start()
    host.ports.write(0x3F8 + chip.IER, 1, chip.IER_TX)
    host.ports.write(0x3F8 + chip.SCR, 1, 7)
    bus.reset()

    assert host.interrupts.high == set()
    assert host.ports.read(0x3F8 + chip.SCR, 1) == 0

# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.intx import IntxRouter, Pin, routes

INTX_OFF = pci.PCIM_CMD_INTxDIS | 7


@pytest.fixture
def plug(bus, make_device):
    """Plug in devices with a pin at these places, and start the bus."""

    def add(*places):
        devices = [make_device(place) for place in places]
        for device in devices:
            device.use_intx()
            bus.add(device)
        bus.start()
        return devices

    return add


def test_every_pin_of_every_slot_has_the_route_that_bhyve_gives_it():
    table = routes()
    assert len(table) == 128
    assert all(gsi == 16 + (4 + slot + pin) % 8 for slot, pin, gsi in table)


@pytest.mark.parametrize(("place", "pin"), [("3", 1), ("3:1", 2), ("3:3", 4), ("3:4", 1), ("3:7", 4)])
def test_the_guest_reads_which_pin_a_function_has(bus, make_device, place, pin):
    device = make_device(place)
    device.use_intx()
    bus.add(device)
    bus.start()

    assert bus.read_config(device.function, pci.PCIR_INTPIN, 1) == pin
    assert bus.read_config(device.function, pci.PCIR_INTLINE, 1) == bus.intx.legacy_irq(device.pin.wire)


def test_an_interrupt_holds_its_line_until_it_is_deasserted(host, plug):
    (device,) = plug("3")
    device.interrupt()
    device.interrupt()
    assert host.interrupts.high == {16, 10}
    assert host.interrupts.lines[16].levels == [True]

    device.deassert()
    assert host.interrupts.lines[16].levels == [True, False]
    assert host.interrupts.high == set()


def test_a_shared_line_is_high_while_anybody_asserts(host, plug):
    first, second = plug("3", "11")
    first.interrupt()
    second.interrupt()
    first.deassert()
    assert host.interrupts.high == {16, 10}

    second.deassert()
    assert host.interrupts.lines[16].levels == [True, False]


def test_the_guest_can_silence_a_pin_and_still_see_that_it_is_wanted(host, bus, plug):
    (device,) = plug("3")
    bus.write_config(device.function, pci.PCIR_COMMAND, 2, INTX_OFF)
    device.interrupt()
    assert host.interrupts.high == set()
    assert bus.read_config(device.function, pci.PCIR_STATUS, 2) & pci.PCIM_STATUS_INTxSTATE

    bus.write_config(device.function, pci.PCIR_COMMAND, 2, 7)
    assert host.interrupts.high == {16, 10}
    device.deassert()
    assert not bus.read_config(device.function, pci.PCIR_STATUS, 2) & pci.PCIM_STATUS_INTxSTATE


def test_a_function_without_a_pin_has_nothing_to_assert(host, bus, make_device):
    device = make_device("3")
    bus.add(device)
    bus.start()
    device.interrupt()
    device.deassert()
    assert host.interrupts.lines == {}


def test_a_reset_and_a_close_let_the_line_go(host, bus, plug):
    first, second = plug("3", "4")
    first.interrupt()
    bus.intx.write(first.pin.wire, 0x80)
    bus.reset()
    assert host.interrupts.high == set()
    assert bus.intx.legacy_irq(first.pin.wire) == 10

    second.interrupt()
    bus.close()
    assert all(line.closed for line in host.interrupts.lines.values())


def test_a_pin_that_is_not_connected_remembers(host):
    router, pin = IntxRouter(host.interrupts), Pin(1)
    pin.drive(True)
    assert host.interrupts.high == set()
    pin.connect(router, 3)
    assert host.interrupts.high == {16, 10}
    pin.disconnect()
    pin.disconnect()
    assert host.interrupts.high == set()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("pin"), st.integers(0, 11), st.booleans()),
            st.tuples(st.just("pirq"), st.integers(0, 7), st.integers(0, 255)),
        ),
        max_size=30,
    )
)
def test_a_line_is_high_exactly_while_a_wire_that_drives_it_is(make_host, steps):
    host = make_host(4096)
    router = IntxRouter(host.interrupts)
    pins = [Pin(n % 4 + 1) for n in range(12)]
    for slot, pin in enumerate(pins):
        pin.connect(router, slot)

    for what, n, value in steps:
        if what == "pin":
            pins[n].drive(value)
        else:
            router.write(n, value)
            assert router.read(n) == value & 0x8F
        high = {(4 + slot + pin.number) % 8 for slot, pin in enumerate(pins) if pin.level}
        legal = {3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15}
        assert host.interrupts.high == {16 + wire for wire in high} | ({router.read(wire) for wire in high} & legal)
        assert all(
            levels == [n % 2 == 0 for n in range(len(levels))]
            for levels in (line.levels for line in host.interrupts.lines.values())
        )
    host.close()

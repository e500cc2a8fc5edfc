# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.devices.dummy import INTERRUPT_ALL, Dummy
from ptnetmap.bhyve.pci.function import Function

PLACE = Function(0, 3, 0)


@pytest.fixture
def dummy(bus, host):
    dummy = Dummy(host, PLACE, {})
    bus.add(dummy)
    bus.start()
    return dummy


def allow_messages(bus, dummy, log2):
    at = dummy.msi.capability.offset
    bus.write_config(PLACE, at + 4, 4, 0xFEE00000)
    bus.write_config(PLACE, at + 12, 2, 0x40)
    bus.write_config(PLACE, at + 2, 2, pci.PCIM_MSICTRL_MSI_ENABLE | log2 << 4)


def test_it_remembers_what_is_written_until_a_reset(bus, host, dummy):
    for number, space in ((0, host.ports), (1, host.mmio), (2, host.mmio)):
        space.write(bus.decoded(dummy, number), 4, 0x11223344 + number)
    assert host.mmio.read(bus.decoded(dummy, 1), 8) == 0x11223345
    assert host.mmio.read(bus.decoded(dummy, 2) + 1, 2) == 0x2233
    bus.reset()
    assert host.ports.read(bus.decoded(dummy, 0), 4) == 0


def test_it_sends_the_message_that_it_is_told_to(bus, host, dummy):
    port = bus.decoded(dummy, 0)
    host.ports.write(port + 4, 4, 3)
    assert host.interrupts.messages == []
    allow_messages(bus, dummy, 2)
    host.ports.write(port + 4, 4, 7)
    host.ports.write(port + 4, 2, 1)
    host.ports.write(port, 4, 1)
    assert host.interrupts.messages == [(0xFEE00000, 0x43)]
    host.interrupts.messages.clear()
    host.ports.write(port, 4, INTERRUPT_ALL)
    assert [data for _, data in host.interrupts.messages] == [0x40, 0x41, 0x42, 0x43]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(0, 4095), st.sampled_from([1, 2, 4, 8]), st.binary(min_size=8, max_size=8))
def test_any_access_in_a_bar_is_remembered(bus, host, dummy, number, offset, size, data):
    space = host.mmio if number else host.ports
    offset %= dummy.bars[number].size
    offset = min(offset, dummy.bars[number].size - size)
    value = int.from_bytes(data[:size], "little")
    space.write(bus.decoded(dummy, number) + offset, size, value)
    assert space.read(bus.decoded(dummy, number) + offset, size) == value

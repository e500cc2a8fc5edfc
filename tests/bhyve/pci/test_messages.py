# SPDX-License-Identifier: BSD-2-Clause
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.config import ConfigSpace
from ptnetmap.bhyve.pci.msi import Msi
from ptnetmap.bhyve.pci.msix import Msix
from ptnetmap.errors import HypervisorError

TO_CPU = 0xFEE00000
ENABLE = pci.PCIM_MSIXCTRL_MSIX_ENABLE
MASK_ALL = pci.PCIM_MSIXCTRL_FUNCTION_MASK


@pytest.fixture
def device(bus, make_device):
    """Plug in a device with 3 MSI-X vectors in BAR 1, 4 MSI messages and a pin."""
    device = make_device("3")
    device.add_msix(3, 1)
    device.add_msi(4)
    device.use_intx()
    bus.add(device)
    bus.start()
    return device


@pytest.fixture
def control(bus, device):
    """Write MSI-X's control register."""
    return lambda value: bus.write_config(device.function, device.msix.capability.offset + 2, 2, value)


@pytest.fixture
def entry(bus, host, device):
    """Write an entry of the MSI-X table, as a driver does."""
    table = bus.decoded(device, 1)

    def write(n, *, masked=False, address=TO_CPU, data=None):
        host.mmio.write(table + 16 * n + 12, 4, 1)
        host.mmio.write(table + 16 * n, 8, address)
        host.mmio.write(table + 16 * n + 8, 4, 0x40 + n if data is None else data)
        host.mmio.write(table + 16 * n + 12, 4, masked)

    return write


def pending(host, bus, device):
    return host.mmio.read(bus.decoded(device, 1) + 0x1000, 8)


def test_the_capability_says_where_table_and_pending_bits_are(bus, device):
    offset = device.msix.capability.offset
    assert bus.read_config(device.function, offset, 1) == pci.PCIY_MSIX
    assert bus.read_config(device.function, offset + 2, 2) == 2
    assert [bus.read_config(device.function, offset + n, 4) for n in (4, 8)] == [1, 0x1001]
    assert device.bars[1].size == 0x2000


@pytest.mark.parametrize(("vectors", "size"), [(1, 0x2000), (256, 0x2000), (257, 0x3000), (2048, 0x9000)])
def test_a_table_of_any_size_keeps_its_pages_to_itself(host, vectors, size):
    msix = Msix(host.interrupts, ConfigSpace(), vectors, 2)
    assert msix.size == size
    assert msix.read(16 * vectors - 4, 4) == 1
    msix.close()


@pytest.mark.parametrize("vectors", [0, 2049, -1])
def test_a_function_cannot_have_that_many_vectors(host, vectors):
    with pytest.raises(ValueError, match="MSI-X"):
        Msix(host.interrupts, ConfigSpace(), vectors, 1)


def test_routes_are_given_back_when_there_are_not_enough(host, monkeypatch):
    allocate = host.interrupts.allocate_msi

    def three():
        if len(host.interrupts.routes) == 3:
            raise OSError
        return allocate()

    monkeypatch.setattr(host.interrupts, "allocate_msi", three)
    for kind, count in ((Msix, (5, 1)), (Msi, (4,))):
        with pytest.raises(OSError):  # noqa: PT011
            kind(host.interrupts, ConfigSpace(), *count)
        assert [route.closed for route in host.interrupts.routes] == [True] * 3
        host.interrupts.routes.clear()


def test_an_enabled_vector_delivers_its_message(host, device, control, entry):
    control(ENABLE)
    entry(1)
    device.interrupt(1)
    device.interrupt(1)
    assert host.interrupts.messages == [(TO_CPU, 0x41)] * 2
    assert host.interrupts.high == set()


@pytest.mark.parametrize("vector", [-1, 3, 4, 0xFFFF])
def test_a_vector_that_there_is_not_is_ignored(bus, host, device, control, entry, vector):
    control(ENABLE)
    entry(0)
    device.interrupt(vector)
    control(0)
    bus.write_config(device.function, device.msi.capability.offset + 2, 2, 1)
    device.interrupt(vector)
    assert host.interrupts.messages == []


@pytest.mark.parametrize("source", ["signal", "eventfd"])
@pytest.mark.parametrize("mask", ["vector", "function"])
def test_a_masked_vector_pends_and_delivers_once_on_unmasking(bus, host, device, control, entry, source, mask):
    eventfd = device.msix.vectors[2].eventfd
    entry(2, masked=mask == "vector")
    entry(1)
    control(ENABLE | (MASK_ALL if mask == "function" else 0))
    for _ in range(3):
        device.interrupt(2) if source == "signal" else os.eventfd_write(eventfd, 1)
        host.interrupts.poll()
    assert host.interrupts.messages == []
    assert pending(host, bus, device) == 0b100

    entry(2) if mask == "vector" else control(ENABLE)
    host.interrupts.poll()
    assert host.interrupts.messages == [(TO_CPU, 0x42)]
    assert pending(host, bus, device) == 0


def test_an_eventfd_reaches_the_hypervisor_while_and_only_while_it_may(host, device, control, entry):
    vector, route = device.msix.vectors[0], host.interrupts.routes[0]
    eventfd = vector.eventfd
    assert vector.eventfd == eventfd

    listening = []
    for step in (
        lambda: control(ENABLE),
        lambda: entry(0),
        lambda: control(ENABLE | MASK_ALL),
        lambda: control(ENABLE),
    ):
        step()
        listening.append(route.eventfd)
    assert listening == [None, eventfd, None, eventfd]
    control(0)
    assert route.eventfd is None

    assert [route.eventfd for route in host.interrupts.routes[1:]] == [None] * 6


def test_an_eventfd_made_while_messages_flow_is_attached_at_once(host, device, control, entry):
    control(ENABLE)
    entry(0)
    os.eventfd_write(device.msix.vectors[0].eventfd, 1)
    host.interrupts.poll()
    assert host.interrupts.messages == [(TO_CPU, 0x40)]


def test_events_from_before_messages_were_enabled_are_forgotten(host, device, control, entry):
    entry(0)
    os.eventfd_write(device.msix.vectors[0].eventfd, 1)
    control(ENABLE)
    host.interrupts.poll()
    assert host.interrupts.messages == []


@pytest.mark.parametrize("address", [0, 0xFED00000, 0xFEF00000, TO_CPU | 1 << 32, (1 << 64) - 4])
def test_a_message_that_is_no_interrupt_is_dropped(bus, host, device, control, entry, address):
    os.eventfd_write(device.msix.vectors[0].eventfd, 1)
    control(ENABLE)
    entry(0, address=address)
    device.interrupt(0)
    os.eventfd_write(device.msix.vectors[0].eventfd, 1)
    host.interrupts.poll()
    entry(0)
    host.interrupts.poll()
    assert host.interrupts.messages == []
    assert pending(host, bus, device) == 0


def test_a_message_that_the_hypervisor_refuses_is_dropped_until_it_is_another(host, device, control, entry):
    host.interrupts.refused.add((TO_CPU, 0xBAD))
    control(ENABLE)
    entry(0, data=0xBAD)
    device.interrupt(0)
    entry(0)
    device.interrupt(0)
    assert host.interrupts.messages == [(TO_CPU, 0x40)]


def test_a_message_that_is_refused_for_an_eventfd_is_dropped_as_well(host, device, control, entry):
    host.interrupts.refused_late.add((TO_CPU, 0xBAD))
    os.eventfd_write(device.msix.vectors[0].eventfd, 1)
    control(ENABLE)
    entry(0, data=0xBAD)
    device.interrupt(0)
    entry(0)
    device.interrupt(0)
    assert host.interrupts.messages == [(TO_CPU, 0x40)]


def test_an_eventfd_that_the_hypervisor_refuses_is_not_made(host, device, control, entry):
    host.interrupts.refused_late.add((TO_CPU, 0x40))
    control(ENABLE)
    entry(0)
    with pytest.raises(HypervisorError):
        device.msix.vectors[0].eventfd  # noqa: B018
    control(0)
    host.interrupts.refused_late.clear()
    assert device.msix.vectors[0].eventfd >= 0


def test_pending_bits_are_read_only_and_the_rest_of_the_bar_is_zero(bus, host, device, control):
    base = bus.decoded(device, 1)
    for offset in range(48, 0x2000, 8):
        host.mmio.write(base + offset, 8, (1 << 64) - 1)
    assert all(host.mmio.read(base + offset, 8) == 0 for offset in range(48, 0x2000, 8))
    control(ENABLE)
    device.interrupt(0)
    device.interrupt(2)
    assert [host.mmio.read(base + 0x1000 + n, 1) for n in range(3)] == [0b101, 0, 0]
    assert host.mmio.read(base + 0xFFC, 8) == 0b101 << 32


def test_a_reset_masks_and_forgets(bus, host, device, control, entry):
    control(ENABLE)
    entry(0)
    device.interrupt(1)
    bus.reset()
    assert (device.uses_messages, pending(host, bus, device)) == (False, 0)
    base = bus.decoded(device, 1)
    assert [host.mmio.read(base + n, 4) for n in range(0, 48, 4)] == [0, 0, 0, 1] * 3


def test_the_pin_is_used_until_messages_are_and_never_with_them(bus, host, device, control):
    device.interrupt(0)
    assert 16 in host.interrupts.high
    control(ENABLE)
    assert host.interrupts.high == set()
    control(0)
    assert 16 in host.interrupts.high
    bus.write_config(device.function, device.msi.capability.offset + 2, 2, 1)
    assert host.interrupts.high == set()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("table"), st.integers(0, 64), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1)),
        st.tuples(st.just("mask"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("message"), st.integers(0, 2), st.sampled_from([TO_CPU, TO_CPU | 0xFF00C, 0x1000])),
        st.tuples(
            st.just("control"), st.sampled_from([0, MASK_ALL, ENABLE, ENABLE, ENABLE, ENABLE | MASK_ALL, 0x3FFF])
        ),
        st.tuples(st.just("signal"), st.integers(0, 2)),
        st.tuples(st.just("eventfd"), st.integers(0, 2)),
        st.tuples(st.just("eventfd"), st.integers(0, 2)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_whatever_a_guest_writes_each_event_is_delivered_held_or_dropped_by_the_rules(make_host, steps):
    host = make_host(4096)
    config = ConfigSpace()
    msix = Msix(host.interrupts, config, 3, 0)
    for vector in msix.vectors:
        assert vector.eventfd >= 0
    table = bytearray((bytes(12) + b"\1\0\0\0") * 3)
    held, expected, flags = set(), [], 0

    def field(n, offset, size):
        return int.from_bytes(table[16 * n + offset : 16 * n + offset + size], "little")

    def masked(n):
        return flags & MASK_ALL or field(n, 12, 4)

    def event(n):
        if not flags & ENABLE:
            return
        if masked(n):
            held.add(n)
        elif field(n, 0, 8) >> 20 == TO_CPU >> 20:
            expected.append((field(n, 0, 8), field(n, 8, 4)))

    def store(offset, size, value):
        msix.write(offset, size, value)
        for i in range(offset, min(offset + size, 48)):
            table[i] = value >> 8 * (i - offset) & 0xFF & (0xFC, *[0xFF] * 11, 1, 0, 0, 0)[i % 16]

    for what, *arguments in steps:
        if what == "table":
            store(*arguments)
        elif what == "mask":
            store(16 * arguments[0] + 12, 4, arguments[1])
        elif what == "message":
            store(16 * arguments[0], 8, arguments[1])
        elif what == "control":
            flags = arguments[0] & 0xC000
            config.write(msix.capability.offset + 2, 2, arguments[0])
            msix.update()
        elif what == "signal":
            msix.signal(arguments[0])
            event(arguments[0])
        else:
            os.eventfd_write(msix.vectors[arguments[0]].eventfd, 1)
            event(arguments[0])
        host.interrupts.poll()
        if not flags & ENABLE:
            held.clear()
        for n in sorted(held):
            if not masked(n):
                held.remove(n)
                event(n)
        assert host.interrupts.messages == expected
        assert msix.read(0x1000, 8) == sum(1 << n for n in held)
        assert b"".join(msix.read(16 * n, 16).to_bytes(16, "little") for n in range(3)) == table
    msix.close()
    msix.close()
    host.close()


# --- MSI --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def enable(bus, device):
    """Enable MSI as a driver does: log2 of the messages allowed, address, data."""

    def write(allowed, address=TO_CPU, data=0x41):
        offset = device.msi.capability.offset
        bus.write_config(device.function, offset + 4, 4, address & 0xFFFFFFFF)
        bus.write_config(device.function, offset + 8, 4, address >> 32)
        bus.write_config(device.function, offset + 12, 2, data)
        bus.write_config(device.function, offset + 2, 2, 1 | allowed << 4)

    return write


def test_the_msi_capability_says_how_many_messages_there_are(bus, device):
    offset = device.msi.capability.offset
    assert bus.read_config(device.function, offset, 1) == pci.PCIY_MSI
    assert bus.read_config(device.function, offset + 2, 2) == 0x0084
    bus.write_config(device.function, offset + 2, 2, 0xFFFF)
    assert bus.read_config(device.function, offset + 2, 2) == 0x00F5


@pytest.mark.parametrize(
    ("allowed", "data"), [(0, [0x46] * 4), (1, [0x46, 0x47, 0x46, 0x47]), (2, [0x44, 0x45, 0x46, 0x47])]
)
@pytest.mark.parametrize("source", ["signal", "eventfd"])
def test_vectors_share_the_messages_that_the_guest_allows(host, device, enable, allowed, data, source):
    enable(allowed, data=0x46)
    for n in range(4):
        device.interrupt(n) if source == "signal" else os.eventfd_write(device.msi.vectors[n].eventfd, 1)
    host.interrupts.poll()
    assert host.interrupts.messages == [(TO_CPU, value) for value in data]


def test_a_guest_that_allows_more_messages_than_there_are_gets_those(host, device, enable):
    enable(7, data=0x40)
    device.interrupt(3)
    assert (device.msi.allowed, host.interrupts.messages) == (4, [(TO_CPU, 0x43)])


def test_msix_comes_before_msi(host, device, control, entry, enable):
    enable(0)
    control(ENABLE)
    entry(0, data=0x99)
    device.interrupt(0)
    assert host.interrupts.messages == [(TO_CPU, 0x99)]


@pytest.mark.parametrize("count", [0, 3, 64])
def test_a_function_cannot_have_that_many_messages(host, count):
    with pytest.raises(ValueError, match="MSI"):
        Msi(host.interrupts, ConfigSpace(), count)


def test_msi_after_a_reset_is_disabled(bus, host, device, enable):
    enable(0)
    bus.reset()
    assert not device.uses_messages
    device.interrupt(0)
    assert (host.interrupts.messages, 16 in host.interrupts.high) == ([], True)

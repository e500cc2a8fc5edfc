# SPDX-License-Identifier: BSD-2-Clause
import ctypes
import mmap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.memory import BarMemory
from ptnetmap.errors import HypervisorError

RAM = 16 << 20
SIZE = 3 * 4096


@pytest.fixture
def plugged(make_host, make_device):
    """Make a machine with devices that have ``SIZE`` bytes of our memory behind a 16 KiB BAR each."""
    made = []

    def make(*places, vm=True, **options):
        host = make_host(RAM, vm=vm)
        bus = PciBus(host)
        devices = []
        for n, place in enumerate(places):
            device = make_device(place, host=host)
            device.pages = mmap.mmap(-1, SIZE)
            device.block = (ctypes.c_char * SIZE).from_buffer(device.pages)
            device.block.raw = bytes([n + 1]) * SIZE
            device.add_memory(1, BarKind.MEM32, ctypes.addressof(device.block), SIZE, **options)
            bus.add(device)
            devices.append(device)
        bus.start()
        made.append((bus, host))
        return bus, host, devices

    yield make
    for bus, host in made:
        bus.close()
        assert host.vm is None or host.vm.bufs == []


def move(bus, device, address):
    bus.write_config(device.function, 0x14, 4, address)


def mapped(host):
    return sorted((buf.gpa, buf.address, buf.size) for buf in host.vm.bufs)


def test_the_memory_is_seen_where_the_bar_is_and_follows_it(plugged):
    bus, host, (device,) = plugged("3")
    address = ctypes.addressof(device.block)

    assert mapped(host) == [(0xC0000000, address, SIZE)]
    buf = host.vm.bufs[0]
    move(bus, device, 0xD0000000)
    assert (mapped(host), host.vm.bufs[0] is buf) == ([(0xD0000000, address, SIZE)], True)
    assert device.moves == [(1, 0xC0000000), (1, 0xD0000000)]


def test_a_bar_that_is_not_decoded_shows_nothing(plugged):
    bus, host, (device,) = plugged("3")
    bus.write_config(device.function, pci.PCIR_COMMAND, 2, 0)
    assert mapped(host) == []
    bus.write_config(device.function, pci.PCIR_COMMAND, 2, 2)
    assert [gpa for gpa, *_ in mapped(host)] == [0xC0000000]


@pytest.mark.parametrize("address", [0, 0x4000, RAM - 0x4000])
def test_over_guest_ram_it_is_not_reached_and_comes_back(plugged, address):
    bus, host, (device,) = plugged("3")
    move(bus, device, address)
    assert (mapped(host), bus.decoded(device, 1)) == ([], address)
    host.memory.write(address, b"\x77" * 16)
    assert device.block.raw == b"\1" * SIZE

    move(bus, device, RAM)
    assert [gpa for gpa, *_ in mapped(host)] == [RAM]


@pytest.mark.parametrize("address", [0xE0000000, 0xEFFFC000])
def test_over_configuration_space_it_hides_nothing(plugged, address):
    bus, host, (device,) = plugged("3")
    move(bus, device, address)
    assert (mapped(host), bus.decoded(device, 1)) == ([], address)
    assert host.mmio.read(0xE0000000 + (3 << 15), 2) == 0x3333


def test_two_at_one_place_take_turns_by_function(plugged):
    bus, host, (first, second) = plugged("3", "4")
    ours, theirs = (ctypes.addressof(device.block) for device in (first, second))

    move(bus, first, 0xC0004000)
    assert mapped(host) == [(0xC0004000, ours, SIZE)]
    assert host.mmio.read(0xC0004000, 1) == 1
    move(bus, first, 0xC0000000)
    assert mapped(host) == [(0xC0000000, ours, SIZE), (0xC0004000, theirs, SIZE)]
    move(bus, second, 0xC0000000)
    assert mapped(host) == [(0xC0000000, ours, SIZE)]


def test_one_that_was_hidden_is_seen_as_soon_as_the_other_leaves_whoever_was_plugged_in_first(plugged):
    bus, host, (_, first) = plugged("4", "3")
    move(bus, first, 0xC0004000)
    assert [gpa for gpa, *_ in mapped(host)] == [0xC0004000]
    move(bus, first, 0xC0008000)
    assert [gpa for gpa, *_ in mapped(host)] == [0xC0004000, 0xC0008000]


def test_one_that_the_hypervisor_refuses_is_served_without_it(plugged):
    bus, host, (device,) = plugged("3")
    host.vm.refuses = True
    move(bus, device, 0xD0000000)
    assert (mapped(host), str(device.memories[1].refusal)) == ([], "KVM_SET_USER_MEMORY_REGION: 0xd0000000 is taken")

    host.mmio.write(0xD0000002, 4, 0x44332211)
    assert host.mmio.read(0xD0000000, 8) == 0x0101443322110101
    host.vm.refuses = False
    move(bus, device, 0xD0004000)
    assert [gpa for gpa, *_ in mapped(host)] == [0xD0004000]


def test_without_a_hypervisor_accesses_reach_the_memory_and_ones_after_it(plugged):
    bus, host, (device,) = plugged("3", vm=False)
    base = bus.decoded(device, 1)

    host.mmio.write(base + SIZE - 2, 8, 0x8877665544332211)
    assert host.mmio.read(base + SIZE - 4, 8) == 0xFFFFFFFF_22110101
    assert host.mmio.read(base + 0x4000 - 8, 8) == (1 << 64) - 1
    host.mmio.write(base + SIZE, 8, 0)
    assert device.block.raw[-2:] == b"\x11\x22"


def test_memory_to_read_only_takes_no_write(plugged):
    bus, host, (device,) = plugged("3", vm=False, read_only=True)
    host.mmio.write(bus.decoded(device, 1), 4, 0)
    assert device.block.raw == b"\1" * SIZE


def test_a_reset_shows_it_where_the_firmware_puts_it(plugged):
    bus, host, (first, second) = plugged("3", "4")
    move(bus, first, 0xC0004000)
    move(bus, second, 0xC0000000)
    bus.reset()
    assert [gpa for gpa, *_ in mapped(host)] == [0xC0000000, 0xC0004000]
    assert [bus.decoded(device, 1) for device in (first, second)] == [0xC0000000, 0xC0004000]


@pytest.mark.parametrize(("address", "size"), [(4096, 0), (4096, -4096), (4096, 100), (100, 4096)])
def test_memory_that_is_no_whole_pages_is_refused(host, address, size):
    with pytest.raises(ValueError, match="pages"):
        BarMemory(host, address, size)


def test_memory_that_cannot_be_shown_at_the_start_is_an_error(make_host, make_device):
    host = make_host(RAM, vm=True)
    host.vm.refuses = True
    device = make_device("3", host=host)
    device.add_memory(1, BarKind.MEM64, 4096, 4096)
    bus = PciBus(host)
    bus.add(device)
    with pytest.raises(HypervisorError, match="taken"):
        bus.start()
    bus.close()


PLACES = [0, RAM - 0x4000, RAM, 0xC0000000, 0xC0004000, 0xC0008000, 0xE0000000, 0xFFFFC000]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(PLACES), st.sampled_from([0, 2, 2, 2])), max_size=15))
def test_memory_is_shown_exactly_where_its_bar_is_heard(plugged, moves):
    bus, host, devices = plugged("3", "4", "5")
    for n, address, command in moves:
        move(bus, devices[n], address)
        bus.write_config(devices[n].function, pci.PCIR_COMMAND, 2, command)
        where = [bus.decoded(device, 1) for device in devices]
        shown = [
            (address, ctypes.addressof(device.block), SIZE)
            for i, (device, address) in enumerate(zip(devices, where, strict=True))
            if address is not None and address not in where[:i] and address >= RAM and address != 0xE0000000
        ]
        assert mapped(host) == sorted(shown)
        for i, address in enumerate(where):
            if address is not None and address != 0xE0000000:
                assert host.mmio.read(address, 1) == where.index(address) + 1
            assert devices[i].block.raw == bytes([i + 1]) * SIZE
    bus.close()
    host.close()

# SPDX-License-Identifier: BSD-2-Clause
import struct

import pytest

from ptnetmap.guest import pci


def enumerate_bus():
    found = []
    function = pci.next_function(-1)
    while function >= 0:
        found.append((function >> 3, function & 7))
        function = pci.next_function(function)
    return found


def test_all_functions_of_the_bus_are_found(machine):
    machine.plug(0)
    machine.plug(2, 0, header_type=0x80)
    machine.plug(2, 3)
    machine.plug(2, 7)
    machine.plug(31)
    assert enumerate_bus() == [(0, 0), (2, 0), (2, 3), (2, 7), (31, 0)]


def test_other_functions_are_not_looked_for_where_function_0_says_it_is_alone(machine):
    machine.plug(2, 0)
    machine.plug(2, 1)
    machine.plug(4, 1)
    assert enumerate_bus() == [(2, 0)]


def test_an_empty_bus_ends(machine):
    assert enumerate_bus() == []


def test_devices_are_found_by_their_numbers_one_after_the_other(machine):
    machine.plug(1, vendor=0x1AF4, device=0x1000)
    machine.plug(5, vendor=0x1AF4, device=0x1000)
    machine.plug(6, vendor=0x1AF4, device=0x1001)
    first = pci.find_device(0x1AF4, 0x1000, -1)
    second = pci.find_device(0x1AF4, 0x1000, first)
    assert (first >> 3, second >> 3, pci.find_device(0x1AF4, 0x1000, second)) == (1, 5, -1)


def test_bars_give_ports_and_addresses_of_32_and_64_bits(machine):
    space = machine.plug(1)
    struct.pack_into("<IIII", space, 0x10, 0x2001, 0xC000000C, 0xD0, 0xC1000008)
    assert [pci.bar_address(8, number) for number in (0, 1, 3)] == [0x2000, 0xD0C0000000, 0xC1000000]
    assert [pci.bar_is_port(8, number) for number in (0, 1)] == [1, 0]


@pytest.mark.parametrize(("number", "header_type"), [(6, 0), (0, 1)])
def test_what_is_no_bar_has_no_address(machine, number, header_type):
    machine.plug(1, header_type=header_type)[0x10:0x30] = b"\xff" * 32
    assert pci.bar_address(8, number) == 0


def test_capabilities_are_found_in_their_list(machine):
    space = machine.plug(1)
    space[6], space[0x34] = 0x10, 0x40
    space[0x40:0x42], space[0x50:0x52] = bytes((9, 0x50)), bytes((0x11, 0))
    assert [pci.find_capability(8, kind) for kind in (9, 0x11, 5)] == [0x40, 0x50, 0]


@pytest.mark.parametrize("links", [{0x34: 0x40, 0x41: 0x40}, {0x34: 0x10, 0x11: 0x10}, {0x34: 0xFC, 0xFD: 0xFF}])
def test_a_list_of_capabilities_that_leads_nowhere_ends(machine, links):
    space = machine.plug(1)
    space[6] = 0x10
    for place, target in links.items():
        space[place] = target
    assert pci.find_capability(8, 0x11) == 0


def test_a_device_without_a_list_has_no_capability(machine):
    space = machine.plug(1)
    space[0x34], space[0x40] = 0x40, 0x11
    assert pci.msix_vectors(8) == 0
    assert pci.msix_enable(8) == 0


def test_a_programmed_vector_goes_to_the_processor_it_names(make_machine):
    machine = make_machine(cpus=3)
    machine.plug_rng(slot=1)
    assert pci.msix_set(8, 1, machine.block(2), 0x41) == 1
    assert pci.msix_enable(8) == 1
    table = [machine.registers[0xC0001010 + 4 * word] for word in range(4)]
    assert table == [0xFEE02000, 0, 0x41, 0]
    assert struct.unpack_from("<H", machine.config[8], 0x42)[0] == 0x8001


def test_a_vector_that_the_table_has_not_is_not_programmed(machine):
    machine.plug_rng(slot=1)
    assert pci.msix_set(8, 2, machine.block(0), 0x41) == 0
    assert machine.registers == {}


def test_an_enabled_function_may_use_memory_and_keeps_its_pin_silent(machine):
    space = machine.plug(1)
    pci.enable_function(8)
    assert struct.unpack_from("<H", space, 4)[0] == 0x0407

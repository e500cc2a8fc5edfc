# SPDX-License-Identifier: BSD-2-Clause
import numpy as np
import pytest

from ptnetmap.abi import mptable as abi
from ptnetmap.bhyve.boot import Platform
from ptnetmap.bhyve.boot.mptable import mp_table
from ptnetmap.bhyve.pci.intx import routes

BASE = 0xF0000
LAYOUTS = {0: abi.mp_processor, 1: abi.mp_bus, 2: abi.mp_ioapic, 3: abi.mp_interrupt, 4: abi.mp_interrupt}


def entries(platform):
    """Read the tables as a system does, and return the entries by type."""
    data = mp_table(platform)
    pointer = np.frombuffer(data, abi.mp_floating_pointer, 1)[0]
    assert (pointer["signature"], pointer["length"], pointer["spec_rev"]) == (b"_MP_", 1, 4)
    assert sum(data[:16]) % 256 == 0
    table = data[int(pointer["physical_address"]) - BASE :]
    header = np.frombuffer(table, abi.mp_config_header, 1)[0]
    assert (header["signature"], header["spec_rev"], header["lapic_address"]) == (b"PCMP", 4, 0xFEE00000)
    assert (header["base_table_length"], sum(table) % 256) == (len(table), 0)
    found = {kind: [] for kind in LAYOUTS}
    at = 44
    for _ in range(header["entry_count"]):
        entry = np.frombuffer(table, LAYOUTS[table[at]], 1, at)[0]
        found[table[at]].append(entry)
        at += entry.itemsize
    assert at == len(table)
    return found


def interrupts(platform, bus):
    return {
        int(entry["src_bus_irq"]): (int(entry["dst_apic_int"]), int(entry["int_flags"]))
        for entry in entries(platform)[abi.MP_IO_INTERRUPT]
        if entry["src_bus_id"] == bus and entry["int_type"] == abi.MP_INT
    }


def test_the_first_processor_is_the_one_that_boots():
    flags = [(int(entry["apic_id"]), int(entry["cpu_flags"])) for entry in entries(Platform(cpus=3))[abi.MP_PROCESSOR]]
    assert flags == [(0, 3), (1, 1), (2, 1)]


def test_no_more_processors_are_listed_than_ids_have_room_for():
    assert len(entries(Platform(cpus=1024))[abi.MP_PROCESSOR]) == 255


@pytest.mark.parametrize("cpus", [1, 1024])
def test_it_ends_before_the_acpi_tables(cpus):
    assert BASE + len(mp_table(Platform(cpus=cpus))) <= 0xF2400


def test_buses_and_io_apic_are_listed():
    found = entries(Platform())
    assert [(int(bus["bus_id"]), bus["bus_type"]) for bus in found[abi.MP_BUS]] == [(0, b"PCI   "), (1, b"ISA   ")]
    assert [entry.item() for entry in found[abi.MP_IOAPIC]] == [(2, 0, 0x11, 1, 0xFEC00000)]


def test_isa_interrupts_arrive_at_their_own_pins_but_the_timer():
    found = interrupts(Platform(), 1)
    assert found.pop(0) == (2, 0)
    assert found.pop(9) == (9, 0xF)
    assert found == {irq: (irq, 0) for irq in (1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15)}


def test_a_timer_on_pin_0_leaves_no_room_for_the_8259_there():
    found = entries(Platform(timer_gsi=0))[abi.MP_IO_INTERRUPT]
    assert [int(entry["int_type"]) for entry in found if entry["dst_apic_int"] == 0] == [abi.MP_INT]


def test_pcis_interrupts_are_those_of_the_routes():
    assert interrupts(Platform(), 0) == {route.slot << 2 | route.pin - 1: (route.gsi, 0xF) for route in routes()}


def test_local_apics_have_the_8259_and_the_nmi():
    found = [
        (int(entry["int_type"]), int(entry["dst_apic_id"]), int(entry["dst_apic_int"]))
        for entry in entries(Platform())[abi.MP_LOCAL_INTERRUPT]
    ]
    assert found == [(abi.MP_EXTINT, 0xFF, 0), (abi.MP_NMI, 0xFF, 1)]

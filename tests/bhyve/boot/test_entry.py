# SPDX-License-Identifier: BSD-2-Clause
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.abi.kvm.cpu import kvm_regs, kvm_segment, kvm_sregs
from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.entry import long_mode, protected_mode
from ptnetmap.bhyve.boot.start import NO_SEGMENT, Segment, Table
from ptnetmap.vmm.memory import GuestMemory

ENTRY = 0x1000200


@pytest.fixture(scope="module")
def walked():
    with GuestMemory(1 << 20) as memory:
        yield memory, long_mode(memory, ENTRY, layout.PARAMETERS)


def decode(descriptor: int) -> dict[str, int]:
    """Take a segment descriptor apart, bit by bit (Intel SDM volume 3, figure 3-8)."""
    limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
    granular = descriptor >> 55 & 1
    return {
        "base": descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000,
        "limit": limit << 12 | 0xFFF if granular else limit,
        "type": descriptor >> 40 & 0xF,
        "s": descriptor >> 44 & 1,
        "dpl": descriptor >> 45 & 3,
        "present": descriptor >> 47 & 1,
        "avl": descriptor >> 52 & 1,
        "l": descriptor >> 53 & 1,
        "db": descriptor >> 54 & 1,
        "g": granular,
    }


def walk(memory, cr3: int, address: int) -> tuple[int, int]:
    """Translate as a processor does with 4 levels, and return the physical address and all levels' flags and-ed."""
    table, flags = cr3, 0xFFF
    for shift in (39, 30, 21, 12):
        entry = memory.read_int(table + (address >> shift & 0x1FF) * 8, 8)
        assert entry & 1, f"{address:#x} is not mapped"
        flags &= entry & 0x7F
        if entry & 0x80 and shift != 39:
            mask = (1 << shift) - 1
            return entry & ~mask & (1 << 52) - 1 | address & mask, flags
        table = entry & ((1 << 52) - 1) & ~0xFFF
    return table | address & 0xFFF, flags


def test_linux_is_entered_as_the_64_bit_boot_protocol_says(memory):
    state = long_mode(memory, ENTRY, 0x7000)
    sregs, regs = state.sregs(), state.regs()
    assert (regs["rip"], regs["rsi"]) == (ENTRY, 0x7000)
    assert regs["rflags"] == 0x2  # interrupts off, and no more than the bit that is always one
    assert sregs["cr0"] & 0x80000001 == 0x80000001  # PG, PE
    assert sregs["cr4"] == 0x20  # PAE
    assert sregs["efer"] == 0x500  # LMA, LME
    assert sregs["cs"]["selector"] == 0x10
    assert (sregs["cs"]["l"], sregs["cs"]["db"], sregs["cs"]["type"]) == (1, 0, 0xB)
    for name in ("ds", "es", "fs", "gs", "ss"):
        assert (sregs[name]["selector"], sregs[name]["type"], sregs[name]["db"]) == (0x18, 0x3, 1)
    for name in ("cs", "ds", "ss"):
        assert (sregs[name]["base"], sregs[name]["limit"], sregs[name]["g"]) == (0, 0xFFFFFFFF, 1)


def test_pvh_is_entered_as_the_direct_boot_abi_says(memory):
    state = protected_mode(memory, ENTRY, 0x7000)
    sregs, regs = state.sregs(), state.regs()
    assert (regs["rip"], regs["rbx"]) == (ENTRY, 0x7000)
    assert regs["rflags"] & (1 << 17 | 1 << 9 | 1 << 8) == 0  # VM, IF, TF
    assert sregs["cr0"] == 0x11  # PE; ET cannot be cleared
    assert (sregs["cr3"], sregs["cr4"], sregs["efer"]) == (0, 0, 0)
    assert (sregs["cs"]["base"], sregs["cs"]["limit"]) == (0, 0xFFFFFFFF)
    assert (sregs["cs"]["type"], sregs["cs"]["db"], sregs["cs"]["l"]) == (0xB, 1, 0)
    for name in ("ds", "es", "ss"):
        assert (sregs[name]["base"], sregs[name]["limit"], sregs[name]["type"]) == (0, 0xFFFFFFFF, 0x3)
    assert sregs["tr"] == {**sregs["tr"], "base": 0, "limit": 0x67, "type": 0xB, "s": 0, "present": 1, "unusable": 0}


@pytest.mark.parametrize("enter", [long_mode, protected_mode])
def test_each_selector_in_use_names_in_the_gdt_what_its_register_holds(memory, enter):
    state = enter(memory, ENTRY, 0x7000)
    for segment in (state.cs, state.ds, state.tr):
        found = decode(memory.read_int(state.gdt.base + segment.selector, 8))
        assert found == {name: getattr(segment, name) for name in found}
    assert memory.read_int(state.gdt.base, 8) == 0
    assert memory.read_int(state.gdt.base + state.tr.selector + 8, 8) == 0  # upper half of a 64-bit TSS descriptor
    assert state.gdt.limit == state.tr.selector + 16 - 1


@given(st.integers(0, (4 << 30) - 1))
def test_the_first_4_gigabytes_are_mapped_to_themselves(walked, address):
    memory, state = walked
    assert walk(memory, state.cr3, address) == (address, 0x3)


def test_nothing_else_is_mapped(walked):
    memory, state = walked
    for address in (4 << 30, 1 << 39, (1 << 48) - 4096):
        with pytest.raises(AssertionError, match="not mapped"):
            walk(memory, state.cr3, address)


def test_tables_parameters_and_command_line_do_not_overlap():
    ranges = [
        (layout.GDT, 48),
        (layout.PAGE_TABLES, 6 * 4096),
        (layout.PARAMETERS, 4096),
        (layout.STACK - 0xF0, 0xF0),
        (layout.CMDLINE, layout.EBDA - layout.CMDLINE),
        (layout.MP_TABLE, layout.ACPI_TABLES - layout.MP_TABLE),
        (layout.ACPI_TABLES, layout.HIGH_MEMORY - layout.ACPI_TABLES),
    ]
    for (start, size), (following, _) in itertools.pairwise(ranges):
        assert start + size <= following


def test_a_state_has_every_field_of_kvms_registers(memory):
    state = long_mode(memory, ENTRY, 0x7000)
    not_ours = {"cr2", "cr8", "apic_base", "interrupt_bitmap"}
    assert set(state.regs()) == set(kvm_regs.names)
    assert set(state.sregs()) == set(kvm_sregs.names) - not_ours
    assert set(state.sregs()["cs"]) == {name for name in kvm_segment.names if "pad" not in name}
    assert state.sregs()["ldt"]["unusable"] == 1
    assert state.idt == Table(0, 0)
    assert NO_SEGMENT.present == 0


@given(
    st.builds(
        Segment,
        base=st.integers(0, 0xFFFFFFFF),
        limit=st.integers(0, 0xFFFFF),
        type=st.integers(0, 15),
        present=st.integers(0, 1),
        dpl=st.integers(0, 3),
        db=st.integers(0, 1),
        s=st.integers(0, 1),
        l=st.integers(0, 1),
        avl=st.integers(0, 1),
    )
)
def test_a_descriptor_holds_what_the_segment_says(segment):
    found = decode(segment.descriptor())
    assert found == {name: getattr(segment, name) for name in found}


def test_the_memory_map_leaves_out_windows_and_reserves_what_linux_must_not_use():
    ranges = layout.memory_map(3 << 30, 1 << 30)
    assert [(part.addr, part.addr + part.size, part.type) for part in ranges] == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0xA0000, 2),
        (0xF0000, 0x100000, 2),
        (0x100000, 3 << 30, 1),
        (0xE0000000, 0xF0000000, 2),
        (4 << 30, 5 << 30, 1),
    ]
    assert len(layout.memory_map(256 << 20, 0)) == 5

# SPDX-License-Identifier: BSD-2-Clause
import subprocess
import sys

import numpy as np
import pytest

from ptnetmap.errors import ConfigError, GuestError
from ptnetmap.guest import descriptors, layout
from ptnetmap.guest.image import Image
from ptnetmap.guest.layout import boot_info, cpu_block, offsets
from ptnetmap.guest.load import SMALLEST, load
from ptnetmap.guest.pagetables import PageTables

IMAGE = Image(layout.IMAGE_BASE, b"\x90" * 50_000, layout.IMAGE_BASE + 0x4000, layout.IMAGE_BASE + 0x4080, 64)
PRESENT, WRITE, USER, LARGE = 1, 2, 4, 0x80
GB = 1 << 30


def walk(ram, top, address):
    """Translate as a processor does at level 3: the physical address, or None where it would fault."""
    table = top
    for shift in (39, 30, 21, 12):
        entry = ram.word((table & ~0xFFF) + 8 * (address >> shift & 511))
        if entry & (PRESENT | WRITE | USER) != PRESENT | WRITE | USER:
            return None
        if shift == 12 or (shift == 21 and entry & LARGE):
            size = 1 << shift
            return entry & ~0xFFF & -size | address & (size - 1)
        table = entry
    return None


def info_of(ram):
    return np.frombuffer(bytes(ram.bytes), boot_info, 1, layout.BOOT_INFO)[0]


@pytest.mark.parametrize("high", [0, GB, 5 * GB + (2 << 20)])
def test_everything_there_may_be_is_mapped_to_itself_for_level_3(guest_ram, high):
    ram = guest_ram(high=high)
    top = load(ram, "", 2, image=IMAGE)[0].cr3
    places = [0x1000, 0x1FFFFF, 0x200000, ram.low_size - 1, 3 * GB, 0xFEE000B0, 4 * GB - 1, 0xD000000000, 0xD3FFFFFFFF]
    if high:
        places += [4 * GB, 4 * GB + high - 1]
    assert [walk(ram, top, place) for place in places] == places


@pytest.mark.parametrize("address", [0, 0xFFF, 4 * GB, 0xCFFFFFFFFF, 0xD400000000, 1 << 46])
def test_what_is_not_there_is_not_mapped(guest_ram, address):
    ram = guest_ram()
    assert walk(ram, load(ram, "", image=IMAGE)[0].cr3, address) is None


def test_a_leaf_of_2_mib_has_the_flags_that_level_3_needs():
    tables = PageTables(0x10000, [(0, GB)], first=0x4000)
    (_, data), (first, _) = tables.pieces()
    assert first == 0x4000
    directory = np.frombuffer(data, "<u8")[2 * 512 :]
    assert list(directory[:3]) == [0x4007, 0x200087, 0x400087]


def test_the_registers_are_those_that_every_kvm_accepts_and_none_emulates(guest_ram):
    states = load(guest_ram(), "", 3, image=IMAGE)
    sregs = [state.sregs() for state in states]
    assert {(s["cr0"], s["cr4"], s["efer"], s["cr8"]) for s in sregs} == {(0x80050033, 0x40620, 0xD01, 0)}
    assert [s["apic_base"] for s in sregs] == [0xFEE00900, 0xFEE00800, 0xFEE00800]
    for s in sregs:
        assert (s["cs"]["selector"], s["cs"]["type"], s["cs"]["dpl"], s["cs"]["l"], s["cs"]["db"]) == (
            0x33,
            11,
            3,
            1,
            0,
        )
        for name in ("ss", "ds", "es", "fs", "gs"):
            assert (s[name]["selector"], s[name]["type"], s[name]["dpl"]) == (0x2B, 3, 3)
        assert (s["tr"]["selector"], s["tr"]["type"], s["tr"]["limit"], s["tr"]["s"]) == (0x40, 11, 0x2068, 0)
    assert {state.rip for state in states} == {IMAGE.entry}
    assert {state.lapic[0xF0] for state in states} == {0x1FF}
    assert len(states[0].regs()) == 18


def test_processors_share_nothing_but_memory(guest_ram):
    ram = guest_ram()
    states = load(ram, "", 4, image=IMAGE)
    for index, state in enumerate(states):
        block = state.rdi
        assert block % cpu_block.itemsize == 0
        assert state.rsp == block + cpu_block.itemsize - 8
        assert ram.word(block + offsets(cpu_block)["index"]) == index
        tss = state.sregs()["tr"]["base"]
        assert block <= tss < block + cpu_block.itemsize
        assert ram.word(tss + 4) == block + layout.KERNEL_STACK
        table = state.sregs()["gdt"]["base"]
        low, high = ram.word(table + 0x40), ram.word(table + 0x48)
        assert (low >> 16 & 0xFFFFFF) | (low >> 56 << 24) | high << 32 == tss
    assert len({state.rdi for state in states}) == 4


def test_level_3_may_use_every_port(guest_ram):
    ram = guest_ram()
    tss = load(ram, "", image=IMAGE)[0].task
    assert int.from_bytes(ram.bytes[tss + 102 : tss + 104], "little") == 104
    assert ram.bytes[tss + 104 : tss + 0x2069] == bytes(8192) + b"\xff"


def test_descriptors_are_those_of_the_selectors():
    table = np.frombuffer(descriptors.gdt(0x12345678), "<u8")
    words = {0x10: 0xAF9B, 0x18: 0xCF93, 0x28: 0xCFF3, 0x30: 0xAFFB}
    for selector, word in words.items():
        descriptor = int(table[selector // 8])
        assert descriptor >> 40 & 0xFF == word & 0xFF
        assert descriptor >> 48 & 0xFF == word >> 8
    assert int(table[0x40 // 8]) == 0x12008B3456782068
    assert len(table) * 8 == descriptors.GDT_SIZE


def test_only_the_breakpoint_may_be_called_and_all_gates_enter_level_0_with_interrupts_off(guest_ram):
    ram = guest_ram()
    load(ram, "", image=IMAGE)
    for vector in range(256):
        gate = ram.bytes[layout.IDT + 16 * vector : layout.IDT + 16 * vector + 16]
        handler = int.from_bytes(gate[:2] + gate[6:12], "little")
        assert handler == IMAGE.handlers + 64 * vector
        assert int.from_bytes(gate[2:4], "little") == 0x10
        assert gate[5] == (0xEE if vector == 3 else 0x8E)


@pytest.mark.parametrize("vcpus", [1, 16, 255])
def test_32_mib_are_enough_for_any_number_of_processors(guest_ram, vcpus):
    ram = guest_ram(low=SMALLEST)
    states = load(ram, "program=selftest", vcpus, tsc_khz=2_500_000, image=IMAGE)
    info = info_of(ram)
    used = [layout.IMAGE_BASE, IMAGE.end, info["blocks"], states[0].cr3, info["heap"], info["heap_end"]]
    assert used == sorted(used)
    assert info["heap_end"] == SMALLEST
    assert (info["cpus"], info["tsc_khz"], info["running"]) == (vcpus, 2_500_000, 0)
    assert bytes(ram.bytes[info["cmdline"] :][:17]) == b"program=selftest\0"


def test_nothing_is_written_where_firmware_tables_are(guest_ram):
    ram = guest_ram()
    ram.bytes[0xF0000:0x100000] = b"\xaa" * 0x10000
    load(ram, "x" * 4095, image=IMAGE)
    assert ram.bytes[0xF0000:0x100000] == b"\xaa" * 0x10000


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"low": 16 << 20}, GuestError, "give at least 32M with -m"),
        ({"cmdline": "x" * 4096}, GuestError, "give at most 4,095"),
        ({"cmdline": "a\0b"}, GuestError, "one with the number 0"),
        ({"cmdline": "program=café"}, GuestError, "is not ASCII"),
        ({"vcpus": 0}, ConfigError, "give 1 to 255 with -c"),
        ({"vcpus": 256}, ConfigError, "give 1 to 255 with -c"),
    ],
)
def test_what_cannot_be_is_refused_before_memory_is_touched(guest_ram, options, error, words):
    ram = guest_ram(low=options.get("low", SMALLEST))
    with pytest.raises(error) as refused:
        load(ram, options.get("cmdline", ""), options.get("vcpus", 1), image=IMAGE)
    assert words in str(refused.value)
    assert ram.bytes.count(0) == len(ram.bytes)


def test_loading_needs_no_compiler():
    script = (
        "import sys, ptnetmap.guest.load; print([m for m in ('numba', 'llvmlite', 'elftools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_layouts_have_their_sizes():
    assert boot_info.itemsize == 368
    assert cpu_block.itemsize == 0x8000
    assert offsets(cpu_block)["tss"] + descriptors.TASK_LIMIT < offsets(cpu_block)["gdt"]
    assert layout.BOOT_INFO + boot_info.itemsize <= layout.CMDLINE

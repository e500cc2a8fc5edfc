# SPDX-License-Identifier: BSD-2-Clause
import io

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from ptnetmap.abi import boot, elf
from ptnetmap.bhyve.boot import ELF64, PVH, layout, plan
from ptnetmap.bhyve.boot.elf import read_elf
from ptnetmap.bhyve.boot.image import ImageFile
from ptnetmap.errors import ConfigError, GuestError
from ptnetmap.vmm.memory import GuestMemory

MEBIBYTE = 1 << 20
TEXT = b"\xf4" * 8192


@pytest.fixture
def pvh_kernel(elf_kernel, pvh_note, write):
    segments = ((16 * MEBIBYTE, TEXT, 3 * MEBIBYTE), (20 * MEBIBYTE, b"data" * 1000, 4000))
    return write(elf_kernel(*segments, notes=pvh_note(16 * MEBIBYTE + 0x100)))


def start_info(memory):
    return np.frombuffer(memory.read(layout.PARAMETERS, 56), boot.hvm_start_info)[0]


def records(memory, address, kind, count):
    return [tuple(map(int, record)) for record in np.frombuffer(memory.read(address, kind.itemsize * count), kind)]


@pytest.mark.parametrize("size", [4, 8])
def test_a_kernel_with_xens_note_is_entered_there_in_32_bit_mode(elf_kernel, pvh_note, write, memory, size):
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 9000), notes=pvh_note(16 * MEBIBYTE + 0x100, size)))
    with plan(path, low_size=memory.low_size) as kernel:
        state = kernel.load(memory)
    assert (kernel.protocol, kernel.entry) == (PVH, 16 * MEBIBYTE + 0x100)
    assert (state.rip, state.rbx, state.efer) == (kernel.entry, layout.PARAMETERS, 0)


def test_segments_go_to_their_physical_addresses(pvh_kernel, memory):
    with plan(pvh_kernel, low_size=memory.low_size) as kernel:
        kernel.load(memory)
    assert memory.read(16 * MEBIBYTE, len(TEXT) + 1) == TEXT + b"\0"
    assert memory.read(20 * MEBIBYTE, 4000) == b"data" * 1000


def test_the_start_information_leads_to_command_line_memory_and_initrd(pvh_kernel, write):
    initrd = write(b"initrd" * 1000, "initrd")
    with GuestMemory((3 << 10) * MEBIBYTE + 64 * MEBIBYTE) as memory:
        with plan(pvh_kernel, initrd=initrd, cmdline="quiet", low_size=memory.low_size) as kernel:
            kernel.load(memory, rsdp=0xF2400)
        info = start_info(memory)
        assert (info["magic"], info["version"], info["flags"], info["nr_modules"]) == (boot.HVM_START_MAGIC, 1, 0, 1)
        assert info["rsdp_paddr"] == 0xF2400
        assert memory.read(int(info["cmdline_paddr"]), 6) == b"quiet\0"
        [(address, size, no_cmdline, _)] = records(memory, int(info["modlist_paddr"]), boot.hvm_modlist_entry, 1)
        assert memory.read(address, size) == b"initrd" * 1000
        assert no_cmdline == 0
        ranges = records(memory, int(info["memmap_paddr"]), boot.hvm_memmap_table_entry, int(info["memmap_entries"]))
        ram = [(start, length) for start, length, kind, _ in ranges if kind == boot.E820_RAM]
        assert ram == [(0, 0x9FC00), (MEBIBYTE, (3 << 30) - MEBIBYTE), (4 << 30, 64 * MEBIBYTE)]


def test_without_an_initrd_there_is_no_module(pvh_kernel, memory):
    with plan(pvh_kernel, low_size=memory.low_size) as kernel:
        kernel.load(memory)
    assert (start_info(memory)["nr_modules"], start_info(memory)["modlist_paddr"]) == (0, 0)


def test_a_kernel_without_the_note_is_entered_as_linux_is(elf_kernel, note, write, memory):
    other = note(boot.XEN_ELFNOTE_PHYS32_ENTRY, bytes(8), b"GNU\0") + note(5, bytes(4))
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 8192), entry=16 * MEBIBYTE + 64, notes=other))
    with plan(path, cmdline="quiet", low_size=memory.low_size) as kernel:
        state = kernel.load(memory)
    header = np.frombuffer(memory.read(layout.PARAMETERS, 4096), boot.boot_params)[0]["hdr"]
    assert (kernel.protocol, state.rip, state.rsi) == (ELF64, 16 * MEBIBYTE + 64, layout.PARAMETERS)
    assert (header["header"], header["boot_flag"], header["type_of_loader"]) == (boot.HDRS, boot.BOOT_FLAG, 0xFF)
    assert memory.read(int(header["cmd_line_ptr"]), 6) == b"quiet\0"


def test_such_a_kernel_takes_a_command_line_of_2047_bytes(pvh_kernel):
    plan(pvh_kernel, cmdline="a" * 2047, low_size=64 * MEBIBYTE).close()
    with pytest.raises(ConfigError, match="2,048 bytes, and this kernel takes 2,047"):
        plan(pvh_kernel, cmdline="a" * 2048, low_size=64 * MEBIBYTE)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({"e_machine": 183}, "type 2 for machine 183"),
        ({"e_type": 1}, "type 1 for machine 62"),
        ({"e_phnum": 0}, "0 program headers"),
        ({"e_phnum": 0xFFFF}, "65535 program headers"),
        ({"e_phentsize": 0}, "program headers of 0 bytes"),
        ({"e_phoff": (1 << 64) - 1}, "the table of program headers is 56 bytes at offset 18,446,744,073,709,551,615"),
        ({"e_entry": 0x1234}, r"entry point \(ELF, 64-bit entry\) is 0x1234, where nothing is loaded"),
        ({"e_entry": 0xFFFFFFFF81000000}, "where nothing is loaded"),
    ],
)
def test_a_header_that_cannot_be_is_refused_naming_the_file(elf_kernel, write, header, found):
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 8192), header=header), "odd-elf")
    with pytest.raises(GuestError, match=found) as caught:
        plan(path, low_size=64 * MEBIBYTE)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("segments", "found"),
    [
        ([(16 * MEBIBYTE, TEXT, 100)], "8,192 bytes in the file and 100 in memory"),
        ([(16 * MEBIBYTE, TEXT, 8192), (16 * MEBIBYTE + 4096, TEXT, 8192)], "segments overlap: 0x1000000-0x1002000"),
        ([(16 * MEBIBYTE, TEXT, 1 << 62)], "a segment belongs at"),
        ([(16 * MEBIBYTE, TEXT, 8192), ((1 << 64) - 8, b"", 16)], "0 bytes in the file and 16 in memory"),
        ([(0x7000, TEXT, 8192)], "a segment belongs at 0x7000-0x9000, and the guest has memory for it at 0x100000"),
        ([(64 * MEBIBYTE - 4096, TEXT, 8192)], "a segment belongs at"),
        ([(16 * MEBIBYTE, b"", 0)], "no segment to load"),
    ],
)
def test_segments_that_cannot_be_are_refused(elf_kernel, write, segments, found):
    path = write(elf_kernel(*segments))
    with pytest.raises(GuestError, match=found):
        plan(path, low_size=64 * MEBIBYTE)


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ((18, bytes(2)), "has 2 bytes"),
        ((18, (0x5000).to_bytes(8, "little")), r"entry point \(PVH\) is 0x5000, where nothing is loaded"),
    ],
)
def test_a_note_that_cannot_be_is_refused(elf_kernel, note, write, notes, found):
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 8192), notes=note(*notes)))
    with pytest.raises(GuestError, match=found):
        plan(path, low_size=64 * MEBIBYTE)


def test_megabytes_of_notes_are_refused(elf_kernel, write):
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 8192), notes=bytes(1 << 20)))
    with pytest.raises(GuestError, match="1,048,576 bytes of notes"):
        plan(path, low_size=64 * MEBIBYTE)


def test_a_note_that_leaves_its_segment_ends_the_notes(elf_kernel, pvh_note, write):
    endless = np.array((4, 0xFFFFFFFF, 18), elf.elf_nhdr).tobytes() + b"Xen\0"
    path = write(elf_kernel((16 * MEBIBYTE, TEXT, 8192), notes=endless + pvh_note(16 * MEBIBYTE)))
    with plan(path, low_size=64 * MEBIBYTE) as kernel:
        assert kernel.protocol == ELF64


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x7fELF\x01\x01\x01" + bytes(600), "not a 64-bit little-endian one"),
        (b"\x7fELF\x02\x02\x01" + bytes(600), "not a 64-bit little-endian one"),
        (b"\x1f\x8b\x08\x00" + bytes(600), "it begins with 1f 8b 08 00"),
        (b"", "it begins with nothing"),
        (b"\x7fELF", "the ELF header is 16 bytes at offset 0, and the file ends at 4"),
    ],
)
def test_other_files_are_refused_and_it_says_what_they_begin_with(write, data, found):
    with pytest.raises(GuestError, match=found):
        plan(write(data), low_size=64 * MEBIBYTE)


def seen_by_pyelftools(data):
    file = ELFFile(io.BytesIO(data))
    loads = [
        (segment["p_paddr"], segment["p_offset"], segment["p_filesz"], segment["p_memsz"])
        for segment in file.iter_segments("PT_LOAD")
        if segment["p_memsz"]
    ]
    notes = {
        (found["n_name"], found["n_type"]): found["n_descdata"]
        for segment in file.iter_segments("PT_NOTE")
        for found in segment.iter_notes()
    }
    contents = notes.get(("Xen", 18))
    return sorted(loads), file.header["e_entry"], contents and int.from_bytes(contents, "little")


def seen_by_us(path):
    with ImageFile(path, "kernel") as image:
        kernel = read_elf(image)
    loads = [(part.paddr, part.offset, part.filesz, part.memsz) for part in kernel.segments]
    return loads, kernel.entry, kernel.pvh_entry


def test_pyelftools_sees_the_same_in_a_kernel_of_ours(pvh_kernel):
    assert seen_by_us(pvh_kernel) == seen_by_pyelftools(pvh_kernel.read_bytes())


@pytest.mark.nest
def test_pyelftools_sees_the_same_in_debians_kernel(stock_kernel):
    path = stock_kernel.with_name("vmlinux")
    assert seen_by_us(path) == seen_by_pyelftools(path.read_bytes())
    with plan(path, low_size=512 * MEBIBYTE) as kernel:
        assert kernel.protocol == PVH

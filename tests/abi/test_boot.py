# SPDX-License-Identifier: BSD-2-Clause
import subprocess

import pytest

from ptnetmap.abi import acpi, boot, elf, mptable


@pytest.mark.parametrize(
    ("field", "offset", "size"),
    [
        ("setup_sects", 0x1F1, 1),
        ("syssize", 0x1F4, 4),
        ("vid_mode", 0x1FA, 2),
        ("boot_flag", 0x1FE, 2),
        ("jump", 0x200, 2),
        ("header", 0x202, 4),
        ("version", 0x206, 2),
        ("type_of_loader", 0x210, 1),
        ("loadflags", 0x211, 1),
        ("code32_start", 0x214, 4),
        ("ramdisk_image", 0x218, 4),
        ("ramdisk_size", 0x21C, 4),
        ("heap_end_ptr", 0x224, 2),
        ("cmd_line_ptr", 0x228, 4),
        ("initrd_addr_max", 0x22C, 4),
        ("kernel_alignment", 0x230, 4),
        ("relocatable_kernel", 0x234, 1),
        ("min_alignment", 0x235, 1),
        ("xloadflags", 0x236, 2),
        ("cmdline_size", 0x238, 4),
        ("payload_offset", 0x248, 4),
        ("setup_data", 0x250, 8),
        ("pref_address", 0x258, 8),
        ("init_size", 0x260, 4),
        ("kernel_info_offset", 0x268, 4),
    ],
)
def test_the_setup_header_has_the_boot_protocols_offsets(layout, field, offset, size):
    assert layout(boot.setup_header)[field] == (offset - 0x1F1, size)


def test_the_zero_page_has_the_documents_offsets(layout):
    assert boot.boot_params.itemsize == 4096
    assert layout(boot.boot_params) == {
        "acpi_rsdp_addr": (0x070, 8),
        "ext_ramdisk_image": (0x0C0, 4),
        "ext_ramdisk_size": (0x0C4, 4),
        "ext_cmd_line_ptr": (0x0C8, 4),
        "e820_entries": (0x1E8, 1),
        "sentinel": (0x1EF, 1),
        "hdr": (0x1F1, 123),
        "e820_table": (0x2D0, 128 * 20),
    }


@pytest.mark.parametrize(
    ("dtype", "size", "some"),
    [
        (boot.hvm_start_info, 56, {"modlist_paddr": (16, 8), "rsdp_paddr": (32, 8), "memmap_entries": (48, 4)}),
        (boot.hvm_modlist_entry, 32, {"cmdline_paddr": (16, 8)}),
        (boot.hvm_memmap_table_entry, 24, {"type": (16, 4)}),
        (boot.e820_entry, 20, {"type": (16, 4)}),
        (elf.elf64_ehdr, 64, {"e_machine": (18, 2), "e_entry": (24, 8), "e_phoff": (32, 8), "e_phnum": (56, 2)}),
        (elf.elf64_phdr, 56, {"p_offset": (8, 8), "p_paddr": (24, 8), "p_memsz": (40, 8)}),
        (elf.elf_nhdr, 12, {"n_type": (8, 4)}),
        (mptable.mp_floating_pointer, 16, {"physical_address": (4, 4), "checksum": (10, 1)}),
        (mptable.mp_config_header, 44, {"checksum": (7, 1), "entry_count": (34, 2), "lapic_address": (36, 4)}),
        (mptable.mp_processor, 20, {"cpu_flags": (3, 1)}),
        (mptable.mp_bus, 8, {"bus_type": (2, 6)}),
        (mptable.mp_ioapic, 8, {"address": (4, 4)}),
        (mptable.mp_interrupt, 8, {"int_flags": (2, 2), "dst_apic_int": (7, 1)}),
        (acpi.acpi_rsdp, 36, {"checksum": (8, 1), "xsdt_address": (24, 8), "extended_checksum": (32, 1)}),
        (acpi.acpi_header, 36, {"checksum": (9, 1), "creator_id": (28, 4)}),
        (acpi.acpi_gas, 12, {"address": (4, 8)}),
        (acpi.acpi_fadt, 276, {"sci_int": (46, 2), "flags": (112, 4), "reset_reg": (116, 12), "x_dsdt": (140, 8)}),
        (acpi.acpi_facs, 64, {"x_firmware_waking_vector": (24, 8), "version": (32, 1)}),
        (acpi.acpi_madt, 44, {"lapic_address": (36, 4)}),
        (acpi.madt_lapic, 8, {"flags": (4, 4)}),
        (acpi.madt_ioapic, 12, {"gsi_base": (8, 4)}),
        (acpi.madt_override, 10, {"gsi": (4, 4), "flags": (8, 2)}),
        (acpi.madt_lapic_nmi, 6, {"flags": (3, 2)}),
        (acpi.madt_x2apic, 16, {"x2apic_id": (4, 4), "processor_uid": (12, 4)}),
        (acpi.acpi_mcfg, 44, {"reserved": (36, 8)}),
        (acpi.mcfg_allocation, 16, {"start_bus": (10, 1)}),
    ],
)
def test_a_structure_has_its_specifications_layout(layout, dtype, size, some):
    assert dtype.itemsize == size
    assert some.items() <= layout(dtype).items()


@pytest.mark.gcc
def test_linuxs_structures_are_as_a_c_compiler_lays_them_out(layout, tmp_path):
    structures = {
        "boot_params": boot.boot_params,
        "setup_header": boot.setup_header,
        "boot_e820_entry": boot.e820_entry,
        "elf64_hdr": elf.elf64_ehdr,
        "elf64_phdr": elf.elf64_phdr,
        "elf64_note": elf.elf_nhdr,
    }
    lines = ["#include <stddef.h>", "#include <linux/elf.h>", "#include <asm/bootparam.h>"]
    for name, dtype in structures.items():
        for field, (offset, size) in layout(dtype).items():
            # The setup header's last field is younger than some distributions' headers.
            if field != "kernel_info_offset" and (name, field) != ("boot_params", "hdr"):
                lines.append(f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");')
                lines.append(f'_Static_assert(sizeof(((struct {name} *)0)->{field}) == {size}, "{name}.{field}");')
    source = tmp_path / "layouts.c"
    source.write_text("\n".join(lines))
    checked = subprocess.run(["gcc", "-fsyntax-only", source], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_magic_numbers_are_the_letters_that_they_stand_for():
    assert boot.HDRS.to_bytes(4, "little") == b"HdrS"
    assert boot.HVM_START_MAGIC.to_bytes(4, "little") == bytes([ord("x"), ord("E") | 0x80, ord("n"), ord("3")])

# SPDX-License-Identifier: BSD-2-Clause
"""What a boot loader and a kernel tell each other: Linux's boot parameters, and PVH's start information.

All fields are little endian. Sources: the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst),
the x86/HVM direct boot ABI (Xen, pvh.pandoc and start_info.h).
"""

from __future__ import annotations

import numpy as np

setup_header = np.dtype(
    [
        ("setup_sects", "u1"),
        ("root_flags", "<u2"),
        ("syssize", "<u4"),
        ("ram_size", "<u2"),
        ("vid_mode", "<u2"),
        ("root_dev", "<u2"),
        ("boot_flag", "<u2"),
        ("jump", "<u2"),
        ("header", "<u4"),
        ("version", "<u2"),
        ("realmode_swtch", "<u4"),
        ("start_sys_seg", "<u2"),
        ("kernel_version", "<u2"),
        ("type_of_loader", "u1"),
        ("loadflags", "u1"),
        ("setup_move_size", "<u2"),
        ("code32_start", "<u4"),
        ("ramdisk_image", "<u4"),
        ("ramdisk_size", "<u4"),
        ("bootsect_kludge", "<u4"),
        ("heap_end_ptr", "<u2"),
        ("ext_loader_ver", "u1"),
        ("ext_loader_type", "u1"),
        ("cmd_line_ptr", "<u4"),
        ("initrd_addr_max", "<u4"),
        ("kernel_alignment", "<u4"),
        ("relocatable_kernel", "u1"),
        ("min_alignment", "u1"),
        ("xloadflags", "<u2"),
        ("cmdline_size", "<u4"),
        ("hardware_subarch", "<u4"),
        ("hardware_subarch_data", "<u8"),
        ("payload_offset", "<u4"),
        ("payload_length", "<u4"),
        ("setup_data", "<u8"),
        ("pref_address", "<u8"),
        ("init_size", "<u4"),
        ("handover_offset", "<u4"),
        ("kernel_info_offset", "<u4"),
    ]
)
"""What a bzImage says of itself, at offset 497 (0x1f1) of the file and of the boot parameters: 123 bytes (boot.rst).

====== ==== ===================== ======================================================================================
offset size field                 meaning
====== ==== ===================== ======================================================================================
0      1    setup_sects           512-byte sectors of real-mode code after the first; 0 means 4
1      2    root_flags            deprecated; the root is mounted read-only
3      4    syssize               16-byte paragraphs of protected-mode code
7      2    ram_size              obsolete
9      2    vid_mode              video mode
11     2    root_dev              deprecated; device number of the root
13     2    boot_flag             :data:`BOOT_FLAG`
15     2    jump                  0xeb, and the end of this header minus 0x202
17     4    header                :data:`HDRS`
21     2    version               protocol version, major and minor
23     4    realmode_swtch        hook for real-mode loaders
27     2    start_sys_seg         obsolete
29     2    kernel_version        offset of a version string minus 0x200, or 0
31     1    type_of_loader        who loads; 0xff is nobody in particular
32     1    loadflags             ``LOADED_HIGH`` and others
33     2    setup_move_size       for protocols up to 2.01
35     4    code32_start          where the protected-mode code was loaded
39     4    ramdisk_image         address of the initrd, low half
43     4    ramdisk_size          bytes of the initrd, low half
47     4    bootsect_kludge       obsolete
51     2    heap_end_ptr          end of the real-mode heap
53     1    ext_loader_ver        extends type_of_loader
54     1    ext_loader_type       extends type_of_loader
55     4    cmd_line_ptr          address of the command line, low half
59     4    initrd_addr_max       highest address that an initrd may use
63     4    kernel_alignment      alignment of a relocated kernel, in bytes
67     1    relocatable_kernel    not 0: may be loaded anywhere
68     1    min_alignment         as a power of two
69     2    xloadflags            ``XLF_*``
71     4    cmdline_size          longest command line, in bytes without its zero
75     4    hardware_subarch      0: a PC
79     8    hardware_subarch_data
87     4    payload_offset        of the compressed kernel in the protected-mode code
91     4    payload_length        its bytes
95     8    setup_data            address of a list of further parameters, or 0
103    8    pref_address          where the kernel would like to run
111    4    init_size             bytes needed from there until the kernel knows its memory
115    4    handover_offset       of an EFI entry point
119    4    kernel_info_offset    of more about the kernel, in the protected-mode code
====== ==== ===================== ======================================================================================
"""

SETUP_HEADER_OFFSET = 0x1F1
"""Where :data:`setup_header` is, in a bzImage and in :data:`boot_params`."""
SETUP_JUMP_END = 0x202
"""The header ends this many bytes after the second byte of ``jump`` says (boot.rst, "32-bit Boot Protocol")."""
SETUP_HEADER_LIMIT = 0x290
"""Where the header must end: other boot parameters begin here."""
BOOT_FLAG = 0xAA55
"""``boot_flag`` of a boot sector."""
HDRS = 0x53726448
"""``header``: "HdrS"."""
SECTOR = 512
"""Bytes of a sector, as ``setup_sects`` counts them."""
PARAGRAPH = 16
"""Bytes of a paragraph, as ``syssize`` counts them."""
LOADED_HIGH = 1
"""``loadflags``: the protected-mode code belongs at 1 MiB, so this is a bzImage."""
CAN_USE_HEAP = 0x80
"""``loadflags``: ``heap_end_ptr`` is valid."""
LOADER_UNDEFINED = 0xFF
"""``type_of_loader`` of a loader without a number of its own."""
XLF_KERNEL_64 = 1
"""``xloadflags``: there is a 64-bit entry point, 0x200 bytes into the protected-mode code."""
XLF_CAN_BE_LOADED_ABOVE_4G = 2
"""``xloadflags``: kernel, parameters, command line and initrd may lie above 4 GiB."""
ENTRY_64 = 0x200
"""Offset of the 64-bit entry point in the protected-mode code (boot.rst, "64-bit Boot Protocol")."""
LOAD_HIGH_ADDRESS = 0x100000
"""Where a bzImage is loaded unless it is relocatable."""
BOOT_CS = 0x10
"""Selector of the code segment at the entry point."""
BOOT_DS = 0x18
"""Selector of the data segments at the entry point."""

e820_entry = np.dtype([("addr", "<u8"), ("size", "<u8"), ("type", "<u4")])
"""A range of physical memory, as the BIOS call E820 reports it: 20 bytes (ACPI 6.4 §15.1).

====== ==== ===== ====================================================================================================
offset size field meaning
====== ==== ===== ====================================================================================================
0      8    addr  first byte
8      8    size  bytes
16     4    type  ``E820_*``
====== ==== ===== ====================================================================================================
"""

E820_RAM = 1
"""Memory for the operating system to use (ACPI 6.4 §15)."""
E820_RESERVED = 2
"""Addresses that are not to be used (ACPI 6.4 §15)."""
E820_ACPI = 3
"""ACPI tables, to be reused once read (ACPI 6.4 §15)."""
E820_NVS = 4
"""Memory of the firmware (ACPI 6.4 §15)."""
E820_MAX = 128
"""Entries that fit in the boot parameters."""

boot_params = np.dtype(
    {
        "names": [
            "acpi_rsdp_addr",
            "ext_ramdisk_image",
            "ext_ramdisk_size",
            "ext_cmd_line_ptr",
            "e820_entries",
            "sentinel",
            "hdr",
            "e820_table",
        ],
        "formats": ["<u8", "<u4", "<u4", "<u4", "u1", "u1", setup_header, (e820_entry, E820_MAX)],
        "offsets": [0x70, 0xC0, 0xC4, 0xC8, 0x1E8, 0x1EF, SETUP_HEADER_OFFSET, 0x2D0],
        "itemsize": 4096,
    }
)
"""Linux's boot parameters, the "zero page": 4096 bytes, all zero but for what the loader knows (zero-page.rst).

====== ==== ================= ==========================================================================================
offset size field             meaning
====== ==== ================= ==========================================================================================
112    8    acpi_rsdp_addr    address of ACPI's root pointer
192    4    ext_ramdisk_image high half of ``ramdisk_image``
196    4    ext_ramdisk_size  high half of ``ramdisk_size``
200    4    ext_cmd_line_ptr  high half of ``cmd_line_ptr``
488    1    e820_entries      valid entries of ``e820_table``
495    1    sentinel          0, or the kernel concludes that the loader copied too much
497    123  hdr               :data:`setup_header`
720    2560 e820_table        128 of :data:`e820_entry`
====== ==== ================= ==========================================================================================
"""

hvm_start_info = np.dtype(
    [
        ("magic", "<u4"),
        ("version", "<u4"),
        ("flags", "<u4"),
        ("nr_modules", "<u4"),
        ("modlist_paddr", "<u8"),
        ("cmdline_paddr", "<u8"),
        ("rsdp_paddr", "<u8"),
        ("memmap_paddr", "<u8"),
        ("memmap_entries", "<u4"),
        ("reserved", "<u4"),
    ]
)
"""What EBX points to at a PVH entry point: 56 bytes (start_info.h, version 1).

====== ==== ============== ============================================================================================
offset size field          meaning
====== ==== ============== ============================================================================================
0      4    magic          :data:`HVM_START_MAGIC`
4      4    version        1: there is a memory map
8      4    flags          0
12     4    nr_modules     entries of the module list; the first is the initrd
16     8    modlist_paddr  address of the module list, or 0
24     8    cmdline_paddr  address of the command line, or 0
32     8    rsdp_paddr     address of ACPI's root pointer, or 0
40     8    memmap_paddr   address of the memory map
48     4    memmap_entries its entries
52     4    reserved       0
====== ==== ============== ============================================================================================
"""

HVM_START_MAGIC = 0x336EC578
""":data:`hvm_start_info` begins with "xEn3", the "E" with its highest bit set."""
XEN_NOTE_NAME = b"Xen\0"
"""Name of Xen's ELF notes."""
XEN_ELFNOTE_PHYS32_ENTRY = 18
"""ELF note, named "Xen", whose contents are the physical address of the PVH entry point (4 or 8 bytes)."""

hvm_modlist_entry = np.dtype([("paddr", "<u8"), ("size", "<u8"), ("cmdline_paddr", "<u8"), ("reserved", "<u8")])
"""A module that was loaded beside the kernel: 32 bytes (start_info.h).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      8    paddr         where it is
8      8    size          bytes
16     8    cmdline_paddr address of its command line, or 0
24     8    reserved      0
====== ==== ============= =============================================================================================
"""

hvm_memmap_table_entry = np.dtype([("addr", "<u8"), ("size", "<u8"), ("type", "<u4"), ("reserved", "<u4")])
"""A range of physical memory: 24 bytes (start_info.h).

====== ==== ======== ==================================================================================================
offset size field    meaning
====== ==== ======== ==================================================================================================
0      8    addr     first byte
8      8    size     bytes
16     4    type     ``E820_*``
20     4    reserved 0
====== ==== ======== ==================================================================================================
"""

# SPDX-License-Identifier: BSD-2-Clause
"""Linux's boot parameters, filled in for a kernel that is entered in 64-bit mode (boot.rst, zero-page.rst)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptnetmap.abi import boot as abi
from ptnetmap.bhyve.boot.layout import Range

_OWN_VERSION = 0x020C
_OWN_ALIGNMENT = 2 << 20
_HALF = 0xFFFFFFFF


def own_header() -> bytes:
    """Return a setup header for a kernel without one, as an ELF file is."""
    header = np.zeros((), abi.setup_header)
    header["boot_flag"], header["header"] = abi.BOOT_FLAG, abi.HDRS
    header["version"], header["loadflags"] = _OWN_VERSION, abi.LOADED_HIGH
    header["kernel_alignment"] = _OWN_ALIGNMENT
    return header.tobytes()


def boot_params(
    header: bytes,
    *,
    kernel: int,
    cmdline: int,
    initrd: tuple[int, int] | None,
    ranges: Sequence[Range],
    rsdp: int | None,
) -> bytes:
    """Return the page of boot parameters for a kernel with this setup ``header``.

    ``kernel`` is the address of its code, ``cmdline`` that of its command line, ``initrd`` address and size in bytes
    of its initrd, ``ranges`` its memory, ``rsdp`` the address of ACPI's root pointer. All that is not known is zero.
    """
    page = np.zeros((), abi.boot_params)
    fields = page["hdr"]
    page["hdr"] = np.frombuffer(header, abi.setup_header)[0]
    fields["type_of_loader"] = abi.LOADER_UNDEFINED
    fields["ext_loader_type"] = fields["ext_loader_ver"] = 0
    fields["vid_mode"] = 0xFFFF  # "normal"
    fields["code32_start"] = kernel
    fields["hardware_subarch"] = fields["hardware_subarch_data"] = fields["setup_data"] = 0
    fields["cmd_line_ptr"], page["ext_cmd_line_ptr"] = cmdline & _HALF, cmdline >> 32
    address, size = initrd or (0, 0)
    fields["ramdisk_image"], page["ext_ramdisk_image"] = address & _HALF, address >> 32
    fields["ramdisk_size"], page["ext_ramdisk_size"] = size & _HALF, size >> 32
    page["acpi_rsdp_addr"] = rsdp or 0
    page["e820_entries"] = len(ranges)
    for entry, part in zip(page["e820_table"], ranges, strict=False):
        entry["addr"], entry["size"], entry["type"] = part.addr, part.size, part.type
    return page.tobytes()

# SPDX-License-Identifier: BSD-2-Clause
"""PVH's start information (Xen, start_info.h): where command line, initrd, memory and ACPI tables are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptnetmap.abi import boot as abi
from ptnetmap.bhyve.boot.layout import Range

_VERSION = 1
_MODULES = 0x40
_MEMORY_MAP = 0x80


def start_info(
    base: int,
    *,
    cmdline: int,
    initrd: tuple[int, int] | None,
    ranges: Sequence[Range],
    rsdp: int | None,
) -> bytes:
    """Return the start information to be put at address ``base``, with the tables that it points to behind it.

    ``cmdline`` is the address of the command line, ``initrd`` address and size in bytes of the only module, ``ranges``
    the memory, ``rsdp`` the address of ACPI's root pointer.
    """
    info = np.zeros((), abi.hvm_start_info)
    info["magic"], info["version"] = abi.HVM_START_MAGIC, _VERSION
    info["cmdline_paddr"], info["rsdp_paddr"] = cmdline, rsdp or 0
    info["memmap_paddr"], info["memmap_entries"] = base + _MEMORY_MAP, len(ranges)
    module = np.zeros((), abi.hvm_modlist_entry)
    if initrd:
        info["nr_modules"], info["modlist_paddr"] = 1, base + _MODULES
        module["paddr"], module["size"] = initrd
    table = np.array([(part.addr, part.size, part.type, 0) for part in ranges], abi.hvm_memmap_table_entry)
    return (
        info.tobytes().ljust(_MODULES, b"\0") + module.tobytes().ljust(_MEMORY_MAP - _MODULES, b"\0") + table.tobytes()
    )

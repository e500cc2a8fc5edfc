# SPDX-License-Identifier: BSD-2-Clause
"""Firmware tables, written into guest memory."""

from __future__ import annotations

from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.acpi import acpi_tables
from ptnetmap.bhyve.boot.mptable import mp_table
from ptnetmap.bhyve.boot.platform import Platform


def write_tables(memory: layout.Memory, platform: Platform, *, acpi: bool = True, mptable: bool = True) -> int | None:
    """Write the tables of ``platform`` into ``memory``, and return the address of ACPI's root pointer, or None.

    ``acpi`` and ``mptable`` say which tables there are (bhyve's ``-A`` and ``-Y``). Raises ConfigError if they are
    too long.
    """
    if mptable:
        memory.write(layout.MP_TABLE, mp_table(platform))
    if not acpi:
        return None
    memory.write(layout.ACPI_TABLES, acpi_tables(platform))
    return layout.ACPI_TABLES

# SPDX-License-Identifier: BSD-2-Clause
"""ACPI's tables for a machine, placed where bhyve has them (ACPI 6.4 §5.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptnetmap.abi import acpi as abi
from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.dsdt import dsdt_body
from ptnetmap.bhyve.boot.platform import Platform
from ptnetmap.errors import ConfigError

PM1A_EVENT = 0x400
"""Port of PM1 status (2 bytes) and enable (2 bytes)."""
PM1A_CONTROL = 0x404
"""Port of PM1 control (2 bytes)."""
RESET_PORT = 0xCF9
"""Port of the reset control register."""
RESET_VALUE = 6
"""What resets the machine there."""
ACPI_ENABLE, ACPI_DISABLE = 0xA0, 0xA1
"""What bhyve's SMI command port takes to switch ACPI on and off."""

_OEM = b"BHYVE "
_CENTURY = 0x32
_NO_C2, _NO_C3 = 101, 1001
_LARGEST_APIC_ID = 254
_ALIGNMENT = 64  # the FACS' own; fine for all


def checksum(data: bytes) -> int:
    """Return the byte that makes ``data`` with it add up to 0, modulo 256."""
    return -sum(data) & 0xFF


def acpi_tables(platform: Platform, base: int = layout.ACPI_TABLES) -> bytes:
    """Return the tables of ``platform`` to be put at address ``base``; the root pointer is their first 36 bytes.

    Raises ConfigError if they would not end before 1 MiB.
    """
    body = b""

    def place(table: bytes) -> int:
        nonlocal body
        body += bytes(-len(body) % _ALIGNMENT)
        at = base + _ALIGNMENT + len(body)
        body += table
        return at

    facs = place(_facs())
    dsdt = place(_table(b"DSDT", 2, dsdt_body(platform)))
    listed = [place(table) for table in (_fadt(platform, facs, dsdt), _madt(platform), _mcfg(platform))]
    xsdt = place(_table(b"XSDT", 1, np.array(listed, "<u8").tobytes()))
    tables = _rsdp(xsdt).ljust(_ALIGNMENT, b"\0") + body
    if base + len(tables) > layout.HIGH_MEMORY:
        raise ConfigError(
            f"bhyve: ACPI tables of {len(tables):,} bytes do not fit at {base:#x}, below 1 MiB\n"
            "        use fewer processors (-c)"
        )
    return tables


def _rsdp(xsdt: int) -> bytes:
    table = np.zeros((), abi.acpi_rsdp)
    table["signature"], table["oem_id"], table["revision"] = b"RSD PTR ", _OEM, 2
    table["length"], table["xsdt_address"] = table.itemsize, xsdt
    table["checksum"] = checksum(table.tobytes()[:20])
    table["extended_checksum"] = checksum(table.tobytes())
    return table.tobytes()


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Return ``body`` behind the header that every table has, its checksum included."""
    header = np.zeros((), abi.acpi_header)
    header["signature"], header["revision"] = signature, revision
    header["length"] = header.itemsize + len(body)
    header["oem_id"], header["oem_table_id"], header["oem_revision"] = _OEM, b"BV" + signature + b"  ", 1
    header["creator_id"], header["creator_revision"] = b"PTNM", 1
    header["checksum"] = checksum(header.tobytes() + body)
    return header.tobytes() + body


def _after_header(table: Any) -> bytes:
    data: bytes = table.tobytes()
    return data[abi.acpi_header.itemsize :]


def _facs() -> bytes:
    table = np.zeros((), abi.acpi_facs)
    table["signature"], table["length"], table["version"] = b"FACS", table.itemsize, 2
    return table.tobytes()


def _fadt(platform: Platform, facs: int, dsdt: int) -> bytes:
    table = np.zeros((), abi.acpi_fadt)
    table["firmware_ctrl"] = facs
    table["dsdt"] = table["x_dsdt"] = dsdt
    table["sci_int"], table["century"] = platform.sci, _CENTURY
    if platform.smi_command:
        table["smi_cmd"] = platform.smi_command
        table["acpi_enable"], table["acpi_disable"] = ACPI_ENABLE, ACPI_DISABLE
    flags = abi.FADT_WBINVD | abi.FADT_PROC_C1 | abi.FADT_SLP_BUTTON | abi.FADT_FIX_RTC
    flags |= abi.FADT_RESET_REG_SUP | abi.FADT_HEADLESS
    _register(table, "pm1a_evt_blk", PM1A_EVENT, 4, 2)
    _register(table, "pm1a_cnt_blk", PM1A_CONTROL, 2, 2)
    table["pm1_evt_len"], table["pm1_cnt_len"] = 4, 2
    if platform.pm_timer is not None:
        _register(table, "pm_tmr_blk", platform.pm_timer, 4, 3)
        table["pm_tmr_len"] = 4
        flags |= abi.FADT_TMR_VAL_EXT
    table["flags"] = flags
    table["p_lvl2_lat"], table["p_lvl3_lat"] = _NO_C2, _NO_C3
    # No word of an i8042: a guest that looks for one finds a stub, and a headless guest need not look.
    table["iapc_boot_arch"] = abi.FADT_BOOT_LEGACY_DEVICES | abi.FADT_BOOT_NO_VGA | abi.FADT_BOOT_NO_ASPM
    table["reset_reg"], table["reset_value"] = (abi.SPACE_IO, 8, 0, 1, RESET_PORT), RESET_VALUE
    table["minor_version"], table["hypervisor_vendor"] = 3, _OEM
    return _table(b"FACP", 6, _after_header(table))


def _register(table: Any, field: str, port: int, size: int, access: int) -> None:
    """Enter a register block of ``size`` bytes in its old field and in its extended one."""
    table[field] = port
    table["x_" + field] = (abi.SPACE_IO, size * 8, 0, access, port)


def _madt(platform: Platform) -> bytes:
    head = np.zeros((), abi.acpi_madt)
    head["lapic_address"], head["flags"] = layout.LAPIC, abi.MADT_PCAT_COMPAT
    entries = [_processor(cpu) for cpu in range(platform.cpus)]
    entries.append(_entry(abi.madt_ioapic, abi.MADT_IOAPIC, ioapic_id=0, address=layout.IOAPIC, gsi_base=0))
    if platform.timer_gsi:
        entries.append(_override(0, platform.timer_gsi, abi.INTI_ACTIVE_HIGH_EDGE))
    entries.append(_override(platform.sci, platform.sci, abi.INTI_ACTIVE_LOW_LEVEL))
    nmi = _entry(abi.madt_lapic_nmi, abi.MADT_LAPIC_NMI, processor_uid=0xFF, flags=abi.INTI_ACTIVE_HIGH_EDGE, lint=1)
    return _table(b"APIC", 5, _after_header(head) + b"".join(entries) + nmi)


def _processor(cpu: int) -> bytes:
    if cpu <= _LARGEST_APIC_ID:
        fields = {"processor_uid": cpu, "apic_id": cpu, "flags": abi.MADT_ENABLED}
        return _entry(abi.madt_lapic, abi.MADT_LAPIC, **fields)
    return _entry(abi.madt_x2apic, abi.MADT_X2APIC, processor_uid=cpu, x2apic_id=cpu, flags=abi.MADT_ENABLED)


def _override(source: int, gsi: int, flags: int) -> bytes:
    return _entry(abi.madt_override, abi.MADT_OVERRIDE, bus=0, source=source, gsi=gsi, flags=flags)


def _entry(kind: np.dtype[Any], number: int, **fields: int) -> bytes:
    entry = np.zeros((), kind)
    entry["type"], entry["length"] = number, entry.itemsize
    for name, value in fields.items():
        entry[name] = value
    return entry.tobytes()


def _mcfg(platform: Platform) -> bytes:
    window = np.zeros((), abi.mcfg_allocation)
    window["base"], window["end_bus"] = layout.ECAM, platform.last_bus
    return _table(b"MCFG", 1, bytes(8) + window.tobytes())

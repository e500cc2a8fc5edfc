# SPDX-License-Identifier: BSD-2-Clause
"""The MP table of a machine, placed where bhyve has it (Intel MultiProcessor Specification 1.4, chapter 4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptnetmap.abi import mptable as abi
from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.acpi import checksum
from ptnetmap.bhyve.boot.platform import Platform

_PCI_BUS, _ISA_BUS = 0, 1
_IOAPIC_ID = 0
_IOAPIC_VERSION, _LAPIC_VERSION = 0x11, 0x14
_FAMILY_6 = 0x600
_FPU, _APIC = 1 << 0, 1 << 9  # what the specification asks for; CPUID tells the rest
_ALL_APICS = 0xFF
_MOST_CPUS = 255
_ISA_IRQS = 16
_CASCADE = 2


def mp_table(platform: Platform, base: int = layout.MP_TABLE) -> bytes:
    """Return floating pointer and configuration table of ``platform``, to be put at address ``base``.

    Only the first 255 processors are listed: APIC ids have 8 bits here.
    """
    entries = [*_processors(platform), *_buses(), _ioapic(), *_isa(platform), *_pci(platform), *_local()]
    header = np.zeros((), abi.mp_config_header)
    header["signature"], header["spec_rev"] = abi.MP_CONFIG_SIGNATURE, abi.MP_SPEC_REV
    header["oem_id"], header["product_id"] = b"BHyVe   ", b"Hypervisor  "
    header["lapic_address"], header["entry_count"] = layout.LAPIC, len(entries)
    body = b"".join(entries)
    header["base_table_length"] = header.itemsize + len(body)
    header["checksum"] = checksum(header.tobytes() + body)
    pointer = np.zeros((), abi.mp_floating_pointer)
    pointer["signature"], pointer["spec_rev"], pointer["length"] = abi.MP_FLOATING_SIGNATURE, abi.MP_SPEC_REV, 1
    pointer["physical_address"] = base + pointer.itemsize
    pointer["checksum"] = checksum(pointer.tobytes())
    return pointer.tobytes() + header.tobytes() + body


def _processors(platform: Platform) -> list[bytes]:
    return [
        _entry(
            abi.mp_processor,
            abi.MP_PROCESSOR,
            apic_id=cpu,
            apic_version=_LAPIC_VERSION,
            cpu_flags=abi.MP_CPU_ENABLED | (0 if cpu else abi.MP_CPU_BOOT),
            cpu_signature=_FAMILY_6,
            feature_flags=_FPU | _APIC,
        )
        for cpu in range(min(platform.cpus, _MOST_CPUS))
    ]


def _buses() -> list[bytes]:
    return [
        _entry(abi.mp_bus, abi.MP_BUS, bus_id=_PCI_BUS, bus_type=b"PCI   "),
        _entry(abi.mp_bus, abi.MP_BUS, bus_id=_ISA_BUS, bus_type=b"ISA   "),
    ]


def _ioapic() -> bytes:
    fields = {"apic_id": _IOAPIC_ID, "apic_version": _IOAPIC_VERSION, "flags": 1, "address": layout.IOAPIC}
    return _entry(abi.mp_ioapic, abi.MP_IOAPIC, **fields)


def _isa(platform: Platform) -> list[bytes]:
    """Return where ISA's interrupts arrive: each at the pin of its number, but the timer, and the cascade nowhere."""
    entries = []
    if platform.timer_gsi:
        entries.append(_io_interrupt(_ISA_BUS, 0, 0, kind=abi.MP_EXTINT))
    for irq in range(_ISA_IRQS):
        if irq != _CASCADE:
            flags = abi.MP_ACTIVE_LOW_LEVEL if irq == platform.sci else 0
            entries.append(_io_interrupt(_ISA_BUS, irq, irq or platform.timer_gsi, flags=flags))
    return entries


def _pci(platform: Platform) -> list[bytes]:
    return [
        _io_interrupt(_PCI_BUS, route.slot << 2 | route.pin - 1, route.gsi, flags=abi.MP_ACTIVE_LOW_LEVEL)
        for route in platform.routes
    ]


def _local() -> list[bytes]:
    """Return the usual wiring of local APICs: the 8259 at pin 0, the NMI at pin 1."""
    return [
        _interrupt(abi.MP_LOCAL_INTERRUPT, abi.MP_EXTINT, 0, (_ISA_BUS, 0), (_ALL_APICS, 0)),
        _interrupt(abi.MP_LOCAL_INTERRUPT, abi.MP_NMI, 0, (_ISA_BUS, 0), (_ALL_APICS, 1)),
    ]


def _io_interrupt(bus: int, number: int, pin: int, *, kind: int = abi.MP_INT, flags: int = 0) -> bytes:
    return _interrupt(abi.MP_IO_INTERRUPT, kind, flags, (bus, number), (_IOAPIC_ID, pin))


def _interrupt(entry: int, kind: int, flags: int, source: tuple[int, int], target: tuple[int, int]) -> bytes:
    return _entry(
        abi.mp_interrupt,
        entry,
        int_type=kind,
        int_flags=flags,
        src_bus_id=source[0],
        src_bus_irq=source[1],
        dst_apic_id=target[0],
        dst_apic_int=target[1],
    )


def _entry(kind: np.dtype[Any], number: int, **fields: int | bytes) -> bytes:
    entry = np.zeros((), kind)
    entry["type"] = number
    for name, value in fields.items():
        entry[name] = value
    return entry.tobytes()

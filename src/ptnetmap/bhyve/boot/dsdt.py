# SPDX-License-Identifier: BSD-2-Clause
"""The DSDT's contents: the PCI bus with its windows and interrupts, what is behind the LPC bridge, and power-off.

PCI's interrupts are described for the I/O APIC only: a guest that is told to do without one gets no INTx.
"""

from __future__ import annotations

from ptnetmap.bhyve.boot import layout, resources
from ptnetmap.bhyve.boot.aml import device, eisa_id, integer, name, package, scope
from ptnetmap.bhyve.boot.platform import Platform, SerialPort

SLEEP_TYPE_S5 = 5
"""What PM1 control's SLP_TYP means power-off."""
_LAST_PORT_BEFORE_CONFIG, _FIRST_PORT_AFTER_CONFIG = 0xCF7, 0xD00
_ALL_FUNCTIONS = 0xFFFF


def dsdt_body(platform: Platform) -> bytes:
    """Return the AML of the DSDT of ``platform``, without the table's header."""
    # SLP_TYP of PM1a, of PM1b, and two reserved (ACPI 6.4 §7.4.2.5).
    power_off = package(*map(integer, (SLEEP_TYPE_S5, SLEEP_TYPE_S5, 0, 0)))
    return name("\\_S5", power_off) + scope("\\_SB", _host_bridge(platform), _motherboard(platform))


def _host_bridge(platform: Platform) -> bytes:
    first, end = platform.mem32
    windows = [
        resources.bus_window(0, platform.last_bus),
        resources.ports(0xCF8, 8),
        resources.port_window(0, _LAST_PORT_BEFORE_CONFIG),
        resources.port_window(_FIRST_PORT_AFTER_CONFIG, 0xFFFF),
        resources.memory_window32(first, end - 1),
    ]
    first, end = platform.mem64
    if first < end:
        windows.append(resources.memory_window64(first, end - 1))
    routes = [
        package(integer(route.slot << 16 | _ALL_FUNCTIONS), integer(route.pin - 1), integer(0), integer(route.gsi))
        for route in platform.routes
    ]
    legacy = _legacy_devices(platform)
    if platform.lpc:
        slot, function = platform.lpc
        legacy = [device("ISA", name("_ADR", integer(slot << 16 | function)), *legacy)]
    return device(
        "PCI0",
        name("_HID", eisa_id("PNP0A03")),
        name("_UID", integer(0)),
        name("_BBN", integer(0)),
        name("_CRS", resources.template(*windows)),
        name("_PRT", package(*routes)),
        *legacy,
    )


def _legacy_devices(platform: Platform) -> list[bytes]:
    """Return what every PC has at fixed ports, and the serial ports that this one has."""
    return [
        _at("PIC", "PNP0000", resources.ports(0x20, 2), resources.ports(0xA0, 2), resources.irq(2)),
        _at("TIMR", "PNP0100", resources.ports(0x40, 4), resources.irq(0)),
        _at("RTC", "PNP0B00", resources.ports(0x70, 2), resources.irq(8)),
        *(_serial(port) for port in platform.serial),
    ]


def _serial(port: SerialPort) -> bytes:
    return device(
        f"COM{port.unit}",
        name("_HID", eisa_id("PNP0501")),
        name("_UID", integer(port.unit)),
        name("_CRS", resources.template(resources.ports(port.port, 8), resources.irq(port.irq))),
    )


def _motherboard(platform: Platform) -> bytes:
    """Return what nobody else may use; Linux believes in the MCFG's window only if it is listed here."""
    taken = [resources.ports(0x61, 1), resources.ports(0xB2, 2), resources.ports(0x400, 8), resources.ports(0x4D0, 2)]
    if platform.pm_timer is not None:
        taken.append(resources.ports(platform.pm_timer, 4))
    return _at("MBRD", "PNP0C02", *taken, resources.memory32(layout.ECAM, layout.ECAM_SIZE))


def _at(label: str, hid: str, *descriptors: bytes) -> bytes:
    return device(label, name("_HID", eisa_id(hid)), name("_CRS", resources.template(*descriptors)))

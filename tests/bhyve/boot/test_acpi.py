# SPDX-License-Identifier: BSD-2-Clause
import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import acpi as abi
from ptnetmap.bhyve.boot import COM, Platform, write_tables
from ptnetmap.bhyve.boot.acpi import acpi_tables
from ptnetmap.bhyve.pci.intx import Route, routes
from ptnetmap.errors import ConfigError

BASE = 0xF2400
PLAIN = Platform(cpus=4, lpc=(31, 0), serial=(COM["com1"], COM["com2"]))
PLATFORMS = {
    "plain": PLAIN,
    "one": Platform(),
    "large": Platform(cpus=300, lpc=(1, 0), serial=tuple(COM.values()), pm_timer=0x408, smi_command=0xB2),
    "small": Platform(mem64=(1 << 39, 1 << 39), timer_gsi=0, routes=()),
}


def found(memory_at_base: bytes, base: int = BASE) -> dict[bytes, tuple[int, bytes]]:
    """Follow all pointers from the root pointer, as a system does: {signature: (address, table)}."""

    def at(address, signature=None):
        offset = address - base
        name, length = memory_at_base[offset : offset + 4], struct.unpack_from("<I", memory_at_base, offset + 4)[0]
        assert signature in (None, name)
        tables[name] = (address, memory_at_base[offset : offset + length])
        return tables[name][1]

    tables: dict[bytes, tuple[int, bytes]] = {}
    root = np.frombuffer(memory_at_base, abi.acpi_rsdp, 1)[0]
    assert (root["signature"], root["revision"], root["length"]) == (b"RSD PTR ", 2, 36)
    listed = at(int(root["xsdt_address"]), b"XSDT")
    for (address,) in struct.iter_unpack("<Q", listed[36:]):
        at(address)
    fadt = np.frombuffer(tables[b"FACP"][1], abi.acpi_fadt)[0]
    at(int(fadt["firmware_ctrl"]), b"FACS")
    assert fadt["dsdt"] == fadt["x_dsdt"]
    at(int(fadt["x_dsdt"]), b"DSDT")
    return tables


class Aml:
    """Reads as much of ACPI's machine language as descriptions need (ACPI 6.4 §20.2)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count : self.at]

    def inner(self) -> "Aml":
        start = self.at
        first = self.take(1)[0]
        extra = first >> 6
        length = first & 0x3F
        if extra:
            assert not first & 0x30
            length = first & 0xF | int.from_bytes(self.take(extra), "little") << 4
        return Aml(self.take(length - (self.at - start)))

    def path(self) -> str:
        root = ""
        if self.data[self.at] == 0x5C:
            root = self.take(1).decode()
        count = 1
        if self.data[self.at] == 0x2E:
            self.take(1)
            count = 2
        elif self.data[self.at] == 0x2F:
            count = self.take(2)[1]
        return root + ".".join(self.take(4).decode().rstrip("_") for _ in range(count))

    def value(self):
        code = self.take(1)[0]
        if code < 2:
            return code
        if code in (0x0A, 0x0B, 0x0C, 0x0E):
            return int.from_bytes(self.take({0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}[code]), "little")
        if code == 0x0D:
            end = self.data.index(b"\0", self.at)
            return self.take(end - self.at + 1)[:-1].decode()
        body = self.inner()
        if code == 0x11:
            assert body.value() == len(body.data) - body.at
            return body.data[body.at :]
        assert code == 0x12
        count = body.take(1)[0]
        elements = [body.value() for _ in range(count)]
        assert body.at == len(body.data)
        return elements

    def terms(self) -> dict[str, object]:
        names: dict[str, object] = {}
        while self.at < len(self.data):
            code = self.take(1)[0]
            if code == 0x08:
                name, value = self.path(), self.value()
            else:
                if code == 0x5B:
                    code = 0x5B00 | self.take(1)[0]
                assert code in (0x10, 0x5B82)
                body = self.inner()
                name, value = body.path(), body.terms()
            assert name not in names
            names[name] = value
        return names


def resources(template: bytes) -> list[tuple]:
    """Take a resource template apart: (tag, contents)."""
    items, at = [], 0
    while template[at] != 0x79:
        tag = template[at]
        if tag & 0x80:
            length = struct.unpack_from("<H", template, at + 1)[0]
            items.append((tag, template[at + 3 : at + 3 + length]))
            at += 3 + length
        else:
            items.append((tag & ~7, template[at + 1 : at + 1 + (tag & 7)]))
            at += 1 + (tag & 7)
    assert at + 2 == len(template)
    return items


def windows(template: bytes) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(kind, first): (last, length)} of the address space descriptors; kinds: 0 memory, 1 ports, 2 buses."""
    widths = {0x87: "I", 0x88: "H", 0x8A: "Q"}
    found = {}
    for tag, body in resources(template):
        if tag in widths:
            _, first, last, translation, length = struct.unpack("<5" + widths[tag], body[3:])
            assert (body[1], translation) == (0x0C, 0)  # produced, decoded, with fixed ends
            found[body[0], first] = (last, length)
    return found


def isa(template: bytes) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the (base, size) of the ports and the interrupts in a template."""
    ports = [(struct.unpack_from("<H", body, 1)[0], body[6]) for tag, body in resources(template) if tag == 0x40]
    masks = [struct.unpack_from("<H", body)[0] for tag, body in resources(template) if tag == 0x20]
    return ports, [mask.bit_length() - 1 for mask in masks]


def dsdt(platform: Platform) -> dict:
    return Aml(found(acpi_tables(platform))[b"DSDT"][1][36:]).terms()


def eisa(value: int) -> str:
    swapped = int.from_bytes(value.to_bytes(4, "little"), "big")
    letters = "".join(chr(0x40 + (swapped >> shift & 0x1F)) for shift in (26, 21, 16))
    return f"{letters}{swapped & 0xFFFF:04X}"


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_table_adds_up_to_zero(name):
    tables = acpi_tables(PLATFORMS[name])
    assert sum(tables[:20]) % 256 == sum(tables[:36]) % 256 == 0
    for signature, (_, table) in found(tables).items():
        if signature != b"FACS":
            assert sum(table) % 256 == 0


def test_all_tables_are_found_and_aligned_and_do_not_overlap(memory):
    root = write_tables(memory, PLAIN)
    assert root == BASE
    tables = found(memory.read(BASE, 0x100000 - BASE))
    assert set(tables) == {b"XSDT", b"FACP", b"FACS", b"APIC", b"MCFG", b"DSDT"}
    assert tables[b"FACS"][0] % 64 == 0
    ends = BASE + 36
    for address, table in sorted(tables.values()):
        assert address >= ends
        ends = address + len(table)
    assert ends <= 0x100000


def test_the_fadt_names_the_ports_of_the_power_management_device():
    fadt = np.frombuffer(found(acpi_tables(PLAIN))[b"FACP"][1], abi.acpi_fadt)[0]
    assert (fadt["pm1a_evt_blk"], fadt["pm1_evt_len"]) == (0x400, 4)
    assert (fadt["pm1a_cnt_blk"], fadt["pm1_cnt_len"]) == (0x404, 2)
    assert fadt["x_pm1a_evt_blk"].item() == (1, 32, 0, 2, 0x400)
    assert fadt["x_pm1a_cnt_blk"].item() == (1, 16, 0, 2, 0x404)
    assert (fadt["sci_int"], fadt["smi_cmd"], fadt["acpi_enable"]) == (9, 0, 0)
    assert (fadt["reset_reg"].item(), fadt["reset_value"]) == ((1, 8, 0, 1, 0xCF9), 6)
    flags = int(fadt["flags"])
    assert flags & abi.FADT_RESET_REG_SUP
    assert not flags & 1 << 4  # the power button is among the fixed registers
    assert not flags & 1 << 20  # hardware is not reduced
    assert (fadt["pm_tmr_blk"], fadt["pm_tmr_len"], flags & abi.FADT_TMR_VAL_EXT) == (0, 0, 0)


def test_a_pm_timer_and_a_command_port_are_named_where_there_are_any():
    fadt = np.frombuffer(found(acpi_tables(PLATFORMS["large"]))[b"FACP"][1], abi.acpi_fadt)[0]
    assert (fadt["pm_tmr_blk"], fadt["pm_tmr_len"]) == (0x408, 4)
    assert fadt["x_pm_tmr_blk"].item() == (1, 32, 0, 3, 0x408)
    assert int(fadt["flags"]) & abi.FADT_TMR_VAL_EXT
    assert (fadt["smi_cmd"], fadt["acpi_enable"], fadt["acpi_disable"]) == (0xB2, 0xA0, 0xA1)


def madt_entries(platform: Platform) -> list[bytes]:
    table = found(acpi_tables(platform))[b"APIC"][1]
    assert struct.unpack_from("<II", table, 36) == (0xFEE00000, 1)
    entries, at = [], 44
    while at < len(table):
        entries.append(table[at : at + table[at + 1]])
        at += table[at + 1]
    assert at == len(table)
    return entries


def test_the_madt_lists_processors_io_apic_and_overrides():
    entries = madt_entries(PLAIN)
    assert [entry[3] for entry in entries if entry[0] == abi.MADT_LAPIC] == [0, 1, 2, 3]
    assert [struct.unpack_from("<II", entry, 4) for entry in entries if entry[0] == 1] == [(0xFEC00000, 0)]
    overrides = [struct.unpack_from("<BBIH", entry, 2) for entry in entries if entry[0] == abi.MADT_OVERRIDE]
    assert overrides == [(0, 0, 2, 0x5), (0, 9, 9, 0xF)]
    assert [struct.unpack_from("<BHB", entry, 2) for entry in entries if entry[0] == 4] == [(0xFF, 0x5, 1)]


def test_processors_beyond_255_have_entries_for_longer_ids():
    entries = madt_entries(PLATFORMS["large"])
    assert [entry[3] for entry in entries if entry[0] == abi.MADT_LAPIC] == list(range(255))
    assert [struct.unpack_from("<I", entry, 4)[0] for entry in entries if entry[0] == abi.MADT_X2APIC] == list(
        range(255, 300)
    )


def test_a_timer_on_its_own_pin_needs_no_override():
    entries = madt_entries(PLATFORMS["small"])
    assert [entry[3] for entry in entries if entry[0] == abi.MADT_OVERRIDE] == [9]


@pytest.mark.parametrize("last", [0, 3, 255])
def test_buses_are_told_of_up_to_the_last_that_has_devices(last):
    platform = Platform(last_bus=last)
    table = found(acpi_tables(platform))[b"MCFG"][1]
    assert np.frombuffer(table, abi.mcfg_allocation, 1, 44)[0].item() == (0xE0000000, 0, 0, last, 0)
    assert windows(dsdt(platform)["\\_SB"]["PCI0"]["_CRS"])[2, 0] == (last, last + 1)


def test_power_off_is_sleep_type_five():
    assert dsdt(PLAIN)["\\_S5"] == [5, 5, 0, 0]


def test_the_host_bridge_hands_on_the_windows_of_the_pci_bus():
    bridge = dsdt(PLAIN)["\\_SB"]["PCI0"]
    assert eisa(bridge["_HID"]) == "PNP0A03"
    assert windows(bridge["_CRS"]) == {
        (2, 0): (0, 1),
        (1, 0): (0xCF7, 0xCF8),
        (1, 0xD00): (0xFFFF, 0xF300),
        (0, 0xC0000000): (0xDFFFFFFF, 0x20000000),
        (0, 0xD000000000): (0xFCFFFFFFFF, 0x2D00000000),
    }
    assert isa(bridge["_CRS"]) == ([(0xCF8, 8)], [])


def test_the_window_of_64_bits_can_be_left_out():
    assert [first for kind, first in windows(dsdt(PLATFORMS["small"])["\\_SB"]["PCI0"]["_CRS"]) if kind == 0] == [
        0xC0000000
    ]


def test_each_pin_of_each_slot_has_a_route():
    entries = dsdt(PLAIN)["\\_SB"]["PCI0"]["_PRT"]
    assert len(entries) == 128
    assert {(address >> 16, pin + 1, gsi) for address, pin, _, gsi in entries} == set(routes())
    assert all((address & 0xFFFF, source) == (0xFFFF, 0) for address, _, source, _ in entries)
    assert {gsi for *_, gsi in entries} == set(range(16, 24))
    assert [0x2FFFF, 0, 0, 23] in entries  # INTA of slot 2


def test_what_is_behind_the_lpc_bridge_is_where_pcs_have_it():
    bridge = dsdt(PLAIN)["\\_SB"]["PCI0"]["ISA"]
    assert bridge["_ADR"] == 31 << 16
    devices = {name: (eisa(fields["_HID"]), *isa(fields["_CRS"])) for name, fields in bridge.items() if name != "_ADR"}
    assert devices == {
        "PIC": ("PNP0000", [(0x20, 2), (0xA0, 2)], [2]),
        "TIMR": ("PNP0100", [(0x40, 4)], [0]),
        "RTC": ("PNP0B00", [(0x70, 2)], [8]),
        "COM1": ("PNP0501", [(0x3F8, 8)], [4]),
        "COM2": ("PNP0501", [(0x2F8, 8)], [3]),
    }
    assert bridge["COM2"]["_UID"] == 2


def test_without_an_lpc_bridge_the_rest_is_on_the_bus():
    bridge = dsdt(PLATFORMS["one"])["\\_SB"]["PCI0"]
    assert "ISA" not in bridge
    assert eisa(bridge["RTC"]["_HID"]) == "PNP0B00"
    assert "COM1" not in bridge


def test_the_configuration_window_is_reserved_so_that_linux_uses_it():
    board = dsdt(PLAIN)["\\_SB"]["MBRD"]
    assert eisa(board["_HID"]) == "PNP0C02"
    memory = [struct.unpack_from("<II", body, 1) for tag, body in resources(board["_CRS"]) if tag == 0x86]
    assert memory == [(0xE0000000, 256 << 20)]
    assert (0x400, 8) in isa(board["_CRS"])[0]


@settings(deadline=None, max_examples=20)
@given(
    st.builds(
        Platform,
        cpus=st.sampled_from([1, 2, 16, 255, 256, 1024]),
        lpc=st.none() | st.tuples(st.integers(0, 31), st.integers(0, 7)),
        serial=st.lists(st.sampled_from(list(COM.values())), unique=True).map(tuple),
        routes=st.lists(st.builds(Route, st.integers(0, 31), st.integers(1, 4), st.integers(0, 23)), max_size=128).map(
            tuple
        ),
        mem64=st.sampled_from([(1 << 39, 1 << 40), (0, 0)]),
    )
)
def test_any_machine_has_tables_that_can_be_read_to_the_end(platform):
    tables = acpi_tables(platform)
    assert BASE + len(tables) <= 0x100000
    parsed = dsdt(platform)["\\_SB"]["PCI0"]
    assert len(parsed["_PRT"]) == len(platform.routes)
    assert len(madt_entries(platform)) >= platform.cpus


@pytest.mark.parametrize("cpus", [0, -1, 1025])
def test_processors_that_no_table_can_hold_are_refused(cpus):
    with pytest.raises(ConfigError, match=f"cannot describe {cpus} processors"):
        Platform(cpus=cpus)


def test_tables_that_would_leave_the_firmwares_area_are_refused():
    with pytest.raises(ConfigError, match="do not fit at 0xff800"):
        acpi_tables(PLAIN, 0xFF800)


def test_no_tables_where_none_are_wanted(memory):
    assert write_tables(memory, PLAIN, acpi=False, mptable=False) is None
    assert not any(memory.read(0xF0000, 0x10000))
    assert write_tables(memory, PLAIN, acpi=False) is None
    assert memory.read(0xF0000, 4) == b"_MP_"


@pytest.mark.iasl
@pytest.mark.parametrize("name", PLATFORMS)
def test_acpicas_compiler_takes_the_tables_apart_and_the_dsdt_together_again(name, tmp_path):
    program = shutil.which("iasl")
    if program is None:
        pytest.skip("iasl is not installed (Debian: apt-get install acpica-tools)")
    for signature, (_, table) in found(acpi_tables(PLATFORMS[name])).items():
        path = tmp_path / f"{signature.decode()}.dat"
        path.write_bytes(table)
        done = subprocess.run([program, "-d", path], capture_output=True, text=True)
        source, *_ = path.with_suffix(".dsl").read_text().split("Raw Table Data")
        assert done.returncode == 0, done.stderr
        for complaint in ("Invalid", "Unknown", "Incorrect", "**"):
            assert complaint not in source, source
        assert "error" not in done.stderr.lower()
    again = subprocess.run([program, "-tc", tmp_path / "DSDT.dsl"], capture_output=True, text=True)
    assert "0 Errors, 0 Warnings" in again.stdout, again.stdout

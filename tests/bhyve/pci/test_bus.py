# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.access import ECAM_BASE
from ptnetmap.bhyve.pci.bar import BarKind, Windows
from ptnetmap.bhyve.pci.bus import PciBus
from ptnetmap.bhyve.pci.device import DEVICES, PciDevice, register
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.errors import ConfigError

ALL = ((0, BarKind.IO, 64), (1, BarKind.MEM32, 4096), (2, BarKind.MEM64, 8192))


class Conf1:
    """Configuration cycles through the ports."""

    def __init__(self, host):
        self.host = host

    def select(self, function, offset):
        address = 1 << 31 | function.bus << 16 | function.slot << 11 | function.function << 8 | offset & 0xFC
        self.host.ports.write(0xCF8, 4, address)
        return 0xCFC + (offset & 3)

    def read(self, function, offset, size):
        return self.host.ports.read(self.select(function, offset), size)

    def write(self, function, offset, size, value):
        self.host.ports.write(self.select(function, offset), size, value)


class Ecam:
    """Configuration cycles through memory."""

    def __init__(self, host):
        self.host = host

    def address(self, function, offset):
        return ECAM_BASE + (function.bus << 20) + (function.slot << 15) + (function.function << 12) + offset

    def read(self, function, offset, size):
        return self.host.mmio.read(self.address(function, offset), size)

    def write(self, function, offset, size, value):
        self.host.mmio.write(self.address(function, offset), size, value)


@pytest.fixture(params=[Conf1, Ecam])
def cycles(request, host):
    return request.param(host)


def test_the_example_of_the_report_is_refused_as_by_bhyve(host, bus, monkeypatch):
    for name in ("virtio-net", "ptnetmap-memdev"):
        monkeypatch.setitem(DEVICES, name, PciDevice)
    for place, name in (("2:1", "virtio-net"), ("2:2", "ptnetmap-memdev")):
        bus.create(Function.parse(place), name, {})

    with pytest.raises(ConfigError) as caught:
        bus.create(Function.parse("2:2"), "virtio-net", {})
    assert (str(caught.value), caught.value.status) == ("pci slot 2:2 already occupied!", 1)
    assert [str(place) for place in bus.devices] == ["2:1", "2:2"]


def test_a_taken_place_is_refused_before_a_device_is_made(host, bus, make_device):
    bus.add(make_device("1:2:3"))
    with pytest.raises(ConfigError, match=r"^pci slot 1:2:3 already occupied!$"):
        bus.add(make_device("1:2:3"))


def test_an_unknown_device_is_refused_with_those_there_are(bus, monkeypatch):
    monkeypatch.setitem(DEVICES, "hostbridge", PciDevice)
    with pytest.raises(ConfigError, match=r'pci slot 3:0: unknown device "ahci"\n.*hostbridge') as caught:
        bus.create(Function.parse("3"), "ahci", {})
    assert caught.value.errno == errno.ENODEV


def test_a_device_model_is_registered_once_under_its_name(monkeypatch, bus):
    monkeypatch.setattr("ptnetmap.bhyve.pci.device.DEVICES", {})
    from ptnetmap.bhyve.pci import device

    class Model(PciDevice):
        name = "model"

    class Other(PciDevice):
        name = "model"

    assert register(register(Model)) is Model
    assert list(device.DEVICES.items()) == [("model", Model)]
    for model in (Other, PciDevice):
        with pytest.raises(ValueError, match="name"):
            register(model)


def test_the_guest_finds_what_is_there_and_ones_elsewhere(bus, make_device, cycles):
    bus.add(make_device("3"))
    bus.add(make_device("7:31:7"))
    bus.start()

    found = {
        (number, slot, function)
        for number in (0, 1, 7, 255)
        for slot in range(32)
        for function in range(8)
        if cycles.read(Function(number, slot, function), 0, 4) != 0xFFFFFFFF
    }
    assert found == {(0, 3, 0), (7, 31, 0), (7, 31, 7)}
    assert cycles.read(Function(0, 3, 0), 0, 4) == 0x0002_3333
    assert cycles.read(Function(0, 3, 0), 8, 4) == 0xFF010200
    assert cycles.read(Function(0, 3, 0), 0x2C, 4) == 0x0005_0004
    assert bus.numbers == (0, 7)


def test_a_slot_without_function_0_gets_one_and_says_that_it_has_several(bus, make_device, cycles):
    for place in ("2:1", "2:2", "4"):
        bus.add(make_device(place))
    bus.start()

    types = {str(place): cycles.read(place, pci.PCIR_HDRTYPE, 1) for place in sorted(bus.devices)}
    assert types == {"2:0": 0x80, "2:1": 0x80, "2:2": 0x80, "4:0": 0}
    assert cycles.read(Function(0, 2, 0), 0, 2) not in (0xFFFF, 0)


def test_the_firmware_places_bars_first_fit_and_enables_what_there_is(bus, make_device):
    first, second, third = make_device("3", *ALL), make_device("4", *ALL), make_device("5", (0, BarKind.IO, 4))
    for device in (third, second, first):
        bus.add(device)
    bus.start()

    assert first.moves == [(0, 0x2000), (1, 0xC0000000), (2, 0xC0002000)]
    assert second.moves == [(0, 0x2040), (1, 0xC0001000), (2, 0xC0004000)]
    assert third.moves == [(0, 0x2080)]
    assert [device.config.command for device in (first, second, third)] == [7, 7, 5]


def test_a_bar_without_room_is_refused_with_what_is_left(bus, make_device):
    bus.add(make_device("3", (0, BarKind.MEM32, 1 << 20)))
    bus.add(make_device("4", (0, BarKind.MEM32, 512 << 20)))
    with pytest.raises(ConfigError, match=r"slot 4:0 \(probe\): BAR 0 needs 536,870,912 .* has 268,435,456\n"):
        bus.start()


def test_nothing_is_plugged_into_a_running_bus(bus, make_device):
    bus.start()
    with pytest.raises(ValueError, match="before"):
        bus.add(make_device("3"))


def test_accesses_reach_the_device_where_its_bar_is(bus, host, make_device, cycles):
    device = make_device("3", *ALL)
    bus.add(device)
    bus.start()

    assert host.ports.read(0x203E, 2) == device.bar_read(0, 0x3E, 2)
    host.mmio.write(0xC0000801, 8, 0x1122334455667788)
    cycles.write(device.function, 0x14, 4, 0xD0000000)
    host.mmio.write(0xC0000801, 4, 1)
    host.mmio.write(0xD0000FFF, 1, 2)
    assert device.calls == [(1, 0x801, 8, 0x1122334455667788), (1, 0xFFF, 1, 2)]
    assert device.moves[3:] == [(1, 0xD0000000)]


def test_a_device_without_an_answer_reads_as_ones(bus, host):
    device = PciDevice(host, Function(0, 3, 0), {})
    device.add_bar(0, BarKind.IO, 4)
    bus.add(device)
    bus.start()

    host.ports.write(0x2000, 4, 0)
    assert host.ports.read(0x2000, 4) == 0xFFFFFFFF


def test_the_address_port_answers_whole_accesses_only(host, bus):
    host.ports.write(0xCF8, 4, 0xFFFFFFFF)
    assert host.ports.read(0xCF8, 4) == 0x80FFFFFC
    host.ports.write(0xCFB, 1, 1)
    host.ports.write(0xCF8, 2, 0)
    assert host.ports.read(0xCF8, 4) == 0x80FFFFFC
    assert host.ports.read(0xCF8, 2) == 0xFFFF


def test_port_0xcf9_is_left_to_the_reset_register(host, bus):
    class Reset:
        def read(self, offset, size):
            return 6

        def write(self, offset, size, value):
            raise AssertionError

    host.ports.add(0xCF9, 1, Reset())
    host.ports.write(0xCF8, 4, 0x80000000)
    assert host.ports.read(0xCF9, 1) == 6
    assert host.ports.read(0xCF8, 4) == 0x80000000


def test_the_data_ports_are_silent_until_an_address_is_enabled(host, bus, make_device):
    device = make_device("0", *ALL)
    bus.add(device)
    host.ports.write(0xCF8, 4, 0)
    host.ports.write(0xCFC, 4, 0)

    assert host.ports.read(0xCFC, 4) == 0xFFFFFFFF
    host.ports.write(0xCF8, 4, 0x80000000)
    assert host.ports.read(0xCFC, 4) == 0x0002_3333
    assert host.ports.read(0xCFF, 4) == 0xFFFFFF00


def test_extended_configuration_space_is_empty(bus, host, make_device):
    device = make_device("3", *ALL)
    bus.add(device)
    bus.start()
    ecam = Ecam(host)

    ecam.write(device.function, 0x104, 4, 0)
    assert ecam.read(device.function, 0x104, 4) == 0xFFFFFFFF
    assert ecam.read(device.function, 0xFC, 8) == 0xFFFFFFFF_00000000
    assert ecam.read(device.function, 0xFFC, 8) == (1 << 64) - 1


def test_hooks_see_aligned_pieces_within_a_word(bus, host):
    seen = []

    class Hooked(PciDevice):
        def config_read(self, offset, size):
            seen.append(("read", offset, size))
            return 1 << 64 | super().config_read(offset, size)

        def config_write(self, offset, size, value):
            seen.append(("write", offset, size, value))

    bus.add(Hooked(host, Function(0, 3, 0), {}))
    bus.write_config(Function(0, 3, 0), 0x41, 8, 0x8877665544332211)
    assert bus.read_config(Function(0, 3, 0), 0x43, 4) == 0
    assert seen == [
        ("write", 0x41, 1, 0x11),
        ("write", 0x42, 2, 0x3322),
        ("write", 0x44, 4, 0x77665544),
        ("write", 0x48, 1, 0x88),
        ("read", 0x43, 1),
        ("read", 0x44, 2),
        ("read", 0x46, 1),
    ]


def test_a_reset_brings_back_the_state_after_start(bus, host, make_device, cycles):
    devices = [make_device("3", *ALL), make_device("4:1", *ALL)]
    for device in devices:
        bus.add(device)
    bus.start()

    def state():
        return {place: bytes(bus.read_config(place, i, 1) for i in range(256)) for place in bus.devices}

    before = state()
    where = [[bus.decoded(device, number) for number in device.bars] for device in devices]
    for device in devices:
        for offset in range(0, 256, 4):
            cycles.write(device.function, offset, 4, 0x5AA5_0FF0)
    assert state() != before

    bus.reset()
    assert state() == before
    assert [[bus.decoded(device, number) for number in device.bars] for device in devices] == where
    assert host.ports.read(0xCF8, 4) == 0


def test_a_closed_bus_leaves_nothing_behind(host, make_device):
    bus = PciBus(host)
    closed = []
    for place in ("3", "4"):
        device = make_device(place, *ALL)
        device.close = lambda place=place: closed.append(place)
        bus.add(device)
    bus.start()
    bus.close()
    bus.close()

    assert closed == ["4", "3"]
    assert device.moves[-3:] == [(0, None), (1, None), (2, None)]
    assert [host.ports.read(port, 4) for port in (0xCF8, 0xCFC, 0x2000)] == [0xFFFFFFFF] * 3
    assert host.mmio.read(ECAM_BASE, 8) == (1 << 64) - 1
    PciBus(host).close()


# --- wherever a guest puts its BARs -----------------------------------------------------------------------------------

PLACES = [Function(0, 3, 0), Function(0, 3, 1), Function(2, 0, 0)]
INTERESTING = [0, 1, 0x10, 0x70, 0xCF8, 0x2000, 0x2020, 0xFFC0, 0xFFFF, 0xC0000000, 0xC0001000, 0xDFFFF000, 0xE0000000]
INTERESTING += [0xEFFFF000, 0xFEE00000, 0xFFFFF000, 0xFFFFFFFF, 0xC0000800, 0x1000, 0x400000]
REGISTERS = [pci.PCIR_COMMAND, 0x10, 0x14, 0x18, 0x1C, 0x11, 0x16, 0x1A]
writes = st.lists(
    st.tuples(
        st.sampled_from(PLACES),
        st.sampled_from(REGISTERS),
        st.sampled_from([1, 2, 4, 8]),
        st.one_of(
            st.sampled_from(INTERESTING), st.sampled_from([0, 1, 2, 3, 7, (1 << 64) - 1]), st.integers(0, 1 << 64)
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes, st.lists(st.sampled_from(INTERESTING), max_size=4))
def test_a_bar_is_decoded_exactly_where_its_registers_say(make_host, make_device, moves, probes):
    host = make_host(1 << 20)
    bus = PciBus(host)
    devices = [make_device(str(place), *ALL, host=host) for place in PLACES]
    for device in devices:
        bus.add(device)
    bus.start()
    placed = {(device, number): bus.decoded(device, number) for device in devices for number in device.bars}

    def wanted(device, bar):
        command = bus.read_config(device.function, pci.PCIR_COMMAND, 2)
        value = bus.read_config(device.function, bar.offset, bar.width)
        is_io = bar.kind is BarKind.IO
        return value & ~(3 if is_io else 15) if command & (1 if is_io else 2) else None

    def byte(space, address):
        """Say what a byte reads as, where no fixed device is."""
        for device in devices:
            for bar in device.bars.values():
                start = bus.decoded(device, bar.number)
                here = (host.ports if bar.kind is BarKind.IO else host.mmio) is space and start is not None
                if here and start <= address < start + bar.size:
                    return device.byte(bar.number, address - start)
        return 0xFF

    def check():
        for device in devices:
            for bar in device.bars.values():
                where = bus.decoded(device, bar.number)
                assert where == wanted(device, bar)
                assert dict(device.moves)[bar.number] == where
                for offset in (0, bar.size - 3):
                    look(host.ports if bar.kind is BarKind.IO else host.mmio, (where or 0) + offset)
        for address in probes:
            look(host.mmio, address)
            look(host.ports, address & 0xFFFF)

    def look(space, address):
        for size in (1, 2, 4, 8):
            covered = range(address, address + size)
            fixed = range(0xCF8, 0xD00) if space is host.ports else range(ECAM_BASE, ECAM_BASE + (256 << 20))
            if covered.stop <= fixed.start or covered.start >= fixed.stop:
                expected = bytes(byte(space, a) for a in covered)
                assert space.read(address, size) == int.from_bytes(expected, "little")

    for place, offset, size, value in moves:
        bus.write_config(place, offset, size, value)
        check()
    for (device, number), address in placed.items():
        bar = device.bars[number]
        bus.write_config(device.function, bar.offset, bar.width, address)
        bus.write_config(device.function, pci.PCIR_COMMAND, 2, 7)
    assert {key: bus.decoded(*key) for key in placed} == placed
    check()
    bus.close()
    host.close()


def test_of_two_bars_at_one_place_the_first_function_is_heard_whoever_came_last(bus, host, make_device):
    first, second = make_device("3", *ALL), make_device("4", *ALL)
    for device in (second, first):
        bus.add(device)
    bus.start()

    bus.write_config(first.function, 0x14, 4, 0xC0001000)
    assert host.mmio.read(0xC0001004, 4) == first.bar_read(1, 4, 4)
    bus.write_config(second.function, 0x14, 4, 0xD0000000)
    bus.write_config(second.function, 0x14, 4, 0xC0001000)
    assert host.mmio.read(0xC0001004, 4) == first.bar_read(1, 4, 4)
    bus.write_config(first.function, 0x14, 4, 0xD0000000)
    assert host.mmio.read(0xC0001004, 4) == second.bar_read(1, 4, 4)


def test_a_bar_over_the_way_to_configuration_space_does_not_hide_it(bus, host, make_device):
    device = make_device("3", *ALL, (4, BarKind.MEM32, 1 << 28))
    bus.add(device)
    bus.start()

    ecam, conf1 = Ecam(host), Conf1(host)
    ecam.write(device.function, 0x20, 4, 0xE0000000)
    conf1.write(device.function, 0x10, 4, 0xCC0)
    assert conf1.read(device.function, 0, 4) == ecam.read(device.function, 0, 4) == 0x0002_3333
    assert bus.decoded(device, 4) == ECAM_BASE


def test_a_64_bit_bar_reaches_the_top_of_the_address_space(make_host, make_device):
    host = make_host()
    bus = PciBus(host, Windows(mem64=(0, 0)))
    device = make_device("3", (0, BarKind.MEM64, 8192), host=host)
    bus.add(device)
    bus.start()

    bus.write_config(device.function, 0x10, 8, (1 << 64) - 1)
    assert bus.decoded(device, 0) == (1 << 64) - 8192
    assert host.mmio.read((1 << 64) - 2, 2) == device.bar_read(0, 8190, 2)
    assert host.mmio.read((1 << 64) - 1, 2) == 0xFF00 | device.byte(0, 8191)
    bus.write_config(device.function, 0x10, 8, 0)
    assert host.mmio.read(0, 4) == device.bar_read(0, 0, 4)
    bus.close()


def test_a_bar_past_the_end_of_its_space_is_not_decoded(make_host, make_device):
    host = make_host()
    host.mmio.limit = 1 << 40
    bus = PciBus(host)
    device = make_device("3", (0, BarKind.MEM64, 8192), host=host)
    bus.add(device)
    bus.start()

    bus.write_config(device.function, 0x10, 8, 1 << 40)
    assert bus.decoded(device, 0) is None
    bus.write_config(device.function, 0x10, 8, (1 << 40) - 8192)
    assert bus.decoded(device, 0) == (1 << 40) - 8192
    bus.close()

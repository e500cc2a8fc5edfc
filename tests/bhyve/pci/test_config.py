# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import pci
from ptnetmap.bhyve.pci.bar import Bar, BarKind
from ptnetmap.bhyve.pci.config import BarsChanged, CapabilityWritten, CommandChanged, ConfigSpace

WRITES = st.lists(
    st.tuples(st.integers(0, 260), st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, (1 << 64) - 1)), max_size=20
)


@pytest.fixture
def config():
    space = ConfigSpace()
    space.preset(pci.PCIR_VENDOR, 4, 0x1000_1AF4)
    space.add_bar(Bar(0, BarKind.IO, 64))
    space.add_bar(Bar(1, BarKind.MEM32, 0x2000))
    space.add_bar(Bar(2, BarKind.MEM64, 1 << 33))
    return space


def whole(config):
    return bytes(config.read(i, 1) for i in range(256))


def as_bytes(value):
    return value.to_bytes(4, "little")


def test_a_new_function_decodes_nothing(config):
    assert config.command == 0
    assert [config.decoded(bar) for bar in config.bars] == [None, None, None]


@pytest.mark.parametrize("bar", range(3))
def test_writing_ones_to_a_bar_reads_back_its_size(config, bar):
    bar = config.bars[bar]
    for offset in range(bar.offset, bar.offset + bar.width, 4):
        config.write(offset, 4, 0xFFFFFFFF)

    kind_bits = 3 if bar.kind is BarKind.IO else 15
    value = config.read(bar.offset, bar.width)
    assert value & kind_bits == bar.kind.flags
    assert (~(value & ~kind_bits) & ((1 << bar.kind.address_bits) - 1)) + 1 == bar.size


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(BarKind)),
    st.integers(1, 1 << 15),
    st.integers(0, (1 << 64) - 1),
    st.permutations(range(8)),
)
def test_a_bar_written_in_any_pieces_holds_the_aligned_address(kind, size, address, order):
    config = ConfigSpace()
    bar = Bar(4, kind, size)
    config.add_bar(bar)

    for i in order:
        if i < bar.width:
            config.write(bar.offset + i, 1, address >> 8 * i & 0xFF)

    assert config.address(bar) == address % (1 << kind.address_bits) // bar.size * bar.size
    assert config.read(bar.offset, bar.width) & 15 & ~bar.mask == kind.flags


@settings(max_examples=100, deadline=None)
@given(WRITES)
def test_no_write_changes_a_read_only_bit_nor_sets_one_that_is_cleared_by_ones(writes):
    config = ConfigSpace()
    config.preset(pci.PCIR_VENDOR, 4, 0x1000_1AF4)
    config.add_bar(Bar(0, BarKind.MEM64, 1 << 20))
    capability = config.add_capability(pci.PCIY_VENDOR, bytes(range(10)), b"\x0f\xf0")
    config.set_status(pci.PCIM_STATUS_ERRORS, True)
    writable = bytearray(256)
    writable[4:6] = b"\x47\x05"
    writable[0x0C] = writable[0x0D] = writable[0x3C] = 0xFF
    writable[0x10:0x18] = (-(1 << 20) & (1 << 64) - 1).to_bytes(8, "little")
    writable[capability.offset + 2 : capability.offset + 4] = b"\x0f\xf0"
    before = whole(config)

    for offset, size, value in writes:
        earlier = whole(config)
        config.write(offset, size, value)
        now = whole(config)
        for i in range(256):
            byte = value >> 8 * (i - offset) & 0xFF if offset <= i < offset + size else None
            if i == 7:
                assert now[i] == earlier[i] & ~((byte or 0) & 0xF9)
            elif byte is None:
                assert now[i] == earlier[i]
            else:
                assert now[i] == before[i] & ~writable[i] | byte & writable[i]
    config.reset()
    assert whole(config)[:6] == before[:6]


def test_a_write_says_what_it_meant(config):
    capability = config.add_capability(pci.PCIY_MSIX, bytes(10), b"\0\xc0")

    assert config.write(pci.PCIR_COMMAND, 2, 3) == [CommandChanged(0, 3)]
    assert config.write(pci.PCIR_COMMAND, 2, 3) == []
    assert config.write(pci.PCIR_BARS, 8, 0x12345678_00002040) == [BarsChanged((0, 1))]
    assert config.write(pci.PCIR_BARS, 4, 0x2041) == []
    assert config.write(pci.PCIR_BARS + 12, 4, 7) == [BarsChanged((2,))]
    assert config.address(config.bars[2]) == 6 << 32
    assert config.write(capability.offset + 3, 4, 0) == [CapabilityWritten(capability, 3, 4)]
    assert config.write(capability.offset - 2, 3, 0) == [CapabilityWritten(capability, 0, 1)]


def test_command_bits_decode_each_kind_of_bar(config):
    for bar in config.bars:
        config.assign(bar, bar.size * 2)
    io, mem32, mem64 = config.bars

    config.write(pci.PCIR_COMMAND, 2, pci.PCIM_CMD_PORTEN)
    assert [config.decoded(bar) for bar in config.bars] == [io.size * 2, None, None]
    config.write(pci.PCIR_COMMAND, 2, pci.PCIM_CMD_MEMEN)
    assert [config.decoded(bar) for bar in config.bars] == [None, mem32.size * 2, mem64.size * 2]


@pytest.mark.parametrize("address", [0x2001, 1 << 16, -64, 32])
def test_an_address_that_the_register_cannot_hold_is_refused(config, address):
    with pytest.raises(ValueError, match="BAR 0"):
        config.assign(config.bars[0], address)


def test_an_error_bit_is_cleared_by_writing_a_one_and_by_nothing_else(config):
    config.set_status(pci.PCIM_STATUS_ERRORS, True)
    config.write(pci.PCIR_COMMAND, 4, 0x1000_0000 | pci.PCIM_CMD_MEMEN)
    assert config.read(pci.PCIR_STATUS, 2) == pci.PCIM_STATUS_ERRORS & ~0x1000
    config.write(pci.PCIR_STATUS, 2, 0)
    assert config.read(pci.PCIR_STATUS, 2) == pci.PCIM_STATUS_ERRORS & ~0x1000


def test_bars_do_not_share_registers(config):
    for number, kind in ((0, BarKind.MEM32), (3, BarKind.IO), (1, BarKind.MEM64)):
        with pytest.raises(ValueError, match="overlaps"):
            config.add_bar(Bar(number, kind, 16))


def test_capabilities_are_linked_in_the_order_of_adding(config):
    assert config.read(pci.PCIR_STATUS, 2) & pci.PCIM_STATUS_CAPPRESENT == 0
    added = [
        config.add_capability(pci.PCIY_MSIX, bytes(10)),
        config.add_capability(pci.PCIY_VENDOR, b"\x05\x01\x02", at=0x98),
        config.add_capability(pci.PCIY_MSI, bytes(12)),
    ]

    found, offset = [], config.read(pci.PCIR_CAP_PTR, 1)
    while offset:
        found.append((config.read(offset, 1), offset))
        offset = config.read(offset + 1, 1)
    assert found == [(capability.id, capability.offset) for capability in added]
    assert [offset for _, offset in found] == [0x40, 0x98, 0x4C]
    assert config.read(pci.PCIR_STATUS, 2) & pci.PCIM_STATUS_CAPPRESENT


def test_a_capability_that_does_not_fit_changes_nothing(config):
    config.add_capability(pci.PCIY_VENDOR, bytes(100), at=0x40)
    before = whole(config)

    for body, at in ((bytes(100), None), (bytes(2), 0x50), (bytes(10), 0xF8), (bytes(2), 0x20)):
        with pytest.raises(ValueError, match="no room"):
            config.add_capability(pci.PCIY_VENDOR, body, at=at)
    assert whole(config) == before


def test_a_reset_returns_to_what_was_preset_and_not_to_what_was_stored(config):
    config.preset(0x60, 4, 0x80808080)
    config.allow(0x60, 4, 0x8F8F8F8F)
    config.store(0x40, 1, 7)
    config.write(0x60, 4, 0x0A0B0C0D)
    assert config.read(0x60, 4) == 0x0A0B0C0D

    config.reset()
    assert (config.read(0x60, 4), config.read(0x40, 1)) == (0x80808080, 0)


@pytest.mark.parametrize(("offset", "size"), [(-1, 2), (255, 2), (256, 1), (0, 0)])
def test_a_device_model_cannot_describe_what_is_outside(config, offset, size):
    for describe in (config.preset, config.store, config.allow):
        with pytest.raises(ValueError, match="configuration space"):
            describe(offset, size, 0)


def test_accesses_past_the_end_read_ones_and_write_nothing(config):
    config.allow(0xFC, 4, 0xFFFFFFFF)
    config.write(0xFE, 8, 0x1122334455667788)
    assert config.read(0xFC, 8) == 0xFFFFFFFF_77880000
    assert config.read(300, 4) == 0xFFFFFFFF
    assert config.write(300, 4, 0) == []

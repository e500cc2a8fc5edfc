# SPDX-License-Identifier: BSD-2-Clause
import errno

import numpy as np
import pytest

from ptnetmap.abi import boot
from ptnetmap.bhyve.boot import LINUX64, layout, plan
from ptnetmap.errors import ConfigError, GuestError

MEBIBYTE = 1 << 20
CODE = bytes(range(256)) * 8


@pytest.fixture
def planned(bzimage, write):
    def make(*, low_size=64 * MEBIBYTE, initrd=None, cmdline="", code=CODE, **fields):
        initrd = None if initrd is None else write(initrd, "initrd")
        return plan(write(bzimage(code, **fields)), initrd=initrd, cmdline=cmdline, low_size=low_size)

    return make


def zero_page(memory):
    return np.frombuffer(memory.read(layout.PARAMETERS, 4096), boot.boot_params)[0]


def test_a_kernel_goes_where_it_prefers_and_is_entered_in_64_bit_mode(planned, memory):
    with planned() as kernel:
        state = kernel.load(memory)
    assert (kernel.protocol, kernel.entry) == (LINUX64, 16 * MEBIBYTE + 0x200)
    assert memory.read(16 * MEBIBYTE, len(CODE)) == CODE
    assert (state.rip, state.rsi) == (kernel.entry, layout.PARAMETERS)
    assert zero_page(memory)["hdr"]["code32_start"] == 16 * MEBIBYTE


@pytest.mark.parametrize(
    ("fields", "low_size", "expected"),
    [
        ({"pref_address": 16 * MEBIBYTE + 4096}, 64 * MEBIBYTE, 2 * MEBIBYTE),  # not aligned as it asks
        ({"pref_address": 0}, 64 * MEBIBYTE, 2 * MEBIBYTE),
        ({}, 20 * MEBIBYTE, 2 * MEBIBYTE),  # does not fit where it prefers
        ({"kernel_alignment": 0, "pref_address": 0}, 64 * MEBIBYTE, MEBIBYTE),
        ({"relocatable_kernel": 0}, 64 * MEBIBYTE, MEBIBYTE),
        ({"kernel_alignment": 16 * MEBIBYTE, "pref_address": 0}, 64 * MEBIBYTE, 16 * MEBIBYTE),
    ],
)
def test_a_kernel_that_cannot_be_there_goes_as_low_as_it_may(planned, fields, low_size, expected):
    with planned(low_size=low_size, **fields) as kernel:
        assert kernel.parts[0].gpa == expected


def test_the_setup_header_is_copied_and_nothing_else_of_the_file(planned, memory):
    with planned(initrd=b"i" * 5000, cmdline="console=ttyS0") as kernel:
        kernel.load(memory, rsdp=0xF2400)
    page = zero_page(memory)
    header = page["hdr"]
    raw = memory.read(layout.PARAMETERS, 4096)
    assert page["sentinel"] == 0
    assert not any(raw[:0x70])
    assert not any(raw[0x1F1 + 123 : 0x2D0])
    assert {
        name: int(header[name]) for name in ("header", "boot_flag", "version", "init_size", "kernel_alignment")
    } == {
        "header": boot.HDRS,
        "boot_flag": boot.BOOT_FLAG,
        "version": 0x020F,
        "init_size": 8 * MEBIBYTE,
        "kernel_alignment": 2 * MEBIBYTE,
    }
    assert (header["type_of_loader"], header["loadflags"] & boot.CAN_USE_HEAP) == (0xFF, 0)
    assert page["acpi_rsdp_addr"] == 0xF2400
    assert header["setup_data"] == 0


def test_a_header_shorter_than_ours_is_padded_and_a_longer_one_cut(bzimage, write, memory):
    for end in (0x268, 0x290):
        with plan(write(bzimage(jump=0xEB | (end - 0x202) << 8)), low_size=memory.low_size) as kernel:
            assert len(kernel.header) == boot.setup_header.itemsize
        short = int.from_bytes(kernel.header[119:123], "little")
        assert short == 0


def test_the_command_line_is_where_the_header_says_and_ends_with_a_zero(planned, memory):
    with planned(cmdline="root=/dev/vda1 ro") as kernel:
        kernel.load(memory)
    address = int(zero_page(memory)["hdr"]["cmd_line_ptr"])
    assert memory.read(address, 18) == b"root=/dev/vda1 ro\0"
    assert address + 2048 <= layout.EBDA


def test_no_more_command_line_than_the_kernel_takes(planned):
    planned(cmdline="a" * 100, cmdline_size=100).close()
    with pytest.raises(ConfigError, match="101 bytes, and this kernel takes 100") as caught:
        planned(cmdline="a" * 101, cmdline_size=100)
    assert caught.value.status == 4
    with pytest.raises(ConfigError, match="takes 523,263"):
        planned(cmdline="a" * 600_000, cmdline_size=0xFFFFFFFF)


def test_a_zero_byte_in_the_command_line_is_refused(planned):
    with pytest.raises(ConfigError, match="zero byte"):
        planned(cmdline="a\0b")


def test_the_initrd_ends_as_high_as_the_kernel_can_reach(planned, memory):
    data = bytes(range(251)) * 40
    with planned(initrd=data) as kernel:
        kernel.load(memory)
    header = zero_page(memory)["hdr"]
    address, size = int(header["ramdisk_image"]), int(header["ramdisk_size"])
    assert (address % 4096, size) == (0, len(data))
    assert memory.low_size - 4096 < address + (-(-size // 4096) * 4096) <= memory.low_size
    assert memory.read(address, size) == data

    with planned(initrd=data, initrd_addr_max=40 * MEBIBYTE - 1) as kernel:
        assert 40 * MEBIBYTE - 4096 < kernel.initrd.gpa + 4096 * 3 <= 40 * MEBIBYTE


def test_the_initrd_never_lies_in_memory_that_the_kernel_needs(planned):
    free = 64 - 16 - 8
    with planned(initrd=bytes(free * MEBIBYTE)) as kernel:
        assert kernel.initrd.gpa == kernel.parts[0].end == 24 * MEBIBYTE
    with pytest.raises(GuestError, match=r"initrd .*initrd: it has 41,943,041 bytes, and 41,943,040 are free"):
        planned(initrd=bytes(free * MEBIBYTE + 1))


def test_without_an_initrd_its_fields_are_zero(planned, memory):
    with planned() as kernel:
        kernel.load(memory)
    assert (zero_page(memory)["hdr"]["ramdisk_image"], zero_page(memory)["hdr"]["ramdisk_size"]) == (0, 0)


def test_an_empty_initrd_is_refused(planned):
    with pytest.raises(GuestError, match="it is empty"):
        planned(initrd=b"")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"version": 0x0206}, "boot protocol 2.06, which has no 64-bit entry"),
        ({"loadflags": 0}, "it is a zImage"),
        ({"xloadflags": 0}, "it is a 32-bit kernel"),
        ({"kernel_alignment": 3 * MEBIBYTE}, "alignment of 0x300000 bytes"),
        ({"kernel_alignment": 1 << 31}, "alignment of 0x80000000"),
        ({"jump": 0x00EB}, "setup header ends at 0x202"),
        ({"jump": 0xFFEB}, "setup header ends at 0x301"),
        ({"syssize": 1}, "protected-mode code has 16 bytes"),
        ({"syssize": 0xFFFFFFFF}, r"is 68,719,476,\d+ bytes at offset 2,048, and the file ends at 4,096"),
        ({"setup_sects": 200}, "the file ends at|is cut|setup"),
        ({"init_size": 0xFFFFFFFF, "pref_address": 0}, "it needs memory up to 0x1001fffff"),
        ({"pref_address": 1 << 63, "relocatable_kernel": 0}, "it needs memory up to 0x8000000000800000"),
    ],
)
def test_a_header_that_cannot_be_is_refused_naming_the_file(bzimage, write, fields, found):
    data = bzimage(**fields) if "setup_sects" not in fields else bzimage()[:0x1F1] + b"\xc8" + bzimage()[0x1F2:]
    path = write(data, "odd-kernel")
    with pytest.raises(GuestError, match=found) as caught:
        plan(path, low_size=64 * MEBIBYTE)
    assert str(path) in str(caught.value)
    assert caught.value.errno == errno.ENOEXEC


def test_the_last_paragraph_of_the_code_may_be_incomplete(planned, memory):
    code = CODE + b"end"
    with planned(code=code) as kernel:
        kernel.load(memory)
    assert memory.read(16 * MEBIBYTE, len(code)) == code


def test_no_sectors_of_setup_means_four(planned, memory):
    with planned(setup_sects=0) as kernel:
        kernel.load(memory)
    assert memory.read(16 * MEBIBYTE, len(CODE)) == CODE


def test_a_plan_is_for_one_size_of_memory(planned, memory):
    with planned(low_size=32 * MEBIBYTE) as kernel, pytest.raises(ValueError, match="planned for 33,554,432"):
        kernel.load(memory)


def test_a_guest_of_a_few_kilobytes_is_refused(planned):
    with pytest.raises(ConfigError, match="hold no kernel"):
        planned(low_size=4096)


def test_a_file_cut_while_it_is_planned_is_refused_at_loading(bzimage, write, memory):
    path = write(bzimage(), "shrinking")
    with plan(path, low_size=memory.low_size) as kernel:
        path.write_bytes(b"")
        with pytest.raises(GuestError, match=r"shrinking: the file ends inside the protected-mode code"):
            kernel.load(memory)


@pytest.mark.nest
def test_debians_kernel_is_understood(stock_kernel, memory):
    with plan(stock_kernel, low_size=512 * MEBIBYTE, initrd=stock_kernel) as kernel:
        assert kernel.protocol == LINUX64
        assert kernel.entry == 16 * MEBIBYTE + 0x200
        assert 0 <= stock_kernel.stat().st_size - kernel.parts[0].offset - kernel.parts[0].size < 4096  # a signature
        assert kernel.parts[0].end <= kernel.initrd.gpa

# SPDX-License-Identifier: BSD-2-Clause
"""Images made of routines, run in this process: what they compute is what the routines compute interpreted."""

import ctypes
import inspect

import pytest

from ptnetmap.errors import GuestError

numba = pytest.importorskip("numba")
if numba.config.DISABLE_JIT:
    pytest.skip("the kernels of this process are interpreted: there is nothing to compare", allow_module_level=True)

from ptnetmap.guest.cmdline import find_option, number_option, option_is  # noqa: E402
from ptnetmap.guest.compile import Texts, compile_routines  # noqa: E402
from ptnetmap.guest.console import put_hex, put_number, put_text  # noqa: E402
from ptnetmap.guest.cpu import divide, remainder, timestamp  # noqa: E402
from ptnetmap.guest.layout import boot_info, offsets  # noqa: E402
from ptnetmap.guest.link import link  # noqa: E402
from ptnetmap.guest.mmio import read8, read16, read32, write8, write16, write32  # noqa: E402
from ptnetmap.guest.routine import Text, routine  # noqa: E402
from ptnetmap.guest.spin import spin  # noqa: E402
from ptnetmap.jit.memory import load64, store64  # noqa: E402

USED = offsets(boot_info)["line_used"]
LINE = offsets(boot_info)["line"]
CODE = 0x4000
HELLO = Text("hello ")


@routine
def greet(boot, value):
    put_text(boot, HELLO)
    put_number(boot, value)
    put_text(boot, HELLO)
    put_hex(boot, value, 16)
    return load64(boot + USED)


@routine
def arithmetic(value, other):
    return divide(value, other) * 3 - remainder(value, other)


@routine
def registers(address, value):
    write32(address, value)
    write16(address + 4, value)
    write8(address + 6, value)
    return (read32(address) << 32) | (read16(address + 4) << 16) | read8(address + 6)


@routine
def moves_on(patience):
    before = timestamp()
    while timestamp() == before and patience > 0:
        patience -= 1
    return patience


ROUTINES = [greet, arithmetic, registers, moves_on, spin, find_option, option_is, number_option]


@pytest.fixture(scope="module")
def compiled(executable_memory):
    """Compile all of them into one image in memory, and return a function that calls one there."""
    texts = Texts(executable_memory.address, CODE)
    objects = {"routines": compile_routines({fn.__name__: fn for fn in ROUTINES}, texts)}
    image = link(objects, executable_memory.address + CODE)
    executable_memory.map[: CODE + len(image.data)] = texts.data() + image.data

    def call(fn, *arguments):
        kinds = [ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * len(inspect.signature(fn).parameters)
        native = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(image.symbols[fn.__name__])
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        status = native(ctypes.addressof(result), ctypes.addressof(exception), *arguments)
        assert status == 0
        return result.value

    return call


@pytest.mark.parametrize("rounds", [0, 1, 1000])
def test_loops_agree(compiled, rounds):
    assert compiled(spin, rounds) == spin(rounds)


@pytest.mark.parametrize(("value", "other"), [(7, 2), (-1, 10), (10**18, 999), (0, 5)])
def test_division_is_unsigned(compiled, value, other):
    assert (compiled(arithmetic, value, other) - arithmetic(value, other)) % 2**64 == 0


@pytest.mark.parametrize("line", ["a=1 b=22 a=333", "b", "b=9x ab=3", " b=7 ", "", "b=1234567890123456789"])
def test_command_lines_are_read_alike(compiled, low_memory, line):
    cmdline, name, value = low_memory.text(line), low_memory.text("b", 0x100), low_memory.text("22", 0x200)
    for fn, arguments in ((find_option, (name,)), (option_is, (name, value)), (number_option, (name, 5))):
        assert compiled(fn, cmdline, *arguments) == fn(cmdline, *arguments)


@pytest.mark.parametrize("value", [0, 7, -12, 2**62, 10**18])
def test_lines_are_written_alike_with_text_that_is_in_the_image(compiled, low_memory, value):
    seen = []
    for run in (compiled, lambda fn, *arguments: fn(*arguments)):
        boot = low_memory.address
        store64(boot + USED, 0)
        used = run(greet, boot, value)
        seen.append(ctypes.string_at(boot + LINE, used))
    assert seen[0] == seen[1] == f"hello {value}hello {value % 2**64:016x}".encode()


def test_registers_are_read_and_written_in_their_width(compiled, low_memory):
    low_memory.map[:8] = b"\xff" * 8
    assert compiled(registers, low_memory.address, 0x11223344) == 0x11223344_3344_0044
    assert low_memory.map[:8] == bytes.fromhex("44332211443344ff")


def test_the_time_stamp_counter_moves(compiled):
    assert compiled(moves_on, 1_000_000) > 0


def test_the_same_text_is_kept_once_and_room_runs_out():
    texts = Texts(0x1000, 8)
    assert texts.address(Text("abc")) == texts.address(Text("abc")) == 0x1000
    assert texts.address(Text("d")) == 0x1004
    assert texts.data() == b"abc\0d\0\0\0"
    with pytest.raises(GuestError, match="more than 8 bytes of constant text"):
        texts.address(Text("efg"))


@routine
def needs_a_runtime(value):
    return len([value] * value)


def test_a_routine_that_needs_a_runtime_is_refused():
    texts = Texts(0x1000, 8)
    contents = compile_routines({"needs_a_runtime": needs_a_runtime}, texts)
    with pytest.raises(GuestError, match="which nothing defines"):
        link({"routines": contents}, 0x2000)

# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno as errnos
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ptnetmap.jit import atomic, libc, memory, wait
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel

PATTERNS = [
    bytes(range(0x80, 0x90)),
    b"\xff" * 16,
    bytes(16),
    bytes.fromhex("0123456789abcdef7f00000000000080"),
    b"\x7f" + b"\xff" * 15,
]
VALUES = [0, 1, -1, 0x7F, 0x80, 0xFF, 0x1234, 0x8000, 0xFFFF, 0x12345678, 0x80000000, -(1 << 63), (1 << 63) - 1]
LOADS = ("load8", "load16", "load32", "load64", "load16_be", "load32_be", "load32_acquire", "load64_acquire")
STORES = ("store8", "store16", "store32", "store64", "store16_be", "store32_be", "store32_release", "store64_release")


@kernel
def every_load(address, out):
    memory.store64(out, memory.load8(address))
    memory.store64(out + 8, memory.load16(address))
    memory.store64(out + 16, memory.load32(address))
    memory.store64(out + 24, memory.load64(address))
    memory.store64(out + 32, memory.load16_be(address))
    memory.store64(out + 40, memory.load32_be(address))
    memory.store64(out + 48, atomic.load32_acquire(address))
    memory.store64(out + 56, atomic.load64_acquire(address))


@kernel
def every_store(out, value):
    memory.store8(out, value)
    memory.store16(out + 16, value)
    memory.store32(out + 32, value)
    memory.store64(out + 48, value)
    memory.store16_be(out + 64, value)
    memory.store32_be(out + 80, value)
    atomic.store32_release(out + 96, value)
    atomic.store64_release(out + 112, value)


@kernel
def every_bulk(out, source, value, length):
    memory.prefetch(source)
    memory.copy_line(out, source)
    memory.copy_bytes(out + 64, source, length)
    memory.fill_bytes(out + 128, value, length)


@kernel
def every_exchange(out, seen, expected, desired):
    memory.store32(out, seen)
    memory.store64(out + 8, seen)
    memory.store64(out + 16, seen)
    memory.store64(out + 24, 1 if atomic.cas32(out, expected, desired) else 0)
    memory.store64(out + 32, 1 if atomic.cas64(out + 8, expected, desired) else 0)
    memory.store64(out + 40, atomic.add64(out + 16, desired))
    atomic.fence()
    atomic.pause()


@kernel
def every_call(out, reader, writer, bad):
    memory.store64(out, libc.write(writer, out, 8))
    memory.store64(out + 8, libc.read(reader, out + 64, 5))
    memory.store32(out + 72, reader)
    memory.store32(out + 76, libc.POLLIN | libc.POLLOUT)
    memory.store64(out + 16, libc.poll(out + 72, 1, 0))
    memory.store64(out + 24, libc.pwrite(bad, out, 0, 0))
    memory.store64(out + 32, libc.errno())
    memory.store64(out + 40, libc.read(-1, out + 64, 1))
    memory.store64(out + 48, libc.errno())
    memory.store64(out + 56, libc.sched_yield())


@kernel
def pwrite_and_errno(fd, address, count, offset):
    result = libc.pwrite(fd, address, count, offset)
    return result, libc.errno() if result < 0 else 0


@kernel
def two_times(out):
    before = libc.clock_ns(libc.CLOCK_MONOTONIC)
    libc.clock_gettime(libc.CLOCK_MONOTONIC, out)
    return before, memory.load64(out) * 1_000_000_000 + memory.load64(out + 8), libc.clock_ns(libc.CLOCK_MONOTONIC)


@kernel
def every_wait(out, attempt):
    memory.store64(out, 1 if wait.relax(attempt) else 0)
    memory.store32(out + 16, 0xFFFFFFFF)
    memory.store64(out + 24, 1 if wait.kick(out + 8, out + 16, out + 32) else 0)
    wait.arm(out + 8)
    memory.store64(out + 40, memory.load32(out + 8))
    memory.store64(out + 48, 1 if wait.kick(out + 8, out + 16, out + 32) else 0)


def loads(pattern):
    source, out = Block("u1", 16), Block("i8", 8)
    source.items[:] = np.frombuffer(pattern, "u1")
    every_load(source.address, out.address)
    return dict(zip(LOADS, out.items.tolist(), strict=True))


def stores(value):
    out = Block("u1", 128)
    out.items[:] = 0xA5
    every_store(out.address, value)
    return {name: out.items[16 * i : 16 * i + 16].tobytes().hex() for i, name in enumerate(STORES)}


def bulk(value, length):
    out, source = Block("u1", 192), Block("u1", 64)
    out.items[:] = 0xA5
    source.items[:] = np.arange(100, 164)
    every_bulk(out.address, source.address, value, length)
    return out.items.tobytes().hex()


def exchange(seen, expected, desired):
    out = Block("i8", 6)
    every_exchange(out.address, seen, expected, desired)
    return out.items.tolist()


def calls():
    out = Block("u1", 128)
    out.items[:8] = np.frombuffer(b"packets!", "u1")
    reader, writer = os.pipe()
    try:
        every_call(out.address, reader, writer, reader)
    finally:
        os.close(reader)
        os.close(writer)
    return [
        *out.items[:64].view("i8").tolist(),
        out.items[64:69].tobytes().decode(),
        int(out.items[78:80].view("u2")[0]),
    ]


def waits(attempt):
    out = Block("i8", 8)
    every_wait(out.address, attempt)
    return out.items.tolist()


def table():
    """Everything that the operations do, as data that JSON can carry."""
    cases = [(s, e, d) for s in (0, 5, -1, 1 << 40) for e in (0, 5, -1, (1 << 40) + 0) for d in (0, 7, -3)]
    return {
        "loads": [loads(pattern) for pattern in PATTERNS],
        "stores": [stores(value) for value in VALUES],
        "bulk": [bulk(value, length) for value in (0, -1, 0x1FE) for length in (0, 1, 63, 64)],
        "exchange": [exchange(*case) for case in cases],
        "calls": calls(),
        "waits": [waits(n) for n in (0, wait.SPINS, wait.SPINS + wait.YIELDS - 1, wait.SPINS + wait.YIELDS)],
    }


@pytest.fixture(scope="module")
def interpreted():
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")
    twin = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    return json.loads(twin.stdout)


@pytest.mark.parametrize("operations", ["loads", "stores", "bulk", "exchange", "calls", "waits"])
def test_compiled_and_interpreted_operations_agree(operations, interpreted):
    assert table()[operations] == interpreted[operations]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_loads_are_zero_extended_and_only_64_bits_are_signed(pattern):
    assert loads(pattern) == {
        "load8": pattern[0],
        "load16": int.from_bytes(pattern[:2], "little"),
        "load32": int.from_bytes(pattern[:4], "little"),
        "load64": int.from_bytes(pattern[:8], "little", signed=True),
        "load16_be": int.from_bytes(pattern[:2], "big"),
        "load32_be": int.from_bytes(pattern[:4], "big"),
        "load32_acquire": int.from_bytes(pattern[:4], "little"),
        "load64_acquire": int.from_bytes(pattern[:8], "little", signed=True),
    }


@pytest.mark.parametrize("value", VALUES)
def test_stores_write_the_low_bits_and_no_neighbour(value):
    for name, written in stores(value).items():
        width = int("".join(c for c in name if c.isdigit())) // 8
        low = (value & (256**width - 1)).to_bytes(width, "big" if name.endswith("_be") else "little")
        assert written == (low + b"\xa5" * (16 - width)).hex(), name


def test_copies_and_fills_touch_exactly_their_length():
    line = bytes(range(100, 164))
    filled = b"\xfe" * 3 + b"\xa5" * 61
    assert bulk(0x1FE, 3) == (line + line[:3] + b"\xa5" * 61 + filled).hex()


def test_compare_exchange_changes_only_what_was_expected():
    assert exchange(5, 5, 7)[3:] == [1, 1, 5]
    assert exchange(5, 6, 7)[:5] == [5, 5, 12, 0, 0]
    assert exchange(1 << 40, 0, 7)[3:5] == [1, 0]  # the low 32 bits are 0


def test_pwrite_writes_at_its_offset(tmp_path):
    source = Block("u1", 4)
    source.items[:] = np.frombuffer(b"slot", "u1")
    with (tmp_path / "f").open("w+b") as file:
        assert pwrite_and_errno(file.fileno(), source.address, 4, 3) == (4, 0)
        assert file.read() == b"\0\0\0slot"


@pytest.mark.parametrize("address", [0, 8, 0x7FFF_FFFF_F000, -4096])
def test_pwrite_from_a_bad_address_says_efault(tmp_path, address):
    with (tmp_path / "f").open("w+b") as file:
        assert pwrite_and_errno(file.fileno(), address, 64, 0) == (-1, errnos.EFAULT)


def test_the_monotonic_clock_does_not_go_back_and_is_the_one_of_clock_gettime():
    out = Block("i8", 2)
    last = 0
    for _ in range(1000):
        before, between, after = two_times(out.address)
        assert last <= before <= between <= after
        last = after


def test_waiting_spins_then_yields_then_sleeps():
    answers = [wait.relax(n) for n in range(wait.SPINS + wait.YIELDS + 2)]
    assert answers == [True] * (wait.SPINS + wait.YIELDS) + [False] * 2


if __name__ == "__main__":
    print(json.dumps(table()))

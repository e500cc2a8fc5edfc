# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Plain loads, stores and copies at raw addresses.

The compiler may merge, widen and reorder these: use them for data that an index protects, and
:mod:`ptnetmap.jit.atomic` for the index. Words are little endian and zero-extended, except :func:`load64`, which is
signed because a kernel's integers are. ``*_be`` read network byte order.
"""

from __future__ import annotations

import ctypes

from llvmlite import ir

from ptnetmap.jit.lowering import HALF_LINE, I1, I8, I16, I32, I64, LINE, declare, int64, native, none, pointer


def _load(width):
    def generate(builder, address):
        value = builder.load(pointer(builder, address, width), align=1)
        return value if width is I64 else builder.zext(value, I64)

    return generate


def _store(width):
    def generate(builder, address, value):
        narrow = value if width is I64 else builder.trunc(value, width)
        builder.store(narrow, pointer(builder, address, width), align=1)

    return generate


@native(int64, _load(I8))
def load8(address):
    """Return the byte at ``address``."""
    return ctypes.c_uint8.from_address(int(address)).value


@native(int64, _load(I16))
def load16(address):
    """Return the 16-bit word at ``address``."""
    return ctypes.c_uint16.from_address(int(address)).value


@native(int64, _load(I32))
def load32(address):
    """Return the 32-bit word at ``address``."""
    return ctypes.c_uint32.from_address(int(address)).value


@native(int64, _load(I64))
def load64(address):
    """Return the 64-bit word at ``address``, signed."""
    return ctypes.c_int64.from_address(int(address)).value


@native(none, _store(I8))
def store8(address, value):
    """Store the low 8 bits of ``value``."""
    ctypes.c_uint8.from_address(int(address)).value = int(value)


@native(none, _store(I16))
def store16(address, value):
    """Store the low 16 bits of ``value``."""
    ctypes.c_uint16.from_address(int(address)).value = int(value)


@native(none, _store(I32))
def store32(address, value):
    """Store the low 32 bits of ``value``."""
    ctypes.c_uint32.from_address(int(address)).value = int(value)


@native(none, _store(I64))
def store64(address, value):
    """Store ``value``."""
    ctypes.c_int64.from_address(int(address)).value = int(value)


def _bswap(width, bits):
    def generate(builder, address):
        value = builder.load(pointer(builder, address, width), align=1)
        swapped = builder.bswap(value)
        return swapped if bits == 64 else builder.zext(swapped, I64)

    return generate


@native(int64, _bswap(I16, 16))
def load16_be(address):
    """Return the 16-bit big-endian word at ``address``."""
    return int.from_bytes(ctypes.string_at(int(address), 2), "big")


@native(int64, _bswap(I32, 32))
def load32_be(address):
    """Return the 32-bit big-endian word at ``address``."""
    return int.from_bytes(ctypes.string_at(int(address), 4), "big")


def _store_be(width):
    def generate(builder, address, value):
        builder.store(builder.bswap(builder.trunc(value, width)), pointer(builder, address, width), align=1)

    return generate


@native(none, _store_be(I16))
def store16_be(address, value):
    """Store the low 16 bits of ``value`` in network order."""
    ctypes.memmove(int(address), (int(value) & 0xFFFF).to_bytes(2, "big"), 2)


@native(none, _store_be(I32))
def store32_be(address, value):
    """Store the low 32 bits of ``value`` in network order."""
    ctypes.memmove(int(address), (int(value) & 0xFFFFFFFF).to_bytes(4, "big"), 4)


def _copy_wide(width):
    def generate(builder, destination, source):
        value = builder.load(pointer(builder, source, width), align=1)
        builder.store(value, pointer(builder, destination, width), align=1)

    return generate


@native(none, _copy_wide(LINE))
def copy_line(destination, source):
    """Copy one cache line, 64 bytes, as a few wide moves; the ranges must not overlap partly."""
    ctypes.memmove(int(destination), int(source), 64)


@native(none, _copy_wide(HALF_LINE))
def copy_half_line(destination, source):
    """Copy 32 bytes, as :func:`copy_line`."""
    ctypes.memmove(int(destination), int(source), 32)


def _copy(builder, destination, source, length):
    memcpy = declare(builder, "llvm.memcpy.p0i8.p0i8.i64", ir.VoidType(), [I8.as_pointer(), I8.as_pointer(), I64, I1])
    builder.call(memcpy, [pointer(builder, destination, I8), pointer(builder, source, I8), length, I1(0)])


@native(none, _copy)
def copy_bytes(destination, source, length):
    """Copy exactly ``length`` bytes (libc's memcpy); the ranges must not overlap."""
    ctypes.memmove(int(destination), int(source), int(length))


def _fill(builder, destination, value, length):
    memset = declare(builder, "llvm.memset.p0i8.i64", ir.VoidType(), [I8.as_pointer(), I8, I64, I1])
    builder.call(memset, [pointer(builder, destination, I8), builder.trunc(value, I8), length, I1(0)])


@native(none, _fill)
def fill_bytes(destination, value, length):
    """Set ``length`` bytes to the low 8 bits of ``value``."""
    ctypes.memset(int(destination), int(value) & 0xFF, int(length))


def _prefetch(builder, address):
    prefetch = declare(builder, "llvm.prefetch.p0i8", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    builder.call(prefetch, [pointer(builder, address, I8), I32(0), I32(3), I32(1)])


@native(none, _prefetch)
def prefetch(address):
    """Ask for the cache line at ``address``, for reading; never faults."""


def _at(builder, base, offset, width):
    """Pointer from a base and an offset that LLVM can follow through a loop, unlike the sum of two integers."""
    place = builder.gep(builder.inttoptr(base, I8.as_pointer()), [offset])
    return builder.bitcast(place, width.as_pointer())


def _load_at(width):
    def generate(builder, base, offset):
        value = builder.load(_at(builder, base, offset, width), align=1)
        return value if width is I64 else builder.zext(value, I64)

    return generate


def _store_at(width):
    def generate(builder, base, offset, value):
        narrow = value if width is I64 else builder.trunc(value, width)
        builder.store(narrow, _at(builder, base, offset, width), align=1)

    return generate


@native(int64, _load_at(I8))
def load8_at(base, offset):
    """Return the byte at ``base + offset``. In a loop over offsets, this is what gets turned into vector code."""
    return load8(base + offset)


@native(int64, _load_at(I16))
def load16_at(base, offset):
    """Return the 16-bit word at ``base + offset``; see :func:`load8_at`."""
    return load16(base + offset)


@native(int64, _load_at(I32))
def load32_at(base, offset):
    """Return the 32-bit word at ``base + offset``; see :func:`load8_at`."""
    return load32(base + offset)


@native(int64, _load_at(I64))
def load64_at(base, offset):
    """Return the signed 64-bit word at ``base + offset``; see :func:`load8_at`."""
    return load64(base + offset)


@native(none, _store_at(I16))
def store16_at(base, offset, value):
    """Store the low 16 bits of ``value`` at ``base + offset``; see :func:`load8_at`."""
    store16(base + offset, value)


@native(none, _store_at(I32))
def store32_at(base, offset, value):
    """Store the low 32 bits of ``value`` at ``base + offset``; see :func:`load8_at`."""
    store32(base + offset, value)


@native(none, _store_at(I64))
def store64_at(base, offset, value):
    """Store ``value`` at ``base + offset``; see :func:`load8_at`."""
    store64(base + offset, value)

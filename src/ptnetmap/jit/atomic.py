# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Loads, stores and read-modify-writes that other threads and processes may see happen.

Acquire and release are C11's: what was stored before a ``store_release`` is seen after the ``load_acquire`` that reads
it. Addresses are naturally aligned. The interpreted twins rely on the GIL for the compare-exchange, which is enough
for a process whose kernels are all interpreted, and on x86's own ordering for the rest.
"""

from __future__ import annotations

import ctypes
import threading

from llvmlite import ir

from ptnetmap.jit.lowering import I32, I64, boolean, declare, int64, native, none, pointer
from ptnetmap.jit.memory import load32, load64, store32, store64

_interpreted = threading.Lock()


def _load_acquire(width, align):
    def generate(builder, address):
        value = builder.load_atomic(pointer(builder, address, width), "acquire", align)
        return value if width is I64 else builder.zext(value, I64)

    return generate


def _store_release(width, align):
    def generate(builder, address, value):
        narrow = value if width is I64 else builder.trunc(value, width)
        builder.store_atomic(narrow, pointer(builder, address, width), "release", align)

    return generate


@native(int64, _load_acquire(I32, 4))
def load32_acquire(address):
    """Return the 32-bit word at ``address``; later accesses stay after it."""
    return load32(address)


@native(int64, _load_acquire(I64, 8))
def load64_acquire(address):
    """Return the signed 64-bit word at ``address``; later accesses stay after it."""
    return load64(address)


@native(none, _store_release(I32, 4))
def store32_release(address, value):
    """Store a 32-bit word; earlier accesses stay before it."""
    store32(address, value)


@native(none, _store_release(I64, 8))
def store64_release(address, value):
    """Store a 64-bit word; earlier accesses stay before it."""
    store64(address, value)


def _cas(width):
    def generate(builder, address, expected, desired):
        if width is not I64:
            expected, desired = builder.trunc(expected, width), builder.trunc(desired, width)
        result = builder.cmpxchg(pointer(builder, address, width), expected, desired, "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return generate


@native(boolean, _cas(I32))
def cas32(address, expected, desired):
    """Replace ``expected`` by ``desired`` in one step; return whether it happened. A full fence."""
    with _interpreted:
        word = ctypes.c_uint32.from_address(int(address))
        if word.value != int(expected) & 0xFFFFFFFF:
            return False
        word.value = int(desired)
        return True


@native(boolean, _cas(I64))
def cas64(address, expected, desired):
    """Replace ``expected`` by ``desired`` in one step; return whether it happened. A full fence."""
    with _interpreted:
        word = ctypes.c_int64.from_address(int(address))
        if word.value != int(expected):
            return False
        word.value = int(desired)
        return True


def _add64(builder, address, value):
    return builder.atomic_rmw("add", pointer(builder, address, I64), value, "seq_cst")


@native(int64, _add64)
def add64(address, value):
    """Add to a 64-bit word in one step and return what it was. A full fence."""
    with _interpreted:
        word = ctypes.c_int64.from_address(int(address))
        before = word.value
        word.value = before + int(value)
        return before


def _fence(builder):
    builder.fence("seq_cst")


@native(none, _fence)
def fence():
    """Order every earlier access before every later one: the store-load barrier of need-kick protocols."""


def _pause(builder):
    builder.call(declare(builder, "llvm.x86.sse2.pause", ir.VoidType(), []), [])


@native(none, _pause)
def pause():
    """Tell the processor that this is a spin loop."""

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Registers of devices in memory: loads and stores that happen exactly as written.

Each is one plain ``mov`` of its width, which every hypervisor can decode, and keeps its place among the others.
"""

from __future__ import annotations

from llvmlite import ir

from ptnetmap.guest.outside import machine
from ptnetmap.jit.lowering import I8, I16, I32, I64, int64, native, none

_CLOBBERS = "~{memory},~{dirflag},~{fpsr},~{flags}"


def _read(width, instruction):
    def generate(builder, address):
        kind = ir.FunctionType(width, [I64])
        value = builder.call(ir.InlineAsm(kind, instruction, "=r,r," + _CLOBBERS, side_effect=True), [address])
        return builder.zext(value, I64)

    return generate


def _write(width, instruction):
    def generate(builder, address, value):
        kind = ir.FunctionType(ir.VoidType(), [width, I64])
        asm = ir.InlineAsm(kind, instruction, "r,r," + _CLOBBERS, side_effect=True)
        builder.call(asm, [builder.trunc(value, width), address])

    return generate


@native(int64, _read(I8, "movb ($1), $0"))
def read8(address):
    """Return the 8-bit register at ``address``."""
    return machine().read_register(address, 1)


@native(int64, _read(I16, "movw ($1), $0"))
def read16(address):
    """Return the 16-bit register at ``address``."""
    return machine().read_register(address, 2)


@native(int64, _read(I32, "movl ($1), $0"))
def read32(address):
    """Return the 32-bit register at ``address``."""
    return machine().read_register(address, 4)


@native(none, _write(I8, "movb $0, ($1)"))
def write8(address, value):
    """Store the low 8 bits of ``value`` into the register at ``address``."""
    machine().write_register(address, 1, value & 0xFF)


@native(none, _write(I16, "movw $0, ($1)"))
def write16(address, value):
    """Store the low 16 bits of ``value`` into the register at ``address``."""
    machine().write_register(address, 2, value & 0xFFFF)


@native(none, _write(I32, "movl $0, ($1)"))
def write32(address, value):
    """Store the low 32 bits of ``value`` into the register at ``address``."""
    machine().write_register(address, 4, value & 0xFFFFFFFF)

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""I/O ports: the instructions ``in`` and ``out``, in 1, 2 and 4 bytes.

Level 3 may use every port, by the map in its task state segment.
"""

from __future__ import annotations

from llvmlite import ir

from ptnetmap.guest.outside import machine
from ptnetmap.jit.lowering import I8, I16, I32, I64, int64, native, none

_CLOBBERS = "~{memory},~{dirflag},~{fpsr},~{flags}"


def _in(width, instruction):
    def generate(builder, port):
        kind = ir.FunctionType(width, [I16])
        asm = ir.InlineAsm(kind, instruction, "={ax},{dx}," + _CLOBBERS, side_effect=True)
        return builder.zext(builder.call(asm, [builder.trunc(port, I16)]), I64)

    return generate


def _out(width, instruction):
    def generate(builder, port, value):
        kind = ir.FunctionType(ir.VoidType(), [width, I16])
        asm = ir.InlineAsm(kind, instruction, "{ax},{dx}," + _CLOBBERS, side_effect=True)
        builder.call(asm, [builder.trunc(value, width), builder.trunc(port, I16)])

    return generate


@native(int64, _in(I8, "inb %dx, %al"))
def in8(port):
    """Return the byte that ``port`` gives."""
    return machine().read_port(port & 0xFFFF, 1)


@native(int64, _in(I16, "inw %dx, %ax"))
def in16(port):
    """Return the 16-bit word that ``port`` gives."""
    return machine().read_port(port & 0xFFFF, 2)


@native(int64, _in(I32, "inl %dx, %eax"))
def in32(port):
    """Return the 32-bit word that ``port`` gives."""
    return machine().read_port(port & 0xFFFF, 4)


@native(none, _out(I8, "outb %al, %dx"))
def out8(port, value):
    """Send the low 8 bits of ``value`` to ``port``."""
    machine().write_port(port & 0xFFFF, 1, value & 0xFF)


@native(none, _out(I16, "outw %ax, %dx"))
def out16(port, value):
    """Send the low 16 bits of ``value`` to ``port``."""
    machine().write_port(port & 0xFFFF, 2, value & 0xFFFF)


@native(none, _out(I32, "outl %eax, %dx"))
def out32(port, value):
    """Send the low 32 bits of ``value`` to ``port``."""
    machine().write_port(port & 0xFFFF, 4, value & 0xFFFFFFFF)

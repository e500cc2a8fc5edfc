# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Instructions of the processor that are neither loads, stores nor port accesses."""

from __future__ import annotations

from llvmlite import ir

from ptnetmap.guest.outside import machine
from ptnetmap.jit.lowering import I64, declare, int64, native, none

_MASK = (1 << 64) - 1


def _timestamp(builder):
    return builder.call(declare(builder, "llvm.readcyclecounter", I64, []), [])


@native(int64, _timestamp)
def timestamp():
    """Return the time stamp counter."""
    return machine().timestamp()


def _halt(builder, address, seen):
    kind = ir.FunctionType(ir.VoidType(), [I64, I64])
    asm = ir.InlineAsm(kind, "int3", "{di},{si},~{memory},~{dirflag},~{fpsr},~{flags}", side_effect=True)
    builder.call(asm, [address, seen])


@native(none, _halt)
def halt(address, seen):
    """Halt until an interrupt comes, unless the 64-bit word at ``address`` is not ``seen`` any more.

    Level 0 compares with interrupts off and allows them together with halting, so that none is missed.
    """
    machine().wait(address, seen)


def _breakpoint(builder):
    builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "int3", "~{memory}", side_effect=True), [])


@native(none, _breakpoint)
def crash():
    """Raise an exception; once the interrupt descriptors are gone, this is a triple fault."""
    machine().crash()


def _divide(builder, dividend, divisor):
    return builder.udiv(dividend, divisor)


@native(int64, _divide)
def divide(dividend, divisor):
    """Return the quotient of two unsigned numbers; the caller sees to it that ``divisor`` is not 0."""
    return (dividend & _MASK) // (divisor & _MASK)


def _remainder(builder, dividend, divisor):
    return builder.urem(dividend, divisor)


@native(int64, _remainder)
def remainder(dividend, divisor):
    """Return the remainder of two unsigned numbers; the caller sees to it that ``divisor`` is not 0."""
    return (dividend & _MASK) % (divisor & _MASK)

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""How a plain Python function gets a native twin: :func:`native` gives Numba its LLVM code.

The decorated Python function is what runs interpreted; compiled kernels that call it get the instructions which the
code generator emits, in line. All arguments and results are 64-bit integers (or bools, or nothing).
"""

from __future__ import annotations

import inspect

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

I1 = ir.IntType(1)
I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
LINE = ir.VectorType(I8, 64)
HALF_LINE = ir.VectorType(I8, 32)

int64 = types.int64
boolean = types.boolean
none = types.none


def pointer(builder: ir.IRBuilder, address: ir.Value, pointee: ir.Type) -> ir.Value:
    """Turn a 64-bit address into a pointer."""
    return builder.inttoptr(address, pointee.as_pointer())


def native(result, generate):
    """Decorate a Python function of int64 arguments with the generator of its native form.

    ``result`` is the Numba type returned: int64, boolean or none. ``generate(builder, *values)`` emits the
    instructions and returns their value (nothing, for none).
    """

    def register(fn):
        parameters = inspect.signature(fn)
        count = len(parameters.parameters)

        @type_callable(fn)
        def typer(context):
            def accept(*arguments):
                integers = all(isinstance(a, types.Integer | types.Boolean) for a in arguments)
                return result if integers and len(arguments) == count else None

            accept.__signature__ = parameters  # Numba folds call arguments by this, not by *arguments
            return accept

        @lower_builtin(fn, *([types.Any] * count))
        def lower(context, builder, sig, args):
            values = [context.cast(builder, v, t, int64) for v, t in zip(args, sig.args, strict=True)]
            out = generate(builder, *values)
            return context.get_dummy_value() if result is none else out

        return fn

    return register


def declare(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """Declare an external function or LLVM intrinsic in the module being built."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)

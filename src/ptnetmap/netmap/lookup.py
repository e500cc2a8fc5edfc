# SPDX-License-Identifier: BSD-2-Clause
"""Lookup functions: ordinary Python that decides where a switch sends each packet of a batch.

A lookup is called once a batch, as ``fn(packets, lengths, source, table, ports, rings)``:

========= ============= ==============================================================================
argument  type          meaning
========= ============= ==============================================================================
packets   int64[n]      addresses of the Ethernet headers; read with :mod:`ptnetmap.jit.memory`
lengths   uint32[n]     bytes that can be read there: at least 0, and less than 14 for broken frames
source    int           number of the port that sent the batch
table     array         a one-dimensional array of the user's, of any dtype; the function may write it
ports     uint8[n]      answer: a port number, BROADCAST or DROP. Everything is DROP to begin with
rings     uint8[n]      answer: the ring of that port, taken modulo its rings; the source's ring to begin with
========= ============= ==============================================================================

:class:`Lookup` compiles such a function to the one signature that the forwarding loop calls through a pointer, so that
nothing else has to be compiled when a switch changes its mind.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, config, types
from numba.core.errors import NumbaError

from ptnetmap.errors import LookupCompileError
from ptnetmap.jit.block import Block, view
from ptnetmap.jit.callback import Callback
from ptnetmap.jit.lowering import I64, native, none
from ptnetmap.netmap.view import BROADCAST, DROP

LookupFunction = Callable[..., None]
PARAMETERS = ("packets", "lengths", "source", "table", "ports", "rings")


def _generate_call(builder: ir.IRBuilder, function: ir.Value, *arguments: ir.Value) -> None:
    signature = ir.FunctionType(ir.VoidType(), [I64] * len(arguments))
    builder.call(builder.inttoptr(function, signature.as_pointer()), arguments)


_interpreted: dict[int, Callable[..., None]] = {}
"""Lookups of an interpreted process, by the number that stands for their address."""


@native(none, _generate_call)  # type: ignore[untyped-decorator]
def call_lookup(
    function: int,
    table: int,
    table_length: int,
    packets: int,
    lengths: int,
    count: int,
    source: int,
    ports: int,
    rings: int,
) -> None:
    """Call a lookup through its pointer: addresses of the arrays, and their lengths."""
    _interpreted[function](table, table_length, packets, lengths, count, source, ports, rings)


class Lookup:
    """A lookup function and its table, compiled.

    ``table`` is any one-dimensional NumPy array (default: 1024 int64 zeros); it is used in place, so that the caller
    can change entries while traffic flows. ``compiled`` is the function's entry if it is compiled already. Raises
    :class:`~ptnetmap.errors.LookupCompileError`, which says in the function's own lines why it does not compile, or
    how its compiled form differs from the interpreted one.
    """

    def __init__(self, fn: LookupFunction, table: npt.NDArray[Any] | None = None, *, compiled: Any = None) -> None:
        self.function = fn
        self.name: str = getattr(fn, "__name__", repr(fn))
        self.table: npt.NDArray[Any] = np.zeros(1024, np.int64) if table is None else table
        _check_arguments(fn, self.name, self.table)
        self._keep: Any
        if config.DISABLE_JIT:
            self._keep = interpreted_entry(fn, self.table.dtype)
            self.address = id(self._keep)
            _interpreted[self.address] = self._keep
            return
        self._keep = compiled or _compile(fn, self.name, self.table.dtype)
        self.address = self._keep.address
        if compiled is None:
            _check_twins(self)

    def __repr__(self) -> str:
        return f"Lookup({self.name}, table of {len(self.table)} {self.table.dtype})"


def as_lookup(value: LookupFunction | Lookup | tuple[LookupFunction, npt.NDArray[Any]]) -> Lookup:
    """Return a Lookup from what users assign to ``switch.lookup``: a function, (function, table), or a Lookup."""
    if isinstance(value, Lookup):
        return value
    if not callable(value) and not isinstance(value, tuple):
        raise LookupCompileError(
            f"{value!r} is no lookup\n        assign a function of ({', '.join(PARAMETERS)}), (function, table), or a Lookup"
        )
    if isinstance(value, tuple):
        return Lookup(*value)
    return Lookup(value)


def _check_arguments(fn: LookupFunction, name: str, table: npt.NDArray[Any]) -> None:
    if (
        not isinstance(table, np.ndarray)
        or table.ndim != 1
        or not table.flags.c_contiguous
        or not table.flags.writeable
    ):
        raise LookupCompileError(
            f"lookup {name}: the table must be a writable, contiguous, one-dimensional NumPy array, "
            f"and is {type(table).__name__}{getattr(table, 'shape', '')}\n        use np.zeros(length, dtype)"
        )
    given = tuple(inspect.signature(fn).parameters)
    if len(given) != len(PARAMETERS):
        raise LookupCompileError(
            f"lookup {name}: takes {len(given)} arguments ({', '.join(given)}), and is called with {len(PARAMETERS)}\n"
            f"        define it as def {name}({', '.join(PARAMETERS)})"
        )


def entry_signature(table_dtype: npt.DTypeLike) -> Any:
    """Numba's type of a lookup's entry: (table, its length, packets, lengths, their count, source, ports, rings)."""
    return types.void(
        types.CPointer(numba.from_dtype(np.dtype(table_dtype))),
        types.int64,
        types.CPointer(types.int64),
        types.CPointer(types.uint32),
        types.int64,
        types.int64,
        types.CPointer(types.uint8),
        types.CPointer(types.uint8),
    )


def _compile(fn: LookupFunction, name: str, table_dtype: np.dtype[Any]) -> Any:
    inner = numba.njit(nogil=True, error_model="numpy")(getattr(fn, "py_func", fn))

    def entry(table, table_length, packets, lengths, count, source, ports, rings):  # type: ignore[no-untyped-def]
        inner(
            carray(packets, (count,)),
            carray(lengths, (count,)),
            source,
            carray(table, (table_length,)),
            carray(ports, (count,)),
            carray(rings, (count,)),
        )

    try:
        callback = Callback(entry, entry_signature(table_dtype))
        callback.compile()
    except NumbaError as error:
        raise LookupCompileError(_explain(fn, name, error)) from error
    return callback


def _explain(fn: LookupFunction, name: str, error: NumbaError) -> str:
    """Shorten Numba's report to its reasons and the line of the user's function that it is about."""
    source = inspect.getsourcefile(fn) or "?"
    reasons = []
    place = ""
    quoting = False  # the lines between "File" and "^" are the user's own
    for line in str(error).splitlines():
        text = line.strip()
        if text.startswith("File "):
            quoting = True
            # Numba shortens the path where it can.
            place = text.split("line ")[-1].rstrip(":") if Path(source).name in text else place
        elif text.startswith("^"):
            quoting = False
        elif text and not quoting and not text.startswith(("During:", "Failed in", "-", "[")):
            reasons.append(text)
    where = f" at line {place}" if place else ""
    what = "; ".join(dict.fromkeys(reasons[:4]))
    return (
        f"lookup {name} cannot be compiled ({source}{where}): {what}\n"
        "        use integers, loops, the arrays given and functions of ptnetmap.jit; no objects, strings or lists"
    )


def interpreted_entry(fn: LookupFunction, table_dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the interpreted twin of a compiled entry: the same arguments, by address, to the Python function."""
    python = getattr(fn, "py_func", fn)

    def entry(
        table: int, length: int, packets: int, lengths: int, count: int, source: int, ports: int, rings: int
    ) -> None:
        python(
            view(packets, np.int64, count, None),
            view(lengths, np.uint32, count, None),
            source,
            view(table, table_dtype, length, None),
            view(ports, np.uint8, count, None),
            view(rings, np.uint8, count, None),
        )

    return entry


_SAMPLES = 64


def _sample_frames() -> tuple[Block, list[int]]:
    """Frames that most lookups tell apart: several addresses, VLAN tags, IPv4 and IPv6, and broken ones."""
    rng = np.random.default_rng(1)
    block = Block(np.uint8, _SAMPLES * 128)
    frames = block.items.reshape(_SAMPLES, 128)
    frames[:] = rng.integers(0, 256, frames.shape, np.uint8)
    frames[:, 0:12] = rng.integers(0, 4, (_SAMPLES, 12), np.uint8) & 2
    frames[::7, 0:6] = 0xFF
    ether_types = np.array([[0x08, 0x00], [0x81, 0x00], [0x86, 0xDD], [0x08, 0x06]], np.uint8)
    frames[:, 12:14] = ether_types[np.arange(_SAMPLES) % 4]
    frames[::4, 14] = 0x45
    return block, [128] * (_SAMPLES - 4) + [60, 60, 13, 0]


def _check_twins(lookup: Lookup) -> None:
    """Run the compiled and the interpreted function on the same frames with copies of the table, and compare."""
    block, sizes = _sample_frames()
    packets = np.arange(_SAMPLES, dtype=np.int64) * 128 + block.address
    lengths = np.array(sizes, np.uint32)
    answers = []
    for run in (_call_compiled(lookup), interpreted_entry(lookup.function, lookup.table.dtype)):
        table = lookup.table.copy()
        ports = np.full(_SAMPLES, DROP, np.uint8)
        rings = np.zeros(_SAMPLES, np.uint8)
        try:
            run(
                table.ctypes.data,
                len(table),
                packets.ctypes.data,
                lengths.ctypes.data,
                _SAMPLES,
                0,
                ports.ctypes.data,
                rings.ctypes.data,
            )
        except Exception as error:  # the user's function, interpreted: whatever it raises is the answer
            raise LookupCompileError(
                f"lookup {lookup.name} raised {type(error).__name__} on a sample frame: {error}\n"
                "        compiled code does not check indices: guard them in the function"
            ) from error
        answers.append((ports, rings))
    for name, compiled, interpreted in zip(("port", "ring"), *answers, strict=True):
        different = np.flatnonzero(compiled != interpreted)
        if len(different):
            i = int(different[0])
            raise LookupCompileError(
                f"lookup {lookup.name} differs from its interpreted twin: for a frame of {sizes[i]} bytes beginning "
                f"{block.items[i * 128 : i * 128 + 16].tobytes().hex(' ')} it gives {name} {compiled[i]}, "
                f"interpreted {interpreted[i]}\n        mask integers explicitly, and do not mix signed with unsigned"
            )


def _call_compiled(lookup: Lookup) -> Callable[..., None]:
    def run(*arguments: int) -> None:
        lookup._keep.ctypes(*_as_pointers(lookup, arguments))

    return run


def _as_pointers(lookup: Lookup, arguments: tuple[int, ...]) -> list[Any]:
    kinds = lookup._keep.ctypes.argtypes
    return [ctypes.cast(a, k) if issubclass(k, ctypes._Pointer) else a for a, k in zip(arguments, kinds, strict=True)]


__all__ = ["BROADCAST", "DROP", "Lookup", "LookupFunction", "as_lookup", "call_lookup"]

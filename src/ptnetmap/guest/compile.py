# SPDX-License-Identifier: BSD-2-Clause
"""From routines to objects: Numba makes LLVM code of them, LLVM makes freestanding code for any x86-64 of that.

Nothing of Python is left in it: errors of arithmetic are the processor's, no exception is raised, and constant text
becomes an address in the image.
"""

from __future__ import annotations

import errno
import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import binding
from numba import int64

from ptnetmap.errors import GuestError
from ptnetmap.guest.routine import Text, is_routine
from ptnetmap.jit.kernel import piece

_TRIPLE = "x86_64-none-elf"
_PROCESSOR = "x86-64"
_OPTIMISATION = 2


class Texts:
    """The constant texts of an image: the same one is kept once. ``base`` is where they will be, ``size`` their room."""

    def __init__(self, base: int, size: int) -> None:
        self._base = base
        self._size = size
        self._places: dict[bytes, int] = {}
        self._data = bytearray()

    def address(self, text: Text) -> int:
        """Return where ``text`` will be; raises GuestError when there is no room left."""
        if text.data not in self._places:
            if len(self._data) + len(text.data) > self._size:
                raise GuestError(
                    errno.ENOSPC,
                    f"guest: the built-in guest has more than {self._size:,} bytes of constant text\n"
                    "        raise TEXTS_SIZE in ptnetmap/guest/layout.py",
                )
            self._places[text.data] = self._base + len(self._data)
            self._data += text.data
        return self._places[text.data]

    def data(self) -> bytes:
        """Return the texts as they are loaded, all of their room."""
        return bytes(self._data).ljust(self._size, b"\0")


class _Compiler:
    """Compiles routines, each once; what a routine calls is found through its globals."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._compiled: dict[Any, Any] = {}

    def compiled(self, fn: Any) -> Any:
        """Return the Numba dispatcher of a routine, whose copy sees compiled routines and addresses of text."""
        if fn not in self._compiled:
            names = dict(fn.__globals__)
            for name in fn.__code__.co_names:
                value = names.get(name)
                if isinstance(value, Text):
                    names[name] = self._texts.address(value)
                elif is_routine(value):
                    names[name] = self.compiled(value)
            copy = types.FunctionType(fn.__code__, names, fn.__name__, fn.__defaults__)
            copy.__module__, copy.__qualname__ = fn.__module__, fn.__qualname__
            self._compiled[fn] = piece(copy)
        return self._compiled[fn]

    def module(self, symbol: str, fn: Any) -> Any:
        """Return an LLVM module with a routine under ``symbol``, and with all that it calls, not yet optimised."""
        signature = (int64,) * len(inspect.signature(fn).parameters)
        dispatcher = self.compiled(fn)
        dispatcher.compile(signature)
        overload = dispatcher.overloads[signature]
        module = binding.parse_assembly(overload.library.get_llvm_str())
        entry = module.get_function(overload.fndesc.mangled_name)
        entry.name = symbol
        entry.linkage = "external"
        return module


def compile_routines(entries: Mapping[str, Callable[..., Any]], texts: Texts) -> bytes:
    """Compile routines, each to be called by its key, with all that they call; return the object file."""
    compiler = _Compiler(texts)
    modules = [compiler.module(symbol, fn) for symbol, fn in entries.items()]
    whole = modules[0]
    for module in modules[1:]:
        whole.link_in(module)
    for value in (*whole.functions, *whole.global_variables):
        if not value.is_declaration and value.name not in entries:
            value.linkage = "internal"
    return _generate(whole)


def assemble(text: str) -> bytes:
    """Return the object file of some lines of assembly, in AT&T syntax."""
    _prepare()
    lines = "\n".join(f"module asm {_quoted(line)}" for line in text.splitlines())
    return _generate(binding.parse_assembly(lines))


def _quoted(line: str) -> str:
    return json.dumps(line.replace("\t", " "))


def _prepare() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()  # without it, LLVM ends the process at the first line of assembly


def _generate(module: Any) -> bytes:
    _prepare()
    target = binding.Target.from_triple(_TRIPLE).create_target_machine(
        cpu=_PROCESSOR, features="", opt=_OPTIMISATION, reloc="static", codemodel="small"
    )
    module.triple = _TRIPLE
    module.data_layout = str(target.target_data)
    tuning = binding.create_pipeline_tuning_options(speed_level=_OPTIMISATION)
    builder = binding.create_pass_builder(target, tuning)
    builder.getModulePassManager().run(module, builder)
    return bytes(target.emit_object(module))

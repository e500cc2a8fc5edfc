# SPDX-License-Identifier: BSD-2-Clause
"""Compiling the pieces of a kernel once.

Numba optimises every function together with all that it calls, and generates machine code for it, before it does the
same for its caller. For a kernel made of pieces within pieces that is the same work at every level: a minute instead of
some seconds. While a *piece* is being compiled, this module leaves those two steps out; they happen once, for the
kernel that the piece is linked into.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen

_state = threading.local()

_optimize = CPUCodeLibrary._optimize_final_module
_finalize = CPUCodeLibrary._finalize_final_module
_set_env = JITCPUCodegen.set_env


def _within(compile_function: Callable[..., Any], is_piece: bool) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        before = getattr(_state, "is_piece", False)
        _state.is_piece = is_piece
        try:
            return compile_function(*args, **kwargs)
        finally:
            _state.is_piece = before

    return wrapper


def inside(compile_function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a dispatcher's ``compile`` so that the function becomes a piece."""
    return _within(compile_function, True)


def outside(compile_function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a dispatcher's ``compile`` so that the function becomes whole, though a piece may be waiting for it."""
    return _within(compile_function, False)


def _optimize_unless_piece(library: Any) -> None:
    if not getattr(_state, "is_piece", False):
        _optimize(library)


def _finalize_unless_piece(library: Any) -> None:
    if getattr(_state, "is_piece", False):
        library._finalize_dynamic_globals()
        library._finalized = True
    else:
        _finalize(library)


def _set_env_unless_piece(codegen: Any, name: str, env: Any) -> None:
    # A function's environment holds Python objects that its code refers to: pieces have none, and no address yet.
    if not getattr(_state, "is_piece", False):
        _set_env(codegen, name, env)


# Numba has no option for this. Outside our own pieces these methods do what they always did.
CPUCodeLibrary._optimize_final_module = _optimize_unless_piece
CPUCodeLibrary._finalize_final_module = _finalize_unless_piece
JITCPUCodegen.set_env = _set_env_unless_piece

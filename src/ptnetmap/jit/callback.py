# SPDX-License-Identifier: BSD-2-Clause
"""Compiled functions with a C address, for kernels that call through a pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config
from numba.core import sigutils
from numba.core.ccallback import CFunc

from ptnetmap.jit.kernel import caching


class Callback:
    """``fn`` as a C function of the given Numba signature, compiled when its address is first asked for.

    ``cached`` keeps the machine code like that of kernels; only for functions at the top level of this package.
    """

    def __init__(self, fn: Callable[..., Any], signature: Any, *, cached: bool = False) -> None:
        self._function = CFunc(
            fn, sigutils.normalize_signature(signature), locals={}, options={"nogil": True, "error_model": "numpy"}
        )
        if cached and not config.DISABLE_JIT:
            caching(self._function, fn)

    def compile(self) -> bool:
        """Compile, or load what is compiled already; return whether it was."""
        if self._function.address is None:
            self._function.compile()
        return bool(self._function.cache_hits)

    @property
    def address(self) -> int:
        """Address of the machine code; it lives as long as this object."""
        self.compile()
        return int(self._function.address or 0)

    @property
    def ctypes(self) -> Any:
        """The function for ctypes, to call it from Python."""
        self.compile()
        return self._function.ctypes

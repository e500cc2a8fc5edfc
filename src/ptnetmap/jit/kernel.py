# SPDX-License-Identifier: BSD-2-Clause
"""The ``@kernel`` and ``@piece`` decorators, and where compiled kernels are kept between processes.

Numba's cache notices a change of the file that holds a function, but not of the files whose functions it inlines. So
the cache lives in a directory named after a digest of all of this package's sources and the versions of what compiles
them: any change starts a new directory, and old ones are pruned.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
from numba import config, types
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

from ptnetmap.jit import pieces

F = TypeVar("F", bound=Callable[..., Any])

KERNEL_PACKAGES = ("abi", "jit", "netmap", "bench", "tools")
"""Sub-packages whose sources end up in compiled kernels: all that a kernel may inline or take a constant from."""

_KEPT_DIGESTS = 4
_PRUNE_AGE = 7 * 86400.0  # another checkout may still be using an old digest


def cache_root() -> Path:
    """Directory of all kernel caches: ``$PTNETMAP_CACHE_DIR``, else ``$XDG_CACHE_HOME/ptnetmap``, else ``~/.cache``."""
    explicit = os.environ.get("PTNETMAP_CACHE_DIR")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptnetmap"


def _digest() -> str:
    package = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    state.update(f"{sys.version}|{numba.__version__}|{llvmlite.__version__}|{package}".encode())
    for name in KERNEL_PACKAGES:
        for path in sorted((package / name).rglob("*.py")):
            state.update(str(path.relative_to(package)).encode())
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def _prune(root: Path, current: str) -> None:
    """Remove caches of sources that are gone: all but the newest few, once they are a week old."""
    try:
        ages = sorted((entry.stat().st_mtime, entry) for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return
    horizon = time.time() - _PRUNE_AGE
    for mtime, entry in ages[:-_KEPT_DIGESTS]:
        if mtime < horizon and entry.name != current:
            shutil.rmtree(entry, ignore_errors=True)


def _usable_cache() -> str | None:
    """Create this process's cache directory; None where nothing can be written, and kernels then live in memory."""
    root = cache_root()
    digest = _digest()
    directory = root / digest
    if not directory.is_dir():
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        _prune(root, digest)
    return str(directory) if os.access(directory, os.W_OK) else None


CACHE_DIR = None if config.DISABLE_JIT else _usable_cache()
"""Where this process keeps compiled kernels, or None (interpreted, or nowhere to write)."""

kernels: list[Any] = []
"""Every kernel defined so far, in order of definition (see :mod:`ptnetmap.jit.warmup`)."""


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache, without preparing the compiler (0.3 s) just to load what is already compiled.

    Numba refreshes its registries before it looks into the cache. A cached kernel is native code that needs none of
    them, and compiling refreshes them by itself. But it needs Numba's runtime: a kernel that is not inlined into its
    wrapper refers to functions of it, and calling one with these unresolved would crash the process.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def _one_signature(get_call_template: Callable[..., Any]) -> Callable[..., Any]:
    """Make calls between kernels use int64 for every integer.

    Numba would compile a callee once more for each literal, width and bool that some caller passes: minutes instead of
    seconds for all kernels, and the same machine code.
    """

    def widened(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        wide = tuple(types.int64 if isinstance(a, types.Integer | types.Boolean) else a for a in args)
        return get_call_template(wide, kws)

    return widened


def _compile(fn: F, **options: bool) -> Any:
    compiled: Any = numba.njit(nogil=True, error_model="numpy", boundscheck=False, no_cfunc_wrapper=True, **options)(fn)
    compiled.get_call_template = _one_signature(compiled.get_call_template)
    return compiled


def caching(compiled: Any, fn: Callable[..., Any]) -> None:
    """Let a Numba dispatcher or callback of ``fn`` keep its machine code in this package's cache."""
    if CACHE_DIR is None:
        return
    # Set only while Numba picks the place: users' own caches stay where they are.
    before = config.CACHE_DIR
    config.CACHE_DIR = CACHE_DIR
    try:
        compiled._cache = _KernelCache(fn)
    finally:
        config.CACHE_DIR = before


def kernel(fn: F) -> F:
    """Compile ``fn`` on its first call: no GIL, no exceptions from arithmetic, cached on disk.

    Under ``NUMBA_DISABLE_JIT=1`` this returns ``fn`` itself. Kernels use 64-bit signed integers throughout; loads of
    narrower words are zero-extended, so that interpreted and compiled arithmetic agree.
    """
    if config.DISABLE_JIT:
        return fn
    compiled = _compile(fn)
    compiled.compile = pieces.outside(compiled.compile)
    caching(compiled, fn)
    kernels.append(compiled)
    return compiled  # type: ignore[no-any-return]


def piece(fn: F) -> F:
    """Mark ``fn`` as a part of kernels: compiled into each kernel that calls it, and not callable from Python.

    Under ``NUMBA_DISABLE_JIT=1`` this returns ``fn`` itself.
    """
    if config.DISABLE_JIT:
        return fn
    compiled = _compile(fn, no_cpython_wrapper=True)
    compiled.compile = pieces.inside(compiled.compile)
    return compiled  # type: ignore[no-any-return]

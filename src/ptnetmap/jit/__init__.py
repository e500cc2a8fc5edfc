# SPDX-License-Identifier: BSD-2-Clause
"""Compiled Python's toolbox: what a kernel needs to work on shared memory at given addresses.

A *kernel* is a small function decorated with :func:`kernel`: Numba compiles it to native code that runs without the
GIL and keeps it in an on-disk cache. Kernels take integers (addresses, indices, counts), never Python objects. Memory
is reached through the operations of :mod:`~ptnetmap.jit.memory` and :mod:`~ptnetmap.jit.atomic`, the C library through
:mod:`~ptnetmap.jit.libc`. Each operation is also an ordinary Python function, so that every kernel runs unchanged
under ``NUMBA_DISABLE_JIT=1``.
"""

from ptnetmap.jit.kernel import kernel

__all__ = ["kernel"]

# SPDX-License-Identifier: BSD-2-Clause
"""``ptnetmap warmup``: compile all kernels now, so that nothing waits for them later."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from typing import Any

from ptnetmap.cli.outcome import FAILED

EXAMPLES = """\
example:
  ptnetmap warmup        for instance while building a container image
"""


def add_to(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "warmup",
        help="compile all kernels, or load those that are compiled",
        description="Compile every kernel and keep the result on disk ($PTNETMAP_CACHE_DIR, or ptnetmap in the user's "
        "cache directory). Later programs load them instead of compiling.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def import_kernels() -> None:
    """Import every module that may define a kernel."""
    from ptnetmap.jit.kernel import KERNEL_PACKAGES

    for name in KERNEL_PACKAGES:
        package = importlib.import_module(f"ptnetmap.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def _build_guest() -> None:
    """Build the image of the built-in guest, unless it is kept already."""
    from ptnetmap.guest.image import built_in

    built_in()


def run(options: argparse.Namespace) -> int:
    """Compile or load all kernels and say how long it took."""
    start = time.perf_counter()
    import_kernels()
    from ptnetmap.jit.kernel import CACHE_DIR, kernels
    from ptnetmap.jit.warmup import compile_now

    if not kernels:
        print("ptnetmap warmup: NUMBA_DISABLE_JIT is set, so there is nothing to compile; unset it", file=sys.stderr)
        return FAILED
    loaded = 0
    for kernel in kernels:
        loaded += compile_now(kernel)
    _build_guest()
    took = time.perf_counter() - start
    compiled = len(kernels) - loaded
    place = CACHE_DIR or "nowhere, because no cache directory can be written"
    print(f"{len(kernels)} kernels: {loaded} loaded, {compiled} compiled, in {took:.1f} s; kept in {place}")
    return 0

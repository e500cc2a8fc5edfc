# SPDX-License-Identifier: BSD-2-Clause
"""What a rate was measured on: a rate without its machine means nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numba


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def describe() -> dict[str, Any]:
    """Describe this machine: cpu, cores this process may use, kernel, python, numba, memory in bytes."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def one_line(machine: dict[str, Any]) -> str:
    """Say the same for people."""
    memory = machine["memory"] / (1 << 30)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory:.1f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, Numba {machine['numba']}"
    )

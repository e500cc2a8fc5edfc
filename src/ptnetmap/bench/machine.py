# SPDX-License-Identifier: BSD-2-Clause
"""What a rate was measured on: a rate without its machine means nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numba

_WORTH_SAYING = 0.005


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def core_ticks() -> tuple[int, int]:
    """Return the ticks that all cores have had, and those of them that a hypervisor gave to other machines."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("cpu "):
            ticks = [int(word) for word in line.split()[1:9]]  # guests' time, which follows, is part of user time
            return sum(ticks), ticks[7]
    return 0, 0


def stolen_since(before: tuple[int, int]) -> float:
    """Return the share of all cores' time that other machines had since :func:`core_ticks` said ``before``."""
    ticks, stolen = core_ticks()
    return (stolen - before[1]) / max(1, ticks - before[0])


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
    stolen = machine.get("stolen", 0.0)
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory:.1f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, Numba {machine['numba']}"
        + (f"; other machines had {stolen:.0%} of its cores' time" if stolen >= _WORTH_SAYING else "")
    )

# SPDX-License-Identifier: BSD-2-Clause
"""Checks of what this process runs on: Python, its packages, and the compiled kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding

LEAST_PYTHON = (3, 11)
LEAST = {"numpy": (1, 26), "numba": (0, 62), "rich": (13,)}
"""The packages that are needed, and their oldest versions that will do."""

SETS = ("runtime", "daemon")
"""Sets of kernels that every start needs; see :func:`ptnetmap.jit.warmup.warm_up`."""


def packages(python: Sequence[int], found: Mapping[str, str], broken: Mapping[str, str]) -> Finding:
    """Judge versions: ``found`` maps packages that can be imported to theirs, ``broken`` others to the reason."""
    subject = "Python"
    if tuple(python) < LEAST_PYTHON:
        return Finding(
            subject,
            PROBLEM,
            f"version {_dotted(python)}, at least {_dotted(LEAST_PYTHON)} is needed",
            "install a newer one",
        )
    for name, reason in broken.items():
        return Finding(subject, PROBLEM, f"{name} cannot be imported: {reason}", f"pip install --upgrade {name}")
    for name, least in LEAST.items():
        if _numbers(found[name]) < least:
            text = f"{name} is version {found[name]}, at least {_dotted(least)} is needed"
            return Finding(subject, PROBLEM, text, f"pip install --upgrade {name}")
    versions = ", ".join(f"{name} {found[name]}" for name in LEAST)
    return Finding(subject, OK, f"{_dotted(python)}, {versions}")


def kernel_cache(root: str, directory: str | None, sets: Sequence[str], functions: int, interpreted: bool) -> Finding:
    """Judge where compiled kernels are kept.

    ``root`` is the directory of all caches, ``directory`` the one of this version, None if it cannot be written;
    ``sets`` the sets of kernels known to be complete there, ``functions`` the number of functions compiled.
    """
    subject = "kernel cache"
    if interpreted:
        return Finding(
            subject,
            NOTE,
            "NUMBA_DISABLE_JIT is set: kernels are interpreted, and very slow",
            "unset it but for debugging",
        )
    if directory is None:
        return Finding(
            subject,
            PROBLEM,
            f"{root} cannot be written: every process compiles its kernels anew, for half a minute",
            "set PTNETMAP_CACHE_DIR to a directory that can",
        )
    if all(name in sets for name in SETS):
        return Finding(subject, OK, f"{directory}, compiled already ({functions} functions)")
    remedy = "ptnetmap warmup does it beforehand"
    if functions:
        return Finding(subject, OK, f"{directory}, {functions} functions compiled; what is missing, when it is needed")
    return Finding(subject, NOTE, f"{directory}, empty: the first start compiles, for half a minute", remedy)


def _numbers(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version[:3])

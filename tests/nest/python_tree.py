# SPDX-License-Identifier: BSD-2-Clause
"""This Python, this package and what its kernels are compiled to, as an initial file system, at the same paths."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ptnetmap

PACKAGES = ("numpy", "numpy.libs", "numba", "llvmlite")
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "lib-dynload.bak",
}
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def files(directory: Path) -> Iterator[Path]:
    """Files of a tree, without what is only for tests and developers."""
    for entry in sorted(directory.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if entry.name not in LEFT_OUT:
                yield from files(entry)
        elif entry.suffix not in (".a", ".pdb"):
            yield entry


def libraries(programs: list[Path]) -> set[Path]:
    """Shared libraries that programs and modules are linked with."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    found = {Path(name) for name in LIBRARY.findall(done.stdout)}
    # Where they really are; /lib64, in which programs look for their loader, may be a link.
    return {path.parent.resolve() / path.name for path in found} | {
        path.parents[-2] for path in found if "64" in path.parts[1]
    }


def contents(*more: Path) -> list[Path]:
    """What a guest needs to run this environment's programs: links, directories on the way, files."""
    environment, base = Path(sys.prefix), Path(sys.base_prefix)
    lib = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / lib / "site-packages"
    package = Path(ptnetmap.__file__).parent
    found = {environment / "pyvenv.cfg", *files(base / lib), *files(package), *files(environment / "bin")}
    found |= set(site.glob("_*ptnetmap*"))  # of an installation that is editable: where the package is
    for name in PACKAGES:
        if (site / name).exists():
            found |= set(files(site / name))
    for path in site.glob("ptnetmap*.dist-info"):
        found |= set(files(path))
    for path in more:
        found |= set(files(path)) if path.is_dir() else {path}
    found |= libraries([path for path in found if ".so" in path.suffixes] + [Path(sys.executable).resolve()])
    for link in [path for path in found if path.is_symlink()]:
        while link.is_symlink():
            link = Path(os.path.normpath(link.parent / link.readlink()))
            found.add(link)
    found |= {parent for path in found for parent in path.parents}
    return sorted(found, key=lambda path: path.parts)


def write(image: Path, *more: Path) -> None:
    """Write a cpio archive, which the kernel takes behind another one's."""
    names = "".join(f"{str(path).lstrip('/') or '.'}\n" for path in contents(*more))
    with image.open("wb") as file:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], cwd="/", input=names.encode(), stdout=file, check=True)

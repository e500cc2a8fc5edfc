# SPDX-License-Identifier: BSD-2-Clause
"""The built-in guest's image: its file, and where it is kept once it was built.

The file's name has a digest of all sources that end up in it and of the versions of what compiles them, so that a change
of any is noticed without a compiler. Building is another process's work: this one stays small.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import os
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ptnetmap.errors import GuestError

SOURCES = ("guest", "abi", "jit")
"""Sub-packages whose sources end up in the image."""
_COMPILERS = ("numba", "llvmlite", "pyelftools")

# magic, base, size, entry, handlers, handler_size; then the digest of the data, then the data
_HEADER = struct.Struct("<8sQQQQQ")
_MAGIC = b"ptnguest"
_DIGEST_SIZE = 32

_KEPT = 4
_PRUNE_AGE = 7 * 86400.0  # another checkout may still be using an old image


@dataclass(frozen=True, slots=True)
class Image:
    """Bytes to be loaded at ``base``; the addresses of the first instruction, and of vector 0's handler.

    The handler of the next vector lies ``handler_size`` bytes further.
    """

    base: int
    data: bytes
    entry: int
    handlers: int
    handler_size: int

    @property
    def end(self) -> int:
        """First address behind the image."""
        return self.base + len(self.data)

    def to_bytes(self) -> bytes:
        """Return the image as a file's contents."""
        size = len(self.data)
        header = _HEADER.pack(_MAGIC, self.base, size, self.entry, self.handlers, self.handler_size)
        return header + hashlib.sha256(header + self.data).digest() + self.data

    @classmethod
    def from_bytes(cls, contents: bytes, name: str) -> Image:
        """Return the image in a file's contents; raises GuestError (ENOEXEC), naming the file, if it is damaged."""
        header, rest = contents[: _HEADER.size], contents[_HEADER.size :]
        digest, data = rest[:_DIGEST_SIZE], rest[_DIGEST_SIZE:]
        if hashlib.sha256(header + data).digest() != digest or not header.startswith(_MAGIC):
            raise GuestError(
                errno.ENOEXEC,
                f"guest: {name} is no image of the built-in guest, or it is damaged ({len(contents):,} bytes)\n"
                "        remove it; it is made again when it is needed",
            )
        _, base, _, entry, handlers, handler_size = _HEADER.unpack(header)
        return cls(base, data, entry, handlers, handler_size)


def cache_root() -> Path:
    """Directory of all compiled code: ``$PTNETMAP_CACHE_DIR``, else ``$XDG_CACHE_HOME/ptnetmap``, else ``~/.cache``.

    The same that :mod:`ptnetmap.jit.kernel` uses, which cannot be asked without loading the compiler.
    """
    explicit = os.environ.get("PTNETMAP_CACHE_DIR")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptnetmap"


@functools.cache
def digest() -> str:
    """Return the digest of the image that would be built now, 16 hexadecimal digits."""
    package = Path(__file__).resolve().parent.parent
    versions = [importlib.metadata.version(name) for name in _COMPILERS]
    state = hashlib.sha256("|".join([sys.version, *versions]).encode())
    for name in SOURCES:
        for path in sorted((package / name).rglob("*.py")):
            state.update(str(path.relative_to(package)).encode())
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def cached_path() -> Path:
    """Return where the image is kept, or will be."""
    return cache_root() / f"guest-{digest()}.image"


def built_in() -> Image:
    """Return the built-in guest's image: from the cache, or built, which takes a few seconds, and kept there.

    Raises GuestError (ENOEXEC) if it cannot be built. Where nothing can be kept, it is built each time.
    """
    path = cached_path()
    with contextlib.suppress(OSError, GuestError):
        return Image.from_bytes(path.read_bytes(), str(path))
    contents = _built()
    image = Image.from_bytes(contents, "what the compiler made")
    with contextlib.suppress(OSError):
        _keep(path, contents)
    return image


def _built() -> bytes:
    environment = dict(os.environ, NUMBA_DISABLE_JIT="0", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "ptnetmap.guest.build"]
    made = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if made.returncode:
        last = made.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise GuestError(
            errno.ENOEXEC,
            f"guest: cannot build the built-in guest (status {made.returncode}): {' '.join(last)}\n"
            f"        look at all of it: {' '.join(command)} > /dev/null",
        )
    return made.stdout


def _keep(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".guest-", delete=False) as file:
        try:
            file.write(contents)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _prune(path)


def _prune(current: Path) -> None:
    """Remove images of sources that are gone: all but the newest few, once they are a week old."""
    images = sorted((entry.stat().st_mtime, entry) for entry in current.parent.glob("guest-*.image"))
    for modified, entry in images[:-_KEPT]:
        if modified < time.time() - _PRUNE_AGE and entry != current:
            entry.unlink(missing_ok=True)

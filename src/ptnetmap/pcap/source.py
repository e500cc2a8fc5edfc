# SPDX-License-Identifier: BSD-2-Clause
"""A file read from its beginning to its end, a window of it in memory."""

from __future__ import annotations

import errno
import os
import sys
from typing import BinaryIO

from ptnetmap.pcap.error import CaptureFileError

CHUNK = 1 << 20


class Source:
    """The window on a file: ``data[at:]`` is what has been read of it and not yet used.

    Readers look into ``data`` and move ``at`` on; :meth:`need` makes sure that enough is there. Works on pipes, because
    it never goes back. ``name`` is for messages.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.data = b""
        self.at = 0
        self._before = 0

    @property
    def offset(self) -> int:
        """Where in the file ``at`` is."""
        return self._before + self.at

    def need(self, size: int) -> bool:
        """Read on until ``size`` bytes are there from ``at`` on; return False if the file ends before that."""
        have = len(self.data) - self.at
        if have >= size:
            return True
        parts = [self.data[self.at :]]
        self._before += self.at
        self.at = 0
        while have < size:
            try:
                part = self._file.read(max(CHUNK, size - have))
            except OSError as error:
                raise unreadable(self.name, error) from None
            if not part:
                break
            parts.append(part)
            have += len(part)
        self.data = b"".join(parts)
        return have >= size

    def left(self) -> int:
        """Return how many bytes are there from ``at`` on, without reading."""
        return len(self.data) - self.at


def unreadable(name: str, error: OSError) -> CaptureFileError:
    """Return the error for a file that the system cannot open or read."""
    return CaptureFileError(
        f"{name}: cannot read it: {error.strerror or error}\n        name a pcap or pcapng file, or - for standard input",
        errno=error.errno or errno.EIO,
    )


def open_file(path: str | os.PathLike[str] | BinaryIO) -> tuple[BinaryIO, str, bool]:
    """Open a path for reading, "-" being standard input. Returns (file, its name, whether it is ours to close).

    Raises CaptureFileError with the system's errno.
    """
    if not isinstance(path, str | os.PathLike):
        return path, str(getattr(path, "name", "capture")), False
    if path == "-":
        return sys.stdin.buffer.raw if hasattr(sys.stdin.buffer, "raw") else sys.stdin.buffer, "standard input", False
    name = os.fspath(path)
    try:
        return open(name, "rb", buffering=0), name, True  # noqa: PTH123 - Capture closes it
    except OSError as error:
        raise unreadable(name, error) from None
    except ValueError:  # a NUL in the name
        raise unreadable(repr(name), OSError(errno.EINVAL, "it is no file name")) from None

# SPDX-License-Identifier: BSD-2-Clause
"""A file to boot from: read piece by piece, never more than asked for, and never believed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np

from ptnetmap.errors import GuestError


class ImageFile:
    """An open kernel or initrd; ``size`` is its length in bytes, ``what`` and ``path`` name it in errors.

    Raises GuestError with the system's errno if it cannot be opened, and with ENOEXEC if it is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        self.path = Path(path)
        self.what = what
        self._fd = -1
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for somebody to write.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._fd)
        except (OSError, ValueError) as error:
            self.close()
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
            reason = os.strerror(number)
            raise GuestError(number, f"{what} {path}: cannot be opened: {reason}\n        check its name") from error
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            self.refuse("it is no regular file", "give a file")

    def close(self) -> None:
        """Close the file; more than once is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refuse(self, found: str, advice: str) -> NoReturn:
        """Raise the GuestError (ENOEXEC) that says what was found in this file, and what to do."""
        raise GuestError(errno.ENOEXEC, f"{self.what} {self.path}: {found}\n        {advice}")

    def check(self, offset: int, length: int, name: str) -> None:
        """Raise GuestError unless the file has ``length`` bytes at ``offset``, which hold ``name``."""
        if offset + length > self.size:
            self.refuse(
                f"{name} is {length:,} bytes at offset {offset:,}, and the file ends at {self.size:,}",
                "it is cut short or damaged: copy it again",
            )

    def read(self, offset: int, length: int, name: str) -> bytes:
        """Return ``length`` bytes at ``offset``, which hold ``name``; raises GuestError if they are not all there."""
        self.check(offset, length, name)
        data = bytearray(length)
        self.read_into(offset, memoryview(data), name)
        return bytes(data)

    def record(self, offset: int, layout: np.dtype[Any], name: str) -> dict[str, Any]:
        """Return a structure of ``layout`` at ``offset`` as Python values; raises GuestError if it is not there."""
        value = np.frombuffer(self.read(offset, layout.itemsize, name), layout)[0]
        return dict(zip(layout.names or (), value.item(), strict=True))

    def read_into(self, offset: int, target: memoryview, name: str) -> None:
        """Fill ``target`` with what is at ``offset``; raises GuestError if the file ends before, or cannot be read."""
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._fd, [target[done:]], offset + done)
            except OSError as error:
                number = error.errno or errno.EIO
                reason = os.strerror(number)
                message = f"{self.what} {self.path}: {name} cannot be read: {reason}\n        check the file"
                raise GuestError(number, message) from error
            if not count:
                self.refuse(
                    f"the file ends inside {name}, at {offset + done:,}",
                    "it was cut while it was being read: try again with a file that stays as it is",
                )
            done += count

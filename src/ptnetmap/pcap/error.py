# SPDX-License-Identifier: BSD-2-Clause
"""What is wrong with a capture file."""

from __future__ import annotations

import errno as _errno

from ptnetmap.errors import PtnetmapError


class CaptureFileError(PtnetmapError):
    """A capture file cannot be opened, read or written.

    ``offset`` is where in the file it was found, in bytes from its beginning, or None; ``truncated`` is True if the file
    merely ends too early, so that all before the offset is good. The errno is the system's, or EBADMSG for contents.
    """

    def __init__(
        self, message: str, *, errno: int = _errno.EBADMSG, offset: int | None = None, truncated: bool = False
    ) -> None:
        super().__init__(errno, message)
        self.offset = offset
        self.truncated = truncated


def bad_contents(name: str, offset: int, found: str, advice: str) -> CaptureFileError:
    """Return the error for contents that cannot be: what was found at which offset, and what to do."""
    return CaptureFileError(f"{name}: at offset {offset:,}: {found}\n        {advice}", offset=offset)


def cut_short(name: str, offset: int, found: str) -> CaptureFileError:
    """Return the error for a file that ends in the middle of something."""
    return CaptureFileError(
        f"{name}: the file ends inside {found} at offset {offset:,}\n"
        "        it was cut short; what comes before can be read by tolerating this (tolerant=True, --tolerant)",
        offset=offset,
        truncated=True,
    )

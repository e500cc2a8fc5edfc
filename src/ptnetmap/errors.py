# SPDX-License-Identifier: BSD-2-Clause
"""Every error this package raises on purpose.

Two families, after the question "who broke it?": what the caller asked for cannot be done (:class:`PortError`,
:class:`MemoryPoolError`, :class:`NameSyntaxError`, :class:`LookupCompileError`, :class:`ConfigError`,
:class:`HypervisorError`), or the other side did something impossible (:class:`PeerError`, :class:`GuestError`). Each
carries the errno that upstream's kernel modules would return.
"""

from __future__ import annotations

import errno as _errno
import os


class PtnetmapError(OSError):
    """Base of this package's errors: an ``errno`` as upstream's, and a message that says what to do.

    ``str(error)`` is the message alone; ``error.errno`` is the number, ``error.strerror`` the message.
    """

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, message)

    def __str__(self) -> str:
        """Return the message; the errno's name stays available as :attr:`name`."""
        return str(self.strerror)

    @property
    def name(self) -> str:
        """The errno's symbolic name, for instance ``"EBUSY"``."""
        number = self.errno if self.errno is not None else 0
        return _errno.errorcode.get(number, os.strerror(number))


class NameSyntaxError(PtnetmapError):
    """A port name does not follow the grammar of nm_open or nmport (errno EINVAL)."""

    def __init__(self, message: str, errno: int = _errno.EINVAL) -> None:
        super().__init__(errno, message)


class PortError(PtnetmapError):
    """A port cannot be opened, changed or used as asked."""


class MemoryPoolError(PortError):
    """A pool cannot give what was asked: the message names the pool, the request, the rest and the knob (ENOMEM)."""

    def __init__(self, message: str, errno: int = _errno.ENOMEM) -> None:
        super().__init__(errno, message)


class PeerError(PtnetmapError):
    """The other side of a ring wrote something impossible; only that side loses anything."""


class LookupCompileError(PtnetmapError):
    """A lookup function cannot be compiled, or its compiled and interpreted forms disagree (errno EINVAL)."""

    def __init__(self, message: str, errno: int = _errno.EINVAL) -> None:
        super().__init__(errno, message)


class HypervisorError(PtnetmapError):
    """KVM, or the host, cannot do what is asked of it: the message names the ioctl, and says what to do."""


class GuestError(PtnetmapError):
    """A guest, or the image that it boots from, did something impossible; only that guest loses anything."""


class ConfigError(PtnetmapError):
    """A virtual machine cannot be as its options say (errno EINVAL); ``status`` is the exit code of the command."""

    def __init__(self, message: str, errno: int = _errno.EINVAL, *, status: int = 4) -> None:
        super().__init__(errno, message)
        self.status = status

# SPDX-License-Identifier: BSD-2-Clause
"""What is wrong with a message: the one kind of error that reading and writing messages raises."""

from __future__ import annotations

import errno as _errno

from ptnetmap.errors import PtnetmapError


class WireError(PtnetmapError):
    """A message that breaks the protocol, or a request that upstream would refuse as it stands.

    ``errno`` is what upstream returns for it: EINVAL, EMSGSIZE (too long, or a circular list of options), EFAULT (a
    pointer to nowhere), EOPNOTSUPP (an unknown ioctl); EPROTO for what is no message of this protocol at all.
    """


class ProtocolMismatchError(WireError):
    """The other side speaks another version of the protocol (errno EPROTONOSUPPORT).

    ``protocol`` is the one it speaks, ``version`` its package's version, "" if it does not say.
    """

    def __init__(self, message: str, protocol: int, version: str = "") -> None:
        super().__init__(_errno.EPROTONOSUPPORT, message)
        self.protocol = protocol
        self.version = version


def malformed(
    found: str, advice: str = "is the program on the other side netmapd, or one of its clients?"
) -> WireError:
    """Return the error for bytes that are no message of this protocol (errno EPROTO)."""
    return WireError(_errno.EPROTO, f"netmap: cannot read a message: {found}\n        {advice}")


def refused(found: str, advice: str, errno: int = _errno.EINVAL) -> WireError:
    """Return the error for a message that cannot be granted as it stands."""
    return WireError(errno, f"netmap: cannot take a request: {found}\n        {advice}")

# SPDX-License-Identifier: BSD-2-Clause
"""Hellos: the first message of a client and its answer, which find out whether the two understand each other.

Any version of the protocol can read any other's hello: the frame's header and the first 64 bytes of the argument never
change. So both sides can say which versions met, and what to do.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire.error import ProtocolMismatchError, malformed, refused
from ptnetmap.netmap.wire.frame import HELLO, PROTOCOL, Frame

_HELLO = struct.Struct("<IIQ48s")
_MAX_VERSION = frames.hello["version"].itemsize - 1


@dataclass(frozen=True)
class Hello:
    """Who somebody is: see :data:`ptnetmap.netmap.wire.frame.hello`."""

    version: str
    generation: int = 0
    features: int = 0
    abi: int = abi.NETMAP_API


class Greeting(NamedTuple):
    """What netmapd makes of a client's hello.

    ``frame`` is the answer; ``client`` is None when the connection has to end after it, and ``complaint`` then says why.
    """

    frame: Frame
    client: Hello | None
    complaint: str = ""


def hello_frame(hello: Hello, error: int = 0, text: str = "") -> Frame:
    """Return the frame of a hello, or of the answer to one. Raises WireError (EINVAL) for fields that do not fit."""
    version = hello.version.encode(errors="replace")
    if len(version) > _MAX_VERSION or b"\0" in version:
        raise refused(f"version {hello.version!r} does not fit", f"use at most {_MAX_VERSION} bytes without NUL")
    try:
        argument = _HELLO.pack(hello.abi, hello.features, hello.generation, version)
    except struct.error as problem:
        raise refused(f"a number in {hello} does not fit: {problem}", "use unsigned 32 and 64 bits") from None
    return Frame(HELLO, argument, error, text)


def read_hello(data: bytes) -> tuple[Hello, int]:
    """Return a hello and the protocol of its sender, which may be any.

    Raises WireError: EPROTO for what is no hello, EMSGSIZE for what is too long.
    """
    head = frames.read_header(data)
    if head.ioctl != HELLO:
        raise malformed(f"ioctl {head.ioctl:#x} has come before a hello")
    if head.argument_size < _HELLO.size:
        raise malformed(f"its hello has {head.argument_size} bytes, fewer than {_HELLO.size}")
    api, features, generation, version = _HELLO.unpack_from(frames.argument_of(data, head))
    text = version.partition(b"\0")[0].decode(errors="replace")
    return Hello(text, generation, features, api), head.protocol


def mismatch(
    socket: str, daemon: Hello | None, daemon_protocol: int, client: Hello | None, client_protocol: int
) -> str:
    """Return the sentence for a netmapd and a client that do not speak the same protocol; None is "unknown"."""
    netmapd, mine = (hello.version if hello and hello.version else "unknown" for hello in (daemon, client))
    return (
        f"netmapd at {socket} is version {netmapd} and speaks protocol {daemon_protocol}, "
        f"this client is version {mine} and speaks {client_protocol}: restart netmapd or upgrade"
    )


def greet(data: bytes, daemon: Hello, socket: str = "its socket") -> Greeting:
    """Answer a client's first message, in netmapd.

    Raises WireError when it is no hello of any protocol: close the connection then. A client of another protocol gets
    this one's version with the error EPROTONOSUPPORT, in a frame that it can read.
    """
    client, protocol = read_hello(data)
    if protocol != PROTOCOL:
        complaint = mismatch(socket, daemon, PROTOCOL, client, protocol)
        return Greeting(hello_frame(daemon, errno.EPROTONOSUPPORT, complaint), None, complaint)
    frames.decode_request(data)
    return Greeting(hello_frame(daemon), client)


def greeted(data: bytes, client: Hello, socket: str) -> Hello:
    """Read the answer to a client's hello, in the client; return who netmapd is.

    Raises ProtocolMismatchError with a sentence for users, PortError for another refusal, or WireError when it is no
    answer to a hello.
    """
    head = frames.read_header(data)
    if head.protocol != PROTOCOL:
        complete = head.ioctl == HELLO and head.argument_size >= _HELLO.size
        daemon = read_hello(data)[0] if complete else None
        raise ProtocolMismatchError(
            mismatch(socket, daemon, head.protocol, client, PROTOCOL), head.protocol, daemon.version if daemon else ""
        )
    frames.raise_for_error(frames.decode(data))
    return read_hello(data)[0]

# SPDX-License-Identifier: BSD-2-Clause
"""Frames: one message between a client and netmapd, over a socket that keeps message boundaries (SOCK_SEQPACKET).

A frame is a header, the argument of an ioctl byte for byte, and, in answers that refuse, a text that says why::

    header   24 bytes   argument   argument_size bytes   text   the rest, UTF-8

The argument of NIOCCTRL is ``nmreq_header``, then its body and options, whose pointers count from the start of the
argument (:mod:`~ptnetmap.netmap.wire.request`). An answer has the argument of its request, as the ioctl would have left
it; it may leave it out when it is an error.

Nothing here reads or writes a socket: bytes in, bytes out.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.wire.error import ProtocolMismatchError, WireError, malformed, refused

PROTOCOL = 1
"""The version of everything in this package: layouts of frames, hellos and our own requests."""

MAGIC = int.from_bytes(b"nmpd", "little")

MAX_FRAME = 65536
"""Bytes of a whole frame, at most (EMSGSIZE)."""

MAX_TEXT = 4096
"""Bytes of an error's text, at most; :func:`refusal` shortens what is longer."""

MAX_FDS = 253
"""File descriptors that may come with one message: as many as Linux passes at a time (SCM_MAX_FD)."""

HELLO = 0
"""The ioctl number of the first message on a connection, and of its answer."""

header = np.dtype(
    [
        ("magic", "u4"),
        ("protocol", "u2"),
        ("reserved", "u2"),
        ("ioctl", "u4"),
        ("error", "u4"),
        ("argument_size", "u4"),
        ("reserved2", "u4"),
    ]
)
"""The header of every frame: 24 bytes, little endian. It is the same in every version of the protocol.

====== ==== ============= ========================================================================================
offset size field         meaning
====== ==== ============= ========================================================================================
0      4    magic         :data:`MAGIC` (EPROTO)
4      2    protocol      :data:`PROTOCOL` of the sender (EPROTONOSUPPORT)
6      2    reserved      0 (EINVAL)
8      4    ioctl         which ioctl this is; :data:`HELLO` for the first one (EOPNOTSUPP)
12     4    error         0 in requests (EINVAL); the errno, in answers
16     4    argument_size bytes of argument, with the body and the options of NIOCCTRL
20     4    reserved2     0 (EINVAL)
====== ==== ============= ========================================================================================
"""

hello = np.dtype([("abi", "u4"), ("features", "u4"), ("generation", "u8"), ("version", "S48")])
"""The argument of HELLO: 64 bytes; other versions of the protocol may have more after these.

====== ==== ========== ===========================================================================================
offset size field      meaning
====== ==== ========== ===========================================================================================
0      4    abi        ``NETMAP_API`` of the sender
4      4    features   bits for what it can do; bits that the reader does not know are ignored
8      8    generation of netmapd: another one each time it starts; of a client: the one it has seen before, or 0
16     48   version    of the sender's package, UTF-8, NUL padded
====== ==== ========== ===========================================================================================
"""

ARGUMENT_SIZES: Mapping[int, int] = MappingProxyType(
    {
        HELLO: hello.itemsize,
        abi.NIOCGINFO: abi.nmreq.itemsize,
        abi.NIOCREGIF: abi.nmreq.itemsize,
        abi.NIOCTXSYNC: 0,
        abi.NIOCRXSYNC: 0,
        abi.NIOCCONFIG: abi.nm_ifreq.itemsize,
        abi.NIOCCTRL: abi.nmreq_header.itemsize,
    }
)
"""Bytes of each ioctl's argument; NIOCCTRL's go on after it."""

_HEADER = struct.Struct("<IHHIIII")
_MAX_ERRNO = 4095


@dataclass(frozen=True)
class Frame:
    """One message: the ioctl's number, its argument, and in answers an errno and what it means here."""

    ioctl: int
    argument: bytes = b""
    error: int = 0
    text: str = ""


class Header(NamedTuple):
    """The header's fields, of whatever version of the protocol; ``reserved`` is all reserved bits."""

    protocol: int
    ioctl: int
    error: int
    argument_size: int
    reserved: int


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame. Raises WireError for a frame that :func:`decode` would refuse."""
    try:
        text = frame.text.encode()
    except UnicodeEncodeError as error:
        raise refused(f"the text is not UTF-8: {error.reason}", "replace what cannot be encoded") from None
    _check(frame, len(text))
    head = _HEADER.pack(MAGIC, PROTOCOL, 0, frame.ioctl, frame.error, len(frame.argument), 0)
    return head + frame.argument + text


def read_header(data: bytes) -> Header:
    """Return the header of a frame of any version of the protocol.

    Raises WireError: EMSGSIZE for more than :data:`MAX_FRAME` bytes, EPROTO for what is no frame.
    """
    if len(data) > MAX_FRAME:
        raise _too_long(len(data))
    if len(data) < _HEADER.size:
        raise malformed(f"it has {len(data)} bytes, fewer than the header's {_HEADER.size}")
    magic, protocol, reserved, ioctl, error, argument_size, reserved2 = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise malformed(f"it begins with {magic:#010x}, not with {MAGIC:#010x}")
    if argument_size > len(data) - _HEADER.size:
        raise malformed(f"its argument should have {argument_size} bytes, and {len(data) - _HEADER.size} have come")
    return Header(protocol, ioctl, error, argument_size, reserved | reserved2)


def argument_of(data: bytes, head: Header) -> bytes:
    """Return the argument of a frame whose header has been read."""
    return bytes(data[_HEADER.size : _HEADER.size + head.argument_size])


def decode(data: bytes) -> Frame:
    """Read a frame, request or answer.

    Raises WireError for anything but one whole, valid frame of this version of the protocol: EPROTO, EMSGSIZE, EINVAL,
    EOPNOTSUPP, or, for other versions, ProtocolMismatchError.
    """
    head = read_header(data)
    if head.protocol != PROTOCOL:
        raise ProtocolMismatchError(
            f"netmap: cannot read a message: it is of protocol {head.protocol}, this is {PROTOCOL}\n"
            "        restart netmapd or upgrade",
            head.protocol,
        )
    if head.reserved:
        raise refused(f"the reserved bits of the frame are {head.reserved:#x}", "leave them 0")
    rest = data[_HEADER.size + head.argument_size :]
    try:
        text = bytes(rest).decode()
    except UnicodeDecodeError as error:
        raise refused(f"its text is not UTF-8: {error.reason}", "send text in UTF-8") from None
    frame = Frame(head.ioctl, argument_of(data, head), head.error, text)
    _check(frame, len(rest))
    return frame


def decode_request(data: bytes) -> Frame:
    """Read a frame that asks: like :func:`decode`, and EINVAL for an answer that is an error."""
    frame = decode(data)
    if frame.error:
        raise refused(f"it says that error {frame.error} has happened", "only answers have errors")
    return frame


def _check(frame: Frame, text_size: int) -> None:
    """Raise WireError unless the parts of a frame are possible together."""
    size = len(frame.argument)
    if (whole := _HEADER.size + size + text_size) > MAX_FRAME:
        raise _too_long(whole)
    if not 0 <= frame.error <= _MAX_ERRNO:
        raise refused(f"error {frame.error} is no errno", f"use 0..{_MAX_ERRNO}")
    if text_size and not frame.error:
        raise refused(f"{text_size} bytes come after the argument", "only errors have a text")
    if frame.error and not size:
        if not 0 <= frame.ioctl <= 0xFFFFFFFF:
            raise refused(f"{frame.ioctl} is no ioctl number", "use 32 bits")
        return
    if frame.ioctl not in ARGUMENT_SIZES:
        raise refused(f"there is no ioctl {frame.ioctl:#x}", "use those of netmap.h", errno.EOPNOTSUPP)
    expected = ARGUMENT_SIZES[frame.ioctl]
    if size < expected or (size > expected and frame.ioctl != abi.NIOCCTRL):
        raise refused(f"the argument of ioctl {frame.ioctl:#x} has {size} bytes", f"send {expected}")


def _too_long(size: int) -> WireError:
    return refused(f"it has {size:,} bytes", f"send {MAX_FRAME:,} at most", errno.EMSGSIZE)


def refusal(ioctl: int, error: OSError, argument: bytes = b"") -> Frame:
    """Return the answer that says why something could not be done.

    ``argument`` is the request's, as the ioctl leaves it (:func:`~ptnetmap.netmap.wire.request.answer`); empty if it
    could not be read. An ``error`` without a number that frames can carry is EIO.
    """
    number = error.errno if error.errno is not None and 0 < error.errno <= _MAX_ERRNO else errno.EIO
    room = max(0, min(MAX_TEXT, MAX_FRAME - _HEADER.size - len(argument)))
    # Cutting may leave a part of the last character, which ignore drops.
    text = str(error).encode(errors="replace")[:room].decode(errors="ignore")
    return Frame(ioctl & 0xFFFFFFFF, argument, number, text)


def raise_for_error(frame: Frame) -> None:
    """Raise PortError with the errno and text of an answer, if it is an error."""
    if frame.error:
        raise PortError(frame.error, frame.text or f"netmap: {os.strerror(frame.error)}")

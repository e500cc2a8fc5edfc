# SPDX-License-Identifier: BSD-2-Clause
"""NIOCCTRL requests in messages: header, body and options out of an argument, and the answer back into it.

The argument is what upstream's ioctl would find in a program's memory, laid end to end: ``nmreq_header``, body, options.
``nr_body``, ``nr_options`` and ``nro_next`` count from its start, 0 is null, and all are multiples of 8. The answer is
the same bytes with what the ioctl writes back, by upstream's rules: the statuses of options always; name, body and the
contents of options that were taken only if the request succeeded.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire.codec import Body, Bytes, Codec, Fixed, Values
from ptnetmap.netmap.wire.error import WireError, malformed, refused
from ptnetmap.netmap.wire.extension import EXTENSION_BODIES
from ptnetmap.netmap.wire.frame import MAX_FRAME
from ptnetmap.netmap.wire.option import OPTION_HEADER, OPTIONS

BODIES: Mapping[int, Codec | None] = MappingProxyType(
    {number: Fixed(layout) if layout is not None else None for number, layout in abi.REQUEST_BODIES.items()}
    | dict(EXTENSION_BODIES)
)
"""The body of each request type, upstream's and ours; None where it has none."""

_HEADER = struct.Struct("<HHI64sQQ")
_OPTION = struct.Struct("<QIIQ")
_STATUS_AT = 12
_ALIGN = 8


@dataclass(frozen=True)
class Request:
    """A request. Fields of body and options that are not given are 0; all are there afterwards.

    ``body`` is None exactly for the types that have none. ``options`` has each option at hand by its type
    (``NETMAP_REQ_OPT_*``): those that are unknown or given twice are not, but have got their statuses.
    Raises WireError (EINVAL) for what could not be sent: an unknown type or field, a value or name that does not fit.
    """

    reqtype: int
    name: str = ""
    body: Body | None = None
    options: dict[int, Body] = field(default_factory=dict)
    version: int = abi.NETMAP_API
    argument: bytes = field(default=b"", repr=False, compare=False)
    """The bytes that it came as, or that it is sent as."""

    def __post_init__(self) -> None:
        codec = _body_codec(self.reqtype)
        if codec is None and self.body is not None:
            raise refused(f"request type {self.reqtype} has a body", "leave it out")
        if self.version not in range(abi.NETMAP_MIN_API, abi.NETMAP_MAX_API + 1):
            raise _bad_version(self.version)
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise refused(f"there is no option {unknown[0]}", f"use {abi.NETMAP_REQ_OPT_MAX - 1} or less")
        options = {kind: OPTIONS[kind].complete(values) for kind, values in self.options.items()}
        object.__setattr__(self, "body", codec.complete(self.body or {}) if codec else None)
        object.__setattr__(self, "options", options)
        if not self.argument:
            object.__setattr__(self, "argument", _encode(self))


class Answer(NamedTuple):
    """What an answer wrote back; ``statuses`` is (type, status) of every option, in their order."""

    name: str
    body: Body | None
    options: dict[int, Body]
    statuses: tuple[tuple[int, int], ...]

    @property
    def fields(self) -> Body:
        """The fields of the body, and ``nr_name`` of the header."""
        return {**(self.body or {}), "nr_name": self.name}


class _Option(NamedTuple):
    kind: int
    at: int
    sent_status: int


class _Parts(NamedTuple):
    version: int
    reqtype: int
    name: str
    body_at: int
    options: tuple[_Option, ...]


# Reading --------------------------------------------------------------------------------------------------------------


def decode(argument: bytes) -> Request:
    """Read the argument of NIOCCTRL.

    Raises WireError: EINVAL for a version, type, reserved bits, name or body that cannot be, EFAULT for a pointer out of
    the argument, EMSGSIZE for more than 4096 bytes of body and options or a circular list (requests of ours may fill a
    frame).
    """
    parts = _parse(argument)
    codec = BODIES[parts.reqtype]
    body = codec.unpack(argument, parts.body_at) if codec else None
    taken = {kind: OPTIONS[kind].unpack(argument, at) for kind, at in _usable(parts).items()}
    return Request(parts.reqtype, parts.name, body, taken, parts.version, bytes(argument))


def decode_answer(request: Request, argument: bytes) -> Answer:
    """Read what came back for a request, failed or not. Raises WireError for what is no answer to it."""
    parts = _parse(argument)
    if len(argument) != len(request.argument) or parts.reqtype != request.reqtype:
        raise malformed(f"request {request.reqtype} is answered with {len(argument)} bytes of type {parts.reqtype}")
    codec = BODIES[parts.reqtype]
    return Answer(
        parts.name,
        codec.unpack(argument, parts.body_at) if codec else None,
        {kind: OPTIONS[kind].unpack(argument, at) for kind, at in _usable(parts).items()},
        tuple((option.kind, option.sent_status) for option in parts.options),
    )


def _body_codec(reqtype: int) -> Codec | None:
    if reqtype not in BODIES:
        raise refused(f"there is no request type {reqtype}", "use those of netmap.h, API 14, or netmapd's own")
    return BODIES[reqtype]


def _parse(argument: Bytes) -> _Parts:
    """Find the parts of an argument, all inside it and none over another."""
    if len(argument) < _HEADER.size:
        raise refused(f"the argument has {len(argument)} bytes", f"nmreq_header alone has {_HEADER.size}")
    version, reqtype, reserved, name, first_option, body_at = _HEADER.unpack_from(argument)
    if not abi.NETMAP_MIN_API <= version <= abi.NETMAP_MAX_API:
        raise _bad_version(version)
    if reserved:
        raise refused(f"nr_reserved is {reserved:#x}", "leave it 0")
    codec = _body_codec(reqtype)
    if bool(body_at) != bool(codec):
        raise refused(
            f"request type {reqtype} {'without its' if codec else 'has no'} body",
            "nr_body is 0 exactly if there is none",
        )
    limit = MAX_FRAME if reqtype in EXTENSION_BODIES else abi.NETMAP_REQ_MAXSIZE
    spans = []
    total = 0
    if codec:
        _check_place(argument, body_at, codec.minimum, "the body")
        total = codec.extent(argument, body_at)
        _check_total(total, limit)
        spans.append((body_at, total))
    options = []
    at = first_option
    while at:
        _check_place(argument, at, OPTION_HEADER, "an option")
        following, kind, status, _ = _OPTION.unpack_from(argument, at)
        extent = OPTION_HEADER
        if kind in OPTIONS:
            _check_place(argument, at, OPTIONS[kind].minimum, f"option {kind}")
            extent = OPTIONS[kind].extent(argument, at)
        total += extent
        _check_total(total, limit)
        spans.append((at, extent))
        options.append(_Option(kind, at, status))
        at = following
    _check_spans(argument, spans)
    return _Parts(version, reqtype, _name(name), body_at, tuple(options))


def _check_place(argument: Bytes, at: int, size: int, what: str) -> None:
    if at % _ALIGN:
        raise refused(f"{what} is at {at:#x}", f"use a multiple of {_ALIGN}")
    if at < _HEADER.size or at + size > len(argument):
        raise refused(
            f"{what} of {size} bytes is at {at:#x}, in an argument of {len(argument)}",
            "place it after the header",
            errno.EFAULT,
        )


def _check_total(total: int, limit: int) -> None:
    if total > limit:
        raise refused(
            f"body and options have {total:,} bytes",
            f"send {limit:,} at most, and let the list of options end",
            errno.EMSGSIZE,
        )


def _check_spans(argument: Bytes, spans: list[tuple[int, int]]) -> None:
    end = _HEADER.size
    for at, size in sorted(spans):
        if at < end:
            raise refused(f"two parts of it overlap at {at:#x}", "place them one after the other")
        end = at + size
    if end > len(argument):
        raise refused(f"a part of it ends at {end:#x}", f"it has {len(argument)} bytes", errno.EFAULT)


def _name(raw: bytes) -> str:
    text, nul, _ = raw.partition(b"\0")
    if not nul:
        raise refused("nr_name has no end", f"use at most {len(raw) - 1} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise refused(f"nr_name is not UTF-8: {error.reason}", "use ASCII") from None


def _usable(parts: _Parts) -> dict[int, int]:
    """Return where the options are that somebody may take, by type: known ones that come once."""
    kinds = [option.kind for option in parts.options]
    return {
        option.kind: option.at for option in parts.options if option.kind in OPTIONS and kinds.count(option.kind) == 1
    }


# Writing --------------------------------------------------------------------------------------------------------------


def _encode(request: Request) -> bytes:
    codec = BODIES[request.reqtype]
    buffer = bytearray(_HEADER.size)
    body_at = 0
    if codec and request.body is not None:
        body_at = _grow(buffer, codec.size(request.body))
        codec.pack_into(buffer, body_at, request.body)
    first = previous = 0
    for kind, values in request.options.items():
        at = _grow(buffer, OPTIONS[kind].size(values))
        struct.pack_into("<I", buffer, at + 8, kind)
        OPTIONS[kind].pack_into(buffer, at, values)
        if previous:
            struct.pack_into("<Q", buffer, previous, at)
        first, previous = first or at, at
    name = _encode_name(request.name)
    _HEADER.pack_into(buffer, 0, request.version, request.reqtype, 0, name, first, body_at)
    _parse(buffer)
    return bytes(buffer)


def _grow(buffer: bytearray, size: int) -> int:
    at = len(buffer)
    buffer.extend(bytes(size + -size % _ALIGN))
    return at


def _encode_name(name: str) -> bytes:
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise refused(f"name {name!r} is not UTF-8: {error.reason}", "use ASCII") from None
    if len(raw) >= abi.NETMAP_REQ_IFNAMSIZ or b"\0" in raw:
        raise refused(f"name {name!r} does not fit", f"use at most {abi.NETMAP_REQ_IFNAMSIZ - 1} bytes, and no NUL")
    return raw


def answer(
    request: Request,
    *,
    body: Values | None = None,
    name: str | None = None,
    option_status: Mapping[int, int] | None = None,
    option_values: Mapping[int, Values] | None = None,
    error: int = 0,
) -> bytes:
    """Return the argument as the ioctl leaves it.

    ``option_status`` says of each option of :attr:`Request.options` that somebody took how that went: 0, or an errno;
    the others keep EOPNOTSUPP. ``body``, ``name`` and ``option_values`` are what changes of these when ``error`` is 0.
    Raises WireError for values that do not fit, ValueError for a status of an option that was not at hand.
    """
    buffer = bytearray(request.argument)
    parts = _parse(buffer)
    for option, status in zip(parts.options, _statuses(parts, option_status or {}), strict=True):
        struct.pack_into("<I", buffer, option.at + _STATUS_AT, status)
        values = (option_values or {}).get(option.kind)
        if not error and not status and values is not None:
            codec = OPTIONS[option.kind]
            changed = codec.complete({**request.options[option.kind], **values})
            if codec.size(changed) > codec.extent(buffer, option.at):
                raise refused(f"the contents of option {option.kind} have grown", "an answer is as long as its request")
            codec.pack_into(buffer, option.at, changed)
    if error:
        return bytes(buffer)
    codec_of_body = BODIES[request.reqtype]
    if body is not None and codec_of_body is not None:
        fields = codec_of_body.complete({**(request.body or {}), **body})
        if codec_of_body.size(fields) > codec_of_body.extent(buffer, parts.body_at):
            raise refused(f"the body of request {request.reqtype} has grown", "an answer is as long as its request")
        codec_of_body.pack_into(buffer, parts.body_at, fields)
    if name is not None:
        struct.pack_into("<64s", buffer, 8, _encode_name(name))
    return bytes(buffer)


def first_option_error(request: Request, option_status: Mapping[int, int]) -> int:
    """Return the errno of the first option that failed or that nobody took, 0 if there is none.

    After a REGISTER that went well otherwise: if it is not 0, the registration must be undone and this returned. It is
    0 for a request without options. ``option_status`` is as for :func:`answer`.
    """
    return next((status for status in _statuses(_parse(request.argument), option_status) if status), 0)


def _statuses(parts: _Parts, outcomes: Mapping[int, int]) -> list[int]:
    """Return the status of each option, in their order."""
    usable = _usable(parts)
    if strange := sorted(set(outcomes) - set(usable)):
        raise ValueError(f"option {strange[0]} has an outcome, but was not at hand")
    return [_status(option.kind, usable, outcomes) for option in parts.options]


def _status(kind: int, usable: Mapping[int, int], outcomes: Mapping[int, int]) -> int:
    if kind in usable:
        return outcomes.get(kind, errno.EOPNOTSUPP)
    # What is left is type 0 and options that come twice, which upstream calls invalid, and unknown ones.
    return errno.EINVAL if kind == 0 or kind in OPTIONS else errno.EOPNOTSUPP


def _bad_version(version: int) -> WireError:
    return refused(
        f"nr_version is {version}",
        f"NIOCCTRL takes {abi.NETMAP_MIN_API} to {abi.NETMAP_MAX_API}; recompile the program",
    )

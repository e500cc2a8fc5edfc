# SPDX-License-Identifier: BSD-2-Clause
"""Messages: what each request's payload looks like, and how many descriptors come with it."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError

HEADER_SIZE = abi.header.itemsize
MAX_PAYLOAD = abi.memory_table.itemsize + abi.VHOST_MEMORY_BASELINE_NREGIONS * abi.memory_region.itemsize
"""The longest payload of any request that is understood."""
MAX_FDS = abi.VHOST_MEMORY_BASELINE_NREGIONS

_U64 = struct.Struct("<Q")
_HEADER = struct.Struct("<III")


class Header(NamedTuple):
    """What comes before a payload of ``size`` bytes."""

    request: int
    flags: int
    size: int


class _Shape(NamedTuple):
    """Bytes of a payload, or None for a memory table's, and the descriptors that may come with it."""

    size: int | None
    fds: tuple[int, ...] = (0,)


_RING_FD = _Shape(8, (0, 1))
_STATE = _Shape(abi.vring_state.itemsize)
_INFLIGHT = abi.inflight.itemsize

SHAPES: Mapping[int, _Shape] = MappingProxyType(
    {
        abi.VHOST_USER_GET_FEATURES: _Shape(0),
        abi.VHOST_USER_SET_FEATURES: _Shape(8),
        abi.VHOST_USER_SET_OWNER: _Shape(0),
        abi.VHOST_USER_RESET_OWNER: _Shape(0),
        abi.VHOST_USER_SET_MEM_TABLE: _Shape(None, tuple(range(1, MAX_FDS + 1))),
        abi.VHOST_USER_SET_LOG_BASE: _Shape(abi.log_place.itemsize, (1,)),
        abi.VHOST_USER_SET_LOG_FD: _Shape(0, (1,)),
        abi.VHOST_USER_SET_VRING_NUM: _STATE,
        abi.VHOST_USER_SET_VRING_ADDR: _Shape(abi.vring_addr.itemsize),
        abi.VHOST_USER_SET_VRING_BASE: _STATE,
        abi.VHOST_USER_GET_VRING_BASE: _STATE,
        abi.VHOST_USER_SET_VRING_KICK: _RING_FD,
        abi.VHOST_USER_SET_VRING_CALL: _RING_FD,
        abi.VHOST_USER_SET_VRING_ERR: _RING_FD,
        abi.VHOST_USER_GET_PROTOCOL_FEATURES: _Shape(0),
        abi.VHOST_USER_SET_PROTOCOL_FEATURES: _Shape(8),
        abi.VHOST_USER_GET_QUEUE_NUM: _Shape(0),
        abi.VHOST_USER_SET_VRING_ENABLE: _STATE,
        abi.VHOST_USER_NET_SET_MTU: _Shape(8),
        abi.VHOST_USER_GET_INFLIGHT_FD: _Shape(_INFLIGHT),
        abi.VHOST_USER_SET_INFLIGHT_FD: _Shape(_INFLIGHT, (1,)),
        abi.VHOST_USER_RESET_DEVICE: _Shape(0),
        abi.VHOST_USER_GET_MAX_MEM_SLOTS: _Shape(0),
        abi.VHOST_USER_ADD_MEM_REG: _Shape(abi.single_region.itemsize, (1,)),
        abi.VHOST_USER_REM_MEM_REG: _Shape(abi.single_region.itemsize, (0, 1)),
        abi.VHOST_USER_SET_STATUS: _Shape(8),
        abi.VHOST_USER_GET_STATUS: _Shape(0),
    }
)
"""The requests that are understood."""


def name(request: int) -> str:
    """Return what a request is called."""
    return abi.NAMES.get(request, f"request {request}")


def violation(request: int, what: str, number: int = errno.EINVAL) -> PeerError:
    """Return the error for a message that breaks the protocol."""
    return PeerError(number, f"vhost-user: {name(request)}: {what}\n        the front end breaks the protocol")


def parse_header(data: bytes) -> Header:
    """Read a header. Raises PeerError (EPROTO) for another version, or a payload that no request has."""
    header = Header(*_HEADER.unpack(data))
    if header.flags & abi.VHOST_USER_VERSION_MASK != abi.VHOST_USER_VERSION or header.flags & abi.VHOST_USER_REPLY:
        raise violation(header.request, f"flags {header.flags:#x} are no request of version 1", errno.EPROTO)
    if header.size > MAX_PAYLOAD:
        raise violation(header.request, f"{header.size:,} bytes, and none has more than {MAX_PAYLOAD}", errno.EPROTO)
    return header


def check_shape(request: int, payload: bytes, fds: int) -> None:
    """Raise PeerError unless a message is as long as it has to be, and has as many descriptors.

    EOPNOTSUPP: the request is not known.
    """
    shape = SHAPES.get(request)
    if shape is None:
        raise violation(request, "not understood", errno.EOPNOTSUPP)
    size = shape.size
    if size is None:
        count = int.from_bytes(payload[:4], "little")
        size = abi.memory_table.itemsize + count * abi.memory_region.itemsize
        if fds != count:
            raise violation(request, f"{count} regions with {fds} descriptors")
    if len(payload) != size:
        raise violation(request, f"{len(payload)} bytes, and it has {size}")
    if fds not in shape.fds:
        raise violation(request, f"{fds} descriptors, and it comes with {' or '.join(map(str, shape.fds))}")


def number(payload: bytes) -> int:
    """Read a u64."""
    return int(_U64.unpack(payload)[0])


def structure(layout: np.dtype[Any], payload: bytes) -> dict[str, int]:
    """Read a structure of integers."""
    item = np.frombuffer(payload, layout, 1)[0]
    return {field: int(item[field]) for field in layout.names or () if not field.startswith("_")}


def reply(request: int, payload: bytes) -> bytes:
    """Return the answer to a request."""
    return _HEADER.pack(request, abi.VHOST_USER_VERSION | abi.VHOST_USER_REPLY, len(payload)) + payload


def reply_number(request: int, value: int) -> bytes:
    """Return the answer that is a u64."""
    return reply(request, _U64.pack(value))


def request_message(request: int, payload: bytes = b"", *, need_reply: bool = False) -> bytes:
    """Return a message of the front end's."""
    flags = abi.VHOST_USER_VERSION | (abi.VHOST_USER_NEED_REPLY if need_reply else 0)
    return _HEADER.pack(request, flags, len(payload)) + payload

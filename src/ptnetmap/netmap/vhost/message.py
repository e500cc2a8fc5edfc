# SPDX-License-Identifier: BSD-2-Clause
"""vhost-user messages: what each request carries, read from bytes and written to bytes; no socket anywhere.

:data:`REQUESTS` says of each request how its payload looks, how many descriptors come with it, which protocol feature it
belongs to, and how its reply looks. Errors here are PeerErrors that say what was found and what to send instead; who
catches them knows, and says, which request it was.
"""

from __future__ import annotations

import errno as _errno
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError

MAX_FDS = abi.VHOST_MEMORY_BASELINE_NREGIONS
"""Descriptors beside one message at the most."""

MAX_PAYLOAD = 4096
"""Bytes of payload that are read at the most; known requests have far fewer."""

Value = TypeVar("Value")


def wrong(found: str, advice: str, errno: int = _errno.EINVAL) -> PeerError:
    """Return the error for a message that cannot be taken: what was found in it, and what to do."""
    return PeerError(errno, f"{found}\n        {advice}")


# Values of payloads ---------------------------------------------------------------------------------------------------


class VringState(NamedTuple):
    """A number that belongs to a queue."""

    queue: int
    num: int


class VringAddress(NamedTuple):
    """User addresses of the parts of a queue; ``flags`` are VHOST_VRING_F_*, ``log`` a guest address."""

    queue: int
    flags: int
    descriptor: int
    used: int
    available: int
    log: int


class MemoryRegion(NamedTuple):
    """``size`` bytes at a guest address, at a user address of the front-end, and at an offset of a file."""

    guest: int
    size: int
    user: int
    offset: int


class Log(NamedTuple):
    """``size`` bytes at an offset of a file."""

    size: int
    offset: int


class Inflight(NamedTuple):
    """``size`` bytes at an offset of a file, for so many queues of so many entries; ``padded``: 24 bytes, not 20."""

    size: int
    offset: int
    queues: int
    queue_size: int
    padded: bool = True


class Config(NamedTuple):
    """A piece of the configuration space: its bytes, zeroes in a question."""

    offset: int
    flags: int
    data: bytes


class VringFile(NamedTuple):
    """A queue, and whether there is a descriptor for it."""

    queue: int
    has_fd: bool


# Payloads -------------------------------------------------------------------------------------------------------------


class Payload(Generic[Value]):
    """How one kind of payload is read and written."""

    def __init__(self, decode: Callable[[bytes], Value], encode: Callable[[Value], bytes]) -> None:
        self.decode = decode
        self.encode = encode


def _struct(layout: np.dtype[Any]) -> struct.Struct:
    letters = {1: "B", 2: "H", 4: "I", 8: "Q"}
    return struct.Struct("<" + "".join(letters[layout[name].itemsize] for name in layout.names or ()))


_STATE = _struct(abi.vhost_vring_state)
_ADDRESS = _struct(abi.vhost_vring_addr)
_REGION = _struct(abi.vhost_user_memory_region)
_MEMORY = _struct(abi.vhost_user_memory)
_SINGLE = _struct(abi.vhost_user_single_memory_region)
_LOG = _struct(abi.vhost_user_log)
_INFLIGHT = _struct(abi.vhost_user_inflight)
_CONFIG = _struct(abi.vhost_user_config)
_U64 = struct.Struct("<Q")

_INFLIGHT_SHORT = _INFLIGHT.size - 4
_NO_FD_BITS = abi.VHOST_USER_VRING_INDEX_MASK | abi.VHOST_USER_VRING_NO_FD


def _check_size(payload: bytes, *sizes: int) -> None:
    if len(payload) not in sizes:
        raise wrong(f"its payload has {len(payload)} bytes", f"send {' or '.join(map(str, sizes))}")


def _check_flags(value: int, known: int, what: str) -> None:
    if value & ~known:
        raise wrong(f"{what} {value:#x} has unknown bits {value & ~known:#x}", f"set none but {known:#x}")


def _decode_nothing(payload: bytes) -> None:
    _check_size(payload, 0)


def _decode_u64(payload: bytes) -> int:
    _check_size(payload, _U64.size)
    return int(_U64.unpack(payload)[0])


def _decode_state(payload: bytes) -> VringState:
    _check_size(payload, _STATE.size)
    return VringState(*_STATE.unpack(payload))


def _decode_address(payload: bytes) -> VringAddress:
    _check_size(payload, _ADDRESS.size)
    address = VringAddress(*_ADDRESS.unpack(payload))
    _check_flags(address.flags, abi.VHOST_VRING_F_LOG, "flags")
    return address


def _decode_file(payload: bytes) -> VringFile:
    value = _decode_u64(payload)
    _check_flags(value, _NO_FD_BITS, "its payload")
    return VringFile(value & abi.VHOST_USER_VRING_INDEX_MASK, not value & abi.VHOST_USER_VRING_NO_FD)


def _encode_file(file: VringFile) -> bytes:
    return _U64.pack(file.queue | (0 if file.has_fd else abi.VHOST_USER_VRING_NO_FD))


def _decode_memory(payload: bytes) -> tuple[MemoryRegion, ...]:
    if len(payload) < _MEMORY.size:
        raise wrong(f"its payload has {len(payload)} bytes", f"send {_MEMORY.size} and {_REGION.size} for each region")
    count, _ = _MEMORY.unpack_from(payload)
    if count > abi.VHOST_MEMORY_BASELINE_NREGIONS:
        raise wrong(f"it has {count} regions", f"send {abi.VHOST_MEMORY_BASELINE_NREGIONS} at the most")
    _check_size(payload, _MEMORY.size + count * _REGION.size)
    return tuple(MemoryRegion(*values) for values in _REGION.iter_unpack(payload[_MEMORY.size :]))


def _encode_memory(regions: tuple[MemoryRegion, ...]) -> bytes:
    return _MEMORY.pack(len(regions), 0) + b"".join(_REGION.pack(*region) for region in regions)


def _decode_single(payload: bytes) -> MemoryRegion:
    _check_size(payload, _SINGLE.size)
    return MemoryRegion(*_SINGLE.unpack(payload)[1:])


def _decode_log(payload: bytes) -> Log:
    _check_size(payload, _LOG.size)
    return Log(*_LOG.unpack(payload))


def _decode_inflight(payload: bytes) -> Inflight:
    _check_size(payload, _INFLIGHT.size, _INFLIGHT_SHORT)
    size, offset, queues, queue_size, _ = _INFLIGHT.unpack(payload.ljust(_INFLIGHT.size, b"\0"))
    return Inflight(size, offset, queues, queue_size, len(payload) == _INFLIGHT.size)


def _encode_inflight(inflight: Inflight) -> bytes:
    return _INFLIGHT.pack(*inflight[:4], 0)[: _INFLIGHT.size if inflight.padded else _INFLIGHT_SHORT]


def _decode_config(payload: bytes) -> Config:
    if len(payload) < _CONFIG.size:
        raise wrong(f"its payload has {len(payload)} bytes", f"send {_CONFIG.size} and the bytes of the space")
    offset, size, flags = _CONFIG.unpack_from(payload)
    if size > abi.VHOST_USER_MAX_CONFIG_SIZE:
        raise wrong(f"it is about {size} bytes", f"use {abi.VHOST_USER_MAX_CONFIG_SIZE} at the most")
    _check_size(payload, _CONFIG.size + size)
    return Config(offset, flags, payload[_CONFIG.size :])


def _encode_config(config: Config) -> bytes:
    return _CONFIG.pack(config.offset, len(config.data), config.flags) + config.data


NOTHING: Payload[None] = Payload(_decode_nothing, lambda _: b"")
U64: Payload[int] = Payload(_decode_u64, _U64.pack)
ACK: Payload[int] = Payload(_decode_u64, _U64.pack)  # 0, or an errno
STATE: Payload[VringState] = Payload(_decode_state, lambda state: _STATE.pack(*state))
ADDRESS: Payload[VringAddress] = Payload(_decode_address, lambda address: _ADDRESS.pack(*address))
FILE: Payload[VringFile] = Payload(_decode_file, _encode_file)
MEMORY: Payload[tuple[MemoryRegion, ...]] = Payload(_decode_memory, _encode_memory)
SINGLE: Payload[MemoryRegion] = Payload(_decode_single, lambda region: _SINGLE.pack(0, *region))
LOG: Payload[Log] = Payload(_decode_log, lambda log: _LOG.pack(*log))
INFLIGHT: Payload[Inflight] = Payload(_decode_inflight, _encode_inflight)
CONFIG: Payload[Config] = Payload(_decode_config, _encode_config)


# Requests -------------------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a request looks like: ``fds`` are how few and how many descriptors come with it.

    ``reply`` is the payload of the reply that it always has; None if it has one only when that is asked for.
    ``protocol_feature``: the VHOST_USER_PROTOCOL_F_* it belongs to, 0 for those that are always there.
    """

    name: str
    payload: Payload[Any] = NOTHING
    fds: tuple[int, int] = (0, 0)
    reply: Payload[Any] | None = None
    protocol_feature: int = 0


_SLOTS = abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS

REQUESTS: Mapping[int, Request] = MappingProxyType(
    {
        abi.VHOST_USER_GET_FEATURES: Request("GET_FEATURES", reply=U64),
        abi.VHOST_USER_SET_FEATURES: Request("SET_FEATURES", U64),
        abi.VHOST_USER_SET_OWNER: Request("SET_OWNER"),
        abi.VHOST_USER_RESET_OWNER: Request("RESET_OWNER"),
        abi.VHOST_USER_SET_MEM_TABLE: Request("SET_MEM_TABLE", MEMORY, (0, MAX_FDS)),
        abi.VHOST_USER_SET_LOG_BASE: Request("SET_LOG_BASE", LOG, (1, 1), ACK, abi.VHOST_USER_PROTOCOL_F_LOG_SHMFD),
        abi.VHOST_USER_SET_LOG_FD: Request("SET_LOG_FD", fds=(1, 1)),
        abi.VHOST_USER_SET_VRING_NUM: Request("SET_VRING_NUM", STATE),
        abi.VHOST_USER_SET_VRING_ADDR: Request("SET_VRING_ADDR", ADDRESS),
        abi.VHOST_USER_SET_VRING_BASE: Request("SET_VRING_BASE", STATE),
        abi.VHOST_USER_GET_VRING_BASE: Request("GET_VRING_BASE", STATE, reply=STATE),
        abi.VHOST_USER_SET_VRING_KICK: Request("SET_VRING_KICK", FILE, (0, 1)),
        abi.VHOST_USER_SET_VRING_CALL: Request("SET_VRING_CALL", FILE, (0, 1)),
        abi.VHOST_USER_SET_VRING_ERR: Request("SET_VRING_ERR", FILE, (0, 1)),
        abi.VHOST_USER_GET_PROTOCOL_FEATURES: Request("GET_PROTOCOL_FEATURES", reply=U64),
        abi.VHOST_USER_SET_PROTOCOL_FEATURES: Request("SET_PROTOCOL_FEATURES", U64),
        abi.VHOST_USER_GET_QUEUE_NUM: Request(
            "GET_QUEUE_NUM", reply=U64, protocol_feature=abi.VHOST_USER_PROTOCOL_F_MQ
        ),
        abi.VHOST_USER_SET_VRING_ENABLE: Request("SET_VRING_ENABLE", STATE),
        abi.VHOST_USER_SEND_RARP: Request("SEND_RARP", U64, protocol_feature=abi.VHOST_USER_PROTOCOL_F_RARP),
        abi.VHOST_USER_NET_SET_MTU: Request("NET_SET_MTU", U64, protocol_feature=abi.VHOST_USER_PROTOCOL_F_NET_MTU),
        abi.VHOST_USER_GET_CONFIG: Request(
            "GET_CONFIG", CONFIG, reply=CONFIG, protocol_feature=abi.VHOST_USER_PROTOCOL_F_CONFIG
        ),
        abi.VHOST_USER_SET_CONFIG: Request("SET_CONFIG", CONFIG, protocol_feature=abi.VHOST_USER_PROTOCOL_F_CONFIG),
        abi.VHOST_USER_GET_INFLIGHT_FD: Request(
            "GET_INFLIGHT_FD", INFLIGHT, (0, 0), INFLIGHT, abi.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
        ),
        abi.VHOST_USER_SET_INFLIGHT_FD: Request(
            "SET_INFLIGHT_FD", INFLIGHT, (1, 1), protocol_feature=abi.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
        ),
        abi.VHOST_USER_RESET_DEVICE: Request("RESET_DEVICE", protocol_feature=abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE),
        abi.VHOST_USER_GET_MAX_MEM_SLOTS: Request("GET_MAX_MEM_SLOTS", reply=U64, protocol_feature=_SLOTS),
        abi.VHOST_USER_ADD_MEM_REG: Request("ADD_MEM_REG", SINGLE, (1, 1), protocol_feature=_SLOTS),
        # Some front-ends send a descriptor along, which means nothing.
        abi.VHOST_USER_REM_MEM_REG: Request("REM_MEM_REG", SINGLE, (0, 1), protocol_feature=_SLOTS),
        abi.VHOST_USER_SET_STATUS: Request("SET_STATUS", U64, protocol_feature=abi.VHOST_USER_PROTOCOL_F_STATUS),
        abi.VHOST_USER_GET_STATUS: Request("GET_STATUS", reply=U64, protocol_feature=abi.VHOST_USER_PROTOCOL_F_STATUS),
    }
)
"""All requests that are served, by number."""


def name_of(request: int) -> str:
    """Return the name of a request, without VHOST_USER_; ``request N`` if it is not served."""
    return REQUESTS[request].name if request in REQUESTS else f"request {request}"


def decode(request: Request, payload: bytes, fds: int) -> Any:
    """Return the value of a request's payload. Raises PeerError (EINVAL) if it, or the number of descriptors, is wrong."""
    value = request.payload.decode(payload)
    least, most = request.fds
    if request.payload is MEMORY:
        least = most = len(value)
    elif request.payload is FILE:
        least = most = int(value.has_fd)
    if not least <= fds <= most:
        wanted = str(most) if least == most else f"{least} to {most}"
        raise wrong(f"{fds} file descriptors came with it", f"send {wanted}")
    return value


# Headers --------------------------------------------------------------------------------------------------------------

_HEADER = _struct(abi.vhost_user_header)
HEADER_SIZE = _HEADER.size


class Header(NamedTuple):
    """The start of a message, as :data:`ptnetmap.abi.vhost_user.vhost_user_header`."""

    request: int
    flags: int
    size: int


def decode_header(data: bytes | bytearray) -> Header:
    """Read a header. Raises PeerError: EPROTO for another version, EMSGSIZE for more payload than any message has."""
    header = Header(*_HEADER.unpack(data))
    version = header.flags & abi.VHOST_USER_VERSION_MASK
    if version != abi.VHOST_USER_VERSION:
        raise PeerError(
            _errno.EPROTO,
            f"vhost-user: cannot read a message: request {header.request} has version {version}, this is version "
            f"{abi.VHOST_USER_VERSION}\n        is the program on the other side one that speaks vhost-user?",
        )
    if header.size > MAX_PAYLOAD:
        raise PeerError(
            _errno.EMSGSIZE,
            f"vhost-user: cannot read a message: request {header.request} announces {header.size:,} bytes\n"
            f"        send {MAX_PAYLOAD:,} at the most",
        )
    return header


def encode(request: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a message; ``flags`` are VHOST_USER_REPLY and VHOST_USER_NEED_REPLY, to which the version is added."""
    return _HEADER.pack(request, flags | abi.VHOST_USER_VERSION, len(payload)) + payload

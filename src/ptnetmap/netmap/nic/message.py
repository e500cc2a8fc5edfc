# SPDX-License-Identifier: BSD-2-Clause
"""rtnetlink messages about interfaces, as bytes: requests, and what their answers say. No socket here."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptnetmap.abi import rtnetlink as abi
from ptnetmap.errors import PortError


@dataclass(frozen=True)
class Interface:
    """A network interface as the kernel describes it.

    ``kind`` is its ``ARPHRD_*`` type; ``programs`` are the numbers of the XDP programs on it, by the mode that they are
    attached in (``XDP_ATTACHED_*``).
    """

    name: str
    index: int
    kind: int
    flags: int
    mtu: int
    programs: dict[int, int]

    @property
    def is_up(self) -> bool:
        """Whether somebody has turned it on."""
        return bool(self.flags & abi.IFF_UP)


def gone(name: str) -> PortError:
    """Return the error of a port whose interface is no more (ENXIO)."""
    return PortError(errno.ENXIO, f"netmap: {name} has gone: the interface was removed\n        close the port")


def get_link(name: str = "", index: int = 0) -> bytes:
    """Return the request for one interface, by its name or number."""
    attributes = _attribute(abi.IFLA_IFNAME, name.encode() + b"\0") if name else b""
    return _message(abi.RTM_GETLINK, abi.NLM_F_REQUEST, index, attributes)


def detach_program(index: int, flags: int) -> bytes:
    """Return the request to detach the XDP program that is attached to an interface in a mode (``XDP_FLAGS_*``)."""
    settings = _attribute(abi.IFLA_XDP_FD, struct.pack("<i", -1)) + _attribute(
        abi.IFLA_XDP_FLAGS, struct.pack("<I", flags)
    )
    attributes = _attribute(abi.IFLA_XDP | abi.NLA_F_NESTED, settings)
    return _message(abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, attributes)


def new_veth(name: str, mtu: int, peer: str, namespace: int) -> bytes:
    """Return the request for a pair of interfaces: ``name`` here, ``peer`` in the network namespace of a descriptor."""
    other = np.zeros((), abi.ifinfomsg).tobytes() + b"".join(
        (
            _attribute(abi.IFLA_IFNAME, peer.encode() + b"\0"),
            _attribute(abi.IFLA_MTU, struct.pack("<I", mtu)),
            _attribute(abi.IFLA_NET_NS_FD, struct.pack("<I", namespace)),
        )
    )
    data = _attribute(abi.VETH_INFO_PEER | abi.NLA_F_NESTED, other)
    info = _attribute(abi.IFLA_INFO_KIND, b"veth\0") + _attribute(abi.IFLA_INFO_DATA | abi.NLA_F_NESTED, data)
    attributes = b"".join(
        (
            _attribute(abi.IFLA_IFNAME, name.encode() + b"\0"),
            _attribute(abi.IFLA_MTU, struct.pack("<I", mtu)),
            _attribute(abi.IFLA_LINKINFO | abi.NLA_F_NESTED, info),
        )
    )
    flags = abi.NLM_F_REQUEST | abi.NLM_F_ACK | abi.NLM_F_CREATE | abi.NLM_F_EXCL
    return _message(abi.RTM_NEWLINK, flags, 0, attributes)


def remove_link(index: int) -> bytes:
    """Return the request to remove an interface."""
    return _message(abi.RTM_DELLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, b"")


def no_address(index: int) -> bytes:
    """Return the request that the kernel shall give an interface no IPv6 address by itself."""
    mode = _attribute(abi.IFLA_INET6_ADDR_GEN_MODE, bytes([abi.IN6_ADDR_GEN_MODE_NONE]))
    protocols = _attribute(abi.AF_INET6 | abi.NLA_F_NESTED, mode)
    attributes = _attribute(abi.IFLA_AF_SPEC | abi.NLA_F_NESTED, protocols)
    return _message(abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, attributes)


def single_frames(index: int, alias: str) -> bytes:
    """Return the request that an interface is given no packet that stands for several frames; and ``alias`` for it."""
    attributes = _attribute(abi.IFLA_GSO_MAX_SEGS, struct.pack("<I", 1)) + _attribute(abi.IFLA_IFALIAS, alias.encode())
    return _message(abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, attributes)


def set_mtu(index: int, mtu: int) -> bytes:
    """Return the request to change an interface's MTU."""
    attributes = _attribute(abi.IFLA_MTU, struct.pack("<I", mtu))
    return _message(abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, attributes)


def turn_on(index: int) -> bytes:
    """Return the request to turn an interface on."""
    return _message(abi.RTM_SETLINK, abi.NLM_F_REQUEST | abi.NLM_F_ACK, index, b"", abi.IFF_UP)


def _message(kind: int, flags: int, index: int, attributes: bytes, on: int = 0) -> bytes:
    header = np.zeros((), abi.nlmsghdr)
    interface = np.zeros((), abi.ifinfomsg)
    header["len"] = abi.nlmsghdr.itemsize + abi.ifinfomsg.itemsize + len(attributes)
    header["type"], header["flags"] = kind, flags
    interface["index"] = index
    interface["flags"] = interface["change"] = on
    return header.tobytes() + interface.tobytes() + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % abi.NLA_ALIGNTO
    return struct.pack("<HH", abi.rtattr.itemsize + len(value), kind) + value + bytes(padding)


def error_of(answer: bytes) -> int:
    """Return the errno that an answer consists of; 0 for success, and for an answer that is no error."""
    header = np.frombuffer(answer, abi.nlmsghdr, 1)[0]
    if int(header["type"]) != abi.NLMSG_ERROR:
        return 0
    return -int(np.frombuffer(answer, "<i4", 1, abi.nlmsghdr.itemsize)[0])


def interface_of(answer: bytes) -> Interface:
    """Return the interface that an answer to :func:`get_link` describes. Raises ValueError for other messages."""
    header = np.frombuffer(answer, abi.nlmsghdr, 1)[0]
    if int(header["type"]) != abi.RTM_NEWLINK:
        raise ValueError(f"message of type {header['type']} describes no interface")
    start = abi.nlmsghdr.itemsize
    about = np.frombuffer(answer, abi.ifinfomsg, 1, start)[0]
    values = dict(_attributes(answer[start + abi.ifinfomsg.itemsize : int(header["len"])]))
    return Interface(
        values.get(abi.IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        int(about["index"]),
        int(about["type"]),
        int(about["flags"]),
        _number(values.get(abi.IFLA_MTU, b"")),
        _programs(values.get(abi.IFLA_XDP, b"")),
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + abi.rtattr.itemsize <= len(data):
        length, kind = struct.unpack_from("<HH", data, at)
        if length < abi.rtattr.itemsize:
            return
        yield kind & abi.NLA_TYPE_MASK, data[at + abi.rtattr.itemsize : at + length]
        at += length + -length % abi.NLA_ALIGNTO


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _programs(nested: bytes) -> dict[int, int]:
    """Return the programs by mode. With several, each mode has an attribute of its own, in the order of the modes."""
    values = dict(_attributes(nested))
    mode = _number(values.get(abi.IFLA_XDP_ATTACHED, b""))
    if mode == abi.XDP_ATTACHED_MULTI:
        several = {
            abi.XDP_ATTACHED_DRV: abi.IFLA_XDP_DRV_PROG_ID,
            abi.XDP_ATTACHED_SKB: abi.IFLA_XDP_SKB_PROG_ID,
            abi.XDP_ATTACHED_HW: abi.IFLA_XDP_HW_PROG_ID,
        }
        return {one: _number(values[kind]) for one, kind in several.items() if kind in values}
    return {mode: _number(values.get(abi.IFLA_XDP_PROG_ID, b""))} if mode != abi.XDP_ATTACHED_NONE else {}

# SPDX-License-Identifier: BSD-2-Clause
"""Ranges of addresses as they are written on the command line: ``IP[:port[-IP:port]]`` and ``MAC[-MAC]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORT = 1234

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_IPV6_WITH_PORT = re.compile(r"\[(?P<address>[^\]]*)\](:(?P<port>.*))?")


@dataclass(frozen=True)
class IpRange:
    """Addresses and ports that packets carry in turn, all numbers in host order; ``text`` as it was written."""

    text: str
    version: int
    first: int
    last: int
    first_port: int
    last_port: int

    @property
    def iterates(self) -> bool:
        """Whether there is more than one address and port."""
        return (self.first, self.first_port) != (self.last, self.last_port)

    def describe(self) -> str:
        """Return both ends, as in the log."""
        ends = ((self.first, self.first_port), (self.last, self.last_port))
        return " to ".join(f"{_show(address, self.version)}:{port}" for address, port in ends)


@dataclass(frozen=True)
class MacRange:
    """MAC addresses that packets carry in turn, as 48-bit numbers; ``text`` as it was written."""

    text: str
    first: int
    last: int

    @property
    def iterates(self) -> bool:
        """Whether there is more than one address."""
        return self.first != self.last


def _show(address: int, version: int) -> str:
    return str(ipaddress.IPv4Address(address)) if version == 4 else f"[{ipaddress.IPv6Address(address)}]"


def parse_ip_range(text: str, version: int) -> IpRange:
    """Read ``IP[:port[-IP:port]]``; an IPv6 address with a port stands in brackets.

    The second end may leave out its port, which is then the first one's. Raises ValueError, with the reason, for what
    is no range: an end before its beginning, or IPv6 addresses that differ in more than the last 32 bits.
    """
    left, dash, right = text.partition("-")
    first, first_port = _endpoint(left, version, DEFAULT_PORT)
    last, last_port = _endpoint(right, version, first_port) if dash else (first, first_port)
    if last < first or last_port < first_port:
        raise ValueError(f"{text}: the end comes before the beginning")
    if (first ^ last) >> 32:
        raise ValueError(f"{text}: the ends differ in more than the last 32 bits")
    return IpRange(text, version, first, last, first_port, last_port)


def _endpoint(text: str, version: int, port: int) -> tuple[int, int]:
    address, number = text, ""
    bracketed = _IPV6_WITH_PORT.fullmatch(text)
    if bracketed:
        address, number = bracketed["address"], bracketed["port"] or ""
    elif version == 4:
        address, _, number = text.partition(":")
    try:
        parsed = int(ipaddress.IPv4Address(address) if version == 4 else ipaddress.IPv6Address(address))
    except ValueError:
        raise ValueError(f"{address!r} is not an IPv{version} address") from None
    if number:
        if not number.isdecimal() or int(number) > 0xFFFF:
            raise ValueError(f"{number!r} is not a port number")
        port = int(number)
    return parsed, port


def parse_mac_range(text: str) -> MacRange:
    """Read ``MAC[-MAC]``. Raises ValueError, with the reason, for what is no range."""
    left, dash, right = text.partition("-")
    first = _mac(left)
    last = _mac(right) if dash else first
    if last < first:
        raise ValueError(f"{text}: the end comes before the beginning")
    return MacRange(text, first, last)


def _mac(text: str) -> int:
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address")
    return int.from_bytes(bytes(int(part, 16) for part in text.split(":")), "big")

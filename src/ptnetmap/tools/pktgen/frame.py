# SPDX-License-Identifier: BSD-2-Clause
"""The frame that is sent: Ethernet, IPv4 or IPv6, UDP and a text, or the first packet of a file."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptnetmap.errors import PortError
from ptnetmap.tools.pktgen import options as bits
from ptnetmap.tools.pktgen.addresses import IpRange, MacRange
from ptnetmap.tools.pktgen.options import Options

DIRECT = b"netmap pkt-gen DIRECT payload\n"
INDIRECT = b"netmap pkt-gen INDIRECT payload\n"

ETHERNET = 14
_HEADERS = {4: 20, 6: 40}
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_UDP = 8
_UDP_PROTOCOL = 17
_LOW_DELAY = 0x10
_DONT_FRAGMENT = 0x4000
_TTL = 64


@dataclass(frozen=True)
class Field:
    """A part of the frame that goes from ``first`` to ``last``, or is drawn within the bits of ``random``."""

    at: int
    first: int
    last: int
    random: int = 0

    @property
    def changes(self) -> bool:
        """Whether packets differ in it."""
        return self.first != self.last or bool(self.random)


@dataclass(frozen=True)
class Frame:
    """A template: its bytes, and what kernels need to know to change it.

    ``udp_at`` and ``ip_checksum_at`` are 0 where there is no such header. ``ip_sum`` is the sum of the IPv4 header's
    big-endian words without addresses, length and checksum. ``udp_sums`` (int64, one entry for each size from the
    least one on) are the sums of all that UDP's checksum covers, without the fields. ``fields`` are in the order of
    :data:`ptnetmap.tools.pktgen.task.task`.
    """

    data: bytes
    payload_at: int
    udp_at: int
    ip_checksum_at: int
    ip_sum: int
    udp_sums: npt.NDArray[np.int64]
    fields: tuple[Field, ...]

    @property
    def changes(self) -> bool:
        """Whether packets differ in some field."""
        return any(f.changes for f in self.fields)


def words(data: bytes) -> int:
    """Return the sum of the big-endian 16-bit words of ``data``, an odd last byte padded."""
    padded = data + bytes(len(data) % 2)
    return sum(struct.unpack(f">{len(padded) // 2}H", padded))


def make_frame(options: Options, source_mac: int) -> Frame:
    """Build the frame; ``source_mac`` is what it has unless the options say otherwise. Raises PtnetmapError for a bad file."""
    if options.template:
        return from_file(options.template)
    source, destination = options.source, options.destination
    header = _HEADERS[options.version]
    udp_at = ETHERNET + header
    payload_at = udp_at + _UDP
    text = INDIRECT if options.has(bits.INDIRECT) else DIRECT
    room = max(options.size - payload_at, 0)
    written = bits.NUMBERED.get(options.function, 0)  # for each packet, and summed then
    payload = bytes(written) + bytes(itertools.islice(itertools.cycle(text), written, room))
    mac = options.source_mac or MacRange("", source_mac, source_mac)
    data = (
        options.destination_mac.first.to_bytes(6, "big")
        + mac.first.to_bytes(6, "big")
        + struct.pack(">H", _ETHERTYPES[options.version])
        + _ip_header(options, source, destination, _UDP + room)
        + struct.pack(">HHHH", source.first_port, destination.first_port, _UDP + room, 0)
        + payload
    )
    addresses = _address_places(options.version)
    fields = (
        Field(6, mac.first, mac.last),
        Field(0, options.destination_mac.first, options.destination_mac.last),
        *_fields(source, udp_at, addresses[0], options.has(bits.RANDOM_SOURCE)),
        *_fields(destination, udp_at + 2, addresses[1], options.has(bits.RANDOM_DESTINATION)),
    )
    return Frame(
        data,
        payload_at,
        udp_at,
        ETHERNET + 10 if options.version == 4 else 0,
        words(data[ETHERNET : ETHERNET + 12]) - (header + _UDP + room) if options.version == 4 else 0,
        _udp_sums(options, payload),
        fields,
    )


def _address_places(version: int) -> tuple[int, int]:
    """Where the last 32 bits of the source and the destination address are."""
    return (ETHERNET + 12, ETHERNET + 16) if version == 4 else (ETHERNET + 20, ETHERNET + 36)


def _fields(part: IpRange, port_at: int, address_at: int, is_random: bool) -> tuple[Field, Field]:
    masks = (0xFFFF, 0xFFFFFFFF) if is_random else (0, 0)
    return (
        Field(port_at, part.first_port, part.last_port, masks[0]),
        Field(address_at, part.first & 0xFFFFFFFF, part.last & 0xFFFFFFFF, masks[1]),
    )


def _ip_header(options: Options, source: IpRange, destination: IpRange, length: int) -> bytes:
    """Return the IP header of a packet with ``length`` bytes behind it; an IPv4 checksum is left 0."""
    if options.version == 6:
        fixed = struct.pack(">IHBB", 6 << 28, length, _UDP_PROTOCOL, _TTL)
        return fixed + ipaddress.IPv6Address(source.first).packed + ipaddress.IPv6Address(destination.first).packed
    fixed = struct.pack(">BBHHHBBH", 0x45, _LOW_DELAY, 20 + length, 0, _DONT_FRAGMENT, _TTL, _UDP_PROTOCOL, 0)
    return fixed + struct.pack(">II", source.first, destination.first)


def _udp_sums(options: Options, payload: bytes) -> npt.NDArray[np.int64]:
    """Sums for each size: pseudo-header, UDP header and payload, without the ports and what iterates of addresses.

    The length counts twice, in the pseudo-header and in UDP's own. A payload's odd last byte is a word's high byte.
    """
    payload_at = ETHERNET + _HEADERS[options.version] + _UDP
    octets = np.frombuffer(payload, np.uint8).astype(np.int64)
    octets[::2] <<= 8
    up_to = np.concatenate([[0], np.cumsum(octets)])
    rooms = np.maximum(np.arange(options.least_size, options.size + 1) - payload_at, 0)
    fixed = _UDP_PROTOCOL
    if options.version == 6:
        fixed += sum(words((part.first >> 32).to_bytes(12, "big")) for part in (options.source, options.destination))
    return np.asarray(up_to[rooms] + 2 * (rooms + _UDP) + fixed, np.int64)


def from_file(path: str) -> Frame:
    """Return the first packet of a capture as it is: nothing in it changes. Raises PtnetmapError if there is none."""
    from ptnetmap.pcap import open_capture

    with open_capture(path) as packets:
        data = next((bytes(record.data) for record in packets), b"")
    if not bits.MIN_SIZE <= len(data) <= bits.MAX_SIZE:
        found = f"its first packet has {len(data)} bytes" if data else "it has no packets"
        raise PortError(
            errno.EINVAL, f"pkt-gen: cannot use {path} as a template: {found}\n        use one of 16 to 65536 bytes"
        )
    nothing = tuple(Field(0, 0, 0) for _ in range(6))
    return Frame(data, 0, 0, 0, 0, np.zeros(1, np.int64), nothing)

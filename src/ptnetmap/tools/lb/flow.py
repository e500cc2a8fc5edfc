# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Which connection a frame belongs to: a number that is the same for both directions.

====================================== =============================================
frame                                  what counts
====================================== =============================================
IPv4, IPv6 with TCP, UDP, UDP-Lite,    addresses and ports
SCTP or DCCP
their fragments, all of them           addresses: only the first one has the ports
other IPv4, IPv6                       addresses
anything else                          MAC addresses
====================================== =============================================

VLAN tags, up to four of them, are passed over and do not count. A frame that ends too early is what it is up to there.
"""

from __future__ import annotations

from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import load8, load16_be, load32_be

_MASK = 0xFFFFFFFF
_TAGS = 4
_EXTENSIONS = 8


@piece
def mix(x):
    """Scramble 32 bits: a bijection in which every bit of the argument changes half of the result's."""
    x ^= x >> 16
    x = (x * 0x7FEB352D) & _MASK
    x ^= x >> 15
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


@piece
def both(one, other):
    """Combine the two ends of a connection, in either order; neither may cancel the other out."""
    return mix((mix(one) + mix(other)) & _MASK)


@piece
def has_ports(protocol):
    """Whether a transport header begins with a source and a destination port."""
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136


@piece
def address6(at):
    """Fold an IPv6 address to 32 bits."""
    folded = 0
    for i in range(4):
        folded = mix(folded ^ load32_be(at + 4 * i))
    return folded


@piece
def ipv4(at, length):
    """The number of an IPv4 packet of at least 20 bytes."""
    source = load32_be(at + 12)
    destination = load32_be(at + 16)
    header = (load8(at) & 15) * 4
    fragment = load16_be(at + 6) & 0x3FFF != 0  # an offset, or more to come
    if fragment or header < 20 or length < header + 4 or not has_ports(load8(at + 9)):
        return both(source, destination)
    return both(mix(source) ^ load16_be(at + header), mix(destination) ^ load16_be(at + header + 2))


@piece
def ipv6(at, length):
    """The number of an IPv6 packet of at least 40 bytes; extension headers are passed over."""
    source = address6(at + 8)
    destination = address6(at + 24)
    following = load8(at + 6)
    here = 40
    for _ in range(_EXTENSIONS):
        if length < here + 8:
            break
        if following == 44:  # a fragment, unless it is whole
            if load16_be(at + here + 2) & 0xFFF9 != 0:
                return both(source, destination)
            following = load8(at + here)
            here += 8
        elif following == 51:  # authentication: counts in words
            following, here = load8(at + here), here + (load8(at + here + 1) + 2) * 4
        elif following == 0 or following == 43 or following == 60:
            following, here = load8(at + here), here + (load8(at + here + 1) + 1) * 8
        else:
            break
    if length < here + 4 or not has_ports(following):
        return both(source, destination)
    return both(mix(source) ^ load16_be(at + here), mix(destination) ^ load16_be(at + here + 2))


@kernel
def flow(frame, length):
    """Return (the number of the connection of the frame at ``frame``, 32 bits; whether it is IP)."""
    if length < 14:
        return 0, False
    at = frame + 12
    left = length - 12
    for _ in range(_TAGS):
        kind = load16_be(at)
        if left < 6 or (kind != 0x8100 and kind != 0x88A8 and kind != 0x9100):
            break
        at += 4
        left -= 4
    kind = load16_be(at)
    at += 2
    left -= 2
    if kind == 0x0800 and left >= 20 and load8(at) >> 4 == 4:
        return ipv4(at, left), True
    if kind == 0x86DD and left >= 40 and load8(at) >> 4 == 6:
        return ipv6(at, left), True
    destination = mix(load32_be(frame)) ^ load16_be(frame + 4)
    source = mix(load32_be(frame + 6)) ^ load16_be(frame + 10)
    return both(source, destination), False

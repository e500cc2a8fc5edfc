# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The Internet checksum (RFC 1071), as IPv4, TCP and UDP use it.

A one's complement sum does not care in which byte order its words are read, as long as it is written back in the same
one: sums here are of little-endian words, four bytes at a time, carried in 64 bits and folded once at the end.
"""

from __future__ import annotations

from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load8, load16, load32, store16, store16_be

_IPV4_LENGTH = 2
_IPV4_CHECKSUM = 10
_IPV4_SOURCE = 12
_IPV6_SOURCE = 8


@piece
def sum_bytes(address, length):
    """Return the sum of ``length`` bytes, not folded; sums of several ranges add up if all but the last are even."""
    words = length >> 2
    total = 0
    for i in range(words):
        total += load32(address + 4 * i)
    if length & 2:
        total += load16(address + 4 * words)
    if length & 1:
        total += load8(address + length - 1)
    return total


@piece
def sum_pseudo_header(ip, is_ipv4, protocol, length):
    """Return the sum of the pseudo-header for ``length`` bytes of ``protocol`` behind the IP header at ``ip``.

    ``length`` is below 2^24. (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1.)
    """
    source = _IPV4_SOURCE if is_ipv4 else _IPV6_SOURCE
    octets = 8 if is_ipv4 else 32
    value = protocol + length
    return sum_bytes(ip + source, octets) + ((value & 0xFF) << 8) + (value >> 8)


@piece
def complement(total):
    """Fold a sum, which is not negative, to the 16 bits that :func:`~ptnetmap.jit.memory.store16` writes."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@piece
def store_checksum(address, total):
    """Write the checksum of TCP or UDP; a result of 0, which means "none" to UDP, is sent as its equal 0xFFFF."""
    value = complement(total)
    store16(address, value if value != 0 else 0xFFFF)


@piece
def fix_ipv4(ip, header_length, total_length):
    """Set the total length of the IPv4 header at ``ip``, then its checksum."""
    store16_be(ip + _IPV4_LENGTH, total_length)
    store16(ip + _IPV4_CHECKSUM, 0)
    store16(ip + _IPV4_CHECKSUM, complement(sum_bytes(ip, header_length)))

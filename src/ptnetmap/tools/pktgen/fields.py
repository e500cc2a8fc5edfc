# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The fields of a frame that change from packet to packet, and checksums that follow them without being summed anew."""

from __future__ import annotations

from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.libc import CLOCK_MONOTONIC, clock_ns
from ptnetmap.jit.memory import load16_be, load64, store16, store16_be, store32, store32_be, store64
from ptnetmap.netmap.checksum import complement, store_checksum
from ptnetmap.tools.pktgen.task import AT, FIELD_AT, FIELD_SIZE, NUMBERED, STAMPED

_FIELDS = AT["fields"]
_RANDOM = AT["random"]
_MODE = AT["mode"]
_HEADER = AT["header"]
_STAGING = AT["staging"]
_LEAST = AT["least"]
_SIZE = AT["size"]
_PAYLOAD_AT = AT["payload_at"]
_UDP_AT = AT["udp_at"]
_IP_CHECKSUM_AT = AT["ip_checksum_at"]
_IP_SUM = AT["ip_sum"]
_UDP_SUMS = AT["udp_sums"]
_MACS = AT["macs"]
_IPS = AT["ips"]
_ADDRESS_SUM = AT["address_sum"]
_PORT_SUM = AT["port_sum"]
_SEQUENCE = AT["sequence"]
_FLOW = AT["flow"]
_VALUE = FIELD_AT["value"]
_FIRST = FIELD_AT["first"]
_LAST = FIELD_AT["last"]
_PLACE = FIELD_AT["at"]
_MASK = FIELD_AT["random"]

_SOURCE_MAC = 0
_DESTINATION_MAC = 1
_SOURCE_PORT = 2
_SOURCE_IP = 3
_DESTINATION_PORT = 4
_DESTINATION_IP = 5
_ETHERNET_BYTES = 14
_IP_LENGTH_TO_CHECKSUM = 8
_UDP_TO_IPV6_LENGTH = 36


@piece
def draw(t):
    """Return the next random number, 32 bits (Marsaglia's xorshift)."""
    x = load64(t + _RANDOM)
    x ^= (x << 13) & 0xFFFFFFFF
    x ^= x >> 17
    x ^= (x << 5) & 0xFFFFFFFF
    store64(t + _RANDOM, x)
    return x


@piece
def put_value(t, number, frame, value):
    """Write a field's value into the frame, and keep the sums of addresses and ports in step."""
    f = t + _FIELDS + number * FIELD_SIZE
    old = load64(f + _VALUE)
    at = frame + load64(f + _PLACE)
    store64(f + _VALUE, value)
    if number < _SOURCE_PORT:
        store16_be(at, value >> 32)
        store32_be(at + 2, value & 0xFFFFFFFF)
    elif number & 1 == 0:
        store16_be(at, value)
        store64(t + _PORT_SUM, load64(t + _PORT_SUM) + value - old)
    else:
        store32_be(at, value)
        change = (value >> 16) + (value & 0xFFFF) - (old >> 16) - (old & 0xFFFF)
        store64(t + _ADDRESS_SUM, load64(t + _ADDRESS_SUM) + change)


@piece
def turn_wheels(t, frame, start, end):
    """Count the fields ``[start, end)`` up as an odometer's wheels, the first one fastest; random ones are drawn."""
    for number in range(start, end):
        f = t + _FIELDS + number * FIELD_SIZE
        mask = load64(f + _MASK)
        value = load64(f + _VALUE)
        if mask != 0:
            put_value(t, number, frame, draw(t) & mask)
        elif value < load64(f + _LAST):
            put_value(t, number, frame, value + 1)
            return
        elif value != load64(f + _FIRST):
            put_value(t, number, frame, load64(f + _FIRST))


@piece
def step(t):
    """Let the staged frame's fields be those of the next packet."""
    frame = load64(t + _STAGING) + load64(t + _HEADER)
    if load64(t + _MACS) != 0:
        turn_wheels(t, frame, _SOURCE_MAC, _SOURCE_PORT)
    if load64(t + _IPS) != 0:
        turn_wheels(t, frame, _SOURCE_PORT, _DESTINATION_IP + 1)


@piece
def next_size(t):
    """Return the size of the next frame."""
    least = load64(t + _LEAST)
    size = load64(t + _SIZE)
    return size if least == size else least + draw(t) % (size - least + 1)


@piece
def write_payload(t, frame, mode):
    """Write the sequence number, then the stream's name or the time; return the sum of these words.

    Numbered payloads are in network order; stamped ones, as upstream's, in the machine's: number, seconds, nanoseconds.
    """
    sequence = load64(t + _SEQUENCE)
    store64(t + _SEQUENCE, (sequence + 1) & 0xFFFFFFFF)
    at = frame + load64(t + _PAYLOAD_AT)
    words = 4
    if mode & STAMPED:
        now = clock_ns(CLOCK_MONOTONIC)
        store32(at, sequence)
        store32(at + 4, now // 1_000_000_000)
        store32(at + 8, now % 1_000_000_000)
        words = 6
    else:
        store32_be(at, sequence)
        store32_be(at + 4, load64(t + _FLOW))
    total = 0
    for i in range(words):
        total += load16_be(at + 2 * i)
    return total


@piece
def swapped(total):
    """Fold a sum of big-endian words, and swap its bytes as sums of little-endian words have them."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ((total & 0xFF) << 8) | (total >> 8)


@piece
def store_lengths_and_sums(t, frame, size, extra):
    """Write the lengths and checksums of a frame of ``size`` bytes with the present fields.

    ``extra`` is the sum of what the payload has beyond the template. Nothing is summed but what changes: the rest was
    summed for every size before the run (RFC 1071: a sum may be taken in parts).
    """
    udp = load64(t + _UDP_AT)
    addresses = load64(t + _ADDRESS_SUM)
    checksum = load64(t + _IP_CHECKSUM_AT)
    if checksum != 0:
        store16_be(frame + checksum - _IP_LENGTH_TO_CHECKSUM, size - _ETHERNET_BYTES)
        total = load64(t + _IP_SUM) + addresses + size - _ETHERNET_BYTES
        store16(frame + checksum, complement(swapped(total)))
    else:
        store16_be(frame + udp - _UDP_TO_IPV6_LENGTH, size - udp)
    store16_be(frame + udp + 4, size - udp)
    total = load64(load64(t + _UDP_SUMS) + 8 * (size - load64(t + _LEAST))) + addresses + load64(t + _PORT_SUM) + extra
    store_checksum(frame + udp + 6, swapped(total))


@kernel
def stage(t, size):
    """Make the staged frame the next packet: payload, lengths and checksums; its fields are there already."""
    if load64(t + _UDP_AT) == 0:
        return
    frame = load64(t + _STAGING) + load64(t + _HEADER)
    mode = load64(t + _MODE)
    extra = write_payload(t, frame, mode) if mode & (NUMBERED | STAMPED) else 0
    store_lengths_and_sums(t, frame, size, extra)

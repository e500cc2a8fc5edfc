# SPDX-License-Identifier: BSD-2-Clause
"""Resource descriptors: which ports, addresses and interrupts a device has, or hands on (ACPI 6.4 §6.4)."""

from __future__ import annotations

from ptnetmap.bhyve.boot import aml

_IRQ, _IO, _END = 0x22, 0x47, 0x79
_MEMORY32_FIXED, _DWORD_SPACE, _WORD_SPACE, _QWORD_SPACE = 0x86, 0x87, 0x88, 0x8A
_MEMORY, _PORTS, _BUSES = 0, 1, 2
_DECODE16 = 1
_FIXED = 0xC  # minimum and maximum are what they are
_ENTIRE_RANGE = 3
_READ_WRITE = 1
_PREFETCHABLE = 3 << 1


def template(*descriptors: bytes) -> bytes:
    """Return the buffer that ``_CRS`` is: ``descriptors`` and an end tag, whose checksum of 0 means none (§6.4.2.9)."""
    return aml.buffer(b"".join(descriptors) + bytes([_END, 0]))


def irq(number: int) -> bytes:
    """Return an edge-triggered ISA interrupt (§6.4.2.1)."""
    return bytes([_IRQ]) + (1 << number).to_bytes(2, "little")


def ports(base: int, size: int) -> bytes:
    """Return ``size`` I/O ports from ``base``, at no other place (§6.4.2.5)."""
    return bytes([_IO, _DECODE16]) + base.to_bytes(2, "little") * 2 + bytes([1, size])


def memory32(base: int, size: int) -> bytes:
    """Return ``size`` bytes from ``base``, read and written (§6.4.3.4)."""
    body = bytes([_READ_WRITE]) + base.to_bytes(4, "little") + size.to_bytes(4, "little")
    return _large(_MEMORY32_FIXED, body)


def bus_window(first: int, last: int) -> bytes:
    """Return the buses that a host bridge leads to (§6.4.3.5.3)."""
    return _window(_WORD_SPACE, 2, _BUSES, 0, first, last)


def port_window(first: int, last: int) -> bytes:
    """Return I/O ports that a host bridge passes on (§6.4.3.5.3)."""
    return _window(_WORD_SPACE, 2, _PORTS, _ENTIRE_RANGE, first, last)


def memory_window32(first: int, last: int) -> bytes:
    """Return addresses below 4 GiB that a host bridge passes on, not cached (§6.4.3.5.2)."""
    return _window(_DWORD_SPACE, 4, _MEMORY, _READ_WRITE, first, last)


def memory_window64(first: int, last: int) -> bytes:
    """Return addresses that a host bridge passes on, prefetchable (§6.4.3.5.1)."""
    return _window(_QWORD_SPACE, 8, _MEMORY, _READ_WRITE | _PREFETCHABLE, first, last)


def _window(tag: int, width: int, kind: int, flags: int, first: int, last: int) -> bytes:
    fields = (0, first, last, 0, last - first + 1)  # granularity, minimum, maximum, translation, length
    return _large(tag, bytes([kind, _FIXED, flags]) + b"".join(field.to_bytes(width, "little") for field in fields))


def _large(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + len(body).to_bytes(2, "little") + body

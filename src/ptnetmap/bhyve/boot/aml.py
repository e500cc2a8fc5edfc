# SPDX-License-Identifier: BSD-2-Clause
"""An assembler for ACPI's machine language: as much of it as a description without code needs (ACPI 6.4 §20.2).

Each function returns the bytes of one term; terms nest by nesting calls.
"""

from __future__ import annotations

import string as _string

_ZERO, _ONE, _BYTE, _WORD, _DWORD, _STRING, _QWORD = b"\x00", b"\x01", b"\x0a", b"\x0b", b"\x0c", b"\x0d", b"\x0e"
_NAME, _SCOPE, _BUFFER, _PACKAGE, _DEVICE = b"\x08", b"\x10", b"\x11", b"\x12", b"\x5b\x82"
_DUAL_NAME, _MULTI_NAME = b"\x2e", b"\x2f"
_LEAD = _string.ascii_uppercase + "_"
_LARGEST_PACKAGE = 255


def enclosed(body: bytes) -> bytes:
    """Return ``body`` behind its package length, which counts itself too (ACPI 6.4 §20.2.4)."""
    if len(body) + 1 < 1 << 6:
        return bytes([len(body) + 1]) + body
    for extra in (1, 2, 3):
        length = len(body) + 1 + extra
        if length < 1 << 4 + 8 * extra:
            return bytes([extra << 6 | length & 0xF]) + (length >> 4).to_bytes(extra, "little") + body
    raise ValueError(f"{len(body):,} bytes do not fit in a package")


def path(text: str) -> bytes:
    """Return a name: segments of up to 4 characters, separated by dots, after an optional backslash (§20.2.2)."""
    root = b"\\" if text.startswith("\\") else b""
    segments = [_segment(part) for part in text.removeprefix("\\").split(".")]
    if len(segments) == 1:
        return root + segments[0]
    if len(segments) == 2:
        return root + _DUAL_NAME + b"".join(segments)
    return root + _MULTI_NAME + bytes([len(segments)]) + b"".join(segments)


def _segment(text: str) -> bytes:
    if not 0 < len(text) <= 4 or text[0] not in _LEAD or set(text) - set(_LEAD + _string.digits):
        raise ValueError(f"{text!r} is no name of ACPI")
    return text.ljust(4, "_").encode()


def integer(value: int) -> bytes:
    """Return an integer, in the shortest form (§20.2.3)."""
    if value in (0, 1):
        return (_ZERO, _ONE)[value]
    for prefix, size in ((_BYTE, 1), (_WORD, 2), (_DWORD, 4), (_QWORD, 8)):
        if 0 <= value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    raise ValueError(f"{value} does not fit in 64 bits")


def string(text: str) -> bytes:
    """Return a string of ASCII characters (§20.2.3)."""
    return _STRING + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """Return a device's id, three letters and four hexadecimal digits, in its compressed form (§19.3.4)."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return _DWORD + value.to_bytes(4, "big")


def buffer(data: bytes) -> bytes:
    """Return a buffer with these contents (§20.2.5.4)."""
    return _BUFFER + enclosed(integer(len(data)) + data)


def package(*elements: bytes) -> bytes:
    """Return a package of up to 255 terms (§20.2.5.4)."""
    if len(elements) > _LARGEST_PACKAGE:
        raise ValueError(f"{len(elements)} elements do not fit in a package")
    return _PACKAGE + enclosed(bytes([len(elements)]) + b"".join(elements))


def name(text: str, value: bytes) -> bytes:
    """Return the definition of a named object (§20.2.5.1)."""
    return _NAME + path(text) + value


def scope(text: str, *terms: bytes) -> bytes:
    """Return ``terms`` inside an existing scope (§20.2.5.1)."""
    return _SCOPE + enclosed(path(text) + b"".join(terms))


def device(text: str, *terms: bytes) -> bytes:
    """Return a device with ``terms`` in it (§20.2.5.2)."""
    return _DEVICE + enclosed(path(text) + b"".join(terms))

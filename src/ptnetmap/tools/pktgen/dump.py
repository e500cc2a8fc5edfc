# SPDX-License-Identifier: BSD-2-Clause
"""Packets as text (``-X``)."""

from __future__ import annotations

from typing import Any

_PER_LINE = 16


def dump(data: bytes) -> str:
    """Return lines of 16 bytes: offset, hexadecimal, and what is printable of it."""
    lines = []
    for start in range(0, len(data), _PER_LINE):
        part = data[start : start + _PER_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{start:5d}: {part.hex(' '):{3 * _PER_LINE}}{text}")
    return "\n".join(lines)


def dump_slots(ring: Any, first: int, count: int) -> str:
    """Return the text of ``count`` slots of a ring: a line about each, then its bytes."""
    blocks = []
    for i in range(count):
        position = (first + i) % ring.num_slots
        slot = ring.slots[position]
        length, flags = int(slot["len"]), int(slot["flags"])
        blocks.append(
            f"ring {ring.ringid} cur {position:5d} [buf {int(slot['buf_idx']):6d} flags 0x{flags:04x} len {length:5d}]\n"
            + dump(bytes(ring.buffer(position)[:length]))
        )
    return "\n".join(blocks)

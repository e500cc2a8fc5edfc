# SPDX-License-Identifier: BSD-2-Clause
"""Writes small ISO 9660 images: one directory of files, with Joliet's long names beside the short ones.

ECMA-119 for descriptors and directories, and Joliet's specification of 1995 for the second tree, whose names are UCS-2.
Both trees share the files' data. A directory has to fit into one block, which is enough for a dozen files.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

BLOCK = 2048
_PVD, _SVD, _END = 16, 17, 18
_PATHS = (19, 21)
"""Blocks of the path tables of both trees: little-endian, then big-endian."""
_DIRECTORIES = (23, 24)
_DATA = 25
_JOLIET = b"%/E"  # UCS-2 level 3
_NO_DATE = bytes(7)


def build(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return an image with ``files``, by name, in its root; raises ValueError for more than fit.

    The same arguments give the same bytes: there are no times in it.
    """
    blocks: dict[int, bytes] = {}
    at = _DATA
    extents = {}
    for name, data in files.items():
        extents[name] = (at, len(data))
        blocks[at] = data
        at += max(-(-len(data) // BLOCK), 1)
    short = {name: f"FILE{number}.;1".encode() for number, name in enumerate(sorted(files))}
    trees = (
        (label.upper().encode("ascii").ljust(32), {short[name]: extents[name] for name in files}, b"\1CD001\1", b""),
        (
            label.encode("utf-16-be").ljust(32, b"\0"),
            {name.encode("utf-16-be"): extents[name] for name in files},
            b"\2CD001\1",
            _JOLIET,
        ),
    )
    for (volume, names, kind, escape), descriptor, paths, root in zip(
        trees, (_PVD, _SVD), _PATHS, _DIRECTORIES, strict=True
    ):
        entries = [_record(b"\0", root, BLOCK, 2), _record(b"\1", root, BLOCK, 2)]
        entries += [_record(name, *names[name], 0) for name in sorted(names)]
        blocks[root] = b"".join(entries)
        if len(blocks[root]) > BLOCK:
            raise ValueError("too many files for one block of directory")
        blocks[paths] = struct.pack("<BBIH2x", 1, 0, root, 1)
        blocks[paths + 1] = struct.pack(">BBIH2x", 1, 0, root, 1)
        blocks[descriptor] = _descriptor(kind, volume, escape, at, paths, root)
    blocks[_END] = b"\xffCD001\1"
    image = bytearray(at * BLOCK)
    for block, data in blocks.items():
        image[block * BLOCK : block * BLOCK + len(data)] = data
    return bytes(image)


def _descriptor(kind: bytes, volume: bytes, escape: bytes, size: int, paths: int, root: int) -> bytes:
    """Return a volume descriptor (ECMA-119 §8.4 and §8.5)."""
    space = b"\0 " if escape else b" "
    head = kind + b"\0" + space * (32 // len(space)) + volume + bytes(8) + _both32(size) + escape.ljust(32, b"\0")
    head += _both16(1) + _both16(1) + _both16(BLOCK) + _both32(10)
    head += struct.pack("<II", paths, 0) + struct.pack(">II", paths + 1, 0) + _record(b"\0", root, BLOCK, 2)
    # Set, publisher, preparer, application: 4 of 128; three file names of 37; four dates, none of them given.
    head += (space * (4 * 128 // len(space))) + b"".join((space * 37)[:37] for _ in range(3))
    return head + (b"0" * 16 + b"\0") * 4 + b"\1\0"


def _record(name: bytes, block: int, size: int, flags: int) -> bytes:
    """Return a directory record (ECMA-119 §9.1), of even length."""
    length = 33 + len(name) + (len(name) + 1) % 2
    head = struct.pack("BB", length, 0) + _both32(block) + _both32(size) + _NO_DATE
    return (head + struct.pack("BBB", flags, 0, 0) + _both16(1) + struct.pack("B", len(name)) + name).ljust(
        length, b"\0"
    )


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)

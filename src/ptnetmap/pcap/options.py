# SPDX-License-Identifier: BSD-2-Clause
"""The options at the end of a pcapng block."""

from __future__ import annotations

from collections.abc import Iterator

from ptnetmap.pcap.layout import END, Order, option_header, packed, padding


def read_options(body: bytes, at: int, order: Order) -> Iterator[tuple[int, bytes]]:
    """Yield (code, value) of the options in ``body[at:]``. Raises ValueError for one that does not fit.

    A list may end without END, where the block does.
    """
    header = packed(option_header, order)
    while at + header.size <= len(body):
        code, size = header.unpack_from(body, at)
        if code == END:
            return
        at += header.size
        if at + size > len(body):
            raise ValueError(f"option {code} of {size:,} bytes does not fit into its block")
        yield code, body[at : at + size]
        at += size + padding(size)


def write_options(options: list[tuple[int, bytes]]) -> bytes:
    """Return a list of options as bytes, little endian, with END; nothing for an empty list."""
    header = packed(option_header)
    parts = [header.pack(code, len(value)) + value + bytes(padding(len(value))) for code, value in options]
    return b"".join([*parts, header.pack(END, 0)]) if parts else b""

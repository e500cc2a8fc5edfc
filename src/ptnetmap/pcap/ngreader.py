# SPDX-License-Identifier: BSD-2-Clause
"""Reading pcapng files: sections of either byte order, each with interfaces of its own, and all kinds of packet blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from ptnetmap.pcap.error import bad_contents, cut_short
from ptnetmap.pcap.layout import (
    BYTE_ORDER_MAGIC,
    DIRECTION,
    ENHANCED_PACKET,
    EPB_FLAGS,
    IF_NAME,
    IF_TSOFFSET,
    IF_TSRESOL,
    INBOUND,
    INTERFACE_DESCRIPTION,
    MAX_BLOCK,
    MAX_INTERFACES,
    OUTBOUND,
    PACKET,
    SECTION_HEADER,
    SIMPLE_PACKET,
    Order,
    block_header,
    enhanced_packet,
    interface_description,
    option_header,
    packed,
    packet,
    padding,
    section_header,
    simple_packet,
)
from ptnetmap.pcap.options import read_options
from ptnetmap.pcap.record import NANOSECONDS, Interface, Record
from ptnetmap.pcap.source import Source

_HEAD = block_header.itemsize
_FOOT = 4
_OUTBOUND = {INBOUND: False, OUTBOUND: True}
_ONLY_FLAGS = 12  # bytes of options that are EPB_FLAGS alone, as most writers have it
_CLOSING = "the file is damaged from here on"


def read_blocks(source: Source, interfaces: list[Interface]) -> Iterator[Record]:
    """Yield the records of a pcapng file. Interfaces are added to ``interfaces`` as they appear, of all sections."""
    section = Section(source, interfaces)
    while source.need(_HEAD):
        section.next_block()
        if section.kind == ENHANCED_PACKET:
            yield section.enhanced()
        elif section.kind == PACKET:
            yield section.obsolete()
        elif section.kind == SIMPLE_PACKET:
            yield section.simple()
        elif section.kind == INTERFACE_DESCRIPTION:
            section.describe()
    if source.left():
        raise cut_short(source.name, source.offset, "a block's header")


class Section:
    """The section being read, and its block: ``kind``, and ``body`` without the header and the size at the end."""

    def __init__(self, source: Source, interfaces: list[Interface]) -> None:
        self._source = source
        self._interfaces = interfaces
        self.kind = 0
        self.body = b""
        self._at = 0
        self._set_order("<")

    def _set_order(self, order: Order) -> None:
        self._order: Order = order
        self._first = len(self._interfaces)
        self._head = packed(block_header, order).unpack_from
        self._size = packed(simple_packet, order).unpack_from
        self._enhanced = packed(enhanced_packet, order).unpack_from
        self._packet = packed(packet, order).unpack_from
        self._flags_header = packed(option_header, order).pack(EPB_FLAGS, 4)

    def _fail(self, found: str, advice: str = _CLOSING) -> NoReturn:
        raise bad_contents(self._source.name, self._at, found, advice)

    def next_block(self) -> None:
        """Read the next block; a section header begins another section."""
        source = self._source
        self._at = source.offset
        # A section header's type reads the same in both orders: its own magic tells how to read the size.
        kind, size = self._head(source.data, source.at)
        if kind == SECTION_HEADER:
            self._begin_section()
            kind, size = self._head(source.data, source.at)
        if size < _HEAD + _FOOT or size > MAX_BLOCK or size & 3:
            self._fail(f"a block of type {kind:#x} claims {size:,} bytes (12 to {MAX_BLOCK:,} are possible, in fours)")
        if source.left() < size and not source.need(size):
            raise cut_short(source.name, self._at, f"a block of type {kind:#x} and {size:,} bytes")
        end = source.at + size
        (again,) = self._size(source.data, end - _FOOT)
        if again != size:
            self._fail(f"a block of type {kind:#x} says {size:,} bytes at its beginning and {again:,} at its end")
        self.kind = kind
        self.body = source.data[source.at + _HEAD : end - _FOOT]
        source.at = end
        if kind == SECTION_HEADER:
            self._check_section()

    def _begin_section(self) -> None:
        source = self._source
        if not source.need(_HEAD + 4):
            raise cut_short(source.name, self._at, "a section header")
        magic = source.data[source.at + _HEAD : source.at + _HEAD + 4]
        if int.from_bytes(magic, "little") == BYTE_ORDER_MAGIC:
            self._set_order("<")
        elif int.from_bytes(magic, "big") == BYTE_ORDER_MAGIC:
            self._set_order(">")
        else:
            self._fail(f"a section header with the byte order magic {magic.hex(' ')}")

    def _check_section(self) -> None:
        layout = packed(section_header, self._order)
        if len(self.body) < layout.size:
            self._fail(f"a section header of {len(self.body)} bytes, {layout.size} are the least")
        _, major, minor, _ = layout.unpack_from(self.body)
        if major != 1:
            self._fail(f"a section of version {major}.{minor}", "only version 1 is known; editcap may convert it")

    def describe(self) -> None:
        """Take note of an interface."""
        layout = packed(interface_description, self._order)
        if len(self.body) < layout.size:
            self._fail(f"an interface description of {len(self.body)} bytes, {layout.size} are the least")
        if len(self._interfaces) == MAX_INTERFACES:
            self._fail(f"more than {MAX_INTERFACES:,} interfaces are described")
        linktype, _, snaplen = layout.unpack_from(self.body)
        name, ticks, offset = "", 1_000_000, 0
        for code, value in self._options(layout.size):
            if code == IF_NAME:
                name = value.split(b"\0")[0].decode(errors="replace")
            elif code == IF_TSRESOL and len(value) == 1:
                exponent = value[0] & 0x7F
                ticks = (2 if value[0] & 0x80 else 10) ** exponent
            elif code == IF_TSOFFSET and len(value) == 8:
                offset = int.from_bytes(value, "little" if self._order == "<" else "big", signed=True)
        self._interfaces.append(Interface(linktype, snaplen, name, ticks, offset))

    def _options(self, at: int) -> list[tuple[int, bytes]]:
        try:
            return list(read_options(self.body, at, self._order))
        except ValueError as error:
            self._fail(str(error))

    def enhanced(self) -> Record:
        """Return the record of an enhanced packet block."""
        if len(self.body) < enhanced_packet.itemsize:
            self._fail(f"a packet block with a body of {len(self.body)} bytes")
        return self._record(enhanced_packet.itemsize, *self._enhanced(self.body))

    def obsolete(self) -> Record:
        """Return the record of an obsolete packet block."""
        if len(self.body) < packet.itemsize:
            self._fail(f"a packet block with a body of {len(self.body)} bytes")
        number, _, *rest = self._packet(self.body)
        return self._record(packet.itemsize, number, *rest)

    def _record(self, start: int, number: int, high: int, low: int, captured: int, length: int) -> Record:
        body = self.body
        end = start + captured
        if end > len(body):
            self._fail(f"a packet of {captured:,} bytes in a block that has room for {len(body) - start:,}")
        place = self._first + number
        if place >= len(self._interfaces):
            self._fail(
                f"a packet of interface {number}, and {len(self._interfaces) - self._first} are described",
                "the file is damaged, or its beginning is missing",
            )
        interface = self._interfaces[place]
        ts_ns = (high << 32) | low
        if interface.ticks != NANOSECONDS or interface.offset:
            ts_ns = interface.nanoseconds(ts_ns)
        outbound = None
        rest = end + padding(captured)
        if len(body) - rest == _ONLY_FLAGS and body[rest : rest + 4] == self._flags_header:
            outbound = _OUTBOUND.get(self._size(body, rest + 4)[0] & DIRECTION)
        elif rest < len(body):
            for code, value in self._options(rest):
                if code == EPB_FLAGS and len(value) == 4:
                    outbound = _OUTBOUND.get(self._size(value)[0] & DIRECTION)
        return Record(body[start:end], ts_ns, length, place, outbound)

    def simple(self) -> Record:
        """Return the record of a simple packet block, which has no time."""
        start = simple_packet.itemsize
        if len(self.body) < start:
            self._fail(f"a packet block with a body of {len(self.body)} bytes")
        if self._first == len(self._interfaces):
            self._fail("a packet, and no interface is described", "the file is damaged, or its beginning is missing")
        (length,) = self._size(self.body)
        captured = min(length, self._interfaces[self._first].snaplen or length)
        if captured > len(self.body) - start:
            self._fail(f"a packet of {captured:,} bytes in a block that has room for {len(self.body) - start:,}")
        return Record(self.body[start : start + captured], 0, length, self._first)

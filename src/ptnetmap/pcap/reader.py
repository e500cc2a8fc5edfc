# SPDX-License-Identifier: BSD-2-Clause
"""Reading pcap files."""

from __future__ import annotations

from collections.abc import Iterator

from ptnetmap.pcap.error import bad_contents, cut_short
from ptnetmap.pcap.layout import MAX_BLOCK, Order, packed, pcap_header, pcap_record
from ptnetmap.pcap.record import NANOSECONDS, Interface, Record
from ptnetmap.pcap.source import Source

TOO_SHORT = "a capture begins with at least 24 bytes: capture again"


def read_records(source: Source, interfaces: list[Interface], order: Order, units: int) -> Iterator[Record]:
    """Yield the records of a pcap file whose times have ``units`` per second; its interface is added to ``interfaces``."""
    if not source.need(pcap_header.itemsize):
        raise bad_contents(source.name, 0, f"it has {source.left()} bytes", TOO_SHORT)
    _, major, minor, _, _, snaplen, linktype = packed(pcap_header, order).unpack_from(source.data, source.at)
    if (major, minor) != (2, 4):
        raise bad_contents(
            source.name, 4, f"it is of version {major}.{minor}", "only 2.4 is known; editcap may convert it"
        )
    source.at += pcap_header.itemsize
    interfaces.append(Interface(linktype & 0xFFFF, snaplen, "", units))
    return _records(source, order, NANOSECONDS // units)


def _records(source: Source, order: Order, unit: int) -> Iterator[Record]:
    unpack = packed(pcap_record, order).unpack_from
    header = pcap_record.itemsize
    while source.left() >= header or source.need(header):
        seconds, fraction, captured, length = unpack(source.data, source.at)
        if captured > MAX_BLOCK:
            raise bad_contents(
                source.name,
                source.offset,
                f"a packet of {captured:,} bytes is announced (the limit is {MAX_BLOCK:,})",
                "the file is damaged from here on",
            )
        size = header + captured
        if source.left() < size and not source.need(size):
            raise cut_short(source.name, source.offset, f"a packet of {captured:,} bytes")
        start = source.at + header
        source.at += size
        yield Record(source.data[start : source.at], seconds * NANOSECONDS + fraction * unit, length)
    if source.left():
        raise cut_short(source.name, source.offset, "a packet's header")

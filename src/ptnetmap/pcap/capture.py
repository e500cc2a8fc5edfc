# SPDX-License-Identifier: BSD-2-Clause
"""Reading a capture file of whichever format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Self

from ptnetmap.pcap.error import CaptureFileError, bad_contents
from ptnetmap.pcap.layout import PCAP_MICROSECONDS, PCAP_NANOSECONDS, SECTION_HEADER, Order
from ptnetmap.pcap.ngreader import read_blocks
from ptnetmap.pcap.reader import TOO_SHORT, read_records
from ptnetmap.pcap.record import Interface, Record
from ptnetmap.pcap.source import Source, open_file

_PCAP_UNITS = {PCAP_MICROSECONDS: 1_000_000, PCAP_NANOSECONDS: 1_000_000_000}
_KUZNETZOV = 0xA1B2CD34

_FOREIGN = {
    b"\x1f\x8b": ("it is compressed with gzip", "write: zcat FILE | ... -"),
    b"\x28\xb5\x2f\xfd": ("it is compressed with zstd", "write: zstdcat FILE | ... -"),
    b"\xfd7zXZ": ("it is compressed with xz", "write: xzcat FILE | ... -"),
    b"BZh": ("it is compressed with bzip2", "write: bzcat FILE | ... -"),
    b"\x04\x22\x4d\x18": ("it is compressed with lz4", "write: lz4cat FILE | ... -"),
    b"snoop\0\0\0": ("it is a snoop file", "convert it: editcap FILE NEW.pcapng"),
}


class Capture:
    """An open capture file: an iterator of records, and a context manager. Made by :func:`open_capture`.

    ``format`` is "pcap" or "pcapng"; ``interfaces`` grows as pcapng files tell of more. ``truncated`` becomes True if
    the file was found to end too early, and that was tolerated. At most a block, or a megabyte, is in memory at a time.
    """

    def __init__(self, file: BinaryIO, name: str, *, tolerant: bool = False, owned: bool = False) -> None:
        self._file = file
        self._owned = owned
        self._tolerant = tolerant
        self._source = Source(file, name)
        self.name = name
        self.interfaces: list[Interface] = []
        self.truncated = False
        self.format, self._records = self._recognise()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        try:
            return next(self._records)
        except CaptureFileError as error:
            if not (error.truncated and self._tolerant):
                raise
            self.truncated = True
            raise StopIteration from None

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned:
            self._file.close()

    def _recognise(self) -> tuple[str, Iterator[Record]]:
        """Look at the first bytes."""
        source = self._source
        if not source.need(4):
            found = f"it has {source.left()} bytes" if source.left() else "it is empty"
            raise bad_contents(self.name, 0, found, TOO_SHORT)
        first = source.data[:8]
        for beginning, (found, advice) in _FOREIGN.items():
            if first.startswith(beginning):
                raise bad_contents(self.name, 0, found, advice)
        if int.from_bytes(first[:4], "little") == SECTION_HEADER:
            return "pcapng", read_blocks(source, self.interfaces)
        orders: tuple[Order, Order] = ("<", ">")
        for order in orders:
            magic = int.from_bytes(first[:4], "little" if order == "<" else "big")
            if magic in _PCAP_UNITS:
                return "pcap", read_records(source, self.interfaces, order, _PCAP_UNITS[magic])
            if magic == _KUZNETZOV:
                raise bad_contents(
                    self.name, 0, "it is a pcap file of a patched libpcap", "convert it: editcap FILE NEW.pcapng"
                )
        raise bad_contents(
            self.name,
            0,
            f"it begins with the bytes {first[:4].hex(' ')}",
            "give a pcap or pcapng file; see file(1) for what it is",
        )


def open_capture(path: str | os.PathLike[str] | BinaryIO, *, tolerant: bool = False) -> Capture:
    """Open a pcap or pcapng file ("-": standard input; or a binary file object), and look at its beginning.

    A file that ends in the middle of a packet gives all whole ones, and then CaptureFileError; ``tolerant`` makes it
    end there instead. Raises CaptureFileError for anything that cannot be read.
    """
    file, name, owned = open_file(path)
    try:
        return Capture(file, name, tolerant=tolerant, owned=owned)
    except BaseException:
        if owned:
            file.close()
        raise

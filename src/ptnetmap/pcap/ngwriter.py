# SPDX-License-Identifier: BSD-2-Clause
"""Writing pcapng files: one section, nanoseconds, directions, statistics at the end."""

from __future__ import annotations

import errno
import os

import numpy as np
import numpy.typing as npt

from ptnetmap.pcap.error import CaptureFileError
from ptnetmap.pcap.layout import (
    BYTE_ORDER_MAGIC,
    END,
    ENHANCED_PACKET,
    EPB_FLAGS,
    IF_NAME,
    IF_TSRESOL,
    INTERFACE_DESCRIPTION,
    INTERFACE_STATISTICS,
    ISB_ENDTIME,
    ISB_IFDROP,
    ISB_IFRECV,
    ISB_STARTTIME,
    SECTION_HEADER,
    SHB_USERAPPL,
    block_header,
    enhanced_packet,
    interface_description,
    interface_statistics,
    option_header,
    packed,
    padding,
    section_header,
)
from ptnetmap.pcap.options import write_options
from ptnetmap.pcap.output import Bytes, Flush, Ints, Output, Room, check_time, way_of
from ptnetmap.pcap.record import ETHERNET

_HEAD = packed(block_header)
_PACKET = packed(enhanced_packet)
_U32 = (1 << 32) - 1
_TIMES = 1 << 64
_WORD = 4
_FLAGS_OPTION = EPB_FLAGS | 4 << 16  # code and size of the option, as one word
_BEFORE = _HEAD.size + _PACKET.size
_AFTER = option_header.itemsize + 4 + option_header.itemsize + 4  # the flags, the end of options, the size again
_LAST_BYTES = np.array([_U32, 0xFF, 0xFFFF, 0xFFFFFF], np.uint32)  # of a word that holds so many bytes of a packet


class PcapngWriter(Output):
    """Writes a pcapng file. See :class:`~ptnetmap.pcap.output.Output`.

    ``interface`` is interface 0's name; :meth:`add_interface` describes others. Packets longer than ``snaplen`` (0: no
    limit) are cut. ``application`` is named as the file's writer.
    """

    room = Room(before=_BEFORE, after=_AFTER, align=_WORD)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        interface: str = "",
        snaplen: int = 0,
        linktype: int = ETHERNET,
        application: str = "ptnetmap",
        flush: Flush = "batch",
    ) -> None:
        super().__init__(path, snaplen, flush)
        self._interfaces = 0
        body = packed(section_header).pack(BYTE_ORDER_MAGIC, 1, 0, -1)
        self._append(_block(SECTION_HEADER, body + write_options([(SHB_USERAPPL, application.encode())])))
        self.add_interface(interface, linktype=linktype, snaplen=snaplen)
        self.flush()

    def add_interface(self, name: str, *, linktype: int = ETHERNET, snaplen: int = 0) -> int:
        """Describe one more interface, whose times are in ns; return its number, for :meth:`write`."""
        options = [(IF_NAME, name.encode()[:0xFFFF])] if name else []
        options.append((IF_TSRESOL, bytes([9])))
        body = packed(interface_description).pack(linktype, 0, snaplen) + write_options(options)
        self._append(_block(INTERFACE_DESCRIPTION, body))
        self._interfaces += 1
        return self._interfaces - 1

    def statistics(
        self, *, received: int, dropped: int, ts_ns: int, started_ns: int | None = None, interface: int = 0
    ) -> None:
        """Append what an interface has seen and lost: at the end of a capture, at ``ts_ns`` (ns since 1970)."""
        times = [(ISB_ENDTIME, ts_ns)] if started_ns is None else [(ISB_STARTTIME, started_ns), (ISB_ENDTIME, ts_ns)]
        for _, time in times:
            check_time(self.name, time, _TIMES)
        options = [(code, _halves(time)) for code, time in times]
        options += [(ISB_IFRECV, received.to_bytes(8, "little")), (ISB_IFDROP, dropped.to_bytes(8, "little"))]
        body = packed(interface_statistics).pack(interface, ts_ns >> 32, ts_ns & _U32) + write_options(options)
        self._append(_block(INTERFACE_STATISTICS, body))

    def _encode(self, data: Bytes, ts_ns: int, length: int, outbound: bool | None, interface: int) -> bytes:
        check_time(self.name, ts_ns, _TIMES)
        if not 0 <= interface < self._interfaces:
            raise CaptureFileError(
                f"{self.name}: cannot write a packet of interface {interface}: {self._interfaces} are described\n"
                "        call add_interface() first",
                errno=errno.EINVAL,
            )
        head = _PACKET.pack(interface, ts_ns >> 32, ts_ns & _U32, len(data), length)
        options = write_options([(EPB_FLAGS, way_of(outbound).to_bytes(4, "little"))])
        return _block(ENHANCED_PACKET, head + bytes(data) + bytes(padding(len(data))) + options)

    def _frame(
        self, buffer: npt.NDArray[np.uint8], starts: Ints, captured: Ints, lengths: Ints, ts: Ints, way: Ints
    ) -> None:
        # Everything but the packets themselves is whole words at multiples of 4.
        words = buffer[: len(buffer) & -_WORD].view("<u4")
        head = (starts - _BEFORE) // _WORD
        foot = (starts + captured + _WORD - 1) // _WORD
        odd = captured % _WORD != 0
        words[foot[odd] - 1] &= _LAST_BYTES[captured[odd] % _WORD]
        size = (foot - head) * _WORD + _AFTER
        before = (ENHANCED_PACKET, size, 0, ts >> 32, ts & _U32, captured, lengths)
        after = (_FLAGS_OPTION, way, END, size)
        for first, values in ((head, before), (foot, after)):
            for i, value in enumerate(values):
                words[first + i] = value


def _block(kind: int, body: bytes) -> bytes:
    size = _HEAD.size + len(body) + 4
    return _HEAD.pack(kind, size) + body + size.to_bytes(4, "little")


def _halves(time: int) -> bytes:
    """Return a time as options have it: the upper half first, whatever the byte order of the halves."""
    return (time >> 32).to_bytes(4, "little") + (time & _U32).to_bytes(4, "little")

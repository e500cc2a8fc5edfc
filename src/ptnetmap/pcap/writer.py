# SPDX-License-Identifier: BSD-2-Clause
"""Writing pcap files, with nanoseconds."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from ptnetmap.pcap.layout import PCAP_NANOSECONDS, packed, pcap_header, pcap_record
from ptnetmap.pcap.output import Bytes, Flush, Ints, Output, Room, check_time
from ptnetmap.pcap.record import ETHERNET, NANOSECONDS

MAX_SNAPLEN = 262_144
"""What readers allow at the most (libpcap's MAXIMUM_SNAPLEN)."""

_LAST_SECOND = 1 << 32


class PcapWriter(Output):
    """Writes a pcap file: one interface, no directions. See :class:`~ptnetmap.pcap.output.Output`.

    Longer packets than ``snaplen`` (at most 262,144) are cut.
    """

    room = Room(before=pcap_record.itemsize, after=0, align=1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        snaplen: int = 0,
        linktype: int = ETHERNET,
        flush: Flush = "batch",
    ) -> None:
        super().__init__(path, min(snaplen or MAX_SNAPLEN, MAX_SNAPLEN), flush)
        self._header = packed(pcap_record)
        self._append(packed(pcap_header).pack(PCAP_NANOSECONDS, 2, 4, 0, 0, self.snaplen, linktype))
        self.flush()

    def _encode(self, data: Bytes, ts_ns: int, length: int, outbound: bool | None, interface: int) -> bytes:
        check_time(self.name, ts_ns, _LAST_SECOND * NANOSECONDS)
        seconds, fraction = divmod(ts_ns, NANOSECONDS)
        return self._header.pack(seconds, fraction, len(data), length) + bytes(data)

    def _frame(
        self, buffer: npt.NDArray[np.uint8], starts: Ints, captured: Ints, lengths: Ints, ts: Ints, way: Ints
    ) -> None:
        check_time(self.name, int(ts.min()), _LAST_SECOND * NANOSECONDS)
        check_time(self.name, int(ts.max()), _LAST_SECOND * NANOSECONDS)
        headers = np.zeros(len(starts), pcap_record)
        headers["seconds"] = ts // NANOSECONDS
        headers["fraction"] = ts % NANOSECONDS
        headers["captured"] = captured
        headers["length"] = lengths
        size = pcap_record.itemsize
        # Packets lie at any byte, so headers go in byte by byte.
        buffer[(starts - size)[:, np.newaxis] + np.arange(size)] = headers.view(np.uint8).reshape(-1, size)

# SPDX-License-Identifier: BSD-2-Clause
"""Options of requests in messages: their fields, and what their pointers and file descriptors mean here.

Memory that a request points to is in a file sent with the message: such a pointer is the file's index among the file
descriptors of the message, times 2^48, plus an offset in the file. Eventfds are indices, -1 for none.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.wire.codec import Body, Bytes, Codec, Fixed, Values
from ptnetmap.netmap.wire.error import refused

OPTION_HEADER = abi.nmreq_option.itemsize
_ENTRY = abi.sync_kloop_eventfd.itemsize
_SIZE_AT = 16
_OFFSET_BITS = 48
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_MAX_INDEX = 0xFFFF


class _Eventfds:
    """The eventfds option: ``nro_size`` as it was sent, ``eventfds`` a list of {ioeventfd, irqfd}, one per ring.

    A size that is not that of a whole number of entries is read, for SYNC_KLOOP_START to refuse it.
    """

    minimum = OPTION_HEADER
    _entry = Fixed(abi.sync_kloop_eventfd)

    def extent(self, data: Bytes, at: int) -> int:
        return max(OPTION_HEADER, int.from_bytes(data[at + _SIZE_AT : at + _SIZE_AT + 8], "little"))

    def size(self, values: Values) -> int:
        return max(OPTION_HEADER, int(values["nro_size"]))

    def complete(self, values: Values) -> Body:
        if unknown := sorted(set(values) - {"nro_size", "eventfds"}):
            raise refused(f"there is no field {unknown[0]}", "the fields are eventfds and nro_size")
        entries = [self._entry.complete(entry) for entry in values.get("eventfds", ())]
        size = values.get("nro_size", abi.eventfds_option_size(len(entries)))
        if not isinstance(size, int) or size < 0 or self._count(size) != len(entries):
            raise refused(
                f"nro_size cannot be {size!r} with {len(entries)} eventfds",
                f"leave it out, or give {abi.eventfds_option_size(len(entries))}",
            )
        return {"nro_size": size, "eventfds": entries}

    def unpack(self, data: Bytes, at: int) -> Body:
        size = int.from_bytes(data[at + _SIZE_AT : at + _SIZE_AT + 8], "little")
        first = at + OPTION_HEADER
        entries = [self._entry.unpack(data, first + _ENTRY * i) for i in range(self._count(size))]
        return {"nro_size": size, "eventfds": entries}

    def pack_into(self, buffer: bytearray, at: int, values: Values) -> None:
        buffer[at + _SIZE_AT : at + _SIZE_AT + 8] = values["nro_size"].to_bytes(8, "little")
        for i, entry in enumerate(values["eventfds"]):
            self._entry.pack_into(buffer, at + OPTION_HEADER + _ENTRY * i, entry)

    @staticmethod
    def _count(size: int) -> int:
        return max(0, size - OPTION_HEADER) // _ENTRY


OPTIONS: Mapping[int, Codec] = MappingProxyType(
    {
        number: _Eventfds() if number == abi.NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS else Fixed(layout, without=("nro_opt",))
        for number, layout in abi.OPTION_LAYOUTS.items()
    }
)
"""The fields of each option, without its header."""


class FilePlace(NamedTuple):
    """Where something is in memory: the index of a file descriptor sent with the message, and an offset in the file."""

    fd: int
    offset: int

    def __int__(self) -> int:
        """Return the pointer that says so."""
        if not (0 <= self.fd <= _MAX_INDEX and 0 <= self.offset <= _OFFSET_MASK):
            raise refused(f"{tuple(self)} is no place in a file", "the index has 16 bits, the offset 48")
        return self.fd << _OFFSET_BITS | self.offset


def file_place(pointer: int, fd_count: int, align: int = 1) -> FilePlace:
    """Return what a pointer in an option means, in a message with ``fd_count`` file descriptors.

    Raises WireError: EFAULT for a file that was not sent, EINVAL for an offset that is no multiple of ``align``.
    """
    place = FilePlace(pointer >> _OFFSET_BITS, pointer & _OFFSET_MASK)
    if not place.fd < fd_count:
        raise refused(
            f"it points to file {place.fd}, and {fd_count} were sent", "send the file with the message", errno.EFAULT
        )
    if place.offset % align:
        raise refused(f"an address is {place.offset:#x}", f"use a multiple of {align}")
    return place


def csb_places(option: Values, flags: int, fd_count: int) -> tuple[FilePlace, FilePlace]:
    """Return where the atok and ktoa entries of a CSB option are; ``flags`` are those of the registration.

    Raises WireError: EINVAL without NR_EXCLUSIVE or for arrays not aligned to 64 bytes, EFAULT for a file not sent.
    """
    if not flags & abi.NR_EXCLUSIVE:
        raise refused("the CSB of a port that others may bind", "register with NR_EXCLUSIVE")
    atok, ktoa = (file_place(option[name], fd_count, abi.CSB_ALIGN) for name in ("csb_atok", "csb_ktoa"))
    return atok, ktoa


def eventfd_indices(option: Values, rings: int, fd_count: int) -> list[tuple[int, int]]:
    """Return (ioeventfd, irqfd) of each of ``rings`` bound rings, as indices of file descriptors, -1 for none.

    Raises WireError: EINVAL for another number of rings, EBADF for an index without file descriptor.
    """
    if option["nro_size"] != abi.eventfds_option_size(rings):
        raise refused(
            f"the eventfds option has {option['nro_size']} bytes, for {rings} rings",
            f"nro_size has to be {abi.eventfds_option_size(rings)}",
        )
    pairs = [(max(-1, entry["ioeventfd"]), max(-1, entry["irqfd"])) for entry in option["eventfds"]]
    if (largest := max((max(pair) for pair in pairs), default=-1)) >= fd_count:
        raise refused(f"eventfd {largest} of {fd_count} sent", "send it with the message", errno.EBADF)
    return pairs


def kloop_mode(option: Values, pairs: list[tuple[int, int]]) -> int:
    """Return the NM_OPT_SYNC_KLOOP_DIRECT_* bits of a mode option, for a loop with these eventfds.

    Raises WireError (EINVAL) for other bits, and for a direct mode while a ring has no ioeventfd.
    """
    mode = int(option["mode"])
    if mode & ~(abi.NM_OPT_SYNC_KLOOP_DIRECT_TX | abi.NM_OPT_SYNC_KLOOP_DIRECT_RX):
        raise refused(f"mode {mode:#x} of the sync loop", "use DIRECT_TX, DIRECT_RX, both or 0")
    if mode and (not pairs or min(ioeventfd for ioeventfd, _ in pairs) < 0):
        raise refused("a direct mode, and not every ring has an ioeventfd", "send one per ring, or use mode 0")
    return mode

# SPDX-License-Identifier: BSD-2-Clause
"""A disk's contents: a file or a block device of the host, read and written at any number of places at once."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ptnetmap.errors import ConfigError

SECTOR = 512
"""Sizes of sectors are multiples of this."""

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_FALLOC_FL_ZERO_RANGE = 0x10
_BLKSSZGET = 0x1268
_BLKPBSZGET = 0x127B
_BOUNCE = 1 << 20
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class BlockImage:
    """The file or block device at ``path``.

    ``read_only`` opens it so; it is opened so anyway, as bhyve does, where it cannot be written, and the attribute
    tells. ``nocache`` goes around the host's page cache (O_DIRECT), ``sync`` lets each write reach the medium (O_SYNC).
    ``sector_size`` is ``LOGICAL`` or ``LOGICAL/PHYSICAL`` in bytes, powers of two from 512 on; without it, what the
    host says. ``size`` is in bytes, whole logical sectors. Raises ConfigError, and its methods OSError.
    """

    def __init__(
        self, path: str, *, read_only: bool = False, nocache: bool = False, sync: bool = False, sector_size: str = ""
    ) -> None:
        given = _parse_sector_size(sector_size) if sector_size else None
        flags = os.O_CLOEXEC | (os.O_DIRECT if nocache else 0) | (os.O_SYNC if sync else 0)
        self.path = path
        self.read_only = read_only
        self.fd = -1
        try:
            self.fd = self._open(flags)
            status = os.fstat(self.fd)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                raise ConfigError(f"{path} is neither a file nor a block device\n        give the image of a disk")
            self.alignment = self._direct_alignment() if nocache else 0
            logical, physical = given or self._sectors(status)
            # Guests have to send what O_DIRECT takes, whatever was asked.
            self.logical_sector = max(logical, self.alignment)
            self.physical_sector = max(physical, self.logical_sector)
            self.size = os.lseek(self.fd, 0, os.SEEK_END) // self.logical_sector * self.logical_sector
        except OSError as error:
            self.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"cannot open the disk image {path}: {error.strerror}", error.errno or errno.EIO
            ) from error

    def _open(self, flags: int) -> int:
        if not self.read_only:
            try:
                return os.open(self.path, os.O_RDWR | flags)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
            self.read_only = True
        return os.open(self.path, os.O_RDONLY | flags)

    def _direct_alignment(self) -> int:
        """Return what O_DIRECT wants offsets, lengths and addresses to be multiples of, by trying."""
        with mmap.mmap(-1, mmap.PAGESIZE) as page, memoryview(page) as view:
            for alignment in (SECTOR, 1024, 2048):
                try:
                    os.preadv(self.fd, [view[:alignment]], alignment)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                else:
                    return alignment
        return mmap.PAGESIZE

    def _sectors(self, status: os.stat_result) -> tuple[int, int]:
        if stat.S_ISREG(status.st_mode):
            return SECTOR, max(status.st_blksize & -status.st_blksize, SECTOR)
        word = struct.Struct("i")
        logical, physical = (
            word.unpack(fcntl.ioctl(self.fd, request, word.pack(0)))[0] for request in (_BLKSSZGET, _BLKPBSZGET)
        )
        return logical, physical

    def read(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill ``views`` from ``offset`` bytes on; raises OSError (EIO) at the end of the file."""
        if self._fits(views):
            _transfer(os.preadv, self.fd, views, offset)
            return
        for part, bounce in self._bounces(views):
            _transfer(os.preadv, self.fd, [bounce], offset)
            at = 0
            for view in part:
                view[:] = bounce[at : at + len(view)]
                at += len(view)
            offset += at

    def write(self, views: Sequence[memoryview], offset: int) -> None:
        """Write ``views`` from ``offset`` bytes on."""
        if self._fits(views):
            _transfer(os.pwritev, self.fd, views, offset)
            return
        for part, bounce in self._bounces(views):
            at = 0
            for view in part:
                bounce[at : at + len(view)] = view
                at += len(view)
            _transfer(os.pwritev, self.fd, [bounce], offset)
            offset += at

    def flush(self) -> None:
        """Return when all that was written is on the medium."""
        os.fdatasync(self.fd)

    def discard(self, offset: int, length: int) -> None:
        """Give the space of a range back; it reads as zeroes. Raises OSError (EOPNOTSUPP) where that is not possible."""
        self._fallocate(_FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length)

    def zero(self, offset: int, length: int, *, discard: bool) -> None:
        """Zero a range, keeping its space unless ``discard`` allows to give it back."""
        modes = [_FALLOC_FL_ZERO_RANGE | _FALLOC_FL_KEEP_SIZE]
        if discard:
            modes.insert(0, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE)
        for mode in modes:
            try:
                self._fallocate(mode, offset, length)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            else:
                return
        with mmap.mmap(-1, _BOUNCE) as zeroes, memoryview(zeroes) as view:
            for start in range(0, length, _BOUNCE):
                _transfer(os.pwritev, self.fd, [view[: min(_BOUNCE, length - start)]], offset + start)

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        while _libc.fallocate(self.fd, mode, offset, length):
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, f"{self.path}: fallocate({mode:#x}): {os.strerror(number)}")

    def _fits(self, views: Sequence[memoryview]) -> bool:
        """Whether the file can be read into, or written from, the views themselves."""
        if not self.alignment:
            return True
        return all(
            len(view) % self.alignment == 0 and np.frombuffer(view, np.uint8).ctypes.data % self.alignment == 0
            for view in views
        )

    @staticmethod
    def _bounces(views: Sequence[memoryview]) -> Iterator[tuple[list[memoryview], memoryview]]:
        """Yield ``views`` in portions, each with as much aligned memory of ours."""
        with mmap.mmap(-1, _BOUNCE) as buffer, memoryview(buffer) as bounce:
            part: list[memoryview] = []
            room = _BOUNCE
            for view in views:
                while view:
                    part.append(view[:room])
                    room -= len(part[-1])
                    view = view[len(part[-1]) :]
                    if not room:
                        yield part, bounce
                        part, room = [], _BOUNCE
            if part:
                with bounce[: _BOUNCE - room] as rest:
                    yield part, rest


def _transfer(
    call: Callable[[int, list[memoryview], int], int], fd: int, views: Sequence[memoryview], offset: int
) -> None:
    """Call preadv or pwritev until all of ``views`` is done."""
    views = list(views)
    while views:
        done = call(fd, views, offset)
        if done == 0:
            raise OSError(errno.EIO, "the disk image ends early: it has been cut")
        offset += done
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if done:
            views[0] = views[0][done:]


def _parse_sector_size(text: str) -> tuple[int, int]:
    logical, slash, physical = text.partition("/")
    if logical.isascii() and logical.isdigit() and (not slash or (physical.isascii() and physical.isdigit())):
        sizes = int(logical), int(physical) if slash else int(logical)
        if SECTOR <= sizes[0] <= sizes[1] and not any(size & (size - 1) for size in sizes):
            return sizes
    raise ConfigError(
        f"Invalid sector size {text}\n"
        f"        write LOGICAL or LOGICAL/PHYSICAL: powers of two from {SECTOR} on, the second not the smaller one"
    )

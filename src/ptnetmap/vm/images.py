# SPDX-License-Identifier: BSD-2-Clause
"""Looks at a disk image before a guest does: whether it is there, raw, whole, and nobody else's.

bhyve's virtio-blk takes raw images only. What the first bytes show to be something else is refused by name; what a
partition table places behind the end of the file was cut.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from ptnetmap.errors import ConfigError

SECTOR = 512

_FORMATS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
)
"""Offset, bytes, and qemu-img's name."""

_PACKED = ((b"\x1f\x8b", "gunzip"), (b"\xfd7zXZ\0", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd"), (b"PK\3\4", "unzip"))


def check_image(path: str) -> None:
    """Raise ConfigError unless ``path`` is a raw image that can be read, whole as far as can be seen."""
    head, size = _look(path)
    for offset, magic, name in _FORMATS:
        if head[offset : offset + len(magic)] == magic:
            raise ConfigError(
                f"{path} is a {name} image, and bhyve takes raw ones\n"
                f"        convert it: qemu-img convert -f {name} -O raw {path} {Path(path).with_suffix('.raw')}"
            )
    for magic, tool in _PACKED:
        if head.startswith(magic):
            raise ConfigError(f"{path} is compressed\n        unpack it first, with {tool}")
    if size < SECTOR:
        raise ConfigError(f"{path} has {size} bytes, less than a sector\n        give the image of a disk")
    end = _end_of_partitions(head)
    if size % SECTOR or end > size:
        need = f", its partitions need {end:,}" if end > size else f", no whole number of {SECTOR}-byte sectors"
        raise ConfigError(
            f"{path} is truncated: it has {size:,} bytes{need}\n        get it again, or convert it again"
        )


def lock_image(path: str) -> int:
    """Lock the image for a machine that may write to it, and return the open file, whose last close unlocks.

    Machines that can only read it share it. Raises ConfigError (EBUSY) if another machine has it.
    """
    try:
        writable = os.access(path, os.W_OK)
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"cannot open the disk image {path}: {error.strerror}\n        check the path and who may read it",
            error.errno or errno.EIO,
        ) from error
    try:
        # A lock on a device's node would be one that udev looks at.
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise ConfigError(
            f"{path} is the disk of a virtual machine that is running, and two would destroy it\n"
            "        stop that one first, or give this one a copy",
            errno.EBUSY,
        ) from error
    except OSError:
        pass  # a file system without locks
    return fd


def check_file(path: str, what: str) -> None:
    """Raise ConfigError unless ``path``, a ``what``, can be read and is not empty."""
    if not _look(path, what)[1]:
        raise ConfigError(f"the {what} {path} is empty\n        give another")


def _look(path: str, what: str = "disk image") -> tuple[bytes, int]:
    """Return the first bytes, and the size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise ConfigError(f"the {what} {path} is neither a file nor a block device\n        give another")
            return os.pread(fd, 2 * SECTOR + 92, 0), os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(
            f"cannot open the {what} {path}: {error.strerror}\n        check the path and who may read it",
            error.errno or errno.EIO,
        ) from error


def _end_of_partitions(head: bytes) -> int:
    """Return where the last partition ends, in bytes, by the GPT or the MBR; 0 if there is neither."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART" and len(head) >= SECTOR + 92:
        backup = struct.unpack_from("<Q", head, SECTOR + 32)[0]
        return int(backup + 1) * SECTOR
    if head[510:512] != b"\x55\xaa":
        return 0
    end = 0
    for at in range(446, 510, 16):
        status, kind, first, count = struct.unpack_from("<B3xB3xII", head, at)
        if status not in (0, 0x80):
            return 0  # a boot sector without a table, as FAT has
        if kind and count:
            end = max(end, first + count)
    return end * SECTOR

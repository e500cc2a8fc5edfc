# SPDX-License-Identifier: BSD-2-Clause
"""Linux's bzImage: what its setup header says, checked (boot.rst)."""

from __future__ import annotations

from dataclasses import dataclass

from ptnetmap.abi import boot as abi
from ptnetmap.bhyve.boot.image import ImageFile

_OLDEST = 0x020C  # XLF_KERNEL_64 came with 2.12
_PAGE = 4096
_LARGEST_ALIGNMENT = 1 << 30


@dataclass(frozen=True, slots=True)
class BzImage:
    """A bzImage with a 64-bit entry point.

    ``header`` is its setup header as it is in the file, padded with zeros to ``setup_header``'s size; ``offset`` and
    ``size`` say where its protected-mode code is in the file, in bytes. ``pref_address`` is where it would like to be,
    ``alignment`` and ``relocatable`` where else it may be; ``init_size`` bytes from there must be RAM.
    """

    header: bytes
    version: int
    offset: int
    size: int
    pref_address: int
    alignment: int
    relocatable: bool
    init_size: int
    cmdline_size: int
    initrd_addr_max: int


def is_bzimage(start: bytes) -> bool:
    """Return whether a file that begins with ``start`` (at least 0x206 bytes) says that it is a bzImage."""
    magic = abi.HDRS.to_bytes(4, "little")
    return start[0x1FE:0x200] == abi.BOOT_FLAG.to_bytes(2, "little") and start[0x202:0x206] == magic


def read_bzimage(image: ImageFile) -> BzImage:
    """Return what the header of ``image`` says; raises GuestError if it cannot be, or has no 64-bit entry point."""
    start = image.read(abi.SETUP_HEADER_OFFSET, 0x11, "the setup header")
    end = abi.SETUP_JUMP_END + start[0x10]
    if not 0x268 <= end <= abi.SETUP_HEADER_LIMIT:
        image.refuse(
            f"its setup header ends at {end:#x}, which must be between 0x268 and {abi.SETUP_HEADER_LIMIT:#x}",
            "it is damaged, or a kernel from before 2012",
        )
    raw = image.read(abi.SETUP_HEADER_OFFSET, end - abi.SETUP_HEADER_OFFSET, "the setup header")
    raw = raw[: abi.setup_header.itemsize].ljust(abi.setup_header.itemsize, b"\0")
    fields = _fields(raw)
    _check(image, fields)
    offset = ((fields["setup_sects"] or 4) + 1) * abi.SECTOR
    size = fields["syssize"] * abi.PARAGRAPH
    if size <= abi.ENTRY_64:
        image.refuse(f"its protected-mode code has {size:,} bytes", "it is damaged: copy it again")
    # syssize counts whole paragraphs, and a file may end inside the last one.
    size = min(size, max(size - abi.PARAGRAPH + 1, image.size - offset))
    image.check(offset, size, "the protected-mode code")
    return BzImage(
        header=raw,
        version=fields["version"],
        offset=offset,
        size=size,
        pref_address=fields["pref_address"],
        alignment=max(fields["kernel_alignment"], _PAGE),
        relocatable=bool(fields["relocatable_kernel"]),
        init_size=max(fields["init_size"], size),
        cmdline_size=fields["cmdline_size"],
        initrd_addr_max=fields["initrd_addr_max"],
    )


def _fields(raw: bytes) -> dict[str, int]:
    return {
        name: int.from_bytes(raw[offset : offset + kind.itemsize], "little")
        for name, (kind, offset, *_) in (abi.setup_header.fields or {}).items()
    }


def _check(image: ImageFile, fields: dict[str, int]) -> None:
    version = fields["version"]
    if version < _OLDEST:
        image.refuse(
            f"it speaks boot protocol {version >> 8}.{version & 0xFF:02}, which has no 64-bit entry point",
            "give a 64-bit kernel, of Linux 3.8 or later",
        )
    if not fields["loadflags"] & abi.LOADED_HIGH:
        image.refuse("it is a zImage, to be loaded below 1 MiB", "give a bzImage")
    if not fields["xloadflags"] & abi.XLF_KERNEL_64:
        image.refuse("it is a 32-bit kernel", "give a 64-bit kernel (x86_64, amd64)")
    alignment = fields["kernel_alignment"]
    if alignment & (alignment - 1) or alignment > _LARGEST_ALIGNMENT:
        image.refuse(f"it asks for an alignment of {alignment:#x} bytes", "it is damaged: copy it again")

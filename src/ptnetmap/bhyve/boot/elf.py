# SPDX-License-Identifier: BSD-2-Clause
"""A kernel as a 64-bit ELF file: its segments and Xen's note, checked.

Reads headers only, within fixed bounds: what a hostile file can cost is known beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptnetmap.abi import boot, elf
from ptnetmap.bhyve.boot.image import ImageFile

_MOST_HEADERS = 128
_MOST_NOTE_BYTES = 64 << 10
_ADDRESSES = 1 << 64


@dataclass(frozen=True, slots=True)
class Loadable:
    """``filesz`` bytes at ``offset`` of the file go to physical address ``paddr``; ``memsz - filesz`` zeros follow."""

    paddr: int
    offset: int
    filesz: int
    memsz: int

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.paddr + self.memsz


@dataclass(frozen=True, slots=True)
class ElfKernel:
    """An ELF kernel: its segments by address, its own entry point, and PVH's (None if it has no such note)."""

    segments: tuple[Loadable, ...]
    entry: int
    pvh_entry: int | None


def is_elf(start: bytes) -> bool:
    """Return whether a file that begins with ``start`` says that it is an ELF file."""
    return start.startswith(elf.ELF_MAGIC)


def read_elf(image: ImageFile) -> ElfKernel:
    """Return what the headers of ``image`` say; raises GuestError if they cannot be, or it is for another machine."""
    ident = image.read(0, 16, "the ELF header")
    if ident[elf.EI_CLASS] != elf.ELFCLASS64 or ident[elf.EI_DATA] != elf.ELFDATA2LSB:
        image.refuse("it is an ELF file, but not a 64-bit little-endian one", "give a kernel for x86-64")
    header = image.record(0, elf.elf64_ehdr, "the ELF header")
    if header["e_machine"] != elf.EM_X86_64 or header["e_type"] not in (elf.ET_EXEC, elf.ET_DYN):
        image.refuse(
            f"it is an ELF file of type {header['e_type']} for machine {header['e_machine']}",
            "give an executable kernel for x86-64 (type 2 or 3, machine 62)",
        )
    if header["e_phentsize"] != elf.elf64_phdr.itemsize or not 0 < header["e_phnum"] <= _MOST_HEADERS:
        image.refuse(
            f"it has {header['e_phnum']} program headers of {header['e_phentsize']} bytes",
            f"it is damaged, or no kernel: expected 1 to {_MOST_HEADERS} of {elf.elf64_phdr.itemsize}",
        )
    raw = image.read(header["e_phoff"], header["e_phnum"] * elf.elf64_phdr.itemsize, "the table of program headers")
    names = elf.elf64_phdr.names or ()
    headers = [dict(zip(names, value, strict=True)) for value in np.frombuffer(raw, elf.elf64_phdr).tolist()]
    return ElfKernel(
        segments=tuple(_segments(image, headers)), entry=header["e_entry"], pvh_entry=_pvh_entry(image, headers)
    )


def _segments(image: ImageFile, headers: list[dict[str, int]]) -> list[Loadable]:
    """Return what is to be loaded, in the order of addresses; no two of them share a byte."""
    found = []
    for number, header in enumerate(headers):
        if header["p_type"] != elf.PT_LOAD or not header["p_memsz"]:
            continue
        name = f"segment {number}"
        part = Loadable(header["p_paddr"], header["p_offset"], header["p_filesz"], header["p_memsz"])
        if part.filesz > part.memsz or part.end > _ADDRESSES:
            image.refuse(
                f"{name} has {part.filesz:,} bytes in the file and {part.memsz:,} in memory, at {part.paddr:#x}",
                "it is damaged: copy it again",
            )
        image.check(part.offset, part.filesz, name)
        found.append(part)
    found.sort(key=lambda part: part.paddr)
    for first, second in itertools.pairwise(found):
        if first.end > second.paddr:
            image.refuse(
                f"segments overlap: {first.paddr:#x}-{first.end:#x} and {second.paddr:#x}-{second.end:#x}",
                "it is damaged: copy it again",
            )
    if not found:
        image.refuse("it has no segment to load", "give an executable kernel")
    return found


def _pvh_entry(image: ImageFile, headers: list[dict[str, int]]) -> int | None:
    for header in headers:
        if header["p_type"] == elf.PT_NOTE:
            for name, kind, contents in _notes(image, header):
                if name == boot.XEN_NOTE_NAME and kind == boot.XEN_ELFNOTE_PHYS32_ENTRY:
                    if len(contents) not in (4, 8):
                        image.refuse(
                            f"its note of the PVH entry point has {len(contents)} bytes",
                            "it is damaged: 4 or 8 bytes are expected",
                        )
                    return int.from_bytes(contents, "little")
    return None


def _notes(image: ImageFile, header: dict[str, int]) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield name, type and contents of each note of a segment; what does not fit in the segment ends it."""
    size = header["p_filesz"]
    if size > _MOST_NOTE_BYTES:
        image.refuse(f"it has {size:,} bytes of notes", f"it is damaged, or no kernel: at most {_MOST_NOTE_BYTES:,}")
    raw = image.read(header["p_offset"], size, "a segment of notes")
    padding = 8 if header["p_align"] == 8 else 4
    at = 0
    while at + elf.elf_nhdr.itemsize <= size:
        namesz, descsz, kind = (int(field) for field in np.frombuffer(raw, elf.elf_nhdr, 1, at)[0])
        name = at + elf.elf_nhdr.itemsize
        contents = -(-(name + namesz) // padding) * padding
        if contents + descsz > size:
            return
        yield raw[name : name + namesz], kind, raw[contents : contents + descsz]
        at = -(-(contents + descsz) // padding) * padding

# SPDX-License-Identifier: BSD-2-Clause
"""From files to a virtual CPU that is about to start: first a plan, which touches nothing, then the loading."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from ptnetmap.abi import boot as abi
from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.bzimage import BzImage, is_bzimage, read_bzimage
from ptnetmap.bhyve.boot.elf import ElfKernel, is_elf, read_elf
from ptnetmap.bhyve.boot.entry import long_mode, protected_mode
from ptnetmap.bhyve.boot.image import ImageFile
from ptnetmap.bhyve.boot.linux import boot_params, own_header
from ptnetmap.bhyve.boot.placement import Part, place_bzimage, place_elf, place_initrd
from ptnetmap.bhyve.boot.pvh import start_info
from ptnetmap.bhyve.boot.start import CpuState
from ptnetmap.errors import ConfigError

LINUX64 = "Linux, 64-bit entry"
"""A bzImage, entered in long mode with the boot parameters in RSI."""
PVH = "PVH"
"""An ELF file with Xen's note, entered in protected mode with the start information in EBX."""
ELF64 = "ELF, 64-bit entry"
"""An ELF file without that note, entered as a bzImage is."""

_LONGEST_CMDLINE = 2047  # of an x86 Linux (COMMAND_LINE_SIZE), for images that do not say
_START_OF_IMAGE = 0x206


@dataclass(frozen=True)
class Plan:
    """How a kernel will be loaded and started.

    ``protocol`` is one of :data:`LINUX64`, :data:`PVH`, :data:`ELF64`; ``entry`` the address of its first instruction;
    ``parts`` what is loaded of it, by address; ``initrd`` the same of the initrd, or None; ``cmdline`` the command line
    without its zero; ``header`` the setup header that the boot parameters begin with, empty for PVH. A plan keeps its
    files open until :meth:`close`, so that what was checked is what is loaded.
    """

    protocol: str
    entry: int
    parts: tuple[Part, ...]
    initrd: Part | None
    cmdline: bytes
    header: bytes
    low_size: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; more than once is fine."""
        for part in (*self.parts, self.initrd):
            if part:
                part.image.close()

    def load(self, memory: layout.Memory, *, rsdp: int | None = None) -> CpuState:
        """Put everything into guest ``memory``, which must be new, and return how the boot processor starts.

        ``rsdp`` is the address of ACPI's root pointer, which the kernel is told if there is one. Raises GuestError if
        a file cannot be read any more.
        """
        if memory.low_size != self.low_size:
            raise ValueError(f"planned for {self.low_size:,} bytes of low memory, not {memory.low_size:,}")
        for part in (*self.parts, self.initrd):
            if part:
                part.load(memory)
        memory.write(layout.CMDLINE, self.cmdline + b"\0")
        ranges = layout.memory_map(memory.low_size, memory.high_size)
        initrd = (self.initrd.gpa, self.initrd.size) if self.initrd else None
        if self.protocol == PVH:
            info = start_info(layout.PARAMETERS, cmdline=layout.CMDLINE, initrd=initrd, ranges=ranges, rsdp=rsdp)
            memory.write(layout.PARAMETERS, info)
            return protected_mode(memory, self.entry, layout.PARAMETERS)
        page = boot_params(
            self.header,
            kernel=self.parts[0].gpa,
            cmdline=layout.CMDLINE,
            initrd=initrd,
            ranges=ranges,
            rsdp=rsdp,
        )
        memory.write(layout.PARAMETERS, page)
        return long_mode(memory, self.entry, layout.PARAMETERS)


def plan(
    kernel: str | os.PathLike[str],
    *,
    initrd: str | os.PathLike[str] | None = None,
    cmdline: str = "",
    low_size: int,
) -> Plan:
    """Check ``kernel`` and ``initrd`` (paths) and say how they will be loaded.

    ``low_size`` is how much memory the guest has below the PCI hole, in bytes. Raises GuestError, which names the file,
    for an image that cannot be started in this guest, and ConfigError for a command line that it cannot take.
    """
    if low_size < layout.SMALLEST:
        raise ConfigError(
            f"bhyve: {low_size:,} bytes of guest memory hold no kernel\n        give at least 32 MB (-m 32M)"
        )
    with ExitStack() as opened:
        image = opened.enter_context(ImageFile(kernel, "kernel"))
        start = image.read(0, min(image.size, _START_OF_IMAGE), "its beginning")
        if is_bzimage(start):
            bzimage = read_bzimage(image)
            planned = _plan_bzimage(image, bzimage, cmdline, low_size)
            limit = min(low_size, bzimage.initrd_addr_max + 1)
        elif is_elf(start):
            planned = _plan_elf(image, read_elf(image), cmdline, low_size)
            limit = low_size
        else:
            image.refuse(
                f"it begins with {start[:4].hex(' ') or 'nothing'}, and is neither a bzImage nor an ELF file",
                "give Linux's vmlinuz for x86-64, or an ELF kernel with a PVH entry point, both uncompressed",
            )
        if initrd is not None:
            file = opened.enter_context(ImageFile(initrd, "initrd"))
            lowest = max(part.end for part in planned.parts)
            planned = replace(planned, initrd=place_initrd(file, lowest, limit))
        opened.pop_all()
    return planned


def _plan_bzimage(image: ImageFile, kernel: BzImage, cmdline: str, low_size: int) -> Plan:
    part = place_bzimage(image, kernel, low_size)
    return Plan(
        protocol=LINUX64,
        entry=part.gpa + abi.ENTRY_64,
        parts=(part,),
        initrd=None,
        cmdline=_encode(cmdline, min(kernel.cmdline_size, layout.EBDA - layout.CMDLINE - 1)),
        header=kernel.header,
        low_size=low_size,
    )


def _plan_elf(image: ImageFile, kernel: ElfKernel, cmdline: str, low_size: int) -> Plan:
    parts = place_elf(image, kernel, low_size)
    protocol, entry = (ELF64, kernel.entry) if kernel.pvh_entry is None else (PVH, kernel.pvh_entry)
    if not any(part.gpa <= entry < part.end for part in parts):
        image.refuse(
            f"its entry point ({protocol}) is {entry:#x}, where nothing is loaded",
            "give a kernel with a PVH entry point, or with a physical address as its entry point",
        )
    return Plan(
        protocol=protocol,
        entry=entry,
        parts=parts,
        initrd=None,
        cmdline=_encode(cmdline, _LONGEST_CMDLINE),
        header=b"" if protocol == PVH else own_header(),
        low_size=low_size,
    )


def _encode(cmdline: str, longest: int) -> bytes:
    data = os.fsencode(cmdline)
    if b"\0" in data:
        raise ConfigError("bhyve: the kernel's command line has a zero byte in it\n        leave it out")
    if len(data) > longest:
        raise ConfigError(
            f"bhyve: the kernel's command line has {len(data):,} bytes, and this kernel takes {longest:,}\n"
            "        shorten it (cmdline=)"
        )
    return data

# SPDX-License-Identifier: BSD-2-Clause
"""The two modes in which kernels are entered, and the tables in guest memory that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptnetmap.abi.boot import BOOT_CS, BOOT_DS
from ptnetmap.bhyve.boot import layout
from ptnetmap.bhyve.boot.start import (
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    CpuState,
    Segment,
    Table,
)

if TYPE_CHECKING:
    from ptnetmap.bhyve.boot.layout import Memory

_FLAT = 0xFFFFFFFF
_CODE = 0xB  # execute, read, accessed
_DATA = 0x3  # read, write, accessed
_BUSY_TSS = 0xB
_TSS_SELECTOR = 0x20
_TSS_LIMIT = 0x67
_PRESENT_WRITABLE = 0x3
_LARGE_PAGE = 0x80
_PAGE = 4096
_IDENTITY = 4  # GiB: all that any loader here places lies below


def _segments(code: Segment) -> tuple[Segment, Segment, Segment]:
    data = Segment(selector=BOOT_DS, limit=_FLAT, type=_DATA, db=1, g=1)
    # The processor insists on a task register in both modes; a PVH kernel is promised base 0 and limit 0x67.
    task = Segment(selector=_TSS_SELECTOR, limit=_TSS_LIMIT, type=_BUSY_TSS, s=0)
    return code, data, task


def _write_gdt(memory: Memory, segments: tuple[Segment, Segment, Segment]) -> Table:
    """Write a table in which each selector in use names what its register holds."""
    entries = [0] * 6  # a 64-bit TSS descriptor is two entries long
    for segment in segments:
        entries[segment.selector // 8] = segment.descriptor()
    data = b"".join(entry.to_bytes(8, "little") for entry in entries)
    memory.write(layout.GDT, data)
    return Table(layout.GDT, len(data) - 1)


def _write_identity_map(memory: Memory) -> int:
    """Map the first 4 GiB to themselves in pages of 2 MiB, and return the address of the top level."""
    directories = layout.PAGE_TABLES + 2 * _PAGE
    levels = [
        [layout.PAGE_TABLES + _PAGE | _PRESENT_WRITABLE],
        [directories + index * _PAGE | _PRESENT_WRITABLE for index in range(_IDENTITY)],
        [index << 21 | _PRESENT_WRITABLE | _LARGE_PAGE for index in range(_IDENTITY * 512)],
    ]
    for level, entries in enumerate(levels):
        data = b"".join(entry.to_bytes(8, "little") for entry in entries)
        memory.write(layout.PAGE_TABLES + level * _PAGE, data.ljust(_PAGE, b"\0"))
    return layout.PAGE_TABLES


def long_mode(memory: Memory, entry: int, boot_params: int) -> CpuState:
    """Prepare ``memory`` for 64-bit code at ``entry``, with the address ``boot_params`` in RSI.

    Paging is on, the first 4 GiB mapped to themselves; CS is 0x10 and the data segments 0x18, both flat; interrupts
    are off. Source: boot.rst, "64-bit Boot Protocol".
    """
    segments = _segments(Segment(selector=BOOT_CS, limit=_FLAT, type=_CODE, l=1, g=1))
    code, data, task = segments
    return CpuState(
        rip=entry,
        cs=code,
        ds=data,
        tr=task,
        gdt=_write_gdt(memory, segments),
        cr0=CR0_PE | CR0_ET | CR0_NE | CR0_PG,
        cr3=_write_identity_map(memory),
        cr4=CR4_PAE,
        efer=EFER_LME | EFER_LMA,
        rsi=boot_params,
        rsp=layout.STACK,
        rbp=layout.STACK,
    )


def protected_mode(memory: Memory, entry: int, start_info: int) -> CpuState:
    """Prepare ``memory`` for 32-bit code at ``entry``, with the address ``start_info`` in EBX.

    Segments are flat, CR0 has PE alone (and ET, which nobody can clear), CR4 nothing; there is no paging, and
    interrupts are off. Source: the x86/HVM direct boot ABI (Xen, pvh.pandoc).
    """
    segments = _segments(Segment(selector=BOOT_CS, limit=_FLAT, type=_CODE, db=1, g=1))
    code, data, task = segments
    return CpuState(
        rip=entry,
        cs=code,
        ds=data,
        tr=task,
        gdt=_write_gdt(memory, segments),
        cr0=CR0_PE | CR0_ET,
        rbx=start_info,
        rsp=layout.STACK,
    )

# SPDX-License-Identifier: BSD-2-Clause
"""Loading the built-in guest: image, tables and boot information into guest memory, and the processors' first state.

Needs no compiler. Every processor starts at level 3, in 64-bit mode, without any start-up protocol.
"""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from ptnetmap.errors import ConfigError, GuestError
from ptnetmap.guest import layout
from ptnetmap.guest.descriptors import (
    GDT_SIZE,
    NO_SEGMENT,
    USER_CODE_SEGMENT,
    USER_DATA_SEGMENT,
    Segment,
    gate,
    gdt,
    task_segment,
    task_state,
)
from ptnetmap.guest.image import Image, built_in
from ptnetmap.guest.layout import boot_info, cpu_block, offsets
from ptnetmap.guest.pagetables import PageTables

SMALLEST = 32 << 20
"""Bytes of low memory that the guest needs."""
MOST_PROCESSORS = 255
"""The local APICs' ids have 8 bits, and one of them means all."""

CR0 = 0x80050033
"""Paging, protection, and the floating-point unit as 64-bit programs expect it."""
CR4 = 0x40620
"""PAE, SSE with exceptions, XSAVE."""
EFER = 0xD01
"""Long mode, NX, SYSCALL."""
RFLAGS = 0x3202
"""Interrupts on, ports allowed (IOPL 3); bit 1 is always one.

The task state segment's map allows the ports too, and is what counts where KVM runs level 3 without hardware support.
An emulated processor, though, looks at the map only if the task is not marked busy, which a real one never has.
"""
APIC_BASE = 0xFEE00800
"""Local APIC enabled; bit 8 marks the first processor's."""
APIC_BASE_FIRST = 1 << 8
"""That bit."""
_IDT_SIZE = 256 * 16
_TABLE_ALIGNMENT = 4096


class Memory(Protocol):
    """What the loader asks of guest memory, which must be all zero as new."""

    @property
    def low_size(self) -> int:
        """Bytes from address 0 on."""

    @property
    def high_size(self) -> int:
        """Bytes from 4 GiB on."""

    def write(self, gpa: int, data: bytes, /) -> None:
        """Store ``data`` at guest-physical ``gpa``."""


@dataclass(frozen=True, slots=True)
class CpuState:
    """The registers of a processor that is about to start, named as KVM names them.

    To be set in this order, before the first KVM_RUN: :meth:`sregs` and :meth:`regs` laid over what the processor has,
    its local APIC's :attr:`lapic` registers, and KVM_MP_STATE_RUNNABLE, for processors other than the first sleep
    otherwise. CPUID must say what KVM supports (XSAVE among it), and XCR0 is best set to all of it.
    """

    index: int
    rip: int
    rsp: int
    rdi: int
    rsi: int
    task: int
    gdt: int
    cr3: int

    @property
    def lapic(self) -> dict[int, int]:
        """Registers of the local APIC, by their offset: it is enabled, with its spurious vector."""
        return {0xF0: 0x100 | layout.SPURIOUS_VECTOR}

    def regs(self) -> dict[str, int]:
        """Return all fields of ``struct kvm_regs``."""
        zero = ("rax", "rbx", "rcx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
        mine = {"rip": self.rip, "rsp": self.rsp, "rdi": self.rdi, "rsi": self.rsi, "rflags": RFLAGS}
        return {**dict.fromkeys(zero, 0), **mine}

    def sregs(self) -> dict[str, int | dict[str, int]]:
        """Return the fields of ``struct kvm_sregs``, segments and tables as mappings; the interrupt bitmap is left out."""
        segments: dict[str, Segment] = dict.fromkeys(("ds", "es", "fs", "gs", "ss"), USER_DATA_SEGMENT)
        segments |= {"cs": USER_CODE_SEGMENT, "tr": task_segment(self.task), "ldt": NO_SEGMENT}
        apic_base = APIC_BASE | (APIC_BASE_FIRST if self.index == 0 else 0)
        control = {"cr0": CR0, "cr2": 0, "cr3": self.cr3, "cr4": CR4, "cr8": 0, "efer": EFER, "apic_base": apic_base}
        return {
            **{name: asdict(segment) for name, segment in segments.items()},
            "gdt": {"base": self.gdt, "limit": GDT_SIZE - 1},
            "idt": {"base": layout.IDT, "limit": _IDT_SIZE - 1},
            **control,
        }


def load(
    memory: Memory, cmdline: str = "", vcpus: int = 1, *, tsc_khz: int = 0, image: Image | None = None
) -> list[CpuState]:
    """Put the built-in guest into ``memory`` and return the state that each of ``vcpus`` processors starts in.

    ``cmdline`` is the boot command line, ``program=selftest`` if it names no program; ``tsc_khz`` the rate of the
    guest's time stamp counter, 0 if it is to be measured; ``image`` is the built-in one, unless given.

    Raises GuestError (ENOMEM, E2BIG, EINVAL, ENOEXEC) for memory that is too small, a command line that is too long or
    not ASCII, and what :func:`~ptnetmap.guest.image.built_in` raises; ConfigError for an impossible number of processors.
    """
    if not 1 <= vcpus <= MOST_PROCESSORS:
        raise ConfigError(
            f"guest: the built-in guest cannot have {vcpus} processors\n        give 1 to {MOST_PROCESSORS} with -c"
        )
    text = _command_line(cmdline)
    image = built_in() if image is None else image
    blocks = -(-image.end // cpu_block.itemsize) * cpu_block.itemsize
    ranges = (
        (0, layout.HIGH_BASE + memory.high_size),
        (layout.BAR_WINDOW, layout.BAR_WINDOW + layout.BAR_WINDOW_SIZE),
    )
    tables_at = blocks + vcpus * cpu_block.itemsize
    tables = PageTables(tables_at, ranges, first=layout.FIRST_PAGE_TABLE)
    heap = tables_at + tables.size
    if memory.low_size < max(SMALLEST, heap + _TABLE_ALIGNMENT):
        raise GuestError(
            errno.ENOMEM,
            f"guest: {memory.low_size >> 20} MiB of memory are too few for the built-in guest with {vcpus} processors\n"
            f"        give at least {max(SMALLEST, heap + _TABLE_ALIGNMENT) >> 20}M with -m",
        )
    for address, data in (*tables.pieces(), (image.base, image.data), (layout.CMDLINE, text)):
        memory.write(address, data)
    memory.write(layout.IDT, _interrupt_descriptors(image))
    memory.write(layout.BOOT_INFO, _boot_information(memory, vcpus, tsc_khz, blocks, heap))
    return [_processor(memory, image, index, blocks + index * cpu_block.itemsize, tables_at) for index in range(vcpus)]


def _command_line(cmdline: str) -> bytes:
    try:
        text = cmdline.encode("ascii") + b"\0"
    except UnicodeEncodeError:
        raise GuestError(
            errno.EINVAL, f"guest: the command line {cmdline!r} is not ASCII\n        leave out what is not"
        ) from None
    if len(text) > layout.CMDLINE_SIZE or b"\0" in text[:-1]:
        raise GuestError(
            errno.E2BIG,
            f"guest: the command line has {len(text) - 1:,} characters, or one with the number 0\n"
            f"        give at most {layout.CMDLINE_SIZE - 1:,}",
        )
    return text


def _interrupt_descriptors(image: Image) -> bytes:
    # Only the breakpoint may be called by level 3: it is how that waits.
    return b"".join(
        gate(image.handlers + vector * image.handler_size, dpl=3 if vector == layout.WAIT_VECTOR else 0)
        for vector in range(_IDT_SIZE // 16)
    )


def _boot_information(memory: Memory, vcpus: int, tsc_khz: int, blocks: int, heap: int) -> bytes:
    info = np.zeros(1, boot_info)
    info["cpus"], info["blocks"], info["tsc_khz"] = vcpus, blocks, tsc_khz
    info["heap"], info["heap_end"] = heap, memory.low_size
    info["high"], info["high_end"] = layout.HIGH_BASE, layout.HIGH_BASE + memory.high_size
    info["cmdline"], info["idt"] = layout.CMDLINE, layout.IDT
    return info.tobytes()


def _processor(memory: Memory, image: Image, index: int, block: int, top: int) -> CpuState:
    places = offsets(cpu_block)
    memory.write(block + places["tss"], task_state(block + layout.KERNEL_STACK))
    memory.write(block + places["gdt"], gdt(block + places["tss"]))
    memory.write(block + places["index"], index.to_bytes(8, "little"))
    return CpuState(
        index=index,
        rip=image.entry,
        rsp=block + layout.USER_STACK - 8,  # as after a call
        rdi=block,
        rsi=layout.BOOT_INFO,
        task=block + places["tss"],
        gdt=block + places["gdt"],
        cr3=top,
    )

# SPDX-License-Identifier: BSD-2-Clause
"""In which state a virtual CPU starts: plain values, in the terms of KVM's register structures."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CR0_PE = 1 << 0
"""Protected mode."""
CR0_ET = 1 << 4
"""Always one on processors since the 486."""
CR0_NE = 1 << 5
"""Floating-point errors are exceptions."""
CR0_PG = 1 << 31
"""Paging."""
CR4_PAE = 1 << 5
"""Page table entries of 8 bytes; long mode needs it."""
EFER_LME = 1 << 8
"""Long mode is enabled."""
EFER_LMA = 1 << 10
"""Long mode is active."""
RFLAGS_FIXED = 1 << 1
"""The bit of RFLAGS that is always one; without bit 9, interrupts are off."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden part; the fields of ``struct kvm_segment``.

    ``base`` is an address, ``limit`` the offset of the last byte (already multiplied by 4096 where ``g`` is 1),
    ``type`` to ``g`` are the descriptor's bits (Intel SDM volume 3, §3.4.5); ``unusable`` is 1 for no segment at all.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0
    type: int = 0
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0  # noqa: E741  - the descriptor's own name of the bit
    g: int = 0
    avl: int = 0
    unusable: int = 0

    def descriptor(self) -> int:
        """Return the 8-byte descriptor that loads this register (Intel SDM volume 3, figure 3-8); base below 4 GiB."""
        limit = self.limit >> 12 if self.g else self.limit
        access = self.type | self.s << 4 | self.dpl << 5 | self.present << 7
        flags = self.avl | self.l << 1 | self.db << 2 | self.g << 3
        low = limit & 0xFFFF | (self.base & 0xFFFFFF) << 16
        return low | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (self.base >> 24 & 0xFF) << 56


@dataclass(frozen=True, slots=True)
class Table:
    """The register of a descriptor table: address of the table, offset of its last byte."""

    base: int = 0
    limit: int = 0


NO_SEGMENT = Segment(present=0, s=0, unusable=1)
"""A segment register that holds nothing."""


@dataclass(frozen=True, slots=True)
class CpuState:
    """The registers of a virtual CPU that is about to start.

    Named as KVM names them; what is not here keeps the value that a new virtual CPU has. :meth:`regs` and
    :meth:`sregs` are the same as mappings, ready to be laid over ``struct kvm_regs`` and ``struct kvm_sregs``.
    Only the boot processor gets one: the others wait for its start-up messages, as KVM makes them.
    """

    rip: int
    cs: Segment
    ds: Segment
    tr: Segment
    gdt: Table
    cr0: int
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    rax: int = 0
    rbx: int = 0
    rsi: int = 0
    rsp: int = 0
    rbp: int = 0
    rflags: int = RFLAGS_FIXED
    idt: Table = Table()
    ldt: Segment = NO_SEGMENT

    def regs(self) -> dict[str, int]:
        """Return all fields of ``struct kvm_regs``; those without a role here are 0."""
        zero = ("rcx", "rdx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
        mine = ("rax", "rbx", "rsi", "rsp", "rbp", "rip", "rflags")
        return {**dict.fromkeys(zero, 0), **{name: getattr(self, name) for name in mine}}

    def sregs(self) -> dict[str, int | dict[str, int]]:
        """Return the fields of ``struct kvm_sregs`` that are set here, segments and tables as mappings.

        ``cr2``, ``cr8``, ``apic_base`` and ``interrupt_bitmap`` are missing: keep what KVM_GET_SREGS gave.
        """
        data = dict.fromkeys(("ds", "es", "fs", "gs", "ss"), self.ds)
        segments: dict[str, Segment | Table] = {"cs": self.cs, **data, "tr": self.tr, "ldt": self.ldt}
        tables: dict[str, Segment | Table] = {"gdt": self.gdt, "idt": self.idt}
        control = {"cr0": self.cr0, "cr3": self.cr3, "cr4": self.cr4, "efer": self.efer}
        return {**{name: asdict(value) for name, value in (segments | tables).items()}, **control}

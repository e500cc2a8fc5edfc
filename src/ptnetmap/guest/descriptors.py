# SPDX-License-Identifier: BSD-2-Clause
"""Segments, gates and task states of a guest whose payload runs at privilege level 3.

The selectors are those that a Linux host's processor holds while it runs a program, so that a hypervisor without
hardware support can run the payload natively. Source: Intel SDM volume 3, §3.4.5, §6.14 (gates), §7.7 (task state).
"""

from __future__ import annotations

from dataclasses import dataclass

KERNEL_CODE = 0x10
"""Selector of level 0's code."""
KERNEL_DATA = 0x18
"""Selector of level 0's data."""
USER_DATA = 0x28 | 3
"""Selector of level 3's data and stack."""
USER_CODE = 0x30 | 3
"""Selector of level 3's code."""
TASK = 0x40
"""Selector of the task state segment."""
GDT_SIZE = 0x50
"""Bytes of the descriptor table: the task's descriptor takes two places."""
TASK_LIMIT = 0x2068
"""Offset of the last byte of the task state segment: 104 bytes, a map of all ports, and a byte of ones."""
INTERRUPT_GATE = 0xE
"""Gate type: enters with interrupts off."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden part; the fields of ``struct kvm_segment``."""

    selector: int
    base: int = 0
    limit: int = 0xFFFFFFFF
    type: int = 0
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0  # noqa: E741  - the descriptor's own name of the bit
    g: int = 1
    avl: int = 0
    unusable: int = 0

    def descriptor(self) -> int:
        """Return the 8 bytes of a descriptor table that load this register (figure 3-8); of a long one, the first 8."""
        limit = self.limit >> 12 if self.g else self.limit
        access = self.type | self.s << 4 | self.dpl << 5 | self.present << 7
        flags = self.avl | self.l << 1 | self.db << 2 | self.g << 3
        low = limit & 0xFFFF | (self.base & 0xFFFFFF) << 16
        return low | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (self.base >> 24 & 0xFF) << 56


USER_CODE_SEGMENT = Segment(USER_CODE, type=11, dpl=3, l=1)
"""Level 3's code: 64-bit."""
USER_DATA_SEGMENT = Segment(USER_DATA, type=3, dpl=3, db=1)
"""Level 3's data and stack."""
NO_SEGMENT = Segment(0, limit=0, present=0, s=0, g=0, unusable=1)
"""What the local descriptor table register holds: nothing."""


def task_segment(address: int) -> Segment:
    """Return the task register for a task state segment at ``address``, below 4 GiB."""
    return Segment(TASK, base=address, limit=TASK_LIMIT, type=11, s=0, g=0)


def gdt(task: int) -> bytes:
    """Return a descriptor table, with the task state segment at ``task``: GDT_SIZE bytes."""
    places = [0] * (GDT_SIZE // 8)
    places[KERNEL_CODE // 8] = Segment(KERNEL_CODE, type=11, l=1).descriptor()
    places[KERNEL_DATA // 8] = Segment(KERNEL_DATA, type=3, db=1).descriptor()
    places[USER_DATA // 8] = USER_DATA_SEGMENT.descriptor()
    places[USER_CODE // 8] = USER_CODE_SEGMENT.descriptor()
    places[TASK // 8] = task_segment(task).descriptor()
    places[TASK // 8 + 1] = task >> 32
    return b"".join(place.to_bytes(8, "little") for place in places)


def task_state(kernel_stack: int) -> bytes:
    """Return a task state segment that enters level 0 on the stack below ``kernel_stack``, and allows every port."""
    state = bytearray(TASK_LIMIT + 1)
    state[4:12] = kernel_stack.to_bytes(8, "little")  # RSP0
    state[102:104] = (104).to_bytes(2, "little")  # where the map of ports starts: a zero bit allows
    state[TASK_LIMIT] = 0xFF
    return bytes(state)


def gate(handler: int, *, kind: int = INTERRUPT_GATE, selector: int = KERNEL_CODE, dpl: int = 0) -> bytes:
    """Return a gate of 16 bytes to ``handler``; code of level ``dpl`` and below may call it by an instruction."""
    head = handler & 0xFFFF | selector << 16 | (kind | dpl << 5 | 0x80) << 40 | (handler >> 16 & 0xFFFF) << 48
    return head.to_bytes(8, "little") + (handler >> 32).to_bytes(8, "little")

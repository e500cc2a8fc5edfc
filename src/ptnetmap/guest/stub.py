# SPDX-License-Identifier: BSD-2-Clause
"""The guest's few lines of assembly: entry, interrupts, waiting, and the way from an exception to its report.

Every vector has a handler of HANDLER_SIZE bytes at level 0, which some hypervisors interpret one instruction after the
other: so it does little, with the plainest of instructions. A pointer to the stack, its low bits cleared, is the
processor's :data:`~ptnetmap.guest.layout.cpu_block`.

An interrupt is counted and acknowledged. A breakpoint waits: it halts unless the word that level 3 looked at has
changed. Any other exception goes on at level 3, on a stack of its own, in the routine that reports it.
"""

from __future__ import annotations

from ptnetmap.guest import layout
from ptnetmap.guest.descriptors import USER_CODE, USER_DATA
from ptnetmap.guest.layout import cpu_block, offsets

HANDLER_SIZE = 64
"""Bytes from one vector's handler to the next one's."""
VECTORS = 256
"""Vectors of a processor; the first EXCEPTIONS of them are its own."""
EXCEPTIONS = 32
"""Vectors of exceptions, and reserved ones."""
ENTRY = "entry"
"""Symbol of the first instruction: a processor arrives with its block in rdi, the boot information in rsi."""
HANDLERS = "handlers"
"""Symbol of the handler of vector 0."""
MAIN = "guest_main"
"""Symbol of the routine that the entry calls, with these two."""
FAULT = "guest_fault"
"""Symbol of the routine that reports an exception: vector, error code, instruction, address."""

_WITH_ERROR_CODE = frozenset((8, 10, 11, 12, 13, 14, 17, 21, 29, 30))
_END_OF_INTERRUPT = layout.LOCAL_APIC + 0xB0
_COUNTERS = offsets(cpu_block)["counters"]
_BLOCK_MASK = -cpu_block.itemsize
_PORTS_ALLOWED = 0x3002  # RFLAGS of the report: as at the start, but without interrupts

# A compiled routine takes two addresses before its arguments: of its result, and of an exception that it never raises.
_CALLS = f"""
.text
.globl {ENTRY}
{ENTRY}:
    movq %rsi, %rcx
    movq %rdi, %rdx
    subq $24, %rsp
    movq %rsp, %rdi
    leaq 8(%rsp), %rsi
    call {MAIN}
    ud2

report:
    movq %rcx, %r9
    movq %rdx, %r8
    movq %rsi, %rcx
    movq %rdi, %rdx
    subq $24, %rsp
    movq %rsp, %rdi
    leaq 8(%rsp), %rsi
    call {FAULT}
    ud2

exception:
    movq (%rsp), %rdi
    movq 8(%rsp), %rsi
    movq 16(%rsp), %rdx
    movq %cr2, %rcx
    movq %rsp, %rax
    andq ${_BLOCK_MASK}, %rax
    addq ${layout.FAULT_STACK - 8}, %rax
    movq $report, 16(%rsp)
    movq ${USER_CODE}, 24(%rsp)
    movq ${_PORTS_ALLOWED}, 32(%rsp)
    movq %rax, 40(%rsp)
    movq ${USER_DATA}, 48(%rsp)
    addq $16, %rsp
    iretq

.globl memcpy
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    rep movsb
    ret

.globl memset
memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret
"""

_WAIT = """
    cmpq %rsi, (%rdi)
    jne 1f
    sti
    hlt
1:  iretq
"""


def _handler(vector: int) -> str:
    if vector == layout.WAIT_VECTOR:
        return _WAIT
    if vector < EXCEPTIONS:
        pushed = "" if vector in _WITH_ERROR_CODE else "pushq $0\n"
        return f"{pushed}pushq ${vector}\njmp exception\n"
    if vector == layout.SPURIOUS_VECTOR:
        return "iretq\n"
    return f"""
    pushq %rax
    movl %esp, %eax
    andl ${_BLOCK_MASK & 0xFFFFFFFF:#x}, %eax
    incq {_COUNTERS + 8 * vector}(%rax)
    incq {_COUNTERS}(%rax)
    movl ${_END_OF_INTERRUPT:#x}, %eax
    movl $0, (%rax)
    popq %rax
    iretq
"""


def assembly() -> str:
    """Return all of it, for an assembler of AT&T syntax."""
    handlers = "".join(f".balign {HANDLER_SIZE}, 0xcc\n{_handler(vector)}" for vector in range(VECTORS))
    return f"{_CALLS}\n.balign {HANDLER_SIZE}, 0xcc\n.globl {HANDLERS}\n{HANDLERS}:\n{handlers}"

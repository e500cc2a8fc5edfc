# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Interrupts: the local APIC, vectors, and waiting for one to be counted.

Level 0 counts each interrupt in the block of the processor that took it, and acknowledges it; nothing else happens.
Whoever expects one compares the vector's counter with what it was.
"""

from __future__ import annotations

from ptnetmap.abi.pci import MSI_INTEL_ADDR_BASE
from ptnetmap.guest.cpu import halt
from ptnetmap.guest.layout import CALL_VECTOR, FIRST_VECTOR, LAST_VECTOR, LOCAL_APIC, boot_info, cpu_block, offsets
from ptnetmap.guest.mmio import read32, write32
from ptnetmap.guest.port import out8
from ptnetmap.guest.routine import routine
from ptnetmap.jit.atomic import load64_acquire
from ptnetmap.jit.memory import load64, store64

_ID = LOCAL_APIC + 0x20
_TASK_PRIORITY = LOCAL_APIC + 0x80
_SPURIOUS = LOCAL_APIC + 0xF0
_COMMAND = LOCAL_APIC + 0x300
_COMMAND_TARGET = LOCAL_APIC + 0x310
_LVT_LINT0 = LOCAL_APIC + 0x350
_LVT_LINT1 = LOCAL_APIC + 0x360
_ENABLED = 0x1FF  # software enable, and the spurious vector 0xff
_MASKED = 1 << 16
_ASSERT = 1 << 14

_PIC_MASKS = 0x21
_PIC2_MASKS = 0xA1

_COUNTERS = offsets(cpu_block)["counters"]
_APIC_ID = offsets(cpu_block)["apic_id"]
_VECTORS = offsets(boot_info)["vectors"]


@routine
def start_interrupts(block):
    """Make this processor's local APIC take messages and nothing else; ``block`` is its :data:`cpu_block`."""
    out8(_PIC_MASKS, 0xFF)
    out8(_PIC2_MASKS, 0xFF)
    write32(_LVT_LINT0, _MASKED)
    write32(_LVT_LINT1, _MASKED)
    write32(_TASK_PRIORITY, 0)
    write32(_SPURIOUS, _ENABLED)
    store64(block + _APIC_ID, read32(_ID) >> 24)


@routine
def allocate_vector(boot):
    """Return a vector for a device, -1 if none is left."""
    vector = FIRST_VECTOR + load64(boot + _VECTORS)
    if vector > LAST_VECTOR:
        return -1
    store64(boot + _VECTORS, vector - FIRST_VECTOR + 1)
    return vector


@routine
def interrupt_count(block, vector):
    """Return how many interrupts of a vector the processor of ``block`` has taken."""
    return load64_acquire(block + _COUNTERS + 8 * vector)


@routine
def await_interrupt(block, vector, seen):
    """Halt this processor until it has taken an interrupt of ``vector``, if the count is still ``seen``.

    Returns after an interrupt of any vector: look at the count, and at the time, and call again.
    """
    # All interrupts together are what the assembly compares: another one may be what ends the wait.
    total = interrupt_count(block, 0)
    if interrupt_count(block, vector) == seen:
        halt(block + _COUNTERS, total)


@routine
def message_address(block):
    """Return the address of interrupt messages for the processor of ``block`` (Intel SDM volume 3, §11.11.1)."""
    return MSI_INTEL_ADDR_BASE | (load64(block + _APIC_ID) << 12)


@routine
def send_interrupt(target, vector):
    """Interrupt the processor of the block ``target``, which may be this one, with a vector."""
    write32(_COMMAND_TARGET, load64(target + _APIC_ID) << 24)
    write32(_COMMAND, _ASSERT | vector)


@routine
def call_processor(target):
    """Wake the processor of the block ``target``."""
    send_interrupt(target, CALL_VECTOR)

# SPDX-License-Identifier: BSD-2-Clause
"""Where things are in the guest's memory, agreed upon by the loader and by what it loads.

Guest-virtual addresses are guest-physical ones.

====================== ================================================================================================
address                what
====================== ================================================================================================
0x00000                not mapped, so that a wrong address 0 is noticed
0x01000                :data:`boot_info`, then the console's line
0x02000                the command line, ending with a zero byte
0x03000                interrupt descriptors
0x04000                page table of the first 2 MiB
0x100000               the image: constant text, then code and data
behind it              one :data:`cpu_block` per processor, aligned to its size
behind them            the other page tables
behind them            the heap, up to the end of low memory
0xC0000000-4 GiB       devices, all of it mapped
4 GiB                  high memory, if any
0xD000000000           64-bit BARs; as many bytes as BAR_WINDOW_SIZE are mapped
====================== ================================================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np

BOOT_INFO = 0x1000
"""Address of :data:`boot_info`."""
CMDLINE = 0x2000
"""Address of the command line."""
CMDLINE_SIZE = 0x1000
"""Bytes of it at the most, with the zero byte at the end."""
IDT = 0x3000
"""Address of the interrupt descriptor table, shared by all processors."""
FIRST_PAGE_TABLE = 0x4000
"""Address of the page table of the first 2 MiB."""
IMAGE_BASE = 0x100000
"""Where the image is linked to, and loaded."""
TEXTS_SIZE = 0x4000
"""Bytes at the image's start that are kept for constant text."""
LOW_LIMIT = 3 << 30
"""End of low memory at the most: devices are from here to 4 GiB."""
HIGH_BASE = 4 << 30
"""Where high memory starts."""
BAR_WINDOW = 0xD000000000
"""Where 64-bit BARs are given addresses (netmap-abi 5a.11)."""
BAR_WINDOW_SIZE = 16 << 30
"""How much of that window is mapped."""
LOCAL_APIC = 0xFEE00000
"""Registers of the processor's own interrupt controller (Intel SDM volume 3, §11.4.1)."""

boot_info = np.dtype(
    [
        ("cpus", "<u8"),
        ("running", "<u8"),
        ("blocks", "<u8"),
        ("tsc_khz", "<u8"),
        ("apic_khz", "<u8"),
        ("heap", "<u8"),
        ("heap_end", "<u8"),
        ("high", "<u8"),
        ("high_end", "<u8"),
        ("cmdline", "<u8"),
        ("idt", "<u8"),
        ("vectors", "<u8"),
        ("faults", "<u8"),
        ("line", "u1", (256,)),
        ("line_used", "<u8"),
    ]
)
"""What the loader tells the guest, and what its processors share: 368 bytes.

====== ==== ========= ============================================================================================
offset size field     meaning
====== ==== ========= ============================================================================================
0      8    cpus      processors
8      8    running   processors that have started; the guest counts
16     8    blocks    address of the first :data:`cpu_block`; the others follow
24     8    tsc_khz   time stamp counter's rate; 0 from a loader that does not know
32     8    apic_khz  local APIC timer's rate; the guest measures it
40     8    heap      first free byte of low memory; moves up as the guest takes from it
48     8    heap_end  end of low memory
56     8    high      first byte of high memory
64     8    high_end  its end; equal to ``high`` without any
72     8    cmdline   address of the command line, which ends with a zero byte
80     8    idt       address of the interrupt descriptors
88     8    vectors   interrupt vectors that drivers have taken
96     8    faults    exceptions reported so far
104    256  line      what the console was told since the last end of line
360    8    line_used bytes of it
====== ==== ========= ============================================================================================
"""

cpu_block = np.dtype(
    {
        "names": ["tss", "gdt", "index", "apic_id", "asked", "done", "job", "argument", "count", "counters"],
        "formats": ["V8297", "V80", "<u8", "<u8", "<u8", "<u8", "<u8", "<u8", "<u8", ("<u8", (256,))],
        "offsets": [0, 0x2080, 0x2100, 0x2108, 0x2110, 0x2118, 0x2120, 0x2128, 0x2130, 0x2800],
        "itemsize": 0x8000,
    }
)
"""What belongs to one processor: 32 KiB, aligned to 32 KiB, so that a stack pointer tells the block's address.

====== ===== ======== ============================================================================================
offset size  field    meaning
====== ===== ======== ============================================================================================
0      8297  tss      task state segment with its map of allowed ports
0x2080 80    gdt      segment descriptors; each processor has a task descriptor of its own
0x2100 8     index    number of the processor
0x2108 8     apic_id  what interrupt messages call it
0x2110 8     asked    jobs that the first processor has given this one
0x2118 8     done     jobs that it has done
0x2120 8     job      which job it is, ``JOB_*``
0x2128 8     argument an address, for the job
0x2130 8     count    a number, for the job
0x2800 2048  counters interrupts taken, per vector; in place 0 all of them
0x3000 4096           stack of level 0, downwards
0x4000 4096           stack for reporting an exception, downwards
0x5000 12288          stack of level 3, downwards
====== ===== ======== ============================================================================================
"""

KERNEL_STACK = 0x4000
"""Top of the stack of level 0, from the block's start."""
FAULT_STACK = 0x5000
"""Top of the stack on which an exception is reported, from the block's start."""
USER_STACK = 0x8000
"""Top of the stack of level 3, from the block's start."""

TIMER_VECTOR = 0xEE
"""Interrupt vector of the local APIC's timer."""
CALL_VECTOR = 0xED
"""Interrupt vector by which one processor wakes another."""
SPURIOUS_VECTOR = 0xFF
"""Vector of interrupts that went away before they were taken; they are not acknowledged."""
FIRST_VECTOR = 0x30
"""First of the vectors for devices."""
LAST_VECTOR = 0xEC
"""Last of them."""
WAIT_VECTOR = 3
"""The breakpoint's vector, by which level 3 asks level 0 to halt the processor."""


def offsets(layout: np.dtype[Any]) -> dict[str, int]:
    """Return the offset of each field of a layout, in bytes."""
    fields: Any = layout.fields
    return {name: int(field[1]) for name, field in fields.items()}

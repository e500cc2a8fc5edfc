# SPDX-License-Identifier: BSD-2-Clause
"""The page through which a virtual processor is run, and why it came out.

All fields are little endian. Source: Linux, api.rst §5 and linux/kvm.h.
"""

from __future__ import annotations

import numpy as np

KVM_EXIT_UNKNOWN = 0
"""The processor left for a reason that KVM does not know: see ``hw`` (api.rst §5)."""
KVM_EXIT_IO = 2
"""A port was accessed: see ``io`` (api.rst §5)."""
KVM_EXIT_HLT = 5
"""HLT, only without an in-kernel local APIC (api.rst §5)."""
KVM_EXIT_MMIO = 6
"""An address without memory was accessed: see ``mmio`` (api.rst §5)."""
KVM_EXIT_SHUTDOWN = 8
"""Triple fault (api.rst §5)."""
KVM_EXIT_FAIL_ENTRY = 9
"""The processor refused the guest's state: see ``fail_entry`` (api.rst §5)."""
KVM_EXIT_INTR = 10
"""A signal is pending (api.rst §5)."""
KVM_EXIT_INTERNAL_ERROR = 17
"""KVM cannot go on: see ``internal`` (api.rst §5)."""
KVM_EXIT_SYSTEM_EVENT = 24
"""The guest asked for a shutdown or a reset: see ``system_event`` (api.rst §5)."""
KVM_EXIT_X86_RDMSR = 29
"""A model-specific register was read: see ``msr`` (api.rst §5)."""
KVM_EXIT_X86_WRMSR = 30
"""A model-specific register was written: see ``msr`` (api.rst §5)."""

KVM_EXIT_IO_IN = 0
"""``io.direction`` of IN and INS (api.rst §5)."""
KVM_EXIT_IO_OUT = 1
"""``io.direction`` of OUT and OUTS (api.rst §5)."""

KVM_INTERNAL_ERROR_EMULATION = 1
"""An instruction cannot be emulated (linux/kvm.h)."""
KVM_INTERNAL_ERROR_SIMUL_EX = 2
"""Exceptions came at once that cannot (linux/kvm.h)."""
KVM_INTERNAL_ERROR_DELIVERY_EV = 3
"""The processor left while it delivered an event (linux/kvm.h)."""
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4
"""The processor left for an unexpected reason (linux/kvm.h)."""
KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1 << 0
"""``emulation_failure.insn_*`` are valid (linux/kvm.h)."""

KVM_SYSTEM_EVENT_SHUTDOWN = 1
"""Power off (linux/kvm.h)."""
KVM_SYSTEM_EVENT_RESET = 2
"""Reset (linux/kvm.h)."""
KVM_SYSTEM_EVENT_CRASH = 3
"""The guest says that it has crashed (linux/kvm.h)."""

run_hw = np.dtype([("hardware_exit_reason", "<u8")])
"""With KVM_EXIT_UNKNOWN: 8 bytes (api.rst §5).

====== ==== ==================== ====================================================================================
offset size field                meaning
====== ==== ==================== ====================================================================================
0      8    hardware_exit_reason the processor's own number
====== ==== ==================== ====================================================================================
"""

run_fail_entry = np.dtype([("hardware_entry_failure_reason", "<u8"), ("cpu", "<u4")], align=True)
"""With KVM_EXIT_FAIL_ENTRY: 16 bytes (api.rst §5).

====== ==== ============================= ===========================================================================
offset size field                         meaning
====== ==== ============================= ===========================================================================
0      8    hardware_entry_failure_reason the processor's own number
8      4    cpu                           host core
====== ==== ============================= ===========================================================================
"""

run_io = np.dtype([("direction", "u1"), ("size", "u1"), ("port", "<u2"), ("count", "<u4"), ("data_offset", "<u8")])
"""With KVM_EXIT_IO: 16 bytes (api.rst §5).

====== ==== =========== =============================================================================================
offset size field       meaning
====== ==== =========== =============================================================================================
0      1    direction   KVM_EXIT_IO_IN or KVM_EXIT_IO_OUT
1      1    size        bytes per access: 1, 2 or 4
2      2    port
4      4    count       accesses, more than 1 for string instructions
8      8    data_offset where the data are, in bytes from the start of the page
====== ==== =========== =============================================================================================
"""

run_mmio = np.dtype([("phys_addr", "<u8"), ("data", "u1", 8), ("len", "<u4"), ("is_write", "u1")], align=True)
"""With KVM_EXIT_MMIO: 24 bytes (api.rst §5).

====== ==== ========= ===============================================================================================
offset size field     meaning
====== ==== ========= ===============================================================================================
0      8    phys_addr guest-physical address
8      8    data      what is written, or place for what is read
16     4    len       bytes: 1 to 8
20     1    is_write
====== ==== ========= ===============================================================================================
"""

run_internal = np.dtype([("suberror", "<u4"), ("ndata", "<u4"), ("data", "<u8", 16)])
"""With KVM_EXIT_INTERNAL_ERROR: 136 bytes (api.rst §5).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      4    suberror ``KVM_INTERNAL_ERROR_*``
4      4    ndata    entries in ``data``
8      128  data     for people
====== ==== ======== ================================================================================================
"""

run_emulation_failure = np.dtype(
    [
        ("suberror", "<u4"),
        ("ndata", "<u4"),
        ("flags", "<u8"),
        ("insn_size", "u1"),
        ("insn_bytes", "u1", 15),
    ]
)
"""With KVM_EXIT_INTERNAL_ERROR and KVM_INTERNAL_ERROR_EMULATION: 32 bytes (api.rst §5).

====== ==== ========== ==============================================================================================
offset size field      meaning
====== ==== ========== ==============================================================================================
0      4    suberror   KVM_INTERNAL_ERROR_EMULATION
4      4    ndata      64-bit words that follow, ``flags`` among them; 0 on older kernels
8      8    flags      ``KVM_INTERNAL_ERROR_EMULATION_FLAG_*``
16     1    insn_size  bytes of the instruction
17     15   insn_bytes the instruction
====== ==== ========== ==============================================================================================
"""

run_system_event = np.dtype([("type", "<u4"), ("ndata", "<u4"), ("data", "<u8", 16)])
"""With KVM_EXIT_SYSTEM_EVENT: 136 bytes (api.rst §5).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    type  ``KVM_SYSTEM_EVENT_*``
4      4    ndata entries in ``data``
8      128  data
====== ==== ===== ===================================================================================================
"""

run_msr = np.dtype([("error", "u1"), ("pad", "u1", 7), ("reason", "<u4"), ("index", "<u4"), ("data", "<u8")])
"""With KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR: 24 bytes (api.rst §5).

====== ==== ====== ==================================================================================================
offset size field  meaning
====== ==== ====== ==================================================================================================
0      1    error  answer: 1 lets the instruction fault (#GP)
1      7    pad
8      4    reason ``KVM_MSR_EXIT_REASON_*``
12     4    index  number of the register
16     8    data   what is written, or place for what is read
====== ==== ====== ==================================================================================================
"""

_UNION = 32
_UNION_FIELDS = {
    "hw": run_hw,
    "fail_entry": run_fail_entry,
    "io": run_io,
    "mmio": run_mmio,
    "internal": run_internal,
    "emulation_failure": run_emulation_failure,
    "system_event": run_system_event,
    "msr": run_msr,
}

kvm_run = np.dtype(
    {
        "names": [
            "request_interrupt_window",
            "immediate_exit",
            "exit_reason",
            "ready_for_interrupt_injection",
            "if_flag",
            "flags",
            "cr8",
            "apic_base",
            *_UNION_FIELDS,
            "kvm_valid_regs",
            "kvm_dirty_regs",
        ],
        "formats": ["u1", "u1", "<u4", "u1", "u1", "<u2", "<u8", "<u8", *_UNION_FIELDS.values(), "<u8", "<u8"],
        "offsets": [0, 1, 8, 12, 13, 14, 16, 24, *(_UNION for _ in _UNION_FIELDS), 288, 296],
        "itemsize": 2352,
    }
)
"""What this process and KVM_RUN tell each other: 2352 bytes, at the start of a vCPU's mapping (api.rst §5).

====== ==== ============================= ===========================================================================
offset size field                         meaning
====== ==== ============================= ===========================================================================
0      1    request_interrupt_window      only without an in-kernel local APIC
1      1    immediate_exit                KVM_RUN completes what is under way and returns EINTR
8      4    exit_reason                   ``KVM_EXIT_*``
12     1    ready_for_interrupt_injection only without an in-kernel local APIC
13     1    if_flag                       RFLAGS.IF
14     2    flags                         ``KVM_RUN_X86_*``
16     8    cr8
24     8    apic_base
32     8    hw                            :data:`run_hw`; this and the next ones share their place, by exit_reason
32     16   fail_entry                    :data:`run_fail_entry`
32     16   io                            :data:`run_io`
32     24   mmio                          :data:`run_mmio`
32     136  internal                      :data:`run_internal`
32     32   emulation_failure             :data:`run_emulation_failure`
32     136  system_event                  :data:`run_system_event`
32     24   msr                           :data:`run_msr`
288    8    kvm_valid_regs                registers that KVM_RUN shall copy to the end of this structure; 0
296    8    kvm_dirty_regs                registers that KVM_RUN shall take from there; 0
====== ==== ============================= ===========================================================================
"""

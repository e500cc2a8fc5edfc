# SPDX-License-Identifier: BSD-2-Clause
"""A virtual processor's registers.

All fields are little endian; paddings and reserved fields must be 0. Source: Linux, api.rst and asm/kvm.h.
"""

from __future__ import annotations

import numpy as np

kvm_regs = np.dtype(
    [
        (name, "<u8")
        for name in "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()  # noqa: SIM905
    ]
)
"""The general registers: 144 bytes (api.rst §4.11).

====== ==== ====== ==================================================================================================
offset size field  meaning
====== ==== ====== ==================================================================================================
0      8    rax    as the processor's, like the others; note the order
8      8    rbx
16     8    rcx
24     8    rdx
32     8    rsi
40     8    rdi
48     8    rsp
56     8    rbp
64     8    r8
72     8    r9
80     8    r10
88     8    r11
96     8    r12
104    8    r13
112    8    r14
120    8    r15
128    8    rip
136    8    rflags bit 1 must be set
====== ==== ====== ==================================================================================================
"""

kvm_segment = np.dtype(
    [
        ("base", "<u8"),
        ("limit", "<u4"),
        ("selector", "<u2"),
        ("type", "u1"),
        ("present", "u1"),
        ("dpl", "u1"),
        ("db", "u1"),
        ("s", "u1"),
        ("l", "u1"),
        ("g", "u1"),
        ("avl", "u1"),
        ("unusable", "u1"),
        ("padding", "u1"),
    ]
)
"""A segment register with its hidden part: 24 bytes (api.rst §4.13; Intel SDM 3A §3.4.5).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      8    base     linear address
8      4    limit    last offset in bytes, whatever ``g`` says
12     2    selector what software sees
14     1    type     type of the descriptor, 4 bits
15     1    present  1 bit, like the others but dpl
16     1    dpl      privilege level, 2 bits
17     1    db       32-bit segment
18     1    s        code or data, not a system segment
19     1    l        64-bit code
20     1    g        limit counted in pages
21     1    avl      free for software
22     1    unusable a null selector was loaded
23     1    padding  0
====== ==== ======== ================================================================================================
"""

kvm_dtable = np.dtype([("base", "<u8"), ("limit", "<u2"), ("padding", "<u2", 3)])
"""GDTR or IDTR: 16 bytes (api.rst §4.13).

====== ==== ======= =================================================================================================
offset size field   meaning
====== ==== ======= =================================================================================================
0      8    base    linear address
8      2    limit   last offset in bytes
10     6    padding 0
====== ==== ======= =================================================================================================
"""

kvm_sregs = np.dtype(
    [
        ("cs", kvm_segment),
        ("ds", kvm_segment),
        ("es", kvm_segment),
        ("fs", kvm_segment),
        ("gs", kvm_segment),
        ("ss", kvm_segment),
        ("tr", kvm_segment),
        ("ldt", kvm_segment),
        ("gdt", kvm_dtable),
        ("idt", kvm_dtable),
        ("cr0", "<u8"),
        ("cr2", "<u8"),
        ("cr3", "<u8"),
        ("cr4", "<u8"),
        ("cr8", "<u8"),
        ("efer", "<u8"),
        ("apic_base", "<u8"),
        ("interrupt_bitmap", "<u8", 4),
    ]
)
"""Segments, tables and control registers: 312 bytes (api.rst §4.13).

====== ==== ================ ========================================================================================
offset size field            meaning
====== ==== ================ ========================================================================================
0      24   cs               :data:`kvm_segment`, like the next seven
24     24   ds
48     24   es
72     24   fs
96     24   gs
120    24   ss
144    24   tr
168    24   ldt
192    16   gdt              :data:`kvm_dtable`
208    16   idt              :data:`kvm_dtable`
224    8    cr0
232    8    cr2
240    8    cr3
248    8    cr4
256    8    cr8
264    8    efer
272    8    apic_base        IA32_APIC_BASE: address, global enable, x2APIC, boot processor
280    32   interrupt_bitmap one bit per vector: an interrupt that is acknowledged but not yet delivered
====== ==== ================ ========================================================================================
"""

kvm_fpu = np.dtype(
    [
        ("fpr", "u1", (8, 16)),
        ("fcw", "<u2"),
        ("fsw", "<u2"),
        ("ftwx", "u1"),
        ("pad1", "u1"),
        ("last_opcode", "<u2"),
        ("last_ip", "<u8"),
        ("last_dp", "<u8"),
        ("xmm", "u1", (16, 16)),
        ("mxcsr", "<u4"),
        ("pad2", "<u4"),
    ]
)
"""x87 and SSE state: 416 bytes (api.rst §4.33).

====== ==== =========== =============================================================================================
offset size field       meaning
====== ==== =========== =============================================================================================
0      128  fpr         ST0-ST7, 16 bytes each
128    2    fcw         control word
130    2    fsw         status word
132    1    ftwx        tags as FXSAVE has them: 1 = valid
133    1    pad1        0
134    2    last_opcode
136    8    last_ip
144    8    last_dp
152    256  xmm         XMM0-XMM15
408    4    mxcsr
412    4    pad2        0
====== ==== =========== =============================================================================================
"""

kvm_xcr = np.dtype([("xcr", "<u4"), ("reserved", "<u4"), ("value", "<u8")])
"""An extended control register: 16 bytes (api.rst §4.45).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      4    xcr      number; 0 says which state XSAVE keeps
4      4    reserved 0
8      8    value
====== ==== ======== ================================================================================================
"""

kvm_xcrs = np.dtype([("nr_xcrs", "<u4"), ("flags", "<u4"), ("xcrs", kvm_xcr, 16), ("padding", "<u8", 16)])
"""All extended control registers: 392 bytes (api.rst §4.45).

====== ==== ======= =================================================================================================
offset size field   meaning
====== ==== ======= =================================================================================================
0      4    nr_xcrs entries in use
4      4    flags   0
8      256  xcrs    :data:`kvm_xcr`
264    128  padding 0
====== ==== ======= =================================================================================================
"""

kvm_cpuid2 = np.dtype([("nent", "<u4"), ("padding", "<u4")])
"""The head of a CPUID table: 8 bytes; ``nent`` :data:`kvm_cpuid_entry2` follow (api.rst §4.46).

====== ==== ======= =================================================================================================
offset size field   meaning
====== ==== ======= =================================================================================================
0      4    nent    entries that follow; asked for: room for them
4      4    padding 0
====== ==== ======= =================================================================================================
"""

kvm_cpuid_entry2 = np.dtype(
    [
        ("function", "<u4"),
        ("index", "<u4"),
        ("flags", "<u4"),
        ("eax", "<u4"),
        ("ebx", "<u4"),
        ("ecx", "<u4"),
        ("edx", "<u4"),
        ("padding", "<u4", 3),
    ]
)
"""What CPUID answers to one leaf: 40 bytes (api.rst §4.46).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      4    function EAX of the question
4      4    index    ECX of the question, if it matters
8      4    flags    ``KVM_CPUID_FLAG_*``
12     4    eax      the answer, like the next three
16     4    ebx
20     4    ecx
24     4    edx
28     12   padding  0
====== ==== ======== ================================================================================================
"""

KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0
"""``index`` matters for this leaf; spelt as in the header (api.rst §4.46)."""

kvm_msrs = np.dtype([("nmsrs", "<u4"), ("pad", "<u4")])
"""The head of a list of model-specific registers: 8 bytes; :data:`kvm_msr_entry` follow (api.rst §4.18).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    nmsrs entries that follow
4      4    pad   0
====== ==== ===== ===================================================================================================
"""

kvm_msr_entry = np.dtype([("index", "<u4"), ("reserved", "<u4"), ("data", "<u8")])
"""A model-specific register: 16 bytes (api.rst §4.18).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      4    index    number
4      4    reserved 0
8      8    data     value
====== ==== ======== ================================================================================================
"""

kvm_lapic_state = np.dtype([("regs", "u1", 1024)])
"""The local APIC's register page: 1024 bytes (api.rst §4.57).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      1024 regs  32 bits every 16 bytes, as the processor maps them (Intel SDM 3A §11.4.1)
====== ==== ===== ===================================================================================================
"""

kvm_mp_state = np.dtype([("mp_state", "<u4")])
"""Whether a processor runs: 4 bytes (api.rst §4.38).

====== ==== ======== ================================================================================================
offset size field    meaning
====== ==== ======== ================================================================================================
0      4    mp_state ``KVM_MP_STATE_*``
====== ==== ======== ================================================================================================
"""

KVM_MP_STATE_RUNNABLE = 0
"""It executes instructions (api.rst §4.38)."""
KVM_MP_STATE_UNINITIALIZED = 1
"""An application processor before INIT (api.rst §4.38)."""
KVM_MP_STATE_INIT_RECEIVED = 2
"""It waits for SIPI (api.rst §4.38)."""
KVM_MP_STATE_HALTED = 3
"""It waits for an interrupt after HLT (api.rst §4.38)."""
KVM_MP_STATE_SIPI_RECEIVED = 4
"""It is about to start (api.rst §4.38)."""

# SPDX-License-Identifier: BSD-2-Clause
"""Arguments of requests for a whole machine: memory slots, interrupt routes, irqfds and ioeventfds.

All fields are little endian; paddings and reserved fields must be 0. Source: Linux, api.rst and linux/kvm.h.
"""

from __future__ import annotations

import numpy as np

kvm_userspace_memory_region = np.dtype(
    [
        ("slot", "<u4"),
        ("flags", "<u4"),
        ("guest_phys_addr", "<u8"),
        ("memory_size", "<u8"),
        ("userspace_addr", "<u8"),
    ]
)
"""Memory of this process that the guest sees: 32 bytes (api.rst §4.35).

====== ==== =============== ========================================================================================
offset size field           meaning
====== ==== =============== ========================================================================================
0      4    slot            number of the slot; a slot in use is moved or changed
4      4    flags           ``KVM_MEM_*``
8      8    guest_phys_addr where the guest sees it, page aligned
16     8    memory_size     bytes; 0 deletes the slot
24     8    userspace_addr  where this process has it, page aligned
====== ==== =============== ========================================================================================
"""

KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
"""Keep a bitmap of what the guest writes (api.rst §4.35)."""
KVM_MEM_READONLY = 1 << 1
"""The guest's writes become MMIO exits (api.rst §4.35)."""

kvm_pit_config = np.dtype([("flags", "<u4"), ("pad", "<u4", 15)])
"""How the in-kernel i8254 shall be: 64 bytes (api.rst §4.70).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    flags ``KVM_PIT_*``
4      60   pad   0
====== ==== ===== ===================================================================================================
"""

KVM_PIT_SPEAKER_DUMMY = 1
"""The kernel also answers port 0x61: the speaker's gate, and channel 2's output in bit 5 (api.rst §4.70)."""

kvm_irq_level = np.dtype([("irq", "<u4"), ("level", "<u4")])
"""The state of an input of the interrupt controllers: 8 bytes (api.rst §4.25).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    irq   GSI
4      4    level 1 = active, 0 = inactive
====== ==== ===== ===================================================================================================
"""

kvm_irq_routing = np.dtype([("nr", "<u4"), ("flags", "<u4")])
"""The head of a routing table: 8 bytes; ``nr`` :data:`kvm_irq_routing_entry` follow (api.rst §4.52).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    nr    entries that follow; they replace all earlier ones
4      4    flags 0
====== ==== ===== ===================================================================================================
"""

kvm_irq_routing_irqchip = np.dtype([("irqchip", "<u4"), ("pin", "<u4")])
"""A pin of an in-kernel interrupt controller: 8 bytes (api.rst §4.52).

====== ==== ======= =================================================================================================
offset size field   meaning
====== ==== ======= =================================================================================================
0      4    irqchip ``KVM_IRQCHIP_*``
4      4    pin     0-7 of a PIC, 0-23 of the I/O APIC
====== ==== ======= =================================================================================================
"""

KVM_IRQCHIP_PIC_MASTER = 0
"""The first i8259, with inputs 0-7."""
KVM_IRQCHIP_PIC_SLAVE = 1
"""The second i8259, with inputs 8-15."""
KVM_IRQCHIP_IOAPIC = 2
"""The I/O APIC."""
KVM_IOAPIC_NUM_PINS = 24
"""Inputs of the in-kernel I/O APIC."""

kvm_irq_routing_msi = np.dtype([("address_lo", "<u4"), ("address_hi", "<u4"), ("data", "<u4"), ("devid", "<u4")])
"""The message of a message-signalled interrupt: 16 bytes (api.rst §4.52).

====== ==== ========== ==============================================================================================
offset size field      meaning
====== ==== ========== ==============================================================================================
0      4    address_lo 0xfee00000 and the destination
4      4    address_hi with X2APIC_API, bits 8-31 of the destination
8      4    data       vector and delivery mode
12     4    devid      0 on x86
====== ==== ========== ==============================================================================================
"""

kvm_irq_routing_entry = np.dtype(
    {
        "names": ["gsi", "type", "flags", "pad", "irqchip", "msi"],
        "formats": ["<u4", "<u4", "<u4", "<u4", kvm_irq_routing_irqchip, kvm_irq_routing_msi],
        "offsets": [0, 4, 8, 12, 16, 16],
        "itemsize": 48,
    }
)
"""Where a GSI goes: 48 bytes (api.rst §4.52).

====== ==== ======= =================================================================================================
offset size field   meaning
====== ==== ======= =================================================================================================
0      4    gsi     number of the interrupt; one GSI may have an entry per PIC and I/O APIC, or one for an MSI
4      4    type    ``KVM_IRQ_ROUTING_*``
8      4    flags   0
12     4    pad     0
16     8    irqchip with KVM_IRQ_ROUTING_IRQCHIP: :data:`kvm_irq_routing_irqchip`
16     16   msi     with KVM_IRQ_ROUTING_MSI: :data:`kvm_irq_routing_msi`
====== ==== ======= =================================================================================================
"""

KVM_IRQ_ROUTING_IRQCHIP = 1
"""The GSI is a pin of an in-kernel interrupt controller (api.rst §4.52)."""
KVM_IRQ_ROUTING_MSI = 2
"""The GSI is a message (api.rst §4.52)."""

kvm_msi = np.dtype(
    [
        ("address_lo", "<u4"),
        ("address_hi", "<u4"),
        ("data", "<u4"),
        ("flags", "<u4"),
        ("devid", "<u4"),
        ("pad", "u1", 12),
    ]
)
"""A message to deliver now: 32 bytes (api.rst §4.71).

====== ==== ========== ==============================================================================================
offset size field      meaning
====== ==== ========== ==============================================================================================
0      4    address_lo as in :data:`kvm_irq_routing_msi`, like the next two
4      4    address_hi
8      4    data
12     4    flags      0 on x86
16     4    devid      0 on x86
20     12   pad        0
====== ==== ========== ==============================================================================================
"""

kvm_irqfd = np.dtype(
    [("fd", "<u4"), ("gsi", "<u4"), ("flags", "<u4"), ("resamplefd", "<u4"), ("pad", "u1", 16)],
)
"""An eventfd that raises a GSI: 32 bytes (api.rst §4.75).

====== ==== ========== ==============================================================================================
offset size field      meaning
====== ==== ========== ==============================================================================================
0      4    fd         eventfd; a write to it raises the interrupt
4      4    gsi        which
8      4    flags      ``KVM_IRQFD_FLAG_*``
12     4    resamplefd with RESAMPLE: eventfd that is written when the guest has ended the interrupt
16     16   pad        0
====== ==== ========== ==============================================================================================
"""

KVM_IRQFD_FLAG_DEASSIGN = 1 << 0
"""Part this eventfd and this GSI (api.rst §4.75)."""
KVM_IRQFD_FLAG_RESAMPLE = 1 << 1
"""The GSI is a level: it stays high until the guest's end of interrupt (api.rst §4.75)."""

kvm_ioeventfd = np.dtype(
    [
        ("datamatch", "<u8"),
        ("addr", "<u8"),
        ("len", "<u4"),
        ("fd", "<i4"),
        ("flags", "<u4"),
        ("pad", "u1", 36),
    ]
)
"""An eventfd that a guest's write signals, without an exit: 64 bytes (api.rst §4.59).

====== ==== ========= ===============================================================================================
offset size field     meaning
====== ==== ========= ===============================================================================================
0      8    datamatch with DATAMATCH: the only value that signals
8      8    addr      port, or guest-physical address
16     4    len       1, 2, 4 or 8 bytes: the only width that signals; 0: any
20     4    fd        eventfd
24     4    flags     ``KVM_IOEVENTFD_FLAG_*``
28     36   pad       0
====== ==== ========= ===============================================================================================
"""

KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0
"""Only writes of ``datamatch`` signal (api.rst §4.59)."""
KVM_IOEVENTFD_FLAG_PIO = 1 << 1
"""``addr`` is a port (api.rst §4.59)."""
KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2
"""Take back what the other fields say (api.rst §4.59)."""

kvm_enable_cap = np.dtype([("cap", "<u4"), ("flags", "<u4"), ("args", "<u8", 4), ("pad", "u1", 64)])
"""A capability to switch on: 104 bytes (api.rst §4.37).

====== ==== ===== ===================================================================================================
offset size field meaning
====== ==== ===== ===================================================================================================
0      4    cap   ``KVM_CAP_*``
4      4    flags 0
8      32   args  what the capability says
40     64   pad   0
====== ==== ===== ===================================================================================================
"""

KVM_MSR_EXIT_REASON_INVAL = 1 << 0
"""For KVM_CAP_X86_USER_SPACE_MSR: exit for accesses that are wrong (api.rst §7.22)."""
KVM_MSR_EXIT_REASON_UNKNOWN = 1 << 1
"""For KVM_CAP_X86_USER_SPACE_MSR: exit for registers that KVM does not know (api.rst §7.22)."""

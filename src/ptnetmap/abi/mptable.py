# SPDX-License-Identifier: BSD-2-Clause
"""Intel's MultiProcessor tables: processors, buses, I/O APIC and interrupts, for systems without ACPI.

All fields are little endian. Source: Intel MultiProcessor Specification 1.4, chapter 4.
"""

from __future__ import annotations

import numpy as np

mp_floating_pointer = np.dtype(
    [
        ("signature", "S4"),
        ("physical_address", "<u4"),
        ("length", "u1"),
        ("spec_rev", "u1"),
        ("checksum", "u1"),
        ("feature", "u1", 5),
    ]
)
"""What an operating system looks for, on 16-byte boundaries of the BIOS area: 16 bytes (MP 1.4 §4.1).

====== ==== ================ ==========================================================================================
offset size field            meaning
====== ==== ================ ==========================================================================================
0      4    signature        "_MP_"
4      4    physical_address of the configuration table
8      1    length           1, in 16 bytes
9      1    spec_rev         4: version 1.4
10     1    checksum         makes all bytes add up to 0
11     5    feature          0: there is a configuration table; virtual wire mode at reset
====== ==== ================ ==========================================================================================
"""

mp_config_header = np.dtype(
    [
        ("signature", "S4"),
        ("base_table_length", "<u2"),
        ("spec_rev", "u1"),
        ("checksum", "u1"),
        ("oem_id", "S8"),
        ("product_id", "S12"),
        ("oem_table_pointer", "<u4"),
        ("oem_table_size", "<u2"),
        ("entry_count", "<u2"),
        ("lapic_address", "<u4"),
        ("extended_table_length", "<u2"),
        ("extended_table_checksum", "u1"),
        ("reserved", "u1"),
    ]
)
"""The head of the configuration table: 44 bytes; the entries follow (MP 1.4 §4.2).

====== ==== ======================= ===================================================================================
offset size field                   meaning
====== ==== ======================= ===================================================================================
0      4    signature               "PCMP"
4      2    base_table_length       bytes, header and entries
6      1    spec_rev                4: version 1.4
7      1    checksum                makes all of them add up to 0
8      8    oem_id                  padded with blanks
16     12   product_id              padded with blanks
28     4    oem_table_pointer       0
32     2    oem_table_size          0
34     2    entry_count             entries
36     4    lapic_address           of every processor's local APIC
40     2    extended_table_length   0
42     1    extended_table_checksum 0
43     1    reserved                0
====== ==== ======================= ===================================================================================
"""

mp_processor = np.dtype(
    [
        ("type", "u1"),
        ("apic_id", "u1"),
        ("apic_version", "u1"),
        ("cpu_flags", "u1"),
        ("cpu_signature", "<u4"),
        ("feature_flags", "<u4"),
        ("reserved", "<u4", (2,)),
    ]
)
"""A processor: 20 bytes (MP 1.4 §4.3.1).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      1    type          :data:`MP_PROCESSOR`
1      1    apic_id       of its local APIC
2      1    apic_version  of its local APIC
3      1    cpu_flags     1 enabled, 2 the one that boots
4      4    cpu_signature family, model and stepping, as CPUID 1 says
8      4    feature_flags as CPUID 1 says
12     8    reserved      0
====== ==== ============= =============================================================================================
"""

mp_bus = np.dtype([("type", "u1"), ("bus_id", "u1"), ("bus_type", "S6")])
"""A bus: 8 bytes (MP 1.4 §4.3.2).

====== ==== ======== ==================================================================================================
offset size field    meaning
====== ==== ======== ==================================================================================================
0      1    type     :data:`MP_BUS`
1      1    bus_id   number
2      6    bus_type "ISA" or "PCI", padded with blanks
====== ==== ======== ==================================================================================================
"""

mp_ioapic = np.dtype([("type", "u1"), ("apic_id", "u1"), ("apic_version", "u1"), ("flags", "u1"), ("address", "<u4")])
"""An I/O APIC: 8 bytes (MP 1.4 §4.3.3).

====== ==== ============ ==============================================================================================
offset size field        meaning
====== ==== ============ ==============================================================================================
0      1    type         :data:`MP_IOAPIC`
1      1    apic_id      its id
2      1    apic_version its version
3      1    flags        1 enabled
4      4    address      its registers
====== ==== ============ ==============================================================================================
"""

mp_interrupt = np.dtype(
    [
        ("type", "u1"),
        ("int_type", "u1"),
        ("int_flags", "<u2"),
        ("src_bus_id", "u1"),
        ("src_bus_irq", "u1"),
        ("dst_apic_id", "u1"),
        ("dst_apic_int", "u1"),
    ]
)
"""Where an interrupt goes: 8 bytes (MP 1.4 §4.3.4, §4.3.5).

====== ==== ============ ==============================================================================================
offset size field        meaning
====== ==== ============ ==============================================================================================
0      1    type         :data:`MP_IO_INTERRUPT` or :data:`MP_LOCAL_INTERRUPT`
1      1    int_type     ``MP_INT``, ``MP_NMI`` or ``MP_EXTINT``
2      2    int_flags    polarity in bits 0-1, trigger mode in bits 2-3
4      1    src_bus_id   bus that it comes from
5      1    src_bus_irq  its number there; for PCI, the device in bits 2-6 and the pin (A is 0) in bits 0-1
6      1    dst_apic_id  APIC that it goes to; 0xff for all local APICs
7      1    dst_apic_int pin there
====== ==== ============ ==============================================================================================
"""

MP_FLOATING_SIGNATURE = b"_MP_"
"""Signature of :data:`mp_floating_pointer`."""
MP_CONFIG_SIGNATURE = b"PCMP"
"""Signature of :data:`mp_config_header`."""
MP_SPEC_REV = 4
"""``spec_rev`` of version 1.4."""
MP_PROCESSOR = 0
"""Entry type of :data:`mp_processor`."""
MP_BUS = 1
"""Entry type of :data:`mp_bus`."""
MP_IOAPIC = 2
"""Entry type of :data:`mp_ioapic`."""
MP_IO_INTERRUPT = 3
"""Entry type of an :data:`mp_interrupt` into an I/O APIC."""
MP_LOCAL_INTERRUPT = 4
"""Entry type of an :data:`mp_interrupt` into local APICs."""
MP_CPU_ENABLED = 1
"""``cpu_flags``: usable."""
MP_CPU_BOOT = 2
"""``cpu_flags``: the processor that boots."""
MP_INT = 0
"""``int_type``: with a vector from the APIC."""
MP_NMI = 1
"""``int_type``: not maskable."""
MP_EXTINT = 3
"""``int_type``: with a vector from the 8259."""
MP_ACTIVE_LOW_LEVEL = 0xF
"""``int_flags`` of a level-triggered interrupt, active low."""

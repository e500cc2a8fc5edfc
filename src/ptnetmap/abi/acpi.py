# SPDX-License-Identifier: BSD-2-Clause
"""ACPI's tables for a PC: root pointer, headers, FADT, FACS, MADT and MCFG.

All fields are little endian. Sources: ACPI 6.4 §5.2, PCI Firmware Specification 3.0 §4.1.2 (MCFG).
"""

from __future__ import annotations

import numpy as np

acpi_rsdp = np.dtype(
    [
        ("signature", "S8"),
        ("checksum", "u1"),
        ("oem_id", "S6"),
        ("revision", "u1"),
        ("rsdt_address", "<u4"),
        ("length", "<u4"),
        ("xsdt_address", "<u8"),
        ("extended_checksum", "u1"),
        ("reserved", "u1", (3,)),
    ]
)
"""The root pointer, on a 16-byte boundary of 0xe0000-0xfffff: 36 bytes (ACPI 6.4 §5.2.5.3).

====== ==== ================= =========================================================================================
offset size field             meaning
====== ==== ================= =========================================================================================
0      8    signature         "RSD PTR "
8      1    checksum          makes the first 20 bytes add up to 0
9      6    oem_id            who made it
15     1    revision          2: there is an XSDT
16     4    rsdt_address      of the table of 32-bit addresses, or 0
20     4    length            36
24     8    xsdt_address      of the table of 64-bit addresses
32     1    extended_checksum makes all bytes add up to 0
33     3    reserved          0
====== ==== ================= =========================================================================================
"""

acpi_header = np.dtype(
    [
        ("signature", "S4"),
        ("length", "<u4"),
        ("revision", "u1"),
        ("checksum", "u1"),
        ("oem_id", "S6"),
        ("oem_table_id", "S8"),
        ("oem_revision", "<u4"),
        ("creator_id", "S4"),
        ("creator_revision", "<u4"),
    ]
)
"""The head of every table but RSDP and FACS: 36 bytes (ACPI 6.4 §5.2.6).

====== ==== ================ ==========================================================================================
offset size field            meaning
====== ==== ================ ==========================================================================================
0      4    signature        which table
4      4    length           bytes of it all
8      1    revision         of this kind of table
9      1    checksum         makes all bytes add up to 0
10     6    oem_id           as in :data:`acpi_rsdp`
16     8    oem_table_id     which one of these
24     4    oem_revision     and which version
28     4    creator_id       what wrote it
32     4    creator_revision and which version
====== ==== ================ ==========================================================================================
"""

acpi_gas = np.dtype(
    [("space_id", "u1"), ("bit_width", "u1"), ("bit_offset", "u1"), ("access_size", "u1"), ("address", "<u8")]
)
"""A register's address: 12 bytes (ACPI 6.4 §5.2.3.2).

====== ==== =========== ===============================================================================================
offset size field       meaning
====== ==== =========== ===============================================================================================
0      1    space_id    0 memory, 1 I/O ports
1      1    bit_width   bits of the register
2      1    bit_offset  first of them
3      1    access_size 1 byte, 2 word, 3 double word, 4 quad word
4      8    address     where
====== ==== =========== ===============================================================================================
"""

acpi_fadt = np.dtype(
    [
        ("header", acpi_header),
        ("firmware_ctrl", "<u4"),
        ("dsdt", "<u4"),
        ("reserved0", "u1"),
        ("preferred_pm_profile", "u1"),
        ("sci_int", "<u2"),
        ("smi_cmd", "<u4"),
        ("acpi_enable", "u1"),
        ("acpi_disable", "u1"),
        ("s4bios_req", "u1"),
        ("pstate_cnt", "u1"),
        ("pm1a_evt_blk", "<u4"),
        ("pm1b_evt_blk", "<u4"),
        ("pm1a_cnt_blk", "<u4"),
        ("pm1b_cnt_blk", "<u4"),
        ("pm2_cnt_blk", "<u4"),
        ("pm_tmr_blk", "<u4"),
        ("gpe0_blk", "<u4"),
        ("gpe1_blk", "<u4"),
        ("pm1_evt_len", "u1"),
        ("pm1_cnt_len", "u1"),
        ("pm2_cnt_len", "u1"),
        ("pm_tmr_len", "u1"),
        ("gpe0_blk_len", "u1"),
        ("gpe1_blk_len", "u1"),
        ("gpe1_base", "u1"),
        ("cst_cnt", "u1"),
        ("p_lvl2_lat", "<u2"),
        ("p_lvl3_lat", "<u2"),
        ("flush_size", "<u2"),
        ("flush_stride", "<u2"),
        ("duty_offset", "u1"),
        ("duty_width", "u1"),
        ("day_alrm", "u1"),
        ("mon_alrm", "u1"),
        ("century", "u1"),
        ("iapc_boot_arch", "<u2"),
        ("reserved1", "u1"),
        ("flags", "<u4"),
        ("reset_reg", acpi_gas),
        ("reset_value", "u1"),
        ("arm_boot_arch", "<u2"),
        ("minor_version", "u1"),
        ("x_firmware_ctrl", "<u8"),
        ("x_dsdt", "<u8"),
        ("x_pm1a_evt_blk", acpi_gas),
        ("x_pm1b_evt_blk", acpi_gas),
        ("x_pm1a_cnt_blk", acpi_gas),
        ("x_pm1b_cnt_blk", acpi_gas),
        ("x_pm2_cnt_blk", acpi_gas),
        ("x_pm_tmr_blk", acpi_gas),
        ("x_gpe0_blk", acpi_gas),
        ("x_gpe1_blk", acpi_gas),
        ("sleep_control_reg", acpi_gas),
        ("sleep_status_reg", acpi_gas),
        ("hypervisor_vendor", "S8"),
    ]
)
"""The Fixed ACPI Description Table: 276 bytes (ACPI 6.4 §5.2.9; the 6.3 revision of it has the same fields).

====== ==== ==================== =======================================================================================
offset size field                meaning
====== ==== ==================== =======================================================================================
0      36   header               :data:`acpi_header`, "FACP"
36     4    firmware_ctrl        address of the FACS
40     4    dsdt                 address of the DSDT
44     1    reserved0            0
45     1    preferred_pm_profile 0 unspecified
46     2    sci_int              interrupt of ACPI events
48     4    smi_cmd              port that switches ACPI on and off, or 0: always on
52     1    acpi_enable          value for ``smi_cmd`` that switches ACPI on
53     1    acpi_disable         value for it that switches ACPI off
54     1    s4bios_req           0
55     1    pstate_cnt           0
56     4    pm1a_evt_blk         port of PM1 status and enable
60     4    pm1b_evt_blk         0
64     4    pm1a_cnt_blk         port of PM1 control
68     4    pm1b_cnt_blk         0
72     4    pm2_cnt_blk          0
76     4    pm_tmr_blk           port of the PM timer, or 0
80     4    gpe0_blk             0
84     4    gpe1_blk             0
88     1    pm1_evt_len          4
89     1    pm1_cnt_len          2
90     1    pm2_cnt_len          0
91     1    pm_tmr_len           4, or 0
92     1    gpe0_blk_len         0
93     1    gpe1_blk_len         0
94     1    gpe1_base            0
95     1    cst_cnt              0
96     2    p_lvl2_lat           above 100: no C2
98     2    p_lvl3_lat           above 1000: no C3
100    2    flush_size           0
102    2    flush_stride         0
104    1    duty_offset          0
105    1    duty_width           0
106    1    day_alrm             0
107    1    mon_alrm             0
108    1    century              CMOS index of the century, or 0
109    2    iapc_boot_arch       ``FADT_BOOT_*``
111    1    reserved1            0
112    4    flags                ``FADT_*``
116    12   reset_reg            :data:`acpi_gas` of the reset register
128    1    reset_value          what resets the machine there
129    2    arm_boot_arch        0
131    1    minor_version        of the FADT
132    8    x_firmware_ctrl      0: the 32-bit address counts
140    8    x_dsdt               address of the DSDT
148    12   x_pm1a_evt_blk       as above, as :data:`acpi_gas`
160    12   x_pm1b_evt_blk       0
172    12   x_pm1a_cnt_blk       as above
184    12   x_pm1b_cnt_blk       0
196    12   x_pm2_cnt_blk        0
208    12   x_pm_tmr_blk         as above
220    12   x_gpe0_blk           0
232    12   x_gpe1_blk           0
244    12   sleep_control_reg    0
256    12   sleep_status_reg     0
268    8    hypervisor_vendor    who makes the hypervisor
====== ==== ==================== =======================================================================================
"""

acpi_facs = np.dtype(
    [
        ("signature", "S4"),
        ("length", "<u4"),
        ("hardware_signature", "<u4"),
        ("firmware_waking_vector", "<u4"),
        ("global_lock", "<u4"),
        ("flags", "<u4"),
        ("x_firmware_waking_vector", "<u8"),
        ("version", "u1"),
        ("reserved0", "u1", (3,)),
        ("ospm_flags", "<u4"),
        ("reserved1", "u1", (24,)),
    ]
)
"""The Firmware ACPI Control Structure, aligned to 64 bytes and in writable memory: 64 bytes (ACPI 6.4 §5.2.10).

====== ==== ======================== ===================================================================================
offset size field                    meaning
====== ==== ======================== ===================================================================================
0      4    signature                "FACS"
4      4    length                   64
8      4    hardware_signature       0
12     4    firmware_waking_vector   where to wake up, set by the system
16     4    global_lock              lock between system and firmware
20     4    flags                    0
24     8    x_firmware_waking_vector as above, 64 bits
32     1    version                  2
33     3    reserved0                0
36     4    ospm_flags               set by the system
40     24   reserved1                0
====== ==== ======================== ===================================================================================
"""

acpi_madt = np.dtype([("header", acpi_header), ("lapic_address", "<u4"), ("flags", "<u4")])
"""The Multiple APIC Description Table's head: 44 bytes; the structures follow (ACPI 6.4 §5.2.12).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      36   header        :data:`acpi_header`, "APIC"
36     4    lapic_address registers of every processor's local APIC
40     4    flags         1: there is a pair of 8259s as well
====== ==== ============= =============================================================================================
"""

madt_lapic = np.dtype([("type", "u1"), ("length", "u1"), ("processor_uid", "u1"), ("apic_id", "u1"), ("flags", "<u4")])
"""A processor with its local APIC: 8 bytes (ACPI 6.4 §5.2.12.2).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      1    type          0
1      1    length        8
2      1    processor_uid of the processor in the DSDT
3      1    apic_id       its APIC id, below 255
4      4    flags         1 enabled
====== ==== ============= =============================================================================================
"""

madt_ioapic = np.dtype(
    [
        ("type", "u1"),
        ("length", "u1"),
        ("ioapic_id", "u1"),
        ("reserved", "u1"),
        ("address", "<u4"),
        ("gsi_base", "<u4"),
    ]
)
"""An I/O APIC: 12 bytes (ACPI 6.4 §5.2.12.3).

====== ==== ========= =================================================================================================
offset size field     meaning
====== ==== ========= =================================================================================================
0      1    type      1
1      1    length    12
2      1    ioapic_id its id
3      1    reserved  0
4      4    address   its registers
8      4    gsi_base  global system interrupt of its first pin
====== ==== ========= =================================================================================================
"""

madt_override = np.dtype(
    [("type", "u1"), ("length", "u1"), ("bus", "u1"), ("source", "u1"), ("gsi", "<u4"), ("flags", "<u2")]
)
"""An ISA interrupt that is not where its number says, or not as ISA's are: 10 bytes (ACPI 6.4 §5.2.12.5).

====== ==== ====== ====================================================================================================
offset size field  meaning
====== ==== ====== ====================================================================================================
0      1    type   2
1      1    length 10
2      1    bus    0: ISA
3      1    source ISA's number
4      4    gsi    global system interrupt
8      2    flags  polarity in bits 0-1, trigger mode in bits 2-3
====== ==== ====== ====================================================================================================
"""

madt_lapic_nmi = np.dtype([("type", "u1"), ("length", "u1"), ("processor_uid", "u1"), ("flags", "<u2"), ("lint", "u1")])
"""Which pin of a local APIC is the NMI: 6 bytes (ACPI 6.4 §5.2.12.7).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      1    type          4
1      1    length        6
2      1    processor_uid 0xff: of all
3      2    flags         polarity in bits 0-1, trigger mode in bits 2-3
5      1    lint          the pin
====== ==== ============= =============================================================================================
"""

madt_x2apic = np.dtype(
    [
        ("type", "u1"),
        ("length", "u1"),
        ("reserved", "<u2"),
        ("x2apic_id", "<u4"),
        ("flags", "<u4"),
        ("processor_uid", "<u4"),
    ]
)
"""A processor whose APIC id needs more than 8 bits: 16 bytes (ACPI 6.4 §5.2.12.12).

====== ==== ============= =============================================================================================
offset size field         meaning
====== ==== ============= =============================================================================================
0      1    type          9
1      1    length        16
2      2    reserved      0
4      4    x2apic_id     its APIC id
8      4    flags         1 enabled
12     4    processor_uid of the processor in the DSDT
====== ==== ============= =============================================================================================
"""

acpi_mcfg = np.dtype([("header", acpi_header), ("reserved", "<u8")])
"""The head of the table of memory-mapped configuration space: 44 bytes (PCI Firmware 3.0 §4.1.2).

====== ==== ======== ==================================================================================================
offset size field    meaning
====== ==== ======== ==================================================================================================
0      36   header   :data:`acpi_header`, "MCFG"
36     8    reserved 0
====== ==== ======== ==================================================================================================
"""

mcfg_allocation = np.dtype(
    [("base", "<u8"), ("segment", "<u2"), ("start_bus", "u1"), ("end_bus", "u1"), ("reserved", "<u4")]
)
"""A window of configuration space: 16 bytes (PCI Firmware 3.0 §4.1.2).

====== ==== ========= =================================================================================================
offset size field     meaning
====== ==== ========= =================================================================================================
0      8    base      address of bus 0, even if it starts later
8      2    segment   0
10     1    start_bus first bus
11     1    end_bus   last bus
12     4    reserved  0
====== ==== ========= =================================================================================================
"""

MADT_LAPIC = 0
"""Type of :data:`madt_lapic` (ACPI 6.4 table 5.21)."""
MADT_IOAPIC = 1
"""Type of :data:`madt_ioapic`."""
MADT_OVERRIDE = 2
"""Type of :data:`madt_override`."""
MADT_LAPIC_NMI = 4
"""Type of :data:`madt_lapic_nmi`."""
MADT_X2APIC = 9
"""Type of :data:`madt_x2apic`."""
MADT_PCAT_COMPAT = 1
"""MADT ``flags``: there is a pair of 8259s as well."""
MADT_ENABLED = 1
"""A processor's ``flags``: usable."""
INTI_ACTIVE_HIGH_EDGE = 0x5
"""``flags`` of an edge-triggered interrupt, active high (ACPI 6.4 table 5.26)."""
INTI_ACTIVE_LOW_LEVEL = 0xF
"""``flags`` of a level-triggered interrupt, active low (ACPI 6.4 table 5.26)."""
SPACE_MEMORY = 0
"""``space_id`` of :data:`acpi_gas`: memory."""
SPACE_IO = 1
"""``space_id`` of :data:`acpi_gas`: an I/O port."""
FADT_BOOT_LEGACY_DEVICES = 1 << 0
"""``iapc_boot_arch``: there are ISA devices that users can see (ACPI 6.4 §5.2.9.3)."""
FADT_BOOT_NO_VGA = 1 << 2
"""``iapc_boot_arch``: do not look for VGA."""
FADT_BOOT_NO_ASPM = 1 << 4
"""``iapc_boot_arch``: leave PCIe links alone."""
FADT_WBINVD = 1 << 0
"""``flags``: the instruction works; required (ACPI 6.4 table 5.10)."""
FADT_PROC_C1 = 1 << 2
"""``flags``: HLT works on all processors; required."""
FADT_SLP_BUTTON = 1 << 5
"""``flags``: there is no sleep button among the fixed registers."""
FADT_FIX_RTC = 1 << 6
"""``flags``: the RTC's wake-up is not among the fixed registers."""
FADT_TMR_VAL_EXT = 1 << 8
"""``flags``: the PM timer has 32 bits."""
FADT_RESET_REG_SUP = 1 << 10
"""``flags``: ``reset_reg`` is valid."""
FADT_HEADLESS = 1 << 12
"""``flags``: no display, keyboard or mouse."""

# SPDX-License-Identifier: BSD-2-Clause
"""PCI configuration space: headers, BARs, capabilities, MSI and MSI-X, class codes.

All fields are little endian. ``PCIR_*`` are offsets of registers, ``PCIM_*`` their bits, as FreeBSD names them; BARs
and capabilities are read with the guest's eyes, so their reserved bits are 0. Source: PCI Local Bus 3.0, PCI-to-PCI
Bridge 1.2.
"""

from __future__ import annotations

import numpy as np

PCI_CONFIG_SIZE = 256
"""Bytes of a function's configuration space (PCI 3.0 §6.1)."""
PCIE_CONFIG_SIZE = 4096
"""Bytes that the memory-mapped access has for each function (PCI Express base 3.0 §7.2.2)."""

CONF1_ADDRESS_PORT = 0xCF8
"""The 32-bit port that takes the address of a configuration register (PCI 3.0 §3.2.2.3.2)."""
CONF1_DATA_PORT = 0xCFC
"""The four ports through which that register is read and written (PCI 3.0 §3.2.2.3.2)."""
CONF1_ENABLE = 0x80000000
"""In the address port: accesses to the data ports are configuration cycles (PCI 3.0 §3.2.2.3.2)."""
CONF1_MASK = 0x80FFFFFC
"""The bits that the address port keeps: enable, bus << 16, slot << 11, function << 8, register."""

pci_header = np.dtype(
    [
        ("vendor", "<u2"),
        ("device", "<u2"),
        ("command", "<u2"),
        ("status", "<u2"),
        ("revid", "u1"),
        ("progif", "u1"),
        ("subclass", "u1"),
        ("class", "u1"),
        ("cachelnsz", "u1"),
        ("lattimer", "u1"),
        ("hdrtype", "u1"),
        ("bist", "u1"),
        ("bar", "<u4", (6,)),
        ("cis", "<u4"),
        ("subvendor", "<u2"),
        ("subdevice", "<u2"),
        ("bios", "<u4"),
        ("cap_ptr", "u1"),
        ("reserved", "u1", (7,)),
        ("intline", "u1"),
        ("intpin", "u1"),
        ("mingnt", "u1"),
        ("maxlat", "u1"),
    ]
)
"""The header of a device, type 0: 64 bytes (PCI 3.0 §6.1).

====== ==== ========= ============================================================================================
offset size field     meaning
====== ==== ========= ============================================================================================
0      2    vendor    who made it; 0xffff where there is nothing
2      2    device    the maker's number for it
4      2    command   ``PCIM_CMD_*``
6      2    status    ``PCIM_STATUS_*``; errors are cleared by writing ones
8      1    revid     revision
9      1    progif    the interface within the subclass
10     1    subclass  what it is, within the class
11     1    class     ``PCIC_*``
12     1    cachelnsz cache line in 32-bit words
13     1    lattimer  latency timer
14     1    hdrtype   layout of bytes 16-63 and ``PCIM_MFDEV``
15     1    bist      built-in self-test
16     24   bar       base addresses
40     4    cis       CardBus pointer
44     2    subvendor who made the board
46     2    subdevice the board's number
48     4    bios      expansion ROM
52     1    cap_ptr   first capability, or 0
53     7    reserved  0
60     1    intline   what the firmware noted about the interrupt; the device does not care
61     1    intpin    1-4 for INTA-INTD, 0 for none
62     1    mingnt    0
63     1    maxlat    0
====== ==== ========= ============================================================================================
"""

pci_bridge_header = np.dtype(
    [
        *pci_header.descr[:12],
        ("bar", "<u4", (2,)),
        ("primary", "u1"),
        ("secondary", "u1"),
        ("subordinate", "u1"),
        ("seclat", "u1"),
        ("iobase", "u1"),
        ("iolimit", "u1"),
        ("secstatus", "<u2"),
        ("membase", "<u2"),
        ("memlimit", "<u2"),
        ("pfbase", "<u2"),
        ("pflimit", "<u2"),
        ("pfbase_hi", "<u4"),
        ("pflimit_hi", "<u4"),
        ("iobase_hi", "<u2"),
        ("iolimit_hi", "<u2"),
        ("cap_ptr", "u1"),
        ("reserved", "u1", (3,)),
        ("bios", "<u4"),
        ("intline", "u1"),
        ("intpin", "u1"),
        ("control", "<u2"),
    ]
)
"""The header of a PCI-to-PCI bridge, type 1: 64 bytes (PCI-to-PCI Bridge 1.2 §3.2).

====== ==== =========== ==========================================================================================
offset size field       meaning
====== ==== =========== ==========================================================================================
0      2    vendor      as in :data:`pci_header`, like the next eleven
2      2    device
4      2    command
6      2    status
8      1    revid
9      1    progif
10     1    subclass
11     1    class
12     1    cachelnsz
13     1    lattimer
14     1    hdrtype     1
15     1    bist
16     8    bar         the bridge's own base addresses
24     1    primary     bus above
25     1    secondary   bus below
26     1    subordinate last bus reached through it
27     1    seclat      latency timer below
28     1    iobase      first forwarded port >> 8; the low 4 bits say whether there are upper halves
29     1    iolimit     last forwarded port >> 8
30     2    secstatus   status of the bus below
32     2    membase     first forwarded address >> 16
34     2    memlimit    last forwarded address >> 16
36     2    pfbase      the same for prefetchable memory
38     2    pflimit
40     4    pfbase_hi   upper half of ``pfbase``
44     4    pflimit_hi  upper half of ``pflimit``
48     2    iobase_hi   upper half of ``iobase``
50     2    iolimit_hi  upper half of ``iolimit``
52     1    cap_ptr     first capability, or 0
53     3    reserved    0
56     4    bios        expansion ROM
60     1    intline     as in :data:`pci_header`, like the next one
61     1    intpin
62     2    control     the bridge's own command register
====== ==== =========== ==========================================================================================
"""

PCIR_VENDOR = 0x00
"""Vendor, 16 bits."""
PCIR_DEVICE = 0x02
"""Device, 16 bits."""
PCIR_COMMAND = 0x04
"""Command, 16 bits."""
PCIR_STATUS = 0x06
"""Status, 16 bits."""
PCIR_REVID = 0x08
"""Revision, 8 bits; the 24 bits of the class code follow."""
PCIR_CACHELNSZ = 0x0C
"""Cache line size, 8 bits."""
PCIR_LATTIMER = 0x0D
"""Latency timer, 8 bits."""
PCIR_HDRTYPE = 0x0E
"""Header type, 8 bits."""
PCIR_BARS = 0x10
"""The first of six base address registers, 32 bits each."""
PCIR_SUBVEND_0 = 0x2C
"""Subsystem vendor of a type 0 header, 16 bits."""
PCIR_SUBDEV_0 = 0x2E
"""Subsystem of a type 0 header, 16 bits."""
PCIR_CAP_PTR = 0x34
"""First capability, 8 bits."""
PCIR_INTLINE = 0x3C
"""Interrupt line, 8 bits."""
PCIR_INTPIN = 0x3D
"""Interrupt pin, 8 bits."""
PCI_HEADER_SIZE = 0x40
"""Where the header ends, and capabilities may begin (PCI 3.0 §6.7)."""

PCIR_MAX_BAR_0 = 5
"""The last base address register of a type 0 header."""
PCIM_HDRTYPE_NORMAL = 0
"""Header of a device (PCI 3.0 §6.2.1)."""
PCIM_HDRTYPE_BRIDGE = 1
"""Header of a PCI-to-PCI bridge (PCI 3.0 §6.2.1)."""
PCIM_MFDEV = 0x80
"""In the header type: the slot has more functions than this one (PCI 3.0 §6.2.1)."""

PCIM_CMD_PORTEN = 0x0001
"""I/O BARs are decoded (PCI 3.0 §6.2.2)."""
PCIM_CMD_MEMEN = 0x0002
"""Memory BARs are decoded (PCI 3.0 §6.2.2)."""
PCIM_CMD_BUSMASTEREN = 0x0004
"""The function may access memory and send messages (PCI 3.0 §6.2.2)."""
PCIM_CMD_PERRESPEN = 0x0040
"""Parity errors are answered (PCI 3.0 §6.2.2)."""
PCIM_CMD_SERRESPEN = 0x0100
"""SERR# may be driven (PCI 3.0 §6.2.2)."""
PCIM_CMD_INTxDIS = 0x0400
"""The interrupt pin stays silent (PCI 3.0 §6.2.2)."""

PCIM_STATUS_INTxSTATE = 0x0008
"""The function wants an interrupt, whether it may drive the pin or not (PCI 3.0 §6.2.3)."""
PCIM_STATUS_CAPPRESENT = 0x0010
"""There is a list of capabilities (PCI 3.0 §6.2.3)."""
PCIM_STATUS_ERRORS = 0xF900
"""Master and target aborts and parity and system errors, each cleared by writing a one (PCI 3.0 §6.2.3)."""

PCIM_BAR_IO_SPACE = 0x1
"""In a BAR: it is of I/O space (PCI 3.0 §6.2.5.1)."""
PCIM_BAR_IO_BASE = 0xFFFFFFFC
"""In an I/O BAR: the address (PCI 3.0 §6.2.5.1)."""
PCIM_BAR_MEM_64 = 0x4
"""In a memory BAR: the next register has the upper half of the address (PCI 3.0 §6.2.5.1)."""
PCIM_BAR_MEM_PREFETCH = 0x8
"""In a memory BAR: reading has no effect, and writes may be merged (PCI 3.0 §6.2.5.1)."""
PCIM_BAR_MEM_BASE = 0xFFFFFFF0
"""In a memory BAR: the address (PCI 3.0 §6.2.5.1)."""

PCIY_PMG = 0x01
"""Capability: power management (PCI 3.0 appendix H)."""
PCIY_MSI = 0x05
"""Capability: message-signalled interrupts (PCI 3.0 §6.8.1)."""
PCIY_VENDOR = 0x09
"""Capability: the vendor's own; the byte after the link is its length (PCI 3.0 appendix H)."""
PCIY_EXPRESS = 0x10
"""Capability: PCI Express (PCI 3.0 appendix H)."""
PCIY_MSIX = 0x11
"""Capability: MSI-X (PCI 3.0 §6.8.2)."""

pci_cap = np.dtype([("id", "u1"), ("next", "u1")])
"""How every capability begins: 2 bytes (PCI 3.0 §6.7).

====== ==== ===== ================================================================================================
offset size field meaning
====== ==== ===== ================================================================================================
0      1    id    ``PCIY_*``
1      1    next  offset of the next one, or 0
====== ==== ===== ================================================================================================
"""

msi_capability = np.dtype(
    [*pci_cap.descr, ("control", "<u2"), ("address", "<u4"), ("address_hi", "<u4"), ("data", "<u2")]
)
"""MSI with 64-bit addresses and without masks: 14 bytes (PCI 3.0 §6.8.1).

====== ==== ========== ===========================================================================================
offset size field      meaning
====== ==== ========== ===========================================================================================
0      1    id         PCIY_MSI
1      1    next
2      2    control    ``PCIM_MSICTRL_*``
4      4    address    where the message is written, a multiple of 4
8      4    address_hi its upper half
12     2    data       what is written; with several messages, their number replaces the low bits
====== ==== ========== ===========================================================================================
"""

PCIM_MSICTRL_MSI_ENABLE = 0x0001
"""Messages are sent, and the pin is silent (PCI 3.0 §6.8.1.3)."""
PCIM_MSICTRL_MMC_MASK = 0x000E
"""Messages that the function could send: log2, shifted left by 1 (PCI 3.0 §6.8.1.3)."""
PCIM_MSICTRL_MME_MASK = 0x0070
"""Messages that it may send: log2, shifted left by 4 (PCI 3.0 §6.8.1.3)."""
PCIM_MSICTRL_64BIT = 0x0080
"""There is an upper half of the address (PCI 3.0 §6.8.1.3)."""

msix_capability = np.dtype([*pci_cap.descr, ("control", "<u2"), ("table", "<u4"), ("pba", "<u4")])
"""MSI-X: 12 bytes (PCI 3.0 §6.8.2).

====== ==== ======= ==============================================================================================
offset size field   meaning
====== ==== ======= ==============================================================================================
0      1    id      PCIY_MSIX
1      1    next
2      2    control ``PCIM_MSIXCTRL_*``
4      4    table   offset of the table in a BAR, whose number is in the low 3 bits
8      4    pba     offset of the pending bits in a BAR, whose number is in the low 3 bits
====== ==== ======= ==============================================================================================
"""

PCIM_MSIXCTRL_TABLE_SIZE = 0x07FF
"""Vectors less 1 (PCI 3.0 §6.8.2.3)."""
PCIM_MSIXCTRL_FUNCTION_MASK = 0x4000
"""All vectors are masked (PCI 3.0 §6.8.2.3)."""
PCIM_MSIXCTRL_MSIX_ENABLE = 0x8000
"""Messages are sent, and the pin is silent (PCI 3.0 §6.8.2.3)."""
PCIM_MSIX_BIR_MASK = 0x7
"""In ``table`` and ``pba``: the BAR (PCI 3.0 §6.8.2.4)."""
PCI_MSIX_MSGNUM = 2048
"""Most vectors of a function (PCI 3.0 §6.8.2)."""

msix_entry = np.dtype([("address", "<u4"), ("address_hi", "<u4"), ("data", "<u4"), ("control", "<u4")])
"""One vector of the MSI-X table: 16 bytes (PCI 3.0 §6.8.2.6-9).

====== ==== ========== ===========================================================================================
offset size field      meaning
====== ==== ========== ===========================================================================================
0      4    address    where the message is written, a multiple of 4
4      4    address_hi its upper half
8      4    data       what is written
12     4    control    ``PCIM_MSIX_VCTRL_MASK`` or 0; 1 after reset
====== ==== ========== ===========================================================================================
"""

PCIM_MSIX_VCTRL_MASK = 0x1
"""The vector is masked (PCI 3.0 §6.8.2.9)."""

MSI_INTEL_ADDR_BASE = 0xFEE00000
"""Messages to the 1 MiB from here are interrupts; to elsewhere they are memory writes (Intel SDM 3A §11.11.1)."""
MSI_INTEL_ADDR_SIZE = 0x00100000
"""Bytes of that window."""

PCIC_STORAGE = 0x01
"""Class: mass storage (PCI 3.0 appendix D)."""
PCIC_NETWORK = 0x02
"""Class: network (PCI 3.0 appendix D)."""
PCIC_MEMORY = 0x05
"""Class: memory (PCI 3.0 appendix D)."""
PCIS_MEMORY_RAM = 0x00
"""Subclass of PCIC_MEMORY: RAM."""
PCIC_BRIDGE = 0x06
"""Class: bridge (PCI 3.0 appendix D)."""
PCIS_BRIDGE_HOST = 0x00
"""Subclass of PCIC_BRIDGE: to the processor."""
PCIS_BRIDGE_ISA = 0x01
"""Subclass of PCIC_BRIDGE: to ISA."""
PCIS_BRIDGE_PCI = 0x04
"""Subclass of PCIC_BRIDGE: to another PCI bus."""
PCIC_SIMPLECOMM = 0x07
"""Class: simple communications, as a UART (PCI 3.0 appendix D)."""
PCIC_BASEPERIPH = 0x08
"""Class: system peripheral (PCI 3.0 appendix D)."""
PCIC_CRYPTO = 0x10
"""Class: encryption, as a source of entropy (PCI 3.0 appendix D)."""
PCIC_OLD = 0x00
"""Class: none of the classes, from before they were (PCI 3.0 appendix D)."""
PCIC_OTHER = 0xFF
"""Class: none of the classes (PCI 3.0 appendix D)."""

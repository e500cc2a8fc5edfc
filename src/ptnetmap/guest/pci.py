# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""PCI of the guest: configuration cycles, enumeration of bus 0, BARs, MSI-X.

A *function* is slot * 8 + function, 0 to 255. The firmware's work, addresses and decoding, is done already.
Source: PCI Local Bus 3.0.
"""

from __future__ import annotations

from ptnetmap.abi.pci import (
    CONF1_ADDRESS_PORT,
    CONF1_DATA_PORT,
    CONF1_ENABLE,
    PCI_HEADER_SIZE,
    PCIM_BAR_IO_BASE,
    PCIM_BAR_IO_SPACE,
    PCIM_BAR_MEM_64,
    PCIM_BAR_MEM_BASE,
    PCIM_CMD_BUSMASTEREN,
    PCIM_CMD_MEMEN,
    PCIM_CMD_PORTEN,
    PCIM_HDRTYPE_NORMAL,
    PCIM_MFDEV,
    PCIM_MSIX_BIR_MASK,
    PCIM_MSIXCTRL_FUNCTION_MASK,
    PCIM_MSIXCTRL_MSIX_ENABLE,
    PCIM_MSIXCTRL_TABLE_SIZE,
    PCIM_STATUS_CAPPRESENT,
    PCIR_BARS,
    PCIR_CAP_PTR,
    PCIR_COMMAND,
    PCIR_HDRTYPE,
    PCIR_MAX_BAR_0,
    PCIR_REVID,
    PCIR_STATUS,
    PCIR_VENDOR,
    PCIY_MSIX,
    PCIM_CMD_INTxDIS,
    msix_capability,
    msix_entry,
)
from ptnetmap.guest.interrupts import message_address
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.mmio import write32
from ptnetmap.guest.port import in8, in16, in32, out16, out32
from ptnetmap.guest.routine import routine

FUNCTIONS = 256
"""Functions of a bus, at the most."""
_NOTHING = 0xFFFFFFFF
_MOST_CAPABILITIES = 48  # in the 192 bytes behind the header, four bytes each
_HEADER_TYPE = 0x7F

_MSIX_CONTROL = offsets(msix_capability)["control"]
_MSIX_TABLE = offsets(msix_capability)["table"]
_ENTRY_SIZE = msix_entry.itemsize
_ENTRY_ADDRESS = offsets(msix_entry)["address"]
_ENTRY_ADDRESS_HIGH = offsets(msix_entry)["address_hi"]
_ENTRY_DATA = offsets(msix_entry)["data"]
_ENTRY_CONTROL = offsets(msix_entry)["control"]


@routine
def select_register(function, register):
    """Make the data ports those of a configuration register; return its port."""
    out32(CONF1_ADDRESS_PORT, CONF1_ENABLE | (function << 8) | (register & 0xFC))
    return CONF1_DATA_PORT + (register & 3)


@routine
def config_read8(function, register):
    """Return a byte of configuration space."""
    return in8(select_register(function, register))


@routine
def config_read16(function, register):
    """Return 16 bits of configuration space, at an even register."""
    return in16(select_register(function, register))


@routine
def config_read32(function, register):
    """Return 32 bits of configuration space, at a multiple of 4."""
    return in32(select_register(function, register))


@routine
def config_write16(function, register, value):
    """Write 16 bits of configuration space, at an even register."""
    out16(select_register(function, register), value)


@routine
def next_function(function):
    """Return the first function there is after ``function``, -1 if there are no more; start with -1.

    Functions 1 to 7 are only looked for where function 0 says that there are more (PCI 3.0 §6.2.1).
    """
    function += 1
    while function < FUNCTIONS:
        alone = function & 7 != 0 and config_read8(function & -8, PCIR_HDRTYPE) & PCIM_MFDEV == 0
        if alone or (function & 7 == 0 and config_read32(function, PCIR_VENDOR) == _NOTHING):
            function = (function & -8) + 8
        elif config_read32(function, PCIR_VENDOR) == _NOTHING:
            function += 1
        else:
            return function
    return -1


@routine
def find_device(vendor, device, after):
    """Return the first function behind ``after`` (-1: of all) with these numbers, -1 if there is none."""
    function = next_function(after)
    while function >= 0:
        if config_read32(function, PCIR_VENDOR) == (device << 16) | vendor:
            return function
        function = next_function(function)
    return -1


@routine
def class_code(function):
    """Return class, subclass and interface of a function, 24 bits."""
    return config_read32(function, PCIR_REVID) >> 8


@routine
def bar_address(function, number):
    """Return the address, or port, in BAR ``number`` (of a 64-bit one, both halves); 0 for one that is not there."""
    if number > PCIR_MAX_BAR_0 or config_read8(function, PCIR_HDRTYPE) & _HEADER_TYPE != PCIM_HDRTYPE_NORMAL:
        return 0
    low = config_read32(function, PCIR_BARS + 4 * number)
    if low & PCIM_BAR_IO_SPACE != 0:
        return low & PCIM_BAR_IO_BASE
    address = low & PCIM_BAR_MEM_BASE
    if low & PCIM_BAR_MEM_64 != 0 and number < PCIR_MAX_BAR_0:
        address |= config_read32(function, PCIR_BARS + 4 * number + 4) << 32
    return address


@routine
def bar_is_port(function, number):
    """Return 1 if BAR ``number`` is of I/O ports, else 0."""
    return config_read32(function, PCIR_BARS + 4 * number) & PCIM_BAR_IO_SPACE


@routine
def enable_function(function):
    """Let a function decode its BARs and use memory, and keep it from using its interrupt pin."""
    command = config_read16(function, PCIR_COMMAND)
    command |= PCIM_CMD_PORTEN | PCIM_CMD_MEMEN | PCIM_CMD_BUSMASTEREN | PCIM_CMD_INTxDIS
    config_write16(function, PCIR_COMMAND, command)


@routine
def find_capability(function, kind):
    """Return where a function's capability of a kind is, 0 if it has none; a list that goes round in circles has an end."""
    if config_read16(function, PCIR_STATUS) & PCIM_STATUS_CAPPRESENT == 0:
        return 0
    at = config_read8(function, PCIR_CAP_PTR) & 0xFC
    left = _MOST_CAPABILITIES
    while at >= PCI_HEADER_SIZE and left > 0:
        if config_read8(function, at) == kind:
            return at
        at = config_read8(function, at + 1) & 0xFC
        left -= 1
    return 0


@routine
def msix_vectors(function):
    """Return how many MSI-X vectors a function has, 0 if it has no MSI-X."""
    capability = find_capability(function, PCIY_MSIX)
    if capability == 0:
        return 0
    return (config_read16(function, capability + _MSIX_CONTROL) & PCIM_MSIXCTRL_TABLE_SIZE) + 1


@routine
def msix_set(function, entry, block, vector):
    """Send MSI-X message ``entry`` of a function to the processor of ``block`` as ``vector``, unmasked.

    Return 1, or 0 if there is no such message.
    """
    if entry >= msix_vectors(function):
        return 0
    table = config_read32(function, find_capability(function, PCIY_MSIX) + _MSIX_TABLE)
    base = bar_address(function, table & PCIM_MSIX_BIR_MASK)
    if base == 0:
        return 0
    place = base + (table & ~PCIM_MSIX_BIR_MASK) + entry * _ENTRY_SIZE
    write32(place + _ENTRY_ADDRESS, message_address(block))
    write32(place + _ENTRY_ADDRESS_HIGH, 0)
    write32(place + _ENTRY_DATA, vector)
    write32(place + _ENTRY_CONTROL, 0)
    return 1


@routine
def msix_enable(function):
    """Let a function send its MSI-X messages. Return 1, or 0 if it has none."""
    capability = find_capability(function, PCIY_MSIX)
    if capability == 0:
        return 0
    control = config_read16(function, capability + _MSIX_CONTROL)
    control = (control | PCIM_MSIXCTRL_MSIX_ENABLE) & ~PCIM_MSIXCTRL_FUNCTION_MASK
    config_write16(function, capability + _MSIX_CONTROL, control)
    return 1

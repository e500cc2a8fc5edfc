# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``junk``: reads and writes anything at ports, configuration space and device memory, as fast as it can.

Options: ``count=N`` accesses (default 20,000), ``seed=N`` to begin from. Registers that reset or power off the machine
are left out, so that there is time for the others; whatever else the machine comes to is its own end. BARs move, over
each other too, interrupts come and go, and queues get addresses that nobody has.
"""

from __future__ import annotations

from ptnetmap.abi.pci import CONF1_ADDRESS_PORT, CONF1_DATA_PORT, CONF1_ENABLE
from ptnetmap.guest.cmdline import number_option
from ptnetmap.guest.console import say
from ptnetmap.guest.hostile import next_random
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.mmio import read8, read32, write8, write16, write32
from ptnetmap.guest.port import in8, in16, in32, out8, out16, out32
from ptnetmap.guest.power import PM1A_CONTROL, power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.memory import load64

_CMDLINE = offsets(boot_info)["cmdline"]
_DEFAULT_COUNT = 20_000
_DEFAULT_SEED = 88172645463325252
_RESET_CONTROL = 0xCF9
_KEYBOARD_COMMAND = 0x64
_IO_WINDOW = 0x2000
_MEMORY_WINDOW = 0xC0000000
_SERIAL = 0x3E0
_POWER = 0x400

_COUNT = Text("count")
_SEED = Text("seed")
_READY = Text("junk: ready")
_DONE = Text("junk: done")


@routine
def any_port(state):
    """Return a port: of the board's devices, of BARs, or of anything."""
    kind = state & 7
    low = (state >> 8) & 0xFFFF
    if kind < 2:
        return low & 0xFF
    if kind < 3:
        return _SERIAL + (low & 0x1F)
    if kind < 4:
        return _POWER + (low & 0x3F)
    if kind < 7:
        return _IO_WINDOW + (low & 0x3FF)
    return low


@routine
def ends_machine(port):
    """Return 1 for ports by which a machine is reset or powered off, whichever of its bytes is hit."""
    if PM1A_CONTROL - 3 <= port <= PM1A_CONTROL + 1:
        return 1
    if _RESET_CONTROL - 3 <= port <= _RESET_CONTROL:
        return 1
    return 1 if _KEYBOARD_COMMAND - 3 <= port <= _KEYBOARD_COMMAND else 0


@routine
def write_port(port, width, value):
    """Write a port in 1, 2 or 4 bytes."""
    if width == 0:
        out8(port, value)
    elif width == 1:
        out16(port, value)
    else:
        out32(port, value)


@routine
def touch_port(port, width, writes, value):
    """Read or write a port, unless the machine would end."""
    if ends_machine(port) == 1:
        return
    if writes != 0:
        write_port(port, width, value)
    elif width == 0:
        in8(port)
    elif width == 1:
        in16(port)
    else:
        in32(port)


@routine
def write_configuration(place, width, value):
    """Write some bytes of a function's configuration space; the first eight functions' slots are hit most."""
    out32(CONF1_ADDRESS_PORT, CONF1_ENABLE | (place & 0x3FFC))
    write_port(CONF1_DATA_PORT + (place & 3), width, value)


@routine
def touch_memory(place, width, writes, value):
    """Read or write device memory, where 32-bit BARs are given addresses."""
    address = _MEMORY_WINDOW + (place & 0xFFFF)
    if writes == 0:
        if width == 0:
            read8(address)
        else:
            read32(address & -4)
    elif width == 0:
        write8(address, value)
    elif width == 1:
        write16(address & -2, value)
    else:
        write32(address & -4, value)


@routine
def junk(boot):
    """Do it, and power off."""
    say(boot, _READY)
    cmdline = load64(boot + _CMDLINE)
    state = number_option(cmdline, _SEED, _DEFAULT_SEED)
    left = number_option(cmdline, _COUNT, _DEFAULT_COUNT)
    while left > 0:
        state = next_random(state)
        width = (state >> 3) & 3
        writes = (state >> 5) & 1
        place = (state >> 12) & 0xFFFFFF
        value = (state >> 28) & 0xFFFFFFFF
        kind = state & 7
        if kind < 4:
            touch_port(any_port(state >> 6), width, writes, value)
        elif kind < 6:
            write_configuration(place, width, value)
        else:
            touch_memory(place, width, writes, value)
        left -= 1
    say(boot, _DONE)
    power_off(boot)

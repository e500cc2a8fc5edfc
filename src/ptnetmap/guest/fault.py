# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Reporting an exception: a bug of the guest, or of what runs it. The program ``fault`` makes one."""

from __future__ import annotations

from ptnetmap.guest.console import end_line, put_hex, put_number, put_text
from ptnetmap.guest.layout import BOOT_INFO, boot_info, offsets
from ptnetmap.guest.mmio import read32
from ptnetmap.guest.power import fail
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.atomic import add64
from ptnetmap.jit.memory import load64, store64

_FAULTS = offsets(boot_info)["faults"]
_USED = offsets(boot_info)["line_used"]
_PAGE_FAULT = 14

_EXCEPTION = Text("FAIL exception ")
_ERROR = Text(" error 0x")
_RIP = Text(" rip 0x")
_ADDRESS = Text(" address 0x")


@routine
def report_fault(boot, vector, error, rip, address):
    """Print vector, error code and instruction of an exception (and, of a page fault, the address), and fail.

    A second one, by this report or on another processor meanwhile, ends the guest at once.
    """
    if add64(boot + _FAULTS, 1) == 0:
        if load64(boot + _USED) != 0:  # in the middle of a line
            store64(boot + _USED, 0)
            end_line(boot)
        put_text(boot, _EXCEPTION)
        put_number(boot, vector)
        put_text(boot, _ERROR)
        put_hex(boot, error, 8)
        put_text(boot, _RIP)
        put_hex(boot, rip, 16)
        if vector == _PAGE_FAULT:
            put_text(boot, _ADDRESS)
            put_hex(boot, address, 16)
        end_line(boot)
    fail(boot)


@routine
def guest_fault(vector, error, rip, address):
    """Report an exception that the processor has just taken: what the assembly at level 0 goes on with."""
    report_fault(BOOT_INFO, vector, error, rip, address)


@routine
def fault_program(boot):
    """Read from address 0, which is not mapped; does not come back."""
    read32(0)
    fail(boot)

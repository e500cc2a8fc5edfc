# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""How the guest ends: powered off if all is well, else by a triple fault, which nobody takes for success."""

from __future__ import annotations

from ptnetmap.guest.cpu import crash
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.port import out16
from ptnetmap.guest.routine import routine
from ptnetmap.jit.atomic import pause
from ptnetmap.jit.memory import fill_bytes, load64

PM1A_CONTROL = 0x404
"""ACPI's power management control (ACPI 6.5 §4.8.3.2.1), where bhyve has it."""
SOFT_OFF = 0x3400
"""SLP_EN, and the sleep type of bhyve's _S5."""

_IDT = offsets(boot_info)["idt"]
_IDT_SIZE = 4096


@routine
def fail(boot):
    """End by a triple fault: without interrupt descriptors, no exception can be delivered."""
    fill_bytes(load64(boot + _IDT), 0, _IDT_SIZE)
    crash()
    while True:
        pause()


@routine
def power_off(boot):
    """Power off; where that does not happen, end as :func:`fail`."""
    out16(PM1A_CONTROL, SOFT_OFF)
    patience = 1_000_000
    while patience > 0:
        pause()
        patience -= 1
    fail(boot)

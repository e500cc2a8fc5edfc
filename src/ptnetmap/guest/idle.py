# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``idle``: says that it is there, and halts for good."""

from __future__ import annotations

from ptnetmap.guest.console import say
from ptnetmap.guest.interrupts import await_interrupt, interrupt_count
from ptnetmap.guest.layout import CALL_VECTOR
from ptnetmap.guest.routine import Text, routine

_READY = Text("idle: ready")


@routine
def idle(block, boot):
    """Halt the processor of ``block``, whatever wakes it."""
    say(boot, _READY)
    while True:
        await_interrupt(block, CALL_VECTOR, interrupt_count(block, CALL_VECTOR))

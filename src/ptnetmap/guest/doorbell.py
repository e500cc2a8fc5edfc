# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``doorbell``: writes to an I/O port, halts until an interrupt comes, and measures how long that took.

Options: ``count=N`` round trips. The port is :data:`DOORBELL`, 4 bytes; the interrupt the first vector for devices.
"""

from __future__ import annotations

from ptnetmap.guest.cmdline import number_option
from ptnetmap.guest.console import end_line, put_number, put_text, say
from ptnetmap.guest.cpu import divide, timestamp
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import allocate_vector, await_interrupt, interrupt_count
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.pingpong import sort
from ptnetmap.guest.port import out32
from ptnetmap.guest.power import power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.traffic import nanoseconds
from ptnetmap.jit.memory import load64, store64

DOORBELL = 0x5000
"""Port of the doorbell."""
_CMDLINE = offsets(boot_info)["cmdline"]
_DEFAULT_COUNT = 1000
_MOST = 1 << 16

_COUNT = Text("count")
_READY = Text("doorbell: ready")
_DONE = Text("doorbell: done trips=")
_NANOSECONDS = Text(" nanoseconds=")
_MEDIAN = Text(" median_ns=")
_P99 = Text(" p99_ns=")


@routine
def ring_and_wait(block, vector):
    """Write to the doorbell, and halt until the interrupt has come; return the cycles that took."""
    seen = interrupt_count(block, vector)
    start = timestamp()
    out32(DOORBELL, 1)
    while interrupt_count(block, vector) == seen:
        await_interrupt(block, vector, seen)
    return timestamp() - start


@routine
def doorbell(block, boot):
    """Run on the processor of ``block``, and power off."""
    vector = allocate_vector(boot)
    count = min(number_option(load64(boot + _CMDLINE), _COUNT, _DEFAULT_COUNT), _MOST)
    samples = allocate(boot, 8 * count, 64)
    say(boot, _READY)
    start = timestamp()
    for i in range(count):
        store64(samples + 8 * i, ring_and_wait(block, vector))
    spent = timestamp() - start
    sort(samples, count)
    put_text(boot, _DONE)
    put_number(boot, count)
    put_text(boot, _NANOSECONDS)
    put_number(boot, nanoseconds(boot, spent))
    put_text(boot, _MEDIAN)
    put_number(boot, nanoseconds(boot, load64(samples + 8 * (count >> 1))))
    put_text(boot, _P99)
    put_number(boot, nanoseconds(boot, load64(samples + 8 * divide(count * 99, 100))))
    end_line(boot)
    power_off(boot)

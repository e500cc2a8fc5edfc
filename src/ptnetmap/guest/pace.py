# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""A sender's rate: how many packets are due, and a nap while none is."""

from __future__ import annotations

from ptnetmap.guest.cmdline import number_option
from ptnetmap.guest.cpu import divide
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.timer import sleep
from ptnetmap.jit.memory import load64

_TSC_KHZ = offsets(boot_info)["tsc_khz"]
_RATE = Text("rate")
_NAP_US = 1000
_MOST = 1_000_000_000  # with the cycles of a second, the product stays within 63 bits


@routine
def rate_of(cmdline):
    """Return the packets per second that ``rate=`` asks for, 0 for as many as go."""
    return min(number_option(cmdline, _RATE, 0), _MOST)


@routine
def due(boot, rate, cycles):
    """Return how many packets are due after so many cycles of the time stamp counter, at ``rate`` packets per second."""
    second = load64(boot + _TSC_KHZ) * 1000
    seconds = divide(cycles, second)
    return seconds * rate + divide((cycles - seconds * second) * rate, second)


@routine
def most_due(boot, rate, sent, most, cycles):
    """Return how many packets may be sent now, ``most`` of them at once: fewer than 1 while ``rate`` is kept, if not 0."""
    if rate == 0:
        return most
    return min(most, due(boot, rate, cycles) - sent)


@routine
def nap(block, boot):
    """Sleep for a little: what becomes due meanwhile is sent together."""
    sleep(block, boot, _NAP_US)

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``spin``: a loop of known length, timed by the time stamp counter.

The same routine compiled for the host, timed by the same counter, tells how fast a guest's code runs.
"""

from __future__ import annotations

from ptnetmap.guest.cmdline import number_option
from ptnetmap.guest.console import end_line, put_hex, put_number, put_text
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.layout import boot_info, offsets
from ptnetmap.guest.power import power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.jit.memory import load64

_CMDLINE = offsets(boot_info)["cmdline"]
_TSC_KHZ = offsets(boot_info)["tsc_khz"]

DEFAULT_ROUNDS = 100_000_000
"""Rounds of the loop, without the option ``rounds``."""

_ROUNDS = Text("rounds")
_SPIN = Text("spin: ")
_ROUNDS_IN = Text(" rounds in ")
_CYCLES_AT = Text(" cycles at ")
_KHZ_RESULT = Text(" kHz, result ")


@routine
def spin(rounds):
    """Return the state of a 32-bit xorshift generator after so many rounds, each of which needs the one before."""
    state = 2463534242
    while rounds > 0:
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        rounds -= 1
    return state


@routine
def spin_program(boot):
    """Spin for as many rounds as the command line says, print how long it took, and power off."""
    rounds = number_option(load64(boot + _CMDLINE), _ROUNDS, DEFAULT_ROUNDS)
    before = timestamp()
    result = spin(rounds)
    cycles = timestamp() - before
    put_text(boot, _SPIN)
    put_number(boot, rounds)
    put_text(boot, _ROUNDS_IN)
    put_number(boot, cycles)
    put_text(boot, _CYCLES_AT)
    put_number(boot, load64(boot + _TSC_KHZ))
    put_text(boot, _KHZ_RESULT)
    put_hex(boot, result, 8)
    end_line(boot)
    power_off(boot)

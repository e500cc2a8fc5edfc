# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Time: the time stamp counter, and the local APIC's timer, which level 3 can set because it is in memory.

(The TSC-deadline timer would need a privileged instruction.) KVM's APIC timer counts nanoseconds; where the loader
says how fast the time stamp counter is, that is measured instead of believed.
"""

from __future__ import annotations

from ptnetmap.guest.cpu import divide, timestamp
from ptnetmap.guest.interrupts import await_interrupt, interrupt_count
from ptnetmap.guest.layout import LOCAL_APIC, TIMER_VECTOR, boot_info, offsets
from ptnetmap.guest.mmio import read32, write32
from ptnetmap.guest.routine import routine
from ptnetmap.jit.memory import load64, store64

_LVT_TIMER = LOCAL_APIC + 0x320
_INITIAL = LOCAL_APIC + 0x380
_CURRENT = LOCAL_APIC + 0x390
_DIVIDE = LOCAL_APIC + 0x3E0
_BY_ONE = 0xB
_MASKED = 1 << 16
_MOST = 0xFFFFFFFF

_TSC_KHZ = offsets(boot_info)["tsc_khz"]
_APIC_KHZ = offsets(boot_info)["apic_khz"]

KVM_APIC_KHZ = 1_000_000
"""KVM's APIC timer: one tick is a nanosecond."""
_SPAN = 2_000_000  # ticks of the APIC timer to measure over
_PATIENCE = 1_000_000
_SAMPLES = 8
_NAP_US = 50


@routine
def sample_timers(out):
    """Store the time stamp counter and the APIC timer's count of the same moment, more or less, at ``out``.

    Of several readings, the one with the least time in it counts: others were interrupted by the host.
    """
    best = _MOST
    left = _SAMPLES
    while left > 0:
        before = timestamp()
        count = read32(_CURRENT)
        spent = timestamp() - before
        if spent < best:
            best = spent
            store64(out, before + (spent >> 1))
            store64(out + 8, count)
        left -= 1


@routine
def start_timer(boot, scratch):
    """Measure the timers against each other; ``scratch`` is the address of 32 bytes. Return 1, or 0 if one stands still."""
    write32(_DIVIDE, _BY_ONE)
    write32(_LVT_TIMER, _MASKED | TIMER_VECTOR)
    write32(_INITIAL, _MOST)
    sample_timers(scratch)
    patience = _PATIENCE
    while patience > 0 and load64(scratch + 8) - read32(_CURRENT) < _SPAN:
        patience -= 1
    sample_timers(scratch + 16)
    write32(_INITIAL, 0)
    cycles = load64(scratch + 16) - load64(scratch)
    ticks = load64(scratch + 8) - load64(scratch + 24)
    if cycles <= 0 or ticks <= 0 or patience == 0:
        return 0
    if load64(boot + _TSC_KHZ) == 0:
        store64(boot + _APIC_KHZ, KVM_APIC_KHZ)
        store64(boot + _TSC_KHZ, divide(cycles * KVM_APIC_KHZ, ticks))
    else:
        store64(boot + _APIC_KHZ, divide(ticks * load64(boot + _TSC_KHZ), cycles))
    return 1 if load64(boot + _APIC_KHZ) > 0 and load64(boot + _TSC_KHZ) > 0 else 0


@routine
def start_own_timer():
    """Prepare the timer of a processor that is not the first."""
    write32(_DIVIDE, _BY_ONE)
    write32(_LVT_TIMER, _MASKED | TIMER_VECTOR)


@routine
def deadline_after(boot, microseconds):
    """Return what the time stamp counter will be in so many microseconds."""
    return timestamp() + divide(microseconds * load64(boot + _TSC_KHZ), 1000)


@routine
def set_timer(boot, microseconds):
    """Let the timer interrupt this processor once, in so many microseconds (or as many as the timer can count)."""
    ticks = divide(microseconds * load64(boot + _APIC_KHZ), 1000)
    if ticks < 1:
        ticks = 1
    if ticks > _MOST:
        ticks = _MOST
    write32(_LVT_TIMER, TIMER_VECTOR)
    write32(_INITIAL, ticks)


@routine
def stop_timer():
    """Take back what :func:`set_timer` asked for."""
    write32(_INITIAL, 0)
    write32(_LVT_TIMER, _MASKED | TIMER_VECTOR)


@routine
def await_count(block, boot, vector, seen, microseconds):
    """Sleep until this processor's count of ``vector`` is not ``seen``; return 1, or 0 after so many microseconds."""
    deadline = deadline_after(boot, microseconds)
    while interrupt_count(block, vector) == seen:
        left = deadline - timestamp()
        if left <= 0:
            return 0
        set_timer(boot, divide(left * 1000, load64(boot + _TSC_KHZ)) + 1)
        await_interrupt(block, vector, seen)
    if vector != TIMER_VECTOR:
        stop_timer()
    return 1


@routine
def sleep(block, boot, microseconds):
    """Sleep for so many microseconds."""
    deadline = deadline_after(boot, microseconds)
    while timestamp() < deadline:
        ticks = interrupt_count(block, TIMER_VECTOR)
        left = deadline - timestamp()
        if left > 0:
            set_timer(boot, divide(left * 1000, load64(boot + _TSC_KHZ)) + 1)
            await_interrupt(block, TIMER_VECTOR, ticks)
    stop_timer()


@routine
def halt_cost(block, boot):
    """Return how many cycles a halt and the wake-up from it take here: the least of some, so that others do not count.

    It is microseconds with hardware support, and tens of them where level 0 is emulated.
    """
    best = _MOST
    for _ in range(_SAMPLES):
        seen = interrupt_count(block, TIMER_VECTOR)
        before = timestamp()
        set_timer(boot, _NAP_US)
        while interrupt_count(block, TIMER_VECTOR) == seen:
            await_interrupt(block, TIMER_VECTOR, seen)
        best = min(best, timestamp() - before)
    stop_timer()
    return max(best - divide(_NAP_US * load64(boot + _TSC_KHZ), 1000), 0)

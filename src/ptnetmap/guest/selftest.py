# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The program ``selftest``: checks that all that drivers need works on this machine.

A line per check: ``ok``, ``FAIL``, or ``skip`` for what the machine has not got (with the option ``strict`` that is a
failure too). Powers off in the end, or fails by a triple fault if any check did.
"""

from __future__ import annotations

from ptnetmap.guest.cmdline import find_option, option_is
from ptnetmap.guest.console import end_line, put_byte, put_hex, put_number, put_text
from ptnetmap.guest.cpu import timestamp
from ptnetmap.guest.cpus import JOB_ADD, add_up, await_job, await_processors, block_of, give_job
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.interrupts import allocate_vector, interrupt_count, send_interrupt
from ptnetmap.guest.layout import TIMER_VECTOR, boot_info, offsets
from ptnetmap.guest.pci import class_code, config_read32, next_function
from ptnetmap.guest.power import fail, power_off
from ptnetmap.guest.routine import Text, routine
from ptnetmap.guest.timer import await_count, deadline_after, sleep
from ptnetmap.guest.virtio_rng import close_rng, open_rng, read_rng, rng
from ptnetmap.jit.memory import load64, store64

FAILED = 0
OK = 1
SKIPPED = 2

_CPUS = offsets(boot_info)["cpus"]
_HEAP = offsets(boot_info)["heap"]
_HEAP_END = offsets(boot_info)["heap_end"]
_HIGH = offsets(boot_info)["high"]
_HIGH_END = offsets(boot_info)["high_end"]
_TSC_KHZ = offsets(boot_info)["tsc_khz"]
_APIC_KHZ = offsets(boot_info)["apic_khz"]
_CMDLINE = offsets(boot_info)["cmdline"]
_VECTOR = offsets(rng)["vector"]

_PATIENCE = 10_000_000  # microseconds, for what takes a few
_NAP = 2_000
_PATTERN = 0x5AA5C33C0FF01EE1
_MEBIBYTE = 1 << 20
_DENSE = 4 * _MEBIBYTE
_ADDITIONS = 100_000
_BYTES = 64
_COLON = 58

_PROGRAM = Text("selftest: ")
_OK_COMMA = Text(" ok, ")
_FAILED_COMMA = Text(" failed, ")
_SKIPPED_END = Text(" skipped")
_OK = Text("ok   ")
_FAIL = Text("FAIL ")
_SKIP = Text("skip ")
_MEMORY = Text("memory: MiB ")
_PROCESSORS = Text("processors: ")
_TIMER = Text("timer: kHz of TSC and APIC ")
_INTERRUPT = Text("interrupt: vector ")
_PCI = Text("pci: functions ")
_FUNCTION = Text("     pci 0:")
_CLASS = Text(" class ")
_RANDOM = Text("virtio-rnd: bytes ")
_MSIX = Text("msi-x: vector ")
_BLANK = Text(" ")
_STRICT = Text("strict")
_MEMORY_OPTION = Text("memory")
_FULL = Text("full")


@routine
def report(boot, counts, outcome, what, number):
    """Print the line of a check, up to a number, without ending it; count the outcome at ``counts + 8 * outcome``."""
    store64(counts + 8 * outcome, load64(counts + 8 * outcome) + 1)
    if outcome == OK:
        put_text(boot, _OK)
    elif outcome == SKIPPED:
        put_text(boot, _SKIP)
    else:
        put_text(boot, _FAIL)
    put_text(boot, what)
    put_number(boot, number)


@routine
def fill_pattern(start, end, step, pattern):
    """Write each ``step``-th byte's address, crossed with a pattern, as words into ``[start, end)``."""
    while start + 8 <= end:
        store64(start, start ^ pattern)
        start += step


@routine
def holds_pattern(start, end, step, pattern):
    """Return 1 if everything is as :func:`fill_pattern` wrote it, else 0."""
    while start + 8 <= end:
        if load64(start) != start ^ pattern:
            return 0
        start += step
    return 1


@routine
def check_memory(low, low_end, dense_end, high, high_end, step, pattern):
    """Write a pattern to all memory, then read it back: all words up to ``dense_end``, beyond that one per ``step``."""
    fill_pattern(low, dense_end, 8, pattern)
    fill_pattern(dense_end, low_end, step, pattern)
    fill_pattern(high, high_end, step, pattern)
    if holds_pattern(low, dense_end, 8, pattern) == 0:
        return FAILED
    if holds_pattern(dense_end, low_end, step, pattern) == 0:
        return FAILED
    return holds_pattern(high, high_end, step, pattern)


@routine
def test_memory(boot, counts):
    """Check all memory that nobody uses: a few MiB of it word by word, and with ``memory=full`` everything."""
    low = (load64(boot + _HEAP) + 7) & -8
    low_end = load64(boot + _HEAP_END)
    high = load64(boot + _HIGH)
    high_end = load64(boot + _HIGH_END)
    dense_end = low + _DENSE if low_end - low > _DENSE else low_end
    step = 8 if option_is(load64(boot + _CMDLINE), _MEMORY_OPTION, _FULL) == 1 else _MEBIBYTE
    outcome = check_memory(low, low_end, dense_end, high, high_end, step, _PATTERN)
    if outcome == OK:
        outcome = check_memory(low, low_end, dense_end, high, high_end, step, ~_PATTERN)
    report(boot, counts, outcome, _MEMORY, (low_end - low + high_end - high) >> 20)
    end_line(boot)


@routine
def test_timer(block, boot, counts):
    """Sleep until the timer's interrupt."""
    before = interrupt_count(block, TIMER_VECTOR)
    deadline = deadline_after(boot, _NAP)
    sleep(block, boot, _NAP)
    slept = timestamp() >= deadline and interrupt_count(block, TIMER_VECTOR) > before
    report(boot, counts, OK if slept else FAILED, _TIMER, load64(boot + _TSC_KHZ))
    put_text(boot, _BLANK)
    put_number(boot, load64(boot + _APIC_KHZ))
    end_line(boot)


@routine
def test_interrupt(block, boot, counts):
    """Send this processor an interrupt, and count exactly one."""
    vector = allocate_vector(boot)
    before = interrupt_count(block, vector)
    send_interrupt(block, vector)
    came = await_count(block, boot, vector, before, _PATIENCE)
    once = came == 1 and interrupt_count(block, vector) == before + 1
    report(boot, counts, OK if once else FAILED, _INTERRUPT, vector)
    end_line(boot)


@routine
def test_processors(boot, counts):
    """Let all processors add to one word at the same time, and lose nothing."""
    cpus = load64(boot + _CPUS)
    running = await_processors(boot, _PATIENCE)
    outcome = OK if running == cpus else FAILED
    word = allocate(boot, 8, 64)
    if outcome == OK:
        for index in range(1, cpus):
            give_job(block_of(boot, index), JOB_ADD, word, _ADDITIONS)
        add_up(word, _ADDITIONS)
        for index in range(1, cpus):
            if await_job(boot, block_of(boot, index), _PATIENCE) == 0:
                outcome = FAILED
        if load64(word) != cpus * _ADDITIONS:
            outcome = FAILED
    report(boot, counts, outcome, _PROCESSORS, running)
    end_line(boot)


@routine
def test_pci(boot, counts):
    """List what is on bus 0."""
    found = 0
    function = next_function(-1)
    while function >= 0:
        put_text(boot, _FUNCTION)
        put_number(boot, function >> 3)
        put_byte(boot, _COLON)
        put_number(boot, function & 7)
        put_text(boot, _BLANK)
        numbers = config_read32(function, 0)
        put_hex(boot, numbers, 4)
        put_byte(boot, _COLON)
        put_hex(boot, numbers >> 16, 4)
        put_text(boot, _CLASS)
        put_hex(boot, class_code(function), 6)
        end_line(boot)
        found += 1
        function = next_function(function)
    report(boot, counts, OK if found > 0 else SKIPPED, _PCI, found)
    end_line(boot)


@routine
def same_words(one, other, bytes_each):
    """Return how many 64-bit words two blocks of memory have in common, place by place."""
    same = 0
    for at in range(0, bytes_each, 8):
        if load64(one + at) == load64(other + at):
            same += 1
    return same


@routine
def test_random(block, boot, counts):
    """Read random bytes twice, which must differ, each time by an interrupt."""
    device = open_rng(block, boot)
    if device <= 0:
        report(boot, counts, SKIPPED if device == 0 else FAILED, _RANDOM, 0)
        end_line(boot)
        return
    vector = load64(device + _VECTOR)
    before = 0 if vector < 0 else interrupt_count(block, vector)
    first = allocate(boot, _BYTES, 64)
    second = allocate(boot, _BYTES, 64)
    came = read_rng(device, boot, first, _BYTES, _PATIENCE)
    if came == _BYTES:
        came = read_rng(device, boot, second, _BYTES, _PATIENCE)
    differ = came == _BYTES and same_words(first, second, _BYTES) == 0
    report(boot, counts, OK if differ else FAILED, _RANDOM, came)
    end_line(boot)
    if vector < 0:
        report(boot, counts, SKIPPED, _MSIX, vector)
    else:
        report(boot, counts, OK if interrupt_count(block, vector) == before + 2 else FAILED, _MSIX, vector)
    end_line(boot)
    close_rng(device)


@routine
def selftest(block, boot):
    """Run all checks on the processor of ``block``, and end the machine."""
    counts = allocate(boot, 24, 64)
    test_memory(boot, counts)
    test_timer(block, boot, counts)
    test_interrupt(block, boot, counts)
    test_processors(boot, counts)
    test_pci(boot, counts)
    test_random(block, boot, counts)
    put_text(boot, _PROGRAM)
    put_number(boot, load64(counts + 8 * OK))
    put_text(boot, _OK_COMMA)
    put_number(boot, load64(counts + 8 * FAILED))
    put_text(boot, _FAILED_COMMA)
    put_number(boot, load64(counts + 8 * SKIPPED))
    put_text(boot, _SKIPPED_END)
    end_line(boot)
    failures = load64(counts + 8 * FAILED)
    if find_option(load64(boot + _CMDLINE), _STRICT) != 0:
        failures += load64(counts + 8 * SKIPPED)
    if failures == 0:
        power_off(boot)
    else:
        fail(boot)

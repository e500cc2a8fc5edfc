# SPDX-License-Identifier: BSD-2-Clause
import asyncio
import calendar
import itertools
import time

import pytest

from ptnetmap.bhyve.devices import rtc as chip
from ptnetmap.bhyve.devices.clock import INDEX_PORT, IRQ, Clock

SECOND = 1_000_000_000
NOON = calendar.timegm((2015, 8, 13, 12, 34, 56)) * SECOND
DEADLINE = 20


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def show(host, index):
    host.ports.write(INDEX_PORT, 1, index)
    return host.ports.read(INDEX_PORT + 1, 1)


def test_it_shows_universal_time_if_told_to(make_host):
    host = make_host(**{"rtc.use_localtime": "false"})
    clock = Clock(host, now=lambda: NOON)
    assert [show(host, index) for index in (chip.HOURS, chip.MINUTES, chip.SECONDS)] == [0x12, 0x34, 0x56]
    clock.close()


def test_it_shows_local_time_otherwise(host, monkeypatch):
    monkeypatch.setenv("TZ", "UTC-02:30")
    time.tzset()
    clock = Clock(host, now=lambda: NOON)
    monkeypatch.undo()
    time.tzset()
    assert [show(host, index) for index in (chip.HOURS, chip.MINUTES)] == [0x15, 0x04]
    clock.close()


def test_index_and_register_can_be_accessed_at_once_and_the_index_cannot_be_read(host):
    clock = Clock(host)
    host.ports.write(INDEX_PORT, 2, 0x5A << 8 | 0x80 | 0x40)
    assert host.ports.read(INDEX_PORT, 2) == 0x5AFF
    assert host.ports.read(INDEX_PORT, 1) == 0xFF
    assert show(host, 0x40) == 0x5A
    clock.close()


def test_the_memory_size_is_that_of_the_machine(host):
    clock = Clock(host)
    assert show(host, 0x34) | show(host, 0x35) << 8 == 0
    clock.close()


def test_the_interrupt_comes_by_itself_and_goes_when_it_is_read(make_host, loop):
    host = make_host()
    host.loop = loop
    clock = Clock(host)
    line = host.interrupts.lines[IRQ]
    host.ports.write(INDEX_PORT, 2, (chip.A_DIVIDER_32K | 3) << 8 | chip.REG_A)
    host.ports.write(INDEX_PORT, 2, (chip.B_24H | chip.B_PIE) << 8 | chip.REG_B)

    async def count(ticks):
        async with asyncio.timeout(DEADLINE):
            for _ in range(ticks):
                while not line.level:
                    await asyncio.sleep(0)
                assert show(host, chip.REG_C) & chip.C_PERIODIC
                assert line.level is False

    loop.run_until_complete(count(5))
    assert line.levels[:10] == [True, False] * 5
    clock.reset()
    clock.close()
    assert line.closed


def test_reading_what_interrupted_lowers_the_line_although_the_next_interrupt_is_due(host):
    seconds = itertools.count()
    clock = Clock(host, now=lambda: NOON + next(seconds) * SECOND)  # every look takes a second
    line = host.interrupts.lines[IRQ]
    host.ports.write(INDEX_PORT, 2, (chip.B_24H | chip.B_UIE) << 8 | chip.REG_B)
    show(host, chip.SECONDS)
    assert line.levels == [True]
    assert show(host, chip.REG_C) & chip.C_UPDATE
    assert line.levels == [True, False]
    show(host, chip.SECONDS)
    assert line.levels == [True, False, True]
    clock.close()


def test_an_interrupt_that_is_due_already_comes_with_the_next_access(host):
    now = [NOON]
    clock = Clock(host, now=lambda: now[0])
    host.ports.write(INDEX_PORT, 2, (chip.B_24H | chip.B_UIE) << 8 | chip.REG_B)
    now[0] += SECOND
    show(host, chip.SECONDS)
    assert host.interrupts.high == {IRQ}
    clock.close()
    clock.close()

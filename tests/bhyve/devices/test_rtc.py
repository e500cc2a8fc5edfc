# SPDX-License-Identifier: BSD-2-Clause
import calendar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.devices import rtc as chip
from ptnetmap.bhyve.devices.rtc import Rtc

SECOND = 1_000_000_000
NOON = calendar.timegm((2015, 8, 13, 12, 34, 56)) * SECOND  # a Thursday
TIMES = st.integers(0, calendar.timegm((2199, 12, 31, 23, 59, 59)))
ORDER = (chip.CENTURY, chip.YEAR, chip.MONTH, chip.DAY, chip.WEEKDAY, chip.HOURS, chip.MINUTES, chip.SECONDS)


@pytest.fixture
def rtc():
    return Rtc(NOON)


def shown(rtc, now):
    return [rtc.read(index, now) for index in ORDER]


def bcd(*values):
    return [value // 10 << 4 | value % 10 for value in values]


def set_time(rtc, now, values):
    control = rtc.read(chip.REG_B, now)
    rtc.write(chip.REG_B, control | chip.B_SET, now)
    for index, value in zip(ORDER, values, strict=True):
        rtc.write(index, value, now)
    rtc.write(chip.REG_B, control & ~chip.B_SET, now)


def test_it_shows_the_time_in_decimal_digits_and_24_hours_at_first(rtc):
    assert rtc.read(chip.REG_B, NOON) == chip.B_24H
    assert rtc.read(chip.REG_D, NOON) == chip.D_VALID
    assert shown(rtc, NOON + 3 * SECOND) == bcd(20, 15, 8, 13, 5, 12, 34, 59)


def test_it_shows_the_format_that_the_guest_chooses(rtc):
    rtc.write(chip.REG_B, chip.B_24H | chip.B_BINARY, NOON)
    assert shown(rtc, NOON) == [20, 15, 8, 13, 5, 12, 34, 56]
    rtc.write(chip.REG_B, chip.B_BINARY, NOON)
    hours = [rtc.read(chip.HOURS, NOON + hour * 3600 * SECOND) for hour in range(-12, 13)]
    assert hours == [12, *range(1, 12), 0x8C, *range(0x81, 0x8C), 12]


@settings(max_examples=100, deadline=None)
@given(TIMES, st.sampled_from([0, chip.B_24H, chip.B_BINARY, chip.B_24H | chip.B_BINARY]), st.integers(0, 10**6))
def test_a_time_that_is_set_is_shown_and_goes_on(seconds, mode, later):
    source = Rtc(seconds * SECOND)
    source.write(chip.REG_B, mode, seconds * SECOND)
    rtc = Rtc(NOON)
    rtc.write(chip.REG_B, mode, NOON)
    set_time(rtc, NOON, shown(source, seconds * SECOND))

    assert shown(rtc, NOON + later * SECOND) == shown(source, (seconds + later) * SECOND)


def test_while_it_is_being_set_it_stands(rtc):
    rtc.write(chip.REG_B, chip.B_24H | chip.B_SET, NOON)
    later = NOON + 100 * SECOND - 1

    assert shown(rtc, later) == shown(Rtc(NOON), NOON)
    assert not rtc.read(chip.REG_A, later) & chip.A_UIP
    assert rtc.read(chip.REG_C, later) == 0


def test_after_a_reset_of_the_divider_the_next_second_is_half_a_second_away(rtc):
    rtc.write(chip.REG_A, chip.A_DIVIDER_RESET, NOON)
    rtc.write(chip.SECONDS, 0x10, NOON)
    start = NOON + 7 * SECOND + 123
    rtc.write(chip.REG_A, chip.A_DIVIDER_32K, start)

    assert rtc.read(chip.SECONDS, start + SECOND // 2 - 1) == 0x10
    assert rtc.read(chip.SECONDS, start + SECOND // 2) == 0x11


def test_update_in_progress_warns_before_the_time_changes(rtc):
    change = NOON + SECOND
    assert not rtc.read(chip.REG_A, change - chip.UPDATE_TIME - 1) & chip.A_UIP
    assert rtc.read(chip.REG_A, change - chip.UPDATE_TIME) & chip.A_UIP
    assert rtc.read(chip.REG_A, change - 1) & chip.A_UIP
    assert not rtc.read(chip.REG_A, change) & chip.A_UIP


def test_the_update_interrupt_comes_each_second_until_it_is_read(rtc):
    rtc.write(chip.REG_B, chip.B_24H | chip.B_UIE, NOON + 5)
    assert rtc.next_event(NOON + 5) == NOON + SECOND
    rtc.advance(NOON + SECOND)
    assert rtc.interrupt
    assert rtc.next_event(NOON + SECOND) is None

    assert rtc.read(chip.REG_C, NOON + SECOND) & (chip.C_IRQ | chip.C_UPDATE) == chip.C_IRQ | chip.C_UPDATE
    assert not rtc.interrupt
    assert rtc.next_event(NOON + SECOND) == NOON + 2 * SECOND


@pytest.mark.parametrize(("select", "rate"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_the_periodic_interrupt_comes_at_the_chosen_rate(select, rate):
    rtc = Rtc(NOON)
    rtc.write(chip.REG_A, chip.A_DIVIDER_32K | select, NOON)
    rtc.write(chip.REG_B, chip.B_24H | chip.B_PIE, NOON)
    now = NOON
    for tick in range(1, 20):
        now = rtc.next_event(now)
        assert now == NOON - (-tick * SECOND // rate)
        assert rtc.read(chip.REG_C, now) & chip.C_PERIODIC


def test_without_a_rate_there_is_no_periodic_interrupt(rtc):
    rtc.write(chip.REG_A, chip.A_DIVIDER_32K, NOON)
    rtc.write(chip.REG_B, chip.B_24H | chip.B_PIE, NOON)

    assert rtc.next_event(NOON) is None


@pytest.mark.parametrize(
    ("hours", "minutes", "seconds", "wait"),
    [
        (0x12, 0x34, 0x57, 1),
        (0x12, 0x34, 0x56, 86_400),
        (0xC0, 0x00, 0x00, 25 * 60 + 4),
        (0xFF, 0xFF, 0x56, 60),
        (0xC0, 0xC0, 0xC0, 1),
        (0x11, 0xC0, 0x30, 86_400 - (94 * 60 + 26)),
    ],
)
def test_the_alarm_comes_when_it_matches(rtc, hours, minutes, seconds, wait):
    rtc.write(chip.HOURS_ALARM, hours, NOON)
    rtc.write(chip.MINUTES_ALARM, minutes, NOON)
    rtc.write(chip.SECONDS_ALARM, seconds, NOON)
    rtc.write(chip.REG_B, chip.B_24H | chip.B_AIE, NOON)
    now = rtc.next_event(NOON)

    assert now == NOON + wait * SECOND
    rtc.advance(now - 1)
    assert not rtc.interrupt
    rtc.advance(now)
    assert rtc.interrupt
    assert rtc.read(chip.REG_C, now) & chip.C_ALARM


def test_an_alarm_that_is_no_time_never_comes(rtc):
    rtc.write(chip.HOURS_ALARM, 0x7F, NOON)
    rtc.write(chip.REG_B, chip.B_24H | chip.B_AIE, NOON)

    assert rtc.next_event(NOON) is None
    rtc.advance(NOON + 10 * 86_400 * SECOND)
    assert not rtc.interrupt


def test_memory_is_kept_and_the_status_registers_cannot_be_written(rtc):
    for index in range(14, 128):
        if index != chip.CENTURY:
            rtc.write(index, index, NOON)
    rtc.reset(NOON)
    assert all(rtc.read(index, NOON) == index for index in range(14, 128) if index != chip.CENTURY)
    rtc.write(chip.REG_C, 0xFF, NOON)
    rtc.write(chip.REG_D, 0, NOON)
    assert (rtc.read(chip.REG_C, NOON), rtc.read(chip.REG_D, NOON)) == (0, chip.D_VALID)


def test_memory_sizes_are_where_firmware_has_them(rtc):
    rtc.set_memory_size(3 << 30, 5 << 30)
    assert rtc.read(0x34, NOON) | rtc.read(0x35, NOON) << 8 == ((3 << 30) - (16 << 20)) >> 16
    assert rtc.read(0x5B, NOON) | rtc.read(0x5C, NOON) << 8 | rtc.read(0x5D, NOON) << 16 == (5 << 30) >> 16


def test_a_reset_ends_interrupts_and_keeps_the_time(rtc):
    rtc.write(chip.REG_B, chip.B_24H | chip.B_UIE | chip.B_PIE | chip.B_AIE, NOON)
    rtc.advance(NOON + 2 * SECOND)
    rtc.reset(NOON + 2 * SECOND)

    assert not rtc.interrupt
    assert rtc.next_event(NOON + 2 * SECOND) is None
    assert rtc.read(chip.SECONDS, NOON + 3 * SECOND) == 0x59


ACCESSES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([*range(14), chip.CENTURY, 0x40]),
        st.integers(0, 255),
        st.integers(-2, 200_000) | st.just(86_400_000),
    ),
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(ACCESSES)
def test_any_accesses_at_any_time_leave_a_clock_that_goes_on(accesses):
    now = NOON
    rtc = Rtc(now)
    for is_write, index, value, milliseconds in accesses:
        now += milliseconds * 1_000_000
        if is_write:
            rtc.write(index, value, now)
        else:
            assert 0 <= rtc.read(index, now) <= 0xFF
        event = rtc.next_event(now)
        if event is not None:
            assert event > now
            assert not rtc.interrupt
    event = rtc.next_event(now)
    if event is not None:
        rtc.advance(event)
        assert rtc.interrupt

    rtc.write(chip.REG_A, chip.A_DIVIDER_32K, now)
    rtc.write(chip.REG_B, chip.B_24H, now)
    set_time(rtc, now, bcd(20, 24, 2, 29, 5, 23, 59, 58))
    assert shown(rtc, now + 2 * SECOND) == bcd(20, 24, 3, 1, 6, 0, 0, 0)
    rtc.read(chip.REG_C, now)
    assert rtc.read(chip.REG_C, now) == 0

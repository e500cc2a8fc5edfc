# SPDX-License-Identifier: BSD-2-Clause
"""The clock and its battery-backed memory (MC146818) as a pure state machine: time goes in with every call.

Each call takes ``now``, nanoseconds since 1970 as the clock shall show them. The guest may set the clock; then it shows
``now`` plus a constant. Registers by index:

====== ===========================================================================================================
index  meaning
====== ===========================================================================================================
0-9    seconds, their alarm, minutes, alarm, hours, alarm, day of the week (1 is Sunday), day, month, year
10 (A) 7: update in progress; 4-6: divider; 0-3: rate of the periodic interrupt
11 (B) 7: set; 6-4: enable periodic, alarm, update interrupt; 3: square wave; 2: binary; 1: 24 hours; 0: summer time
12 (C) 7: interrupt; 6-4: periodic, alarm, update has happened; reading clears it
13 (D) 7: the battery is good
14-127 memory, except 0x32: the century
====== ===========================================================================================================

Source: Motorola MC146818A. Alarms match each second, minute and hour register, of which 0xc0 and above match anything.
Where that chip has no answer, as for the 40th of March, the nearest thing that is a time is taken.
"""

from __future__ import annotations

import time
from calendar import monthrange, timegm
from collections.abc import Iterator

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
REG_A, REG_B, REG_C, REG_D = 10, 11, 12, 13
CENTURY = 0x32
SIZE = 128
"""Registers."""

A_UIP, A_DIVIDER, A_RATE = 0x80, 0x70, 0x0F
A_DIVIDER_32K, A_DIVIDER_RESET = 0x20, 0x60
B_SET, B_PIE, B_AIE, B_UIE, B_SQWE, B_BINARY, B_24H = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
C_IRQ, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
D_VALID = 0x80

UPDATE_TIME = 2_228_000
"""Nanoseconds before a change of the second in which "update in progress" is read: a warning of 244 us and the update."""

_SECOND = 1_000_000_000
_DAY = 86_400
_CLOCK = frozenset({SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY})
_EVENTS = C_PERIODIC | C_ALARM | C_UPDATE
_ANY = 0xC0
_PM = 0x80
# CMOS memory sizes, as PC firmware leaves them: above 16 MiB and above 4 GiB, in units of 64 KiB.
_ABOVE_16M, _ABOVE_4G = 0x34, 0x5B


class Rtc:
    """The clock, first read at ``now``."""

    def __init__(self, now: int) -> None:
        self._memory = bytearray(SIZE)
        self._memory[REG_A] = A_DIVIDER_32K | 6
        self._memory[REG_B] = B_24H
        self._memory[REG_D] = D_VALID
        self._offset = 0
        self._seen = now  # in the guest's time: events up to here have happened
        self._is_halted = False

    def set_memory_size(self, low: int, high: int) -> None:
        """Enter the bytes of RAM below and above 4 GiB where firmware has them."""
        above = min(max(low - (16 << 20), 0) >> 16, 0xFFFF)
        self._memory[_ABOVE_16M : _ABOVE_16M + 2] = above.to_bytes(2, "little")
        self._memory[_ABOVE_4G : _ABOVE_4G + 3] = min(high >> 16, 0xFFFFFF).to_bytes(3, "little")

    def reset(self, now: int) -> None:
        """Do what the chip's reset does: no interrupts any more; the time goes on."""
        self.advance(now)
        self._memory[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE)
        self._memory[REG_C] = 0

    # --- the guest -------------------------------------------------------------------------------------------------

    def read(self, index: int, now: int) -> int:
        """Return register ``index``, 0-127, with what reading it does."""
        self.advance(now)
        if index in _CLOCK and not self._is_halted:
            return self._fields(self._seconds(now))[index]
        if index == REG_A:
            return self._memory[REG_A] | (A_UIP if self._is_updating(now) else 0)
        if index == REG_C:
            flags = self._memory[REG_C] | (C_IRQ if self.interrupt else 0)
            self._memory[REG_C] = 0
            return flags
        return self._memory[index]

    def write(self, index: int, value: int, now: int) -> None:
        """Write register ``index``, 0-127; C and D do not change."""
        self.advance(now)
        if index in _CLOCK:
            if self._is_halted:
                self._memory[index] = value
            else:
                self._hold(now)
                self._memory[index] = value
                self._resume(now, (now + self._offset) % _SECOND)
        elif index in (REG_A, REG_B):
            self._control(index, value & (0x7F if index == REG_A else 0xFF), now)
        elif index not in (REG_C, REG_D):
            self._memory[index] = value

    # --- interrupts ------------------------------------------------------------------------------------------------

    @property
    def interrupt(self) -> bool:
        """The level of the interrupt output, as of the last call."""
        return bool(self._memory[REG_C] & self._memory[REG_B] & _EVENTS)

    def advance(self, now: int) -> None:
        """Let happen what has happened until ``now``."""
        before, here = self._seen, now + self._offset
        self._seen = here
        if self._is_halted or here <= before:
            return
        flags = 0
        if here // _SECOND > before // _SECOND:
            flags |= C_UPDATE
            alarm = self._next_alarm(before // _SECOND)
            if alarm is not None and alarm <= here // _SECOND:
                flags |= C_ALARM
        rate = self._rate
        if rate and here * rate // _SECOND > before * rate // _SECOND:
            flags |= C_PERIODIC
        self._memory[REG_C] |= flags

    def next_event(self, now: int) -> int | None:
        """Return the ``now`` at which :attr:`interrupt` will rise by itself; None if it is high, or never will."""
        self.advance(now)
        if self.interrupt or self._is_halted:
            return None
        here, enabled = now + self._offset, self._memory[REG_B]
        events = []
        if enabled & B_UIE:
            events.append((here // _SECOND + 1) * _SECOND)
        if enabled & B_AIE:
            alarm = self._next_alarm(here // _SECOND)
            if alarm is not None:
                events.append(alarm * _SECOND)
        rate = self._rate
        if enabled & B_PIE and rate:
            events.append(-(-(here * rate // _SECOND + 1) * _SECOND // rate))
        return min(events) - self._offset if events else None

    @property
    def _rate(self) -> int:
        """Periodic events a second, 0 for none (table 5)."""
        select = self._memory[REG_A] & A_RATE
        return 0 if not select else {1: 256, 2: 128}.get(select, 65536 >> select)

    def _next_alarm(self, after: int) -> int | None:
        """Return the first second later than ``after`` at which the alarm matches, if it ever does."""
        hours = self._matches(HOURS_ALARM, 24)
        minutes = self._matches(MINUTES_ALARM, 60)
        seconds = self._matches(SECONDS_ALARM, 60)
        if not (hours and minutes and seconds):
            return None
        today = after - after % _DAY
        return next(moment for moment in _moments(today, hours, minutes, seconds, after) if moment > after)

    def _matches(self, index: int, count: int) -> list[int]:
        """Return the hours, minutes or seconds that an alarm register matches."""
        value = self._memory[index]
        if value >= _ANY:
            return list(range(count))
        encode = self._encode_hour if index == HOURS_ALARM else self._encode
        return [n for n in range(count) if encode(n) == value]

    # --- time ------------------------------------------------------------------------------------------------------

    def _seconds(self, now: int) -> int:
        return (now + self._offset) // _SECOND

    def _is_updating(self, now: int) -> bool:
        return not self._is_halted and (now + self._offset) % _SECOND >= _SECOND - UPDATE_TIME

    def _control(self, index: int, value: int, now: int) -> None:
        """Write A or B; the clock stands while it is being set, or its divider is held in reset."""
        was_held = self._is_divider_reset
        self._memory[index] = value
        halted = bool(self._memory[REG_B] & B_SET) or self._is_divider_reset
        if halted and not self._is_halted:
            self._hold(now)
        elif self._is_halted and not halted:
            # A divider that was reset starts with half a second (MC146818A, "Divider control").
            self._resume(now, _SECOND // 2 if was_held else (now + self._offset) % _SECOND)
        self._is_halted = halted
        if self._memory[REG_B] & B_SET:
            self._memory[REG_B] &= ~B_UIE

    @property
    def _is_divider_reset(self) -> bool:
        return self._memory[REG_A] & A_DIVIDER_RESET == A_DIVIDER_RESET

    def _hold(self, now: int) -> None:
        """Put the time into the registers, to stand there."""
        for index, value in self._fields(self._seconds(now)).items():
            self._memory[index] = value

    def _resume(self, now: int, phase: int) -> None:
        """Go on from what the registers say, ``phase`` nanoseconds after that second began."""
        self._offset = self._parse() * _SECOND + phase - now
        self._seen = now + self._offset

    def _fields(self, seconds: int) -> dict[int, int]:
        """Return the registers that mean a time, in the format that register B chooses."""
        moment = time.gmtime(seconds)
        encode = self._encode
        return {
            SECONDS: encode(min(moment.tm_sec, 59)),
            MINUTES: encode(moment.tm_min),
            HOURS: self._encode_hour(moment.tm_hour),
            WEEKDAY: encode((moment.tm_wday + 1) % 7 + 1),
            DAY: encode(moment.tm_mday),
            MONTH: encode(moment.tm_mon),
            YEAR: encode(moment.tm_year % 100),
            CENTURY: encode(moment.tm_year // 100 % 100),
        }

    def _parse(self) -> int:
        """Return the second that the registers mean, or the nearest that they could."""
        memory, decode = self._memory, self._decode
        year = decode(memory[CENTURY]) * 100 + decode(memory[YEAR])
        year = _clamp(year, 1970, 9999)
        month = _clamp(decode(memory[MONTH]), 1, 12)
        day = _clamp(decode(memory[DAY]), 1, monthrange(year, month)[1])
        minute, second = (_clamp(decode(memory[index]), 0, 59) for index in (MINUTES, SECONDS))
        return timegm((year, month, day, self._decode_hour(memory[HOURS]), minute, second))

    def _encode(self, value: int) -> int:
        return value if self._memory[REG_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self._memory[REG_B] & B_BINARY else (value >> 4) * 10 + (value & 0xF)

    def _encode_hour(self, hour: int) -> int:
        if self._memory[REG_B] & B_24H:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (_PM if hour >= 12 else 0)

    def _decode_hour(self, value: int) -> int:
        if self._memory[REG_B] & B_24H:
            return _clamp(self._decode(value), 0, 23)
        return _clamp(self._decode(value & ~_PM), 1, 12) % 12 + (12 if value & _PM else 0)


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _moments(today: int, hours: list[int], minutes: list[int], seconds: list[int], after: int) -> Iterator[int]:
    """Yield matching seconds of today and tomorrow in order, leaving out most of those up to ``after``."""
    for hour in [today + h * 3600 for h in (*hours, *(h + 24 for h in hours))]:
        if hour + 3599 <= after:
            continue
        for minute in [hour + m * 60 for m in minutes]:
            if minute + 59 > after:
                yield from (minute + s for s in seconds)

# SPDX-License-Identifier: BSD-2-Clause
"""The clock at its ports, 0x70 (index) and 0x71 (register), with its interrupt: IRQ 8."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.devices.rtc import SIZE, Rtc
from ptnetmap.bhyve.host import Host, Line
from ptnetmap.bhyve.iospace import Region

IRQ = 8
INDEX_PORT = 0x70
"""The index, whose bit 7 would hold back NMIs; the register's port follows."""
_SECOND = 1_000_000_000


class Clock:
    """The clock of ``host``, which shows local time unless ``rtc.use_localtime`` is false.

    Local time is the host's as of the start: as with a real clock, changing it in summer is up to the guest. ``now``
    gives nanoseconds since 1970.
    """

    def __init__(self, host: Host, *, now: Callable[[], int] = time.time_ns) -> None:
        self._host = host
        self._now = now
        self._shift = 0
        key = "rtc.use_localtime"
        if boolean_value(key, host.options.get(key, "true")):
            self._shift = time.localtime(now() // _SECOND).tm_gmtoff * _SECOND
        self.rtc = Rtc(self._time())
        self.rtc.set_memory_size(host.memory.low_size, host.memory.high_size)
        self._index = 0
        self._level = False
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._line: Line | None = host.interrupts.line(IRQ)
        try:
            self._region: Region | None = host.ports.add(INDEX_PORT, 2, self)
        except BaseException:
            self._line.close()
            raise

    def read(self, offset: int, size: int) -> int:
        """Return the register; the index cannot be read."""
        value = 0xFF
        if offset + size > 1:
            now = self._time()
            value |= self.rtc.read(self._index, now) << 8
            self._settle(now)
        return value >> 8 * offset

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the index, or the register, or one after the other."""
        if offset == 0:
            self._index = value % SIZE
            value >>= 8
        if offset + size > 1:
            now = self._time()
            self.rtc.write(self._index, value & 0xFF, now)
            self._settle(now)

    def reset(self) -> None:
        """Do what the machine's reset does to the clock: interrupts are off, the time goes on."""
        now = self._time()
        self.rtc.reset(now)
        self._settle(now)

    def close(self) -> None:
        """Give back ports and line. On the loop's thread; harmless when repeated."""
        region, self._region = self._region, None
        line, self._line = self._line, None
        if region is not None:
            self._host.ports.remove(region)
        if line is not None:
            line.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time(self) -> int:
        return self._now() + self._shift

    def _drive(self, now: int) -> int | None:
        """Drive the line as of ``now``; return when it will rise by itself."""
        event = self.rtc.next_event(now)
        level = self.rtc.interrupt
        if self._line is not None and level != self._level:
            self._level = level
            self._line.set(level)
        return event

    def _settle(self, now: int) -> None:
        """Drive the line, and let the loop look when the next interrupt is due.

        ``now`` is the time of the access: were it later, an interrupt that became due in between would keep the line
        high over the read that acknowledges the last one, and there would be no edge to tell of it.
        """
        event, loop = self._drive(now), self._host.loop
        if loop is not None and not self._asked and (event is not None or self._timer is not None):
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near
                loop.call_soon_threadsafe(self._arrange)

    def _arrange(self) -> None:
        """Set the timer for the next interrupt, which may be due: a host clock that was set back makes it wait."""
        with self._host.lock:
            self._asked = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            now = self._time()
            event, loop = self._drive(now), self._host.loop
            if event is not None and loop is not None and self._line is not None:
                self._timer = loop.call_later(max(event - now, 0) / _SECOND, self._arrange)

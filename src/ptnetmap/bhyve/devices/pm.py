# SPDX-License-Identifier: BSD-2-Clause
"""ACPI's fixed hardware: the power button, soft power-off, the power management timer; and the reset register.

====== ====== ========== =============================================================================================
port   bytes  register   meaning
====== ====== ========== =============================================================================================
0xb2   1      SMI_CMD    0xa0 switches ACPI on (SCI_EN), 0xa1 off
0xcf9  1      reset      bit 2 resets the machine
0x400  2      PM1_STS    what has happened; ones clear
0x402  2      PM1_EN     which of it interrupts: the power button; others can be enabled, and never happen
0x404  2      PM1_CNT    0: SCI_EN, read only; 10-12: SLP_TYP, 5 is power-off; 13: SLP_EN, do it
0x408  4      PM_TMR     counts at 3.579545 MHz, 32 bits
====== ====== ========== =============================================================================================

The system control interrupt (IRQ 9) is level-triggered. Source: ACPI 6.4 §4.8.3; places and values as in bhyve.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ptnetmap.bhyve.host import Host, Line
from ptnetmap.bhyve.iospace import Handler, Region

SCI = 9
"""Interrupt line."""
PM1A_EVENT = 0x400
PM1A_CONTROL = 0x404
PM_TIMER = 0x408
SMI_COMMAND = 0xB2
RESET_PORT = 0xCF9
ACPI_ENABLE, ACPI_DISABLE = 0xA0, 0xA1

PM1_BM, PM1_GBL, PM1_PWRBTN, PM1_SLPBTN, PM1_RTC, PM1_WAK = 0x0010, 0x0020, 0x0100, 0x0200, 0x0400, 0x8000
CNT_SCI_EN, CNT_SLP_TYP, CNT_SLP_EN = 0x0001, 0x1C00, 0x2000
SLP_TYP_S5 = 5
RESET_CPU = 0x04

_CLEARABLE = PM1_WAK | PM1_RTC | PM1_SLPBTN | PM1_PWRBTN | PM1_GBL | PM1_BM
# Of these only the button's happens; systems complain when the others cannot be set.
_ENABLES = PM1_PWRBTN | PM1_GBL | PM1_SLPBTN | PM1_RTC
# Of PM1_CNT, the guest keeps the rest: SCI_EN is the firmware's, GBL_RLS and SLP_EN read 0, others are reserved.
_CONTROL = 0xFFFF & ~(0xC000 | CNT_SLP_EN | 0x0004 | 0x0002 | CNT_SCI_EN)
_TIMER_HZ = 3_579_545


class Pm1:
    """The PM1 registers. Pure: after each call look at :attr:`sci`, and a write says whether to power off."""

    def __init__(self, *, always_on: bool = False) -> None:
        self._always_on = always_on
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on; with ``always_on`` ACPI is on then, else firmware would have the SCI."""
        self.status = self.enable = 0
        self.control = CNT_SCI_EN if self._always_on else 0

    @property
    def sci(self) -> bool:
        """The level of the interrupt."""
        return bool(self.status & self.enable)

    def switch(self, on: bool) -> None:
        """Switch ACPI on or off, as a write to SMI_CMD does."""
        self.control = self.control & ~CNT_SCI_EN | (CNT_SCI_EN if on or self._always_on else 0)

    def press_power_button(self) -> bool:
        """Press it; return whether the guest listens: a guest without ACPI is not told."""
        if not self.control & CNT_SCI_EN:
            return False
        self.status |= PM1_PWRBTN
        return bool(self.enable & PM1_PWRBTN)

    def read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the six from PM1_STS to PM1_CNT, and zeros after them."""
        return (self.control << 32 | self.enable << 16 | self.status) >> 8 * offset & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> bool:
        """Write bytes, as :meth:`read`; return whether that means to power off."""
        value, mask = value << 8 * offset, ((1 << 8 * size) - 1) << 8 * offset
        self.status &= ~(value & _CLEARABLE)
        self.enable = (self.enable & ~(mask >> 16) | value >> 16) & _ENABLES
        value, mask = value >> 32 & 0xFFFF, mask >> 32 & _CONTROL
        self.control = self.control & ~mask | value & mask
        return bool(value & CNT_SLP_EN) and (self.control & CNT_SLP_TYP) >> 10 == SLP_TYP_S5


class PmTimer:
    """The power management timer, from 0 on; ``clock`` gives nanoseconds since any time."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._started = clock()

    def read(self, offset: int, size: int) -> int:
        """Return bytes of the count."""
        count = (self._clock() - self._started) * _TIMER_HZ // 1_000_000_000 & 0xFFFFFFFF
        return count >> 8 * offset

    def write(self, offset: int, size: int, value: int) -> None:
        """Do nothing: it is read only."""


class SmiCommand:
    """The port by which a guest asks firmware for ACPI, and the byte after it, which only keeps what is written."""

    def __init__(self, pm1: Pm1) -> None:
        self._pm1 = pm1
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on."""
        self._status = 0

    def read(self, offset: int, size: int) -> int:
        """Return 0, and the byte after it."""
        return self._status << 8 >> 8 * offset

    def write(self, offset: int, size: int, value: int) -> None:
        """Carry out a command; those that are none do nothing."""
        value <<= 8 * offset
        if offset + size > 1:
            self._status = value >> 8 & 0xFF
        if offset == 0 and value & 0xFF in (ACPI_ENABLE, ACPI_DISABLE):
            self._pm1.switch(value & 0xFF == ACPI_ENABLE)


class ResetControl:
    """The reset register; soft and hard resets are the same (bit 1 chooses)."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on."""
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """Return what was written."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Reset the machine if that is what it says."""
        self._value = value & ~RESET_CPU
        if value & RESET_CPU:
            self._host.suspend("reset")


class PowerManagement:
    """All of these registers, at their places in ``host``'s ports. With ``always_on`` ACPI cannot be switched off."""

    def __init__(self, host: Host, *, always_on: bool = False) -> None:
        self._host = host
        self._level = False
        self.pm1 = Pm1(always_on=always_on)
        self._smi_command = SmiCommand(self.pm1)
        self._reset_control = ResetControl(host)
        self._regions: list[Region] = []
        self._line: Line | None = host.interrupts.line(SCI)
        places: tuple[tuple[int, int, Handler], ...] = (
            (PM1A_EVENT, 8, self),
            (PM_TIMER, 4, PmTimer()),
            (SMI_COMMAND, 2, self._smi_command),
            (RESET_PORT, 1, self._reset_control),
        )
        try:
            for port, size, handler in places:
                self._regions.append(host.ports.add(port, size, handler))
        except BaseException:
            self.close()
            raise

    def press_power_button(self) -> bool:
        """Ask the guest to shut down; return whether it hears that, else somebody must end it. Lock held."""
        heard = self.pm1.press_power_button()
        self._settle()
        return heard

    def read(self, offset: int, size: int) -> int:
        """Return bytes of PM1."""
        return self.pm1.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write bytes of PM1."""
        power_off = self.pm1.write(offset, size, value)
        self._settle()
        if power_off:
            self._host.suspend("poweroff")

    def reset(self) -> None:
        """Return to the state after power-on."""
        self.pm1.reset()
        self._smi_command.reset()
        self._reset_control.reset()
        self._settle()

    def close(self) -> None:
        """Give back ports and line. Harmless when repeated."""
        while self._regions:
            self._host.ports.remove(self._regions.pop())
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _settle(self) -> None:
        level = self.pm1.sci
        if level != self._level and self._line is not None:
            self._level = level
            self._line.set(level)

# SPDX-License-Identifier: BSD-2-Clause
"""Interrupt pins: wires shared by functions, to the I/O APIC and, through the PIRQ registers, to the old controllers.

There are eight wires, PIRQ A-H. Pin p (1-4) of a slot is on wire ``(4 + slot + p) % 8``, as in bhyve, whatever is
plugged in, so the ACPI _PRT and the MP table are fixed. A wire is high while any function on it asserts
(level-triggered, wired or); it drives GSI 16 + wire, and also the legacy IRQ that its PIRQ register names, for guests
that do not use the I/O APIC.
"""

from __future__ import annotations

from typing import NamedTuple

from ptnetmap.bhyve.host import Interrupts, Line

WIRES = 8
"""Wires, PIRQ A-H."""
FIRST_GSI = 16
"""The input of the I/O APIC that wire 0 drives; the others follow."""
PIRQ_DISABLED = 0x80
"""In a PIRQ register: the wire drives no legacy IRQ."""
LEGACY_IRQS = frozenset({3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15})
"""The IRQs that a PIRQ register may name; others are those of the timer, the keyboard, the cascade, clock and FPU."""
_PRESET = (10, 11, 5)
"""What the firmware gives the wires in turn: IRQs that no device of this machine has to itself."""


class Route(NamedTuple):
    """A row of the _PRT, or of the MP table: ``pin`` (1-4) of ``slot`` drives ``gsi``, level-triggered, active low."""

    slot: int
    pin: int
    gsi: int


def wire_of(slot: int, pin: int) -> int:
    """Return the wire of a slot's pin, 1-4."""
    return (4 + slot + pin) % WIRES


def routes() -> tuple[Route, ...]:
    """Return where each pin of each slot of a bus goes, for the tables that tell the guest."""
    return tuple(Route(slot, pin, FIRST_GSI + wire_of(slot, pin)) for slot in range(32) for pin in range(1, 5))


class Pin:
    """A function's interrupt pin, ``number`` 1-4 for INTA-INTD.

    ``asserted`` is what the function wants; :meth:`drive` says what reaches the wire. Until it is connected, it only
    remembers.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.asserted = False
        self.level = False
        self.wire = -1
        self._router: IntxRouter | None = None

    def drive(self, level: bool) -> None:
        """Pull the wire, or let it go."""
        if level != self.level:
            self.level = level
            if self._router is not None:
                self._router.settle()

    def connect(self, router: IntxRouter, slot: int) -> None:
        """Put it on its wire."""
        self.wire = wire_of(slot, self.number)
        self._router = router
        router.pins.append(self)
        router.settle()

    def disconnect(self) -> None:
        """Take it off the wire, which goes low unless others pull it. Harmless when repeated."""
        router, self._router = self._router, None
        if router is not None:
            router.pins.remove(self)
            router.settle()


class IntxRouter:
    """The eight wires, and the PIRQ registers that the LPC bridge shows the guest."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._lines: dict[int, Line] = {}
        self._high: set[int] = set()
        self._registers = [0] * WIRES
        self.pins: list[Pin] = []
        self.reset()

    def read(self, wire: int) -> int:
        """Return the PIRQ register of a wire: an IRQ, and PIRQ_DISABLED."""
        return self._registers[wire]

    def write(self, wire: int, value: int) -> None:
        """Set the PIRQ register of a wire; an IRQ that it may not name drives nothing."""
        self._registers[wire] = value & (PIRQ_DISABLED | 0x0F)
        self.settle()

    def legacy_irq(self, wire: int) -> int | None:
        """Return the IRQ that a wire drives besides its GSI, or None."""
        value = self._registers[wire]
        return value if value in LEGACY_IRQS else None

    def reset(self) -> None:
        """Give the wires the firmware's IRQs."""
        self._registers[:] = [_PRESET[wire % len(_PRESET)] for wire in range(WIRES)]
        self.settle()

    def settle(self) -> None:
        """Bring the lines in line with the pins: each is high while any wire that drives it is."""
        wanted: set[int] = set()
        for wire in {pin.wire for pin in self.pins if pin.level}:
            wanted.add(FIRST_GSI + wire)
            legacy = self.legacy_irq(wire)
            if legacy is not None:
                wanted.add(legacy)
        changed, self._high = wanted ^ self._high, wanted
        for gsi in sorted(changed):
            if gsi not in self._lines:
                self._lines[gsi] = self._interrupts.line(gsi)
            self._lines[gsi].set(gsi in wanted)

    def close(self) -> None:
        """Let all lines go. Harmless when repeated."""
        self.pins.clear()
        self.settle()
        while self._lines:
            self._lines.popitem()[1].close()

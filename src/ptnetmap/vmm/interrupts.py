# SPDX-License-Identifier: BSD-2-Clause
"""The machine's interrupts: lines of the in-kernel PICs and I/O APIC, and messages (MSI), by hand or by irqfd.

KVM knows interrupts by number (GSI). 0 to 23 are lines: 0 to 15 reach a PIC and the I/O APIC, the rest the I/O APIC
alone; all but 0 are the I/O APIC's pin of the same number, and 0, the timer's, is pin 2, as on PCs. Messages take the
numbers above. KVM's table of routes can only be replaced as a whole (api.rst §4.52).
"""

from __future__ import annotations

import errno
import threading

import numpy as np

from ptnetmap.abi.kvm import machine
from ptnetmap.errors import HypervisorError
from ptnetmap.vmm.kvm import Handle, Structure, structure, with_tail

LINES = machine.KVM_IOAPIC_NUM_PINS
"""GSIs below this are lines."""
TIMER_PIN = 2
"""Where GSI 0 reaches the I/O APIC: what MADT and MP table say of ISA interrupt 0."""
_PIC_PINS = 8


def line_routes() -> list[Structure]:
    """Return the routes of all lines (``kvm_irq_routing_entry``)."""
    routes = []
    for gsi in range(2 * _PIC_PINS):
        chip = machine.KVM_IRQCHIP_PIC_SLAVE if gsi >= _PIC_PINS else machine.KVM_IRQCHIP_PIC_MASTER
        routes.append(_pin_route(gsi, chip, gsi % _PIC_PINS))
    for gsi in range(LINES):
        if gsi != TIMER_PIN:
            routes.append(_pin_route(gsi, machine.KVM_IRQCHIP_IOAPIC, gsi or TIMER_PIN))
    return routes


def _pin_route(gsi: int, irqchip: int, pin: int) -> Structure:
    route = structure(machine.kvm_irq_routing_entry, gsi=gsi, type=machine.KVM_IRQ_ROUTING_IRQCHIP)
    route["irqchip"]["irqchip"] = irqchip
    route["irqchip"]["pin"] = pin
    return route


def _irqfd(handle: Handle, gsi: int, eventfd: int, flags: int = 0, resamplefd: int = 0) -> None:
    argument = structure(machine.kvm_irqfd, fd=eventfd, gsi=gsi, flags=flags, resamplefd=resamplefd)
    handle.call("KVM_IRQFD", argument, f"give an open eventfd, which is not joined to an interrupt yet, for GSI {gsi}")


class Line:
    """Input ``gsi`` of the interrupt controllers; made by :meth:`Interrupts.line`.

    KVM has one wire for all that :meth:`set` does, and another for all level irqfds; the guest sees both or-ed.
    """

    def __init__(self, handle: Handle, gsi: int) -> None:
        self.gsi = gsi
        self._handle = handle
        self._eventfds: list[int] = []

    def set(self, level: bool) -> None:
        """Drive it active or not; an edge-triggered input takes the change to active as an interrupt."""
        self._handle.call("KVM_IRQ_LINE", structure(machine.kvm_irq_level, irq=self.gsi, level=int(level)))

    def irqfd(self, eventfd: int, resamplefd: int | None = None) -> None:
        """Let writes to ``eventfd`` raise it in the kernel, until :meth:`close`; both stay open as long.

        Without ``resamplefd`` a write is an edge. With it, a write makes the line active until the guest's end of
        interrupt; then KVM writes ``resamplefd``, and whoever still needs the interrupt writes ``eventfd`` again: what
        level-triggered inputs need. Raises HypervisorError: EBUSY for an eventfd that raises something already.
        """
        if resamplefd is None:
            _irqfd(self._handle, self.gsi, eventfd)
        else:
            _irqfd(self._handle, self.gsi, eventfd, machine.KVM_IRQFD_FLAG_RESAMPLE, resamplefd)
        self._eventfds.append(eventfd)

    def close(self) -> None:
        """Part it from its eventfds, and make it inactive."""
        if self._handle.closed:
            return
        while self._eventfds:
            _irqfd(self._handle, self.gsi, self._eventfds.pop(), machine.KVM_IRQFD_FLAG_DEASSIGN)
        self.set(False)


class MsiRoute:
    """A message that the guest chooses, and a GSI for it; made by :meth:`Interrupts.allocate_msi`, masked at first.

    With an eventfd attached, writes to it deliver the message without us. While masked, they stay in the eventfd's
    counter, and are delivered, as one, when :meth:`set` unmasks: the pending bit of MSI-X, which is set while the
    eventfd is readable. The eventfd stays open as long as it is attached.
    """

    def __init__(self, interrupts: Interrupts, gsi: int) -> None:
        self.gsi = gsi
        self.message: tuple[int, int] | None = None
        self._interrupts = interrupts
        self._eventfd: int | None = None

    def set(self, address: int, data: int) -> None:
        """Make it this message (64-bit ``address``, 32-bit ``data``), and unmask."""
        self._interrupts._change(self, (address & (1 << 64) - 1, data & 0xFFFFFFFF), self._eventfd)

    def mask(self) -> None:
        """Deliver nothing until :meth:`set` is called again."""
        self._interrupts._change(self, None, self._eventfd)

    def signal(self) -> None:
        """Deliver the message now, unless masked."""
        if self.message is not None:
            self._interrupts.signal_msi(*self.message)

    def attach(self, eventfd: int) -> None:
        """Let writes to ``eventfd`` deliver the message; replaces an earlier one.

        Raises HypervisorError: EBUSY for an eventfd that raises something already.
        """
        self._interrupts._change(self, self.message, eventfd)

    def detach(self) -> None:
        """Take the eventfd back; what is written from now on stays in its counter."""
        self._interrupts._change(self, self.message, None)

    def close(self) -> None:
        """Detach, and give the GSI back."""
        self._interrupts._free(self)


class Interrupts:
    """All interrupts of the machine ``handle``, whose in-kernel controllers exist; KVM allows ``limit`` GSIs.

    Any thread may call. Raises HypervisorError where KVM refuses.
    """

    def __init__(self, handle: Handle, limit: int) -> None:
        self._handle = handle
        self._limit = limit
        self._lock = threading.RLock()
        self._lines = line_routes()
        self._routes: dict[int, MsiRoute] = {}
        self._joined: dict[int, int] = {}  # GSI: eventfd, as KVM knows it
        self._table: dict[int, tuple[int, int]] = {}  # GSI: message, as KVM knows it
        self._free_gsis = list(range(limit - 1, LINES - 1, -1))
        self._write_table({})

    def line(self, gsi: int) -> Line:
        """Return the input ``gsi``, 0 to 23; raises HypervisorError (EINVAL)."""
        if not 0 <= gsi < LINES:
            raise HypervisorError(
                errno.EINVAL, f"kvm: no interrupt line has number {gsi}\n        give one from 0 to {LINES - 1}"
            )
        return Line(self._handle, gsi)

    def allocate_msi(self) -> MsiRoute:
        """Return a route of its own; raises HypervisorError (ENOSPC) when all numbers are taken."""
        with self._lock:
            # One message is one entry of the table, whose size is limited like the numbers.
            if not self._free_gsis or len(self._lines) + len(self._routes) >= self._limit:
                raise HypervisorError(
                    errno.ENOSPC,
                    f"kvm: all {len(self._routes):,} message interrupts are in use\n        use fewer devices or queues",
                )
            route = MsiRoute(self, self._free_gsis.pop())
            self._routes[route.gsi] = route
            return route

    def signal_msi(self, address: int, data: int) -> None:
        """Deliver one message that has no route. One that no processor takes is lost, as on a bus."""
        message = structure(
            machine.kvm_msi,
            address_lo=address & 0xFFFFFFFF,
            address_hi=address >> 32 & 0xFFFFFFFF,
            data=data & 0xFFFFFFFF,
        )
        try:
            self._handle.call("KVM_SIGNAL_MSI", message)
        except HypervisorError as error:
            # The guest chose address and data: EPERM says that no processor matches, EINVAL that none can.
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise

    def _change(self, route: MsiRoute, message: tuple[int, int] | None, eventfd: int | None) -> None:
        # KVM has the eventfd joined exactly while there is a message; the table changes before it is joined. Replacing
        # the table stops all processors for a moment, so it is left alone where nobody would notice.
        with self._lock:
            if self._routes.get(route.gsi) is not route:
                raise HypervisorError(errno.EBADF, "kvm: this message interrupt is closed\n        allocate another")
            wanted = eventfd if message is not None else None
            joined = self._joined.get(route.gsi)
            if wanted is not None and message is not None and self._table.get(route.gsi) != message:
                self._write_table(self._live_table() | {route.gsi: message})
            if wanted != joined:
                if wanted is not None:
                    _irqfd(self._handle, route.gsi, wanted)
                    self._joined[route.gsi] = wanted
                else:
                    del self._joined[route.gsi]
                if joined is not None:
                    _irqfd(self._handle, route.gsi, joined, machine.KVM_IRQFD_FLAG_DEASSIGN)
            route.message, route._eventfd = message, eventfd

    def _live_table(self) -> dict[int, tuple[int, int]]:
        return {gsi: message for gsi, message in self._table.items() if gsi in self._joined}

    def _write_table(self, messages: dict[int, tuple[int, int]]) -> None:
        entries = np.zeros(len(self._lines) + len(messages), machine.kvm_irq_routing_entry)
        for at, route in enumerate(self._lines):
            entries[at] = route
        for at, (gsi, (address, data)) in enumerate(messages.items(), len(self._lines)):
            entry = entries[at]
            entry["gsi"], entry["type"] = gsi, machine.KVM_IRQ_ROUTING_MSI
            entry["msi"] = (address & 0xFFFFFFFF, address >> 32, data, 0)
        self._handle.call("KVM_SET_GSI_ROUTING", with_tail(machine.kvm_irq_routing, entries, nr=len(entries)))
        self._table = messages

    def _free(self, route: MsiRoute) -> None:
        with self._lock:
            if self._routes.get(route.gsi) is route:
                if not self._handle.closed:
                    self._change(route, None, None)
                del self._routes[route.gsi]
                self._free_gsis.append(route.gsi)

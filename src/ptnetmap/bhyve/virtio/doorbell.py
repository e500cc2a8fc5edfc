# SPDX-License-Identifier: BSD-2-Clause
"""How a queue's notifications reach whoever serves it: an eventfd per queue, which KVM signals by itself.

A kick by the guest is one store or one ``out``. With KVM both places that mean a queue, the legacy register with the
queue's number in it and the queue's own modern register, are bound to the queue's eventfd (VM_IO_REG_HANDLER in the
report, KVM_IOEVENTFD here), so that the guest goes on at once. Whoever serves the queue waits for the eventfd: the event
loop for a queue of ours, another process for one that it has taken over. Without KVM the access comes to us, and is
passed on the same way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptnetmap.bhyve.host import HandlerGroup, Host, Kind
from ptnetmap.errors import HypervisorError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a notification is written: a write of ``size`` bytes, with ``value`` in them unless that is None.

    In :class:`NotifyRegisters` ``address`` counts from the start of the BAR.
    """

    kind: Kind
    address: int
    size: int
    value: int | None


class Doorbell:
    """The notifications of one queue; ``serve`` is called for them, with the machine's lock held.

    ``serve`` returns whether there is more to do; it is then called again, after others had their turn. While a queue is
    not ``attended``, somebody else serves it, always with None: its :attr:`eventfd` is then only written here.
    """

    def __init__(self, host: Host, serve: Callable[[], bool] | None, *, attended: bool = True) -> None:
        self._host = host
        self._serve = serve
        self._attended = attended and serve is not None
        self._eventfd = -1
        self._loop = host.loop
        self._listens = False
        self._follow()

    @property
    def eventfd(self) -> int:
        """The eventfd, made on first use; it lives until :meth:`close`, so hand out duplicates."""
        if self._eventfd < 0:
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return self._eventfd

    @property
    def is_heard(self) -> bool:
        """Whether somebody waits for the eventfd."""
        return not self._attended or self._loop is not None

    def attend(self, on: bool) -> None:
        """Serve the queue here from now on, or let somebody else serve it. Harmless when repeated."""
        if on != self._attended:
            self._attended = on
            if self._loop:
                # A vCPU's thread may call this.
                self._loop.call_soon_threadsafe(self._follow)

    def ring(self) -> None:
        """Pass a notification on: to the loop or the other process if there is one, else to ``serve`` right here."""
        if self.is_heard:
            # A counter that is full says enough.
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.eventfd, 1)
            return
        assert self._serve is not None
        while self._serve():
            pass

    def close(self) -> None:
        """Let go of the eventfd, on the event loop's thread. Harmless when repeated."""
        if self._loop and self._listens:
            self._loop.remove_reader(self._eventfd)
        self._loop = None
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1

    def _follow(self) -> None:
        """Wait for the eventfd while the queue is attended, on the event loop's thread."""
        if self._loop and self._listens != self._attended:
            self._listens = self._attended
            if self._attended:
                self._loop.add_reader(self.eventfd, self._heard)
            else:
                self._loop.remove_reader(self.eventfd)

    def _heard(self) -> None:
        with self._host.lock:
            if not self._attended or self._serve is None:
                return  # what is in the counter is for whoever serves the queue now
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._eventfd)
            if self._serve():
                self.ring()


class NotifyRegisters:
    """The registers in one BAR that notify queues: ``places[i]`` rings ``doorbells[i]``.

    Where KVM refuses, the guest's writes come out to the device's registers, and ring there.
    """

    def __init__(self, host: Host, doorbells: Sequence[Doorbell], places: Sequence[Place]) -> None:
        self._places = places
        self._base: int | None = None
        self._group: HandlerGroup | None = None
        if host.vm is not None and any(bell.is_heard for bell in doorbells):
            # Only a machine with KVM needs the handler's type.
            from ptnetmap.vmm.iohandler import EventfdHandler

            self._group = host.vm.handler_group(places[0].kind)
            for bell, place in zip(doorbells, places, strict=True):
                if bell.is_heard:
                    self._group.add(
                        place.address,
                        size=place.size,
                        mask=0 if place.value is None else (1 << 8 * place.size) - 1,
                        data=place.value or 0,
                        handler=EventfdHandler(bell.eventfd),
                    )

    def move(self, base: int | None) -> None:
        """Follow the BAR to ``base``, None for nowhere."""
        self._base = base
        if self._group:
            try:
                self._group.move(base)
            except HypervisorError:
                self._group.move(None)

    def place(self, index: int) -> Place | None:
        """Return where the guest notifies queue ``index`` now, if anywhere."""
        if self._base is None:
            return None
        place = self._places[index]
        return Place(place.kind, self._base + place.address, place.size, place.value)

    def close(self) -> None:
        """Listen nowhere. Harmless when repeated."""
        self.move(None)
        if self._group:
            self._group.close()
            self._group = None

# SPDX-License-Identifier: BSD-2-Clause
"""Queues of a device that netmapd serves: kept in step with what the driver does to them.

From DRIVER_OK to reset, a queue that the driver has enabled is netmapd's, if it is of a pair in use. When its interrupt
or its place changes, it is taken back, and handed over again where it stood.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable

from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.virtio.device import Handover
from ptnetmap.bhyve.virtio.negotiation import Negotiation
from ptnetmap.errors import GuestError, PortError
from ptnetmap.netmap.client.virtioport import MemoryRegion, QueueSetup, VirtioPort

_log = logging.getLogger(__name__)


class ServedQueues:
    """The queues of the device called ``label`` that ``port`` serves; closed with :meth:`close`.

    ``pairs`` is how many pairs are in use, from queue 0 on. ``hand_over`` tells what netmapd needs for a queue. ``lost`` is
    called when netmapd has gone, and nothing is served any more, ``fail`` when the driver has broken a queue. Every call is
    made with the machine's lock held.
    """

    def __init__(
        self,
        host: Host,
        port: VirtioPort,
        label: str,
        *,
        hand_over: Callable[[int], Handover],
        lost: Callable[[], None],
        fail: Callable[[GuestError], None],
    ) -> None:
        self.port = port
        self.pairs = 1
        self.lost = False
        self._host = host
        self._label = label
        self._hand_over = hand_over
        self._tell = lost
        self._fail = fail
        memory = host.memory
        port.set_memory([MemoryRegion(part.gpa, part.size, memory.fd, part.offset) for part in memory.segments])
        self._loop = host.loop
        if self._loop:
            self._loop.add_reader(port.fileno(), self._heard)
            self._loop.add_reader(port.trouble, self._troubled)

    def begin(self, negotiation: Negotiation) -> None:
        """Let netmapd serve what may be served."""
        for index in range(2 * self.pairs):
            self._start(negotiation, index)

    def use_pairs(self, negotiation: Negotiation, pairs: int) -> None:
        """Have so many pairs in use from now on.

        No frame comes to the others' receive queues any more. Their transmit queues stay netmapd's, which sends what
        the driver may have offered there before.
        """
        before, self.pairs = self.pairs, pairs
        self.begin(negotiation)
        if negotiation.broken:
            return
        self._deliver()
        for index in range(2 * pairs, 2 * before, 2):
            self._stop(negotiation, index)

    def restart(self, negotiation: Negotiation, index: int) -> None:
        """Hand a queue over anew, because what was handed over has changed, or for the first time."""
        if index < 2 * self.pairs or index in self.port.running:
            self._stop(negotiation, index)
            self._start(negotiation, index)

    def end(self, negotiation: Negotiation) -> None:
        """Take all queues back, for a driver that begins anew with one pair."""
        for index in self.port.running:
            self._stop(negotiation, index)
        if self.pairs > 1:
            self.pairs = 1
            self._deliver()

    def _deliver(self) -> None:
        """Have frames delivered to the receive queues in use."""
        if not self.lost:
            try:
                self.port.use_pairs(self.pairs)
            except PortError:
                self._lose()

    def _start(self, negotiation: Negotiation, index: int) -> None:
        """Let netmapd serve a queue, if it may be served now; a violation of the driver's fails the device."""
        if self.lost or index in self.port.running or not negotiation.may_serve(index):
            return
        handed = self._hand_over(index)
        state = handed.state
        setup = QueueSetup(state.size, state.desc, state.avail, state.used, state.last_avail, state.used_idx)
        call = -1 if handed.interrupt is None else handed.interrupt
        try:
            self.port.start(index, setup, negotiation.accepted, handed.kick, call)
        except PortError as error:
            if self.port.gone:
                self._lose()
            else:
                negotiation.fail(GuestError(error.errno or 0, str(error)))

    def _stop(self, negotiation: Negotiation, index: int) -> None:
        """Take a queue back; it stands where netmapd left it."""
        if index not in self.port.running:
            return
        positions = self.port.stop(index)
        queue = negotiation.queues[index]
        if positions is not None and queue.enabled:
            queue.start(*positions)

    def _heard(self) -> None:
        with self._host.lock:
            if self.port.gone and not self.lost:
                self._lose()

    def _troubled(self) -> None:
        with self._host.lock, contextlib.suppress(PortError):
            broken = self.port.broken()
            if broken:
                self._fail(GuestError(errno.EINVAL, f"the driver has broken queue {broken[0]}: its index jumped"))

    def _lose(self) -> None:
        self.lost = True
        self._forget()
        _log.warning(
            "%s: netmapd at %s %s, and the link of %s is down\n        start the machine again",
            self._label,
            self.port.address,
            self.port.loss,
            self.port.name,
        )
        self._tell()

    def _forget(self) -> None:
        if self._loop:
            self._loop.remove_reader(self.port.fileno())
            self._loop.remove_reader(self.port.trouble)
            self._loop = None

    def close(self) -> None:
        """Give the port back, on the event loop's thread. Harmless when repeated."""
        self._forget()
        self.port.close()

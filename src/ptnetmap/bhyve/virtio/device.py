# SPDX-License-Identifier: BSD-2-Clause
"""A virtio device on the PCI bus: transitional registers, interrupts, and queues, for device models to build on.

A device model says what it is and answers the chains of its queues::

    @register
    class Echo(VirtioDevice):
        name = "virtio-echo"
        virtio_id = 42
        class_code = pci.PCIC_OTHER << 16
        queue_sizes = (64,)

        def handle(self, queue, chain):
            self.complete(queue, chain, chain.write(chain.read(chain.writable_bytes)))

A queue in ``external`` is not served here: another process takes it over with what :meth:`VirtioDevice.hand_over` says,
when :meth:`VirtioDevice.started` and :meth:`VirtioDevice.queue_changed` tell that it may.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple

from ptnetmap.abi import pci
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.config import boolean_value
from ptnetmap.bhyve.host import Host
from ptnetmap.bhyve.pci.bar import BarKind
from ptnetmap.bhyve.pci.config import BarsChanged, CapabilityWritten, CommandChanged
from ptnetmap.bhyve.pci.device import PciDevice
from ptnetmap.bhyve.pci.function import Function
from ptnetmap.bhyve.virtio import legacy, modern
from ptnetmap.bhyve.virtio.doorbell import Doorbell, NotifyRegisters, Place
from ptnetmap.bhyve.virtio.negotiation import Negotiation
from ptnetmap.bhyve.virtio.queue import Chain, Queue, QueueState
from ptnetmap.bhyve.virtio.relay import Relay
from ptnetmap.bhyve.virtio.window import ConfigWindow
from ptnetmap.errors import ConfigError, GuestError

LEGACY_BAR = 0
"""The I/O BAR with the legacy registers."""
MSIX_BAR = 1
"""The memory BAR with the MSI-X table."""
MODERN_BAR = 2
"""The memory BAR with the modern registers."""

RING_FEATURES = abi.VIRTIO_F_INDIRECT_DESC | abi.VIRTIO_F_EVENT_IDX
"""What :class:`~ptnetmap.bhyve.virtio.queue.Queue` can do, and who serves a queue in its place perhaps not."""

_log = logging.getLogger(__name__)


class Handover(NamedTuple):
    """What another process needs to serve a queue, besides the guest's memory; the descriptors stay the device's."""

    state: QueueState
    """Geometry, positions and features."""
    kick: int
    """An eventfd that is signalled when the driver notifies."""
    places: tuple[Place, ...]
    """Where the driver's notifications are written, which signals ``kick``."""
    interrupt: int | None
    """An eventfd to signal when chains were returned and the driver wants to know; None if it has no vector for that.

    It stands for the MSI-X vector ``state.vector``, or for the interrupt pin.
    """


class VirtioDevice(PciDevice):
    """A virtio device, transitional unless an option says otherwise; as :class:`PciDevice`, whose arguments it takes.

    ``features`` are the device's own, ``ring_features`` those of its queues, ``device_config`` its own configuration at
    first, of which the attribute of that name is the current one, ``queue_sizes`` its queues where they are not those of
    its class, ``external`` the queues that others serve. Options: ``legacy=false`` leaves the legacy registers out,
    ``modern=false`` the modern ones. The machine's ``virtio_msix=false`` (``-W``) gives it MSI in place of MSI-X. After a
    violation ``error`` is the last one, and ``violations`` how many there were.
    """

    virtio_id: ClassVar[int] = 0
    """Its type, ``VIRTIO_ID_*``."""
    class_code: ClassVar[int] = 0
    """Its PCI class, 24 bits."""
    queue_sizes: ClassVar[tuple[int, ...]] = ()
    """Entries of each queue at the most."""

    def __init__(
        self,
        host: Host,
        function: Function,
        options: Mapping[str, str],
        *,
        features: int = 0,
        ring_features: int = RING_FEATURES,
        device_config: bytes = b"",
        queue_sizes: Sequence[int] | None = None,
        external: Collection[int] = (),
    ) -> None:
        super().__init__(host, function, options)
        sizes = self.queue_sizes if queue_sizes is None else queue_sizes
        with_legacy, with_modern = (boolean_value(key, options.get(key, "true")) for key in ("legacy", "modern"))
        with_legacy = with_legacy and self.virtio_id in abi.VIRTIO_PCI_TRANSITIONAL
        if not with_legacy and not with_modern:
            raise ConfigError(f"{self.name}: legacy=false and modern=false leave no registers\n        leave one out")
        self.identify(
            vendor_id=abi.VIRTIO_PCI_VENDOR,
            device_id=abi.VIRTIO_PCI_TRANSITIONAL[self.virtio_id]
            if with_legacy
            else abi.VIRTIO_PCI_MODERN_ID + self.virtio_id,
            class_code=self.class_code,
            revision=0 if with_legacy else 1,
            subsystem_vendor_id=abi.VIRTIO_PCI_VENDOR,
            subsystem_id=self.virtio_id,
        )
        self.device_config = bytearray(device_config)
        self.external = frozenset(external)
        self.error: GuestError | None = None
        self.violations = 0

        vectors = len(sizes) + 1 if boolean_value("virtio_msix", host.options.get("virtio_msix", "true")) else 0
        self.negotiation = Negotiation(
            host.memory, self, sizes, features | ring_features, modern=with_modern, vectors=vectors
        )
        self.queues = self.negotiation.queues
        self._legacy = legacy.LegacyRegisters(self.negotiation, self)
        self._modern = modern.ModernRegisters(self.negotiation, self)
        if with_legacy:
            self.add_bar(LEGACY_BAR, BarKind.IO, abi.legacy_config(True) + len(device_config))
        if vectors:
            self.add_msix(vectors, MSIX_BAR)
        else:
            self.add_msi(1)
        self._window: ConfigWindow | None = None
        if with_modern:
            self.add_bar(MODERN_BAR, BarKind.MEM32, modern.BAR_SIZE)
            for body in modern.capabilities(MODERN_BAR, len(self.queues), len(device_config)):
                self.config.add_capability(pci.PCIY_VENDOR, body[2:])
            self._window = ConfigWindow(self, (MODERN_BAR, LEGACY_BAR) if with_legacy else (MODERN_BAR,))
        self.use_intx()
        self._uses_msix = False
        self._relays: dict[int, Relay] = {}
        self._doorbells = [
            Doorbell(host, functools.partial(self._serve, index), attended=index not in self.external)
            for index in range(len(self.queues))
        ]
        self._notify: dict[int, NotifyRegisters] = {}
        if with_legacy:
            self._notify[LEGACY_BAR] = NotifyRegisters(host, self._doorbells, legacy.places(len(self.queues)))
        if with_modern:
            self._notify[MODERN_BAR] = NotifyRegisters(host, self._doorbells, modern.places(len(self.queues)))

    # --- for device models -----------------------------------------------------------------------------------------

    def handle(self, queue: Queue, chain: Chain) -> None:
        """Answer a chain, now or later, with :meth:`complete`; raise GuestError for one that makes no sense.

        Here, for queues of which a device model has no use, none makes sense.
        """
        raise GuestError(errno.EINVAL, f"{self.name}: nothing may be offered in queue {queue.index}")

    def started(self) -> None:
        """Hear that the driver is ready: queues may be used from now on."""

    def stopped(self) -> None:
        """Hear that queues may not be used any more; on return, nobody touches the guest's memory on their behalf."""

    def queue_changed(self, index: int) -> None:
        """Hear that what :meth:`hand_over` says of a queue has changed.

        If the queue is not enabled any more: on return, nobody touches the guest's memory on its behalf.
        """

    def features_acceptable(self, features: int) -> bool:
        """Whether the device can work with a subset of its features, of which the driver has made a choice."""
        return True

    def queue_notified(self, index: int) -> bool:
        """Serve a queue that may be served; return whether more chains wait, for which this is called again.

        Takes at most as many chains as the queue has entries, so that a driver that adds some all the time cannot hold
        up the others.
        """
        queue = self.queues[index]
        for _ in range(queue.size):
            chain = queue.take()
            if chain is None:
                return False
            self.handle(queue, chain)
        return True

    def complete(self, queue: Queue, chain: Chain, written: int) -> None:
        """Return a chain to the driver, with ``written`` bytes in it; the interrupt is :meth:`flush`'s."""
        queue.put(chain, written)

    def flush(self, queue: Queue) -> None:
        """Interrupt the driver for the chains that were returned, if it wants that."""
        if queue.wants_interrupt():
            self.interrupt_queue(queue.index)

    def interrupt_queue(self, index: int) -> None:
        """Interrupt the driver for a queue (virtio 1.2 §4.1.5.3)."""
        self._interrupt(self.queues[index].vector, abi.VIRTIO_ISR_QUEUE)

    def device_config_changed(self) -> None:
        """Tell the driver that the device's own configuration is another one (virtio 1.2 §4.1.5.4)."""
        self.negotiation.changed()
        if self.negotiation.status & abi.VIRTIO_STATUS_DRIVER_OK:
            self._interrupt(self.negotiation.config_vector, abi.VIRTIO_ISR_CONFIG)

    def device_config_read(self, offset: int, size: int) -> int:
        """Return ``size`` bytes of the device's own configuration; zeroes after its end."""
        return int.from_bytes(self.device_config[offset : offset + size], "little")

    def device_config_write(self, offset: int, size: int, value: int) -> None:
        """Take a write to the device's own configuration, in the width that the driver used."""

    def fail(self, error: GuestError) -> None:
        """Stand still until the driver resets the device, because of something impossible that it did."""
        self.negotiation.fail(error)

    # --- queues that others serve ----------------------------------------------------------------------------------

    def hand_over(self, index: int) -> Handover:
        """Return what whoever serves an external queue needs; valid until :meth:`queue_changed` or :meth:`stopped`.

        Positions that the server has reached come back with ``queues[index].start(last_avail, used_idx)``.
        """
        queue = self.queues[index]
        places = (registers.place(index) for registers in self._notify.values())
        return Handover(
            queue.state,
            self._doorbells[index].eventfd,
            tuple(place for place in places if place),
            self._interrupt_fd(queue),
        )

    def attend(self, index: int, on: bool) -> None:
        """Serve a queue that is external at first here from now on, or no more: it depends on the driver whose it is."""
        self._doorbells[index].attend(on)

    def _interrupt_fd(self, queue: Queue) -> int | None:
        if self.msix is not None and self.msix.enabled:
            if queue.vector >= len(self.msix.vectors):
                return None
            return self.msix.vectors[queue.vector].eventfd
        if queue.index not in self._relays:
            self._relays[queue.index] = Relay(self.host, lambda: self.interrupt_queue(queue.index))
        return self._relays[queue.index].eventfd

    # --- what the driver does --------------------------------------------------------------------------------------

    def driver_ready(self) -> None:
        """Begin to serve: a driver may have offered chains before it was ready, and is not heard then."""
        self.started()
        for queue in self.queues:
            if queue.enabled:
                self._doorbells[queue.index].ring()

    def driver_gone(self) -> None:
        """End everything for a reset."""
        self.stopped()
        self.deassert()

    def needs_reset(self, error: GuestError) -> None:
        """End everything until a reset, and tell the driver (virtio 1.2 §2.1.2)."""
        self.error = error
        self.violations += 1
        if self.violations == 1:
            _log.warning("%s at %s: %s", self.name, self.function, error)
        self.stopped()
        self.device_config_changed()

    def queue_kicked(self, index: int) -> None:
        """Pass on a notification that was written to our registers."""
        if index < len(self.queues):
            self._doorbells[index].ring()

    def _serve(self, index: int) -> bool:
        if not self.negotiation.may_serve(index):
            return False
        queue = self.queues[index]
        error = None
        more = False
        try:
            more = self.queue_notified(index)
        except GuestError as raised:
            error = raised
        self.flush(queue)
        if error:
            self.fail(error)
        return more

    def _interrupt(self, vector: int, reason: int) -> None:
        if self.msix is not None and self.msix.enabled:
            self.interrupt(vector)
        else:
            self.negotiation.isr |= reason
            self.interrupt(0)

    # --- PCI -------------------------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """Read a register."""
        if bar == LEGACY_BAR:
            return self._legacy.read(offset, size, msix=self._uses_msix)
        if bar == MODERN_BAR:
            return self._modern.read(offset, size)
        return super().bar_read(bar, offset, size)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """Write a register."""
        if bar == LEGACY_BAR:
            self._legacy.write(offset, size, value, msix=self._uses_msix)
        elif bar == MODERN_BAR:
            self._modern.write(offset, size, value)

    def bar_moved(self, bar: int, address: int | None) -> None:
        """Listen for notifications where they are written now."""
        registers = self._notify.get(bar)
        if registers is not None:
            registers.move(address)
            for index in sorted(self.external):
                self.queue_changed(index)

    def config_read(self, offset: int, size: int) -> int:
        """Read configuration space."""
        if self._window is not None:
            self._window.before_read(offset, size)
        return super().config_read(offset, size)

    def config_changed(self, effect: BarsChanged | CommandChanged | CapabilityWritten) -> None:
        """Follow what a write to configuration space changed."""
        super().config_changed(effect)
        if isinstance(effect, CapabilityWritten) and self._window is not None:
            self._window.written(effect)
        self._follow_msix()

    def _follow_msix(self) -> None:
        """Note whether MSI-X is enabled: the legacy registers, and the way of each interrupt, depend on it."""
        enabled = self.msix is not None and self.msix.enabled
        if enabled != self._uses_msix:
            self._uses_msix = enabled
            for index in sorted(self.external):
                self.queue_changed(index)

    def reset(self) -> None:
        """Return to the state after power-on."""
        self.negotiation.reset()
        super().reset()
        self._follow_msix()

    def close(self) -> None:
        """Give back everything. Harmless when repeated."""
        self.negotiation.reset()
        for registers in self._notify.values():
            registers.close()
        for bell in self._doorbells:
            bell.close()
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        super().close()

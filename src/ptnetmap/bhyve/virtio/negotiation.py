# SPDX-License-Identifier: BSD-2-Clause
"""What driver and device agree on: features, status, queues, vectors. Pure state, behind either kind of registers.

Source: virtio 1.2 §2.1 (status), §2.2 (features), §3.1.1 and §3.1.2 (initialisation), §4.1.5.1 (PCI).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ptnetmap.abi import virtio as ring_abi
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.bhyve.host import Memory
from ptnetmap.bhyve.virtio.queue import Queue
from ptnetmap.errors import GuestError

_LOW = 0xFFFFFFFF
_PAGE = 1 << abi.VIRTIO_PCI_QUEUE_ADDR_SHIFT


class Listener(Protocol):
    """Who hears what the driver does: the device. Nothing here may raise."""

    def driver_ready(self) -> None:
        """The driver is ready: queues may be used (DRIVER_OK)."""

    def driver_gone(self) -> None:
        """The driver resets the device: when this returns, nothing of the guest's memory is touched any more."""

    def queue_changed(self, index: int) -> None:
        """A queue was put into use, taken out of it, or got another vector."""

    def features_acceptable(self, features: int) -> bool:
        """Whether the device can work with these features, a subset of those offered."""

    def needs_reset(self, error: GuestError) -> None:
        """The driver did something impossible: the device stays still until it is reset."""


class Negotiation:
    """The agreement of one device with its driver.

    ``queue_sizes`` are the largest sizes of its queues, ``offered`` its features less VIRTIO_F_VERSION_1, which is
    offered where ``modern`` is true. ``vectors`` is the number of its MSI-X vectors. ``status``, ``accepted``, ``isr``,
    ``config_vector``, ``generation`` and ``queues`` are the state; the registers add no more than selectors.
    """

    def __init__(
        self,
        memory: Memory,
        listener: Listener,
        queue_sizes: Sequence[int],
        offered: int,
        *,
        modern: bool,
        vectors: int,
    ) -> None:
        self._listener = listener
        self._vectors = vectors
        self.modern_offer = offered | (abi.VIRTIO_F_VERSION_1 if modern else 0)
        self.legacy_offer = (offered | abi.VIRTIO_F_ANY_LAYOUT) & _LOW
        self.queues = [Queue(memory, index, size) for index, size in enumerate(queue_sizes)]
        self.generation = 0
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.accepted = 0
        self._settled = False
        self.isr = 0
        self.config_vector = abi.VIRTIO_MSI_NO_VECTOR
        self.queue_select = 0
        self.device_feature_select = 0
        self.driver_feature_select = 0
        for queue in self.queues:
            queue.reset()

    # --- state -----------------------------------------------------------------------------------------------------

    @property
    def is_modern(self) -> bool:
        """Whether the driver has chosen virtio 1."""
        return bool(self.accepted & abi.VIRTIO_F_VERSION_1)

    @property
    def broken(self) -> bool:
        """Whether the device waits to be reset."""
        return bool(self.status & abi.VIRTIO_STATUS_NEEDS_RESET)

    @property
    def selected(self) -> Queue | None:
        """The queue that the registers mean."""
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def may_serve(self, index: int) -> bool:
        """Whether queue ``index`` may be served now.

        A legacy driver may use its queues before it says DRIVER_OK (virtio 1.2 §3.1.2).
        """
        ready = self.status & abi.VIRTIO_STATUS_DRIVER_OK or not self.is_modern
        return bool(ready) and not self.broken and self.queues[index].enabled

    def changed(self) -> None:
        """Note that the device's own configuration is another one (virtio 1.2 §2.5)."""
        self.generation = (self.generation + 1) & 0xFF

    # --- features and status ---------------------------------------------------------------------------------------

    def accept(self, features: int) -> None:
        """Take the features that the driver wants; too late once they are settled (virtio 1.2 §3.1.1).

        A legacy driver, which may use a queue before it says that they are, has settled them with the first queue.
        """
        if self._settled or self.status & (abi.VIRTIO_STATUS_FEATURES_OK | abi.VIRTIO_STATUS_DRIVER_OK):
            return
        self.accepted = features
        for queue in self.queues:
            queue.event_idx = bool(features & abi.VIRTIO_F_EVENT_IDX)
            queue.indirect = bool(features & abi.VIRTIO_F_INDIRECT_DESC)

    def set_status(self, value: int, *, modern: bool) -> None:
        """Take the driver's status, through the ``modern`` registers or the legacy one; 0 resets.

        Bits can only be added. FEATURES_OK stays clear if the features cannot be had, and DRIVER_OK without it is not
        for modern registers.
        """
        if value == 0:
            self.reset()
            return
        new = value & 0xFF & ~self.status & ~abi.VIRTIO_STATUS_NEEDS_RESET
        if new & abi.VIRTIO_STATUS_FEATURES_OK and not (modern and self._settle()):
            new &= ~abi.VIRTIO_STATUS_FEATURES_OK
        if modern and not (self.status | new) & abi.VIRTIO_STATUS_FEATURES_OK:
            new &= ~abi.VIRTIO_STATUS_DRIVER_OK
        self.status |= new
        if new & abi.VIRTIO_STATUS_DRIVER_OK:
            self._listener.driver_ready()

    def _settle(self) -> bool:
        return (
            not self.accepted & ~self.modern_offer
            and self.is_modern
            and self._listener.features_acceptable(self.accepted)
        )

    def reset(self) -> None:
        """Return to the state before any driver; the device's own configuration stays."""
        self._listener.driver_gone()
        self._clear()

    def fail(self, error: GuestError) -> None:
        """Answer something impossible: no queue is used until the driver resets the device (virtio 1.2 §2.1.2)."""
        if self.broken:
            return
        self.status |= abi.VIRTIO_STATUS_NEEDS_RESET
        for queue in self.queues:
            queue.stop()
        self._listener.needs_reset(error)

    # --- queues and vectors ----------------------------------------------------------------------------------------

    def enable(self, queue: Queue) -> None:
        """Put a queue into use with the geometry it was given."""
        if queue.enabled or self.broken:
            return
        try:
            queue.start()
        except GuestError as error:
            self.fail(error)
            return
        self._settled = True
        self._listener.queue_changed(queue.index)

    def place_legacy(self, queue: Queue, page: int) -> None:
        """Put a queue into use with its parts one after the other from a page on; page 0 takes it out of use.

        Source: virtio 1.2 §2.7.2.
        """
        if queue.enabled:
            queue.stop()
            self._listener.queue_changed(queue.index)
        queue.desc = page * _PAGE
        queue.avail = queue.desc + queue.size * ring_abi.virtq_desc.itemsize if page else 0
        end = queue.avail + ring_abi.virtq_avail_size(queue.size)
        queue.used = -(-end // ring_abi.VIRTQ_LEGACY_ALIGN) * ring_abi.VIRTQ_LEGACY_ALIGN if page else 0
        if page:
            self.enable(queue)

    def set_queue_vector(self, queue: Queue, vector: int) -> None:
        """Give a queue an MSI-X vector, or none if there is no such vector (virtio 1.2 §4.1.5.1.2)."""
        queue.vector = self._vector(vector)
        self._listener.queue_changed(queue.index)

    def set_config_vector(self, vector: int) -> None:
        """Give configuration changes an MSI-X vector, or none if there is no such vector."""
        self.config_vector = self._vector(vector)

    def _vector(self, vector: int) -> int:
        return vector if vector < self._vectors else abi.VIRTIO_MSI_NO_VECTOR

    def take_isr(self) -> int:
        """Return the interrupt status and clear it."""
        isr, self.isr = self.isr, 0
        return isr

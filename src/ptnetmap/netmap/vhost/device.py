# SPDX-License-Identifier: BSD-2-Clause
"""What a back-end's connection asks of the device behind it."""

from __future__ import annotations

from typing import Protocol

from ptnetmap.netmap.vhost.memory import Table
from ptnetmap.netmap.vhost.queue import Setup


class Device(Protocol):
    """A virtio device whose queues a front-end hands over.

    Methods raise OSError (a PtnetmapError, say) for what cannot be; all is then as it was, descriptors are still the
    connection's, and the front-end is told. Those that say so must not raise. All are called by the thread that calls
    the connection, never two at once.
    """

    def set_features(self, features: int) -> None:
        """Use these of the features that were offered; while a queue runs, only VHOST_F_LOG_ALL changes.

        VHOST_USER_F_PROTOCOL_FEATURES is not among them. With VHOST_F_LOG_ALL, every page that is written to is marked
        in the log.
        """

    def set_memory(self, table: Table) -> None:
        """Use this memory, and no other, from now on; no queue runs. The device owns, and closes, the descriptors.

        A region whose ``fd`` is -1 was in the table before, and keeps its mapping. Files may be too short or no files
        that can be mapped.
        """

    def start_queue(self, index: int, setup: Setup) -> None:
        """Serve a queue; if it is not enabled, drop what is sent and deliver nothing."""

    def stop_queue(self, index: int) -> int:
        """Complete what is in flight, and touch the queue and its descriptors no more; return where it stands.

        That is ``last_avail`` of a split queue; of a packed one, both sides as in :class:`Setup`. Must not raise.
        """

    def enable_queue(self, index: int, on: bool) -> None:
        """Enable or disable a running queue. Must not raise."""

    def set_call(self, index: int, fd: int) -> None:
        """Signal ``fd`` from now on, -1 for none, when a running queue has used buffers; the old one is about to be closed."""

    def set_error(self, index: int, fd: int) -> None:
        """Signal ``fd`` from now on, -1 for none, when a running queue breaks; the old one is about to be closed."""

    def log_queue(self, index: int, log: int | None) -> None:
        """Log, or log no more, what is written to a running queue's used ring, as ``Setup.log``. Must not raise."""

    def set_log(self, fd: int, size: int, offset: int) -> None:
        """Mark pages in this memory from now on; the device owns ``fd``. Queues may run.

        Bit ``n`` stands for the page at guest address ``n * VHOST_LOG_PAGE``; pages beyond ``size`` bytes have none.
        """

    def set_log_event(self, fd: int) -> None:
        """Signal ``fd`` from now on when pages were marked; it is the connection's, which is about to close the old one."""

    def make_inflight(self, queues: int, queue_size: int) -> tuple[int, int, int]:
        """Make memory to note buffers in flight in; return (fd, size, offset). ``fd`` is the caller's."""

    def set_inflight(self, fd: int, size: int, offset: int, queues: int, queue_size: int) -> None:
        """Note buffers in flight here, after recovering those that are noted; no queue runs; the device owns ``fd``."""

    def set_mtu(self, mtu: int) -> None:
        """Let the guest see this MTU, in 68..65535."""

    def send_rarp(self, mac: bytes) -> None:
        """Announce 6 bytes of MAC address to the network: its machine has just come here."""

    def get_config(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of the configuration space, all within it."""

    def reset(self) -> None:
        """Be as new, but keep memory: no features, no log, nothing in flight. No queue runs. Must not raise."""

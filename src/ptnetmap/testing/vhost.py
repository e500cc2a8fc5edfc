# SPDX-License-Identifier: BSD-2-Clause
"""A device behind a vhost-user connection that only notes what it is asked, and asserts that it can be asked that."""

from __future__ import annotations

import errno
import os

from ptnetmap.errors import PortError
from ptnetmap.netmap.vhost.memory import Region, Table
from ptnetmap.netmap.vhost.queue import Setup


class RecordingDevice:
    """A :class:`ptnetmap.netmap.vhost.Device`: ``calls`` are the names of methods called, with their arguments.

    Methods named in ``refused`` raise PortError (EIO). A queue that is stopped stands where ``bases`` says, or where it
    was started. ``mappings`` are regions with the descriptors that are the device's.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.refused: set[str] = set()
        self.bases: dict[int, int] = {}
        self.features = 0
        self.mappings: list[Region] = []
        self.running: dict[int, Setup] = {}
        self.log: int = -1
        self.inflight: int = -1

    def close(self) -> None:
        """Close all descriptors; no queue runs."""
        assert not self.running
        for fd in self.fds:
            os.close(fd)
        self.mappings = []
        self.log = self.inflight = -1

    @property
    def fds(self) -> set[int]:
        """The descriptors that are the device's."""
        return {*(mapping.fd for mapping in self.mappings), self.log, self.inflight} - {-1}

    def set_features(self, features: int) -> None:
        """See :meth:`ptnetmap.netmap.vhost.Device.set_features`, as for all that follow."""
        self._note("set_features", features)
        self.features = features

    def set_memory(self, table: Table) -> None:
        """Keep mappings that were there, take those that are new, close the rest."""
        assert not self.running
        self._note("set_memory", tuple(region._replace(fd=-1) for region in table))
        kept: list[Region] = []
        for region in table:
            if region.fd < 0:
                kept.append(next(mapping for mapping in self.mappings if mapping[:4] == region[:4]))
            else:
                os.fstat(region.fd)
                kept.append(region)
        gone = {mapping.fd for mapping in self.mappings} - {mapping.fd for mapping in kept}
        self.mappings = kept
        for fd in gone:
            os.close(fd)

    def start_queue(self, index: int, setup: Setup) -> None:
        """Note that a queue runs."""
        assert index not in self.running
        for fd in {setup.kick, setup.call, setup.error} - {-1}:
            os.fstat(fd)
        self._note("start_queue", index, setup)
        self.running[index] = setup

    def stop_queue(self, index: int) -> int:
        """Note that a queue does not run."""
        self.calls.append(("stop_queue", index))
        setup = self.running.pop(index)
        for fd in {setup.kick, setup.call, setup.error} - {-1}:
            os.fstat(fd)
        return self.bases.get(index, setup.base)

    def enable_queue(self, index: int, on: bool) -> None:
        """Note whether a running queue is enabled."""
        self.calls.append(("enable_queue", index, on))
        self.running[index] = self.running[index]._replace(enabled=on)

    def set_call(self, index: int, fd: int) -> None:
        """Note a running queue's new descriptor."""
        self._note("set_call", index, fd)
        self.running[index] = self.running[index]._replace(call=fd)

    def set_error(self, index: int, fd: int) -> None:
        """Note a running queue's new descriptor."""
        self._note("set_error", index, fd)
        self.running[index] = self.running[index]._replace(error=fd)

    def log_queue(self, index: int, log: int | None) -> None:
        """Note whether a running queue is logged."""
        self.calls.append(("log_queue", index, log))
        self.running[index] = self.running[index]._replace(log=log)

    def set_log(self, fd: int, size: int, offset: int) -> None:
        """Take a log."""
        os.fstat(fd)
        self._note("set_log", size, offset)
        self.log = self._instead(self.log, fd)

    def set_log_event(self, fd: int) -> None:
        """Note that there is one."""
        os.fstat(fd)
        self._note("set_log_event")

    def make_inflight(self, queues: int, queue_size: int) -> tuple[int, int, int]:
        """Make a file, 64 bytes for each entry."""
        self._note("make_inflight", queues, queue_size)
        size = 64 * queues * queue_size
        fd = os.memfd_create("inflight")
        os.truncate(fd, size)
        return fd, size, 0

    def set_inflight(self, fd: int, size: int, offset: int, queues: int, queue_size: int) -> None:
        """Take such a file."""
        assert not self.running
        os.fstat(fd)
        self._note("set_inflight", size, offset, queues, queue_size)
        self.inflight = self._instead(self.inflight, fd)

    def set_mtu(self, mtu: int) -> None:
        """Note it."""
        self._note("set_mtu", mtu)

    def send_rarp(self, mac: bytes) -> None:
        """Note it."""
        self._note("send_rarp", mac)

    def get_config(self, offset: int, size: int) -> bytes:
        """Return bytes that count."""
        self._note("get_config", offset, size)
        return bytes((offset + n) % 256 for n in range(size))

    def reset(self) -> None:
        """Forget what was noted, but for memory."""
        assert not self.running
        self.calls.append(("reset",))
        self.features = 0
        self.log = self._instead(self.log, -1)
        self.inflight = self._instead(self.inflight, -1)

    def _note(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name in self.refused:
            raise PortError(errno.EIO, f"device: cannot {name}\n        ask for something else")

    def _instead(self, old: int, new: int) -> int:
        if old >= 0:
            os.close(old)
        return new

# SPDX-License-Identifier: BSD-2-Clause
"""A port that a device of the guest passes through: opened at netmapd, and served by its kthreads while the guest asks."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence

from ptnetmap.bhyve.host import Host, Memory
from ptnetmap.errors import ConfigError, GuestError, PortError, PtnetmapError
from ptnetmap.netmap.client.guestport import GuestPort

CSB_ALIGN = 64
"""Alignment that a CSB must have, in bytes: no cache line of it has anything else."""

_log = logging.getLogger(__name__)


def port_name(backend: str) -> str:
    """Return netmap's name of the port that a backend passes through: ``vale1:1`` for ``ptvale1:1``.

    ``ptvale2{1`` is a pipe of a port called vale2, which netmap writes ``netmap:vale2{1``.
    """
    name = backend.removeprefix("pt")
    return name if ":" in name else f"netmap:{name}"


class PassedPort:
    """The port of ``backend``, for the device called ``label``.

    Raises ConfigError, in bhyve's words, if it cannot be opened; ``lossless`` lets its senders wait while it is full.
    ``refusals`` counts what the guest asked for in vain.
    """

    def __init__(self, host: Host, backend: str, label: str, *, lossless: bool = False) -> None:
        self._host = host
        self._label = label
        self.refusals = 0
        try:
            self.netmap = GuestPort(port_name(backend))
            try:
                if lossless:
                    self.netmap.set_lossless(True)
            except PortError:
                self.netmap.close()
                raise
        except PtnetmapError as error:
            raise ConfigError(
                f"net backend initialization failed: {backend}\n        {error}", error.errno or errno.ENXIO
            ) from error
        self._loop = host.loop
        if self._loop:
            self._loop.add_reader(self.netmap.fileno(), self._heard)

    @property
    def served(self) -> bool:
        """Whether kthreads serve it."""
        return self.netmap.served

    def start(
        self,
        layout: int,
        csb: Sequence[tuple[int, int]],
        kicks: Sequence[int],
        interrupts: Sequence[int],
    ) -> int:
        """Let kthreads serve the rings, as :meth:`GuestPort.start`; return 0 or the errno that the guest is to read.

        ``csb`` are guest-physical addresses and sizes of the CSB's parts, as the guest gave them.
        """
        if self.served:
            return errno.EBUSY
        memory = self._host.memory
        try:
            places = [file_offset(memory, address, size) for address, size in csb]
            self.netmap.start(layout, memory.fd, places, kicks, interrupts)
        except PtnetmapError as error:
            return self.refuse(error)
        return 0

    def refuse(self, error: PtnetmapError) -> int:
        """Return the errno that the guest is to read; the first one is told of, a guest may ask for ever."""
        self.refusals += 1
        if self.refusals == 1:
            _log.warning("%s: %s", self._label, error)
        return error.errno or errno.EIO

    def stop(self) -> None:
        """Let nobody serve the rings; on return the guest's memory is not touched any more. Harmless when repeated."""
        self.netmap.stop()

    def _heard(self) -> None:
        """Say so when netmapd has gone: its kthreads are with it, and the guest's rings stand still."""
        with self._host.lock:
            if not self.netmap.gone:
                return
            self._forget()
            _log.warning(
                "%s: netmapd at %s %s, and %s stands still\n        start the machine again",
                self._label,
                self.netmap.address,
                self.netmap.loss,
                self.netmap.name,
            )

    def _forget(self) -> None:
        if self._loop:
            self._loop.remove_reader(self.netmap.fileno())
            self._loop = None

    def close(self) -> None:
        """Give the port back, on the event loop's thread. Harmless when repeated."""
        self._forget()
        self.netmap.close()


def file_offset(memory: Memory, address: int, size: int) -> int:
    """Return where in the memory's file ``size`` bytes at the guest-physical ``address`` are.

    Raises GuestError: EINVAL for an address that is not aligned to 64 bytes, EFAULT for one outside of RAM, as a BAR's.
    """
    if address % CSB_ALIGN:
        raise GuestError(
            errno.EINVAL, f"the guest's CSB is at {address:#x}\n        it has to be at a multiple of {CSB_ALIGN}"
        )
    for segment in memory.segments:
        if segment.gpa <= address and address + size <= segment.gpa + segment.size:
            return segment.offset + address - segment.gpa
    raise GuestError(
        errno.EFAULT, f"the guest's CSB of {size:,} bytes at {address:#x} is not in its RAM\n        it has to be"
    )

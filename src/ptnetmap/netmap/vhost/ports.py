# SPDX-License-Identifier: BSD-2-Clause
"""The port of a vhost-user socket: at netmapd, or, for memory that may vanish, at a worker process of its own.

Files of hugetlbfs and /dev/shm, and memfds that cannot be sealed, can be cut short by whoever has them, and the next
touch ends the process that mapped them. netmapd therefore takes none; the worker is a netmapd that relays to it, and what
ends it ends this port alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ptnetmap.errors import PortError
from ptnetmap.netmap.client.virtioport import MemoryRegion, VirtioPort
from ptnetmap.netmap.shared import is_huge

_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 0x2
_PR_SET_PDEATHSIG = 1
_START_S = 120.0
_LOOK_S = 0.02


class Worker:
    """A netmapd that relays to the one at ``address``, as a child of this process. Raises PortError if it does not start."""

    def __init__(self, address: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ptnetmap-worker-")
        self.address = str(Path(self._directory.name) / "s")
        words = ["--foreground", "--socket", self.address, "--relay", address]
        code = f"from ptnetmap.netmap.vhost.ports import serve; serve({os.getpid()}, {words!r})"
        path = os.pathsep.join(one for one in sys.path if one)
        self._process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
        deadline = time.monotonic() + _START_S
        while not Path(self.address).exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise PortError(
                    errno.ECHILD,
                    "vhost-user: the worker for this guest's memory did not start\n        see what it said",
                )
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """End it. Harmless when repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()


class Ports:
    """The port called ``name``, wherever it is at the moment; ``make`` opens it at the netmapd of a socket (None: the usual).

    ``tell`` hears when that changes. A context manager.
    """

    def __init__(self, make: Callable[[str | None], VirtioPort], tell: Callable[[str], None]) -> None:
        self._make = make
        self._tell = tell
        self.port = make(None)
        self._address = self.port.address
        self._worker: Worker | None = None
        self._log: tuple[int, int, int] | None = None

    def __enter__(self) -> Ports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_worker(self) -> bool:
        """Whether the port is a worker's."""
        return self._worker is not None

    def set_memory(self, regions: Sequence[MemoryRegion]) -> None:
        """Pass the guest's memory on, to a worker if netmapd cannot take it; no queue is served then."""
        try:
            self.port.set_memory(regions)
        except PortError as error:
            if error.errno != errno.EINVAL or self.has_worker or all(is_lasting(region.fd) for region in regions):
                raise
            self._tell("this memory may vanish: a worker process serves it")
            self.port.close()  # its name is what the worker needs
            self._worker = Worker(self._address)
            self.port = self._make(self._worker.address)
            self.port.set_memory(regions)
            if self._log is not None:
                self.port.set_log(*self._log)

    def set_log(self, log: tuple[int, int, int] | None) -> None:
        """Have what is written to guest memory noted in a log: descriptor, size, offset; or not noted."""
        self.port.set_log(*(log or (-1,)))
        self._log = log

    def reset(self) -> None:
        """Be at netmapd again, for the next front end, and log nothing for it."""
        self._log = None
        if self._worker is not None:
            self.close()
            self.port = self._make(self._address)

    def close(self) -> None:
        """Give the port back, and end the worker. Harmless when repeated."""
        self.port.close()
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def is_lasting(fd: int) -> bool:
    """Whether nobody can take a file's memory away any more: it cannot be cut short, nor have holes that stay."""
    try:
        return bool(fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK) and not is_huge(fd)
    except OSError:
        return False


def serve(parent: int, words: list[str]) -> None:
    """Be a worker, for as long as the process that started this one is there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before the kernel was told
        return
    from ptnetmap.cli.netmapd import main

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    sys.exit(main(words))

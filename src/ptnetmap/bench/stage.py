# SPDX-License-Identifier: BSD-2-Clause
"""The processes of a benchmark: a netmapd of its own, and those that open ports of it.

All are started when a case first needs them and stay until this process ends: nothing that a run does may wait for an
interpreter. Whatever goes wrong, the next run has new ones.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from ptnetmap.bench import traffic
from ptnetmap.bench.ends import End, load_kernels
from ptnetmap.bench.remote import Remote
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap.client.session import Session, connect
from ptnetmap.netmap.daemon.locks import holder
from ptnetmap.netmap.daemon.place import beside
from ptnetmap.netmap.runtime import KERNELS
from ptnetmap.netmap.shared import SharedBlock

_SECONDS_TO_END = 10


class OwnNetmapd:
    """A netmapd for this process alone, started as any first client starts one; :meth:`close` ends it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ptnetmap-bench-")
        self.address = str(Path(self._directory.name) / "socket")
        try:
            self.session: Session = connect(self.address)  # while it is open, netmapd stays
        except BaseException:
            self._directory.cleanup()
            raise
        self.pid = holder(beside(Path(self.address), "lock")) or -1
        self._process = os.pidfd_open(self.pid)  # which stays its own, whoever may get its id one day

    @contextmanager
    def on_core(self, core: int | None) -> Iterator[None]:
        """Keep all its threads on one core for a while, as ``netmapd --cpus`` does with kthreads; None leaves them."""
        threads = [] if core is None else [int(one.name) for one in Path(f"/proc/{self.pid}/task").iterdir()]
        before = {thread: os.sched_getaffinity(thread) for thread in threads}
        try:
            for thread in threads:
                os.sched_setaffinity(thread, {core or 0})
            yield
        finally:
            for thread, cores in before.items():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, cores)

    def close(self) -> None:
        """End it, and remove its directory."""
        self.session.close()
        ended = select.poll()
        ended.register(self._process, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)
            if ended.poll(_SECONDS_TO_END * 1000):
                break
        os.close(self._process)
        self._directory.cleanup()


class Stage:
    """The netmapd and the processes that play the two ends and the third; :meth:`close` ends them."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._netmapd: OwnNetmapd | None = None
        self._ends: list[Remote] = []
        self._runs = SharedBlock("ptnetmap-bench", traffic.run, 2)
        self._count = 0

    @property
    def runs(self) -> SharedBlock:
        """Memory that all ends share: a :data:`~ptnetmap.bench.traffic.run` for the pair, and one for the third."""
        return self._runs

    @property
    def netmapd(self) -> OwnNetmapd:
        """The daemon; started if there is none."""
        if self._netmapd is None:
            warm_up("runtime", KERNELS)  # here first: several processes that find no cache would all compile
            load_kernels()
            self._netmapd = OwnNetmapd()
            self._opened.callback(self._netmapd.close)
        return self._netmapd

    def number(self) -> int:
        """Return another number each time, to name switches and pipes by: those of the last run may still be closing."""
        self._count += 1
        return self._count

    @contextmanager
    def ends(self, count: int = 2) -> Iterator[list[Remote]]:
        """The first ``count`` ends, without ports before and after; the shared runs are zeroed."""
        try:
            address = self.netmapd.address
            fresh = [Remote(End, address, self._runs.fd, fds=(self._runs.fd,)) for _ in range(len(self._ends), count)]
            for end in fresh:
                self._opened.callback(end.close)
            for end in fresh:
                end.end()
            self._ends += fresh
            chosen = self._ends[:count]
            self._runs.items[:] = np.zeros((), traffic.run)
            yield chosen
            for end in chosen:
                end.do("close")
        except BaseException:  # they may be anywhere: the next run starts new ones
            self.close()
            raise

    def close(self) -> None:
        """End all processes."""
        self._ends = []
        self._netmapd = None
        self._opened.close()


stage = Stage()
"""That of this process."""

atexit.register(stage.close)

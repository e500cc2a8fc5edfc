# SPDX-License-Identifier: BSD-2-Clause
r"""Both ends of the pipe over which a starting daemon tells its starter how it goes.

The daemon writes ``.`` about once a second while it works, then either ``R`` and its process id, or ``F``, an errno, a
newline and a message; then it closes the pipe. A pipe that ends without either: the daemon died.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from typing import NamedTuple

from ptnetmap.errors import PtnetmapError
from ptnetmap.netmap.daemon.locks import Lock
from ptnetmap.netmap.daemon.patience import Patience

BEAT = 1.0
_WORK = 0.01  # seconds of CPU time that count as work: a hung daemon uses none, and its starter shall give up


class Outcome(NamedTuple):
    """How a start ended: ``pid`` of the daemon, or ``errno`` and ``message``; none of them if it died silently."""

    pid: int = 0
    errno: int = 0
    message: str = ""


class Reporter:
    """The daemon's end. Also keeps those informed who wait for the start lock, and gives it up at last.

    Without a pipe (``fd`` None: nobody is told) it only looks after the lock.
    """

    def __init__(self, fd: int | None, lock: Lock | None) -> None:
        self._fd = fd
        self._lock = lock
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="netmapd-starting", daemon=True)
        if fd is not None:
            os.set_inheritable(fd, False)
        self._beats.start()

    def ready(self) -> None:
        """The daemon listens."""
        self._end(b"R%d" % os.getpid())

    def failed(self, error: BaseException) -> None:
        """The daemon cannot start; without effect after :meth:`ready`."""
        if isinstance(error, PtnetmapError):
            code, message = error.errno or errno.EIO, str(error)
        elif isinstance(error, SystemExit):
            code, message = errno.EINTR, "netmapd: it was stopped while it started\n        start it again"
        else:
            code = getattr(error, "errno", None) or errno.EIO
            message = f"netmapd: it failed while it started: {type(error).__name__}: {error}"
        self._end(b"F%d\n%s" % (code, message.encode(errors="replace")))

    def _end(self, answer: bytes) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._beats.join()
        if self._fd is not None:
            self._write(answer)
            os.close(self._fd)
        if self._lock is not None:
            self._lock.close()

    def _beat(self) -> None:
        before = time.process_time()
        while not self._over.wait(BEAT):
            now = time.process_time()
            if now - before > _WORK:
                self._write(b".")
                if self._lock is not None:
                    self._lock.touch()
            before = now

    def _write(self, data: bytes) -> None:
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):  # the starter went away; the daemon is as good for others
                os.write(self._fd, data)


def await_outcome(fd: int, patience: Patience) -> Outcome | None:
    """The starter's end: wait for the daemon's last word on the pipe ``fd``; None if it showed no life for too long."""
    answer = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        left = patience.wait_at_most()
        if left == 0:
            return None
        if not poll.poll(left * 1000):
            continue
        data = os.read(fd, 65536)
        if not data:
            return _parse(answer)
        patience.renew()
        answer += data.lstrip(b".") if not answer else data


def _parse(answer: bytes) -> Outcome:
    kind, rest = answer[:1], answer[1:].decode(errors="replace")
    if kind == b"R":
        return Outcome(pid=int(rest))
    if kind == b"F":
        code, _, message = rest.partition("\n")
        return Outcome(errno=int(code), message=message)
    return Outcome()

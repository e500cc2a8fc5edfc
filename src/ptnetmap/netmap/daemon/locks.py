# SPDX-License-Identifier: BSD-2-Clause
"""Two locks beside each socket, so that any number of clients and daemons agree on one daemon.

``socket.start`` is held while a daemon comes into being or goes: by the client that starts it *and* by the daemon, which
inherits the open file, until both are done. Whoever waits for it then finds the daemon listening, or nobody.
``socket.lock`` is held by the daemon for its life: whoever gets it knows that a socket file there is stale.

The files stay when nobody holds them: removing a lock file lets two processes lock two files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.daemon.place import beside

_AGAIN = 0.05


class Lock:
    """An flock on a file; ``with`` releases it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd = -1

    @classmethod
    def inherited(cls, file: Path, fd: int) -> Lock:
        """The lock on ``file`` that another process handed to this one as the open file ``fd``."""
        lock = cls(file)
        lock._fd = fd
        os.set_inheritable(fd, False)
        return lock

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def fileno(self) -> int:
        """The open file that holds the lock."""
        return self._fd

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Raises DaemonError if its file cannot be opened."""
        while True:
            fd = self._open()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), self.file.stat()):
                    self._fd = fd
                    return True
            os.close(fd)  # somebody cleaned the directory up meanwhile: that file is nobody's lock any more

    def acquire(self, patience: Patience) -> None:
        """Wait for the lock, as long as its holder shows signs of life (:meth:`touch`).

        Raises DaemonError (ETIMEDOUT) naming the holder.
        """
        seen = 0
        while not self.try_acquire():
            with contextlib.suppress(OSError):
                touched = self.file.stat().st_mtime_ns
                if touched != seen:
                    seen = touched
                    patience.renew()
            if not patience.pause(_AGAIN):
                pid = holder(self.file)
                raise DaemonError(
                    errno.ETIMEDOUT,
                    f"netmap: another process{f' ({pid})' if pid else ''} has been starting netmapd for too long; "
                    f"it holds {self.file}\n        see {self.file.with_suffix('.log')}, or end that process",
                )

    def sign(self) -> None:
        """Write this process's id into the file, for messages."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def touch(self) -> None:
        """Show those who wait that this process is still at it."""
        if self._fd >= 0:
            os.utime(self._fd)

    def release(self) -> None:
        """Give the lock up, for all processes that share the open file."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close()

    def close(self) -> None:
        """Let go of the open file; the lock stays with a process that shares it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        try:
            return os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DaemonError(
                error.errno or errno.EIO,
                f"netmap: cannot open {self.file}, the lock for starting netmapd: {error.strerror}\n"
                "        set NETMAP_SOCKET to a path in a directory of your own",
            ) from error


def start_lock(path: Path) -> Lock:
    """The lock for starting and leaving of the socket at ``path``, not yet taken."""
    return Lock(beside(path, "start"))


def life_lock(path: Path) -> Lock:
    """The lock that the daemon of the socket at ``path`` holds, not yet taken."""
    return Lock(beside(path, "lock"))


def holder(file: Path) -> int | None:
    """The process that signed the lock ``file`` last, if one did."""
    try:
        return int(file.read_bytes())
    except (OSError, ValueError):
        return None

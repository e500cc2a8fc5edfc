# SPDX-License-Identifier: BSD-2-Clause
"""Starting netmapd from another process: detached, with a log, and with the reason if it does not work."""

from __future__ import annotations

import contextlib
import errno
import os
import site
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import ptnetmap
from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.locks import Lock
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.daemon.place import beside, describe
from ptnetmap.netmap.daemon.readiness import Outcome, await_outcome

NETMAPD = (sys.executable, "-m", "ptnetmap.cli.netmapd")
"""The command that starts netmapd."""

_LOG_LIMIT = 1 << 20
_NOT_FOR_THE_DAEMON = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def log_file(path: Path) -> Path:
    """Where a daemon that was started in the background for the socket ``path`` writes its messages."""
    return beside(path, "log")


def start(path: Path, lock: Lock, patience: Patience, program: Sequence[str] = NETMAPD) -> int:
    """Start a daemon for the socket ``path`` and wait until it listens; return its process id.

    ``lock`` is the start lock, taken; the daemon shares it until it listens, and the caller releases it once it is
    connected. ``program`` gets the options for the socket appended. Raises DaemonError with the daemon's own message,
    or ETIMEDOUT if it showed no life for too long; the daemon then keeps the lock.
    """
    reading, writing = os.pipe()
    try:
        outcome = _run(path, lock, patience, program, reading, writing)
    finally:
        os.close(reading)
    if outcome is None:
        raise DaemonError(
            errno.ETIMEDOUT,
            f"netmap: netmapd was started for {describe(path)} and has not answered since\n"
            f"        see {log_file(path)}; end it, or give it more time (timeout=)",
        )
    if outcome.pid:
        return outcome.pid
    lock.release()
    if outcome.message:
        raise DaemonError(outcome.errno, f"{outcome.message}\n        its log: {log_file(path)}")
    raise DaemonError(
        errno.EIO,
        f"netmap: netmapd was started for {describe(path)} and died{_last_words(path)}\n        see {log_file(path)}",
    )


def _run(
    path: Path, lock: Lock, patience: Patience, program: Sequence[str], reading: int, writing: int
) -> Outcome | None:
    """Spawn the daemon and hear it out. The child itself ends at once: the daemon is a child of its."""
    passed = (writing, lock.fileno())
    options = ["--socket", str(path), "--detached", f"{passed[0]},{passed[1]}"]
    try:
        with _open_log(path) as log:
            child = _spawn([*program, *options], log, passed)
    finally:
        os.close(writing)
    try:
        outcome = await_outcome(reading, patience)
    except BaseException:
        lock.close()  # an interrupt: the daemon goes on, and so do those who wait for it
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
    if outcome is None:
        lock.close()
    return outcome


def _spawn(command: Sequence[str], log: BinaryIO, passed: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Run ``command`` in a session of its own, with ``passed`` as its only other files."""
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=_environment(),
            pass_fds=passed,
            start_new_session=True,
        )
    except OSError as error:
        raise DaemonError(
            error.errno or errno.EIO,
            f"netmap: cannot run {command[0] or 'Python'} to start netmapd: {error.strerror}\n"
            "        start it by hand: netmapd",
        ) from error


def _open_log(path: Path) -> BinaryIO:
    """Open the log for appending, begun anew if it has become large, and write whose daemon this is."""
    file = log_file(path)
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DaemonError(
            error.errno or errno.EIO,
            f"netmap: cannot start netmapd: its log {file} cannot be written: {error.strerror}\n"
            "        remove it, or set NETMAP_SOCKET to a path in a directory of your own",
        ) from error
    log = os.fdopen(fd, "ab", buffering=0)
    if os.fstat(fd).st_size > _LOG_LIMIT:
        log.truncate(0)
    log.write(f"--- {time.strftime('%F %T')} started by process {os.getpid()}\n".encode())
    return log


def _last_words(path: Path) -> str:
    """The last line of the log, if the daemon that died wrote one: most often an exception."""
    with contextlib.suppress(OSError):
        lines = log_file(path).read_text(errors="replace")[-2000:].splitlines()
        if lines and not lines[-1].startswith("---"):
            return f": {lines[-1]}"
    return ""


def _environment() -> dict[str, str]:
    """The daemon's environment: nothing that systemd meant for this process, and this package where it was found.

    A program that runs in its source tree finds the package by its own directory or a relative PYTHONPATH, which the
    daemon, in another directory, would not.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_DAEMON}
    paths = [str(Path.cwd() / entry) for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    root = str(Path(ptnetmap.__file__).resolve().parent.parent)
    if root not in {*paths, *site.getsitepackages(), site.getusersitepackages()}:
        paths.append(root)
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment

# SPDX-License-Identifier: BSD-2-Clause
"""Where running machines are found: ``NAME.sock`` and ``NAME.lock`` in a directory of the user's own.

A machine holds the lock on ``NAME.lock`` as long as it lives, and has written its process's id there. The kernel gives
the lock up when the process dies, however it does; whoever gets the lock then knows that what lies there is left over,
and may remove it. The lock file itself is removed only by its holder, and a lock counts only while its file is the one
at that path: two processes never hold one name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.bhyve.settings import check_name, is_name
from ptnetmap.errors import ConfigError

TEMPORARY = Path("/tmp")  # not $TMPDIR: all processes of a user have to agree
SYSTEM = Path("/run")
LONGEST = 107
"""Bytes of a socket's path: sun_path without its NUL."""

_SWEEPING = 0.5
"""Seconds for which somebody who removes leftovers may hold a lock, generously."""


def directory() -> Path:
    """The user's directory: in ``$XDG_RUNTIME_DIR``, else ``/run`` for root, else ``/tmp``. Nothing is created.

    A runtime directory of somebody else, as ``sudo -E`` leaves it behind, does not count.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute():
        with contextlib.suppress(OSError):
            found = Path(runtime).stat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                return Path(runtime) / "ptnetmap" / "bhyve"
    if os.geteuid() == 0:
        return SYSTEM / "ptnetmap" / "bhyve"
    return TEMPORARY / f"ptnetmap-{os.geteuid()}" / "bhyve"


def socket_path(name: str, place: Path | None = None) -> Path:
    """The socket of the machine ``name``. Raises ConfigError for a name that cannot be, or is too long for there."""
    check_name(name)
    path = (place or directory()) / f"{name}.sock"
    excess = len(os.fsencode(path)) - LONGEST
    if excess > 0:
        raise ConfigError(
            f"invalid name for a virtual machine: '{name}' makes {path} too long for a socket\n"
            f"        use a name that is {excess} characters shorter"
        )
    return path


class Claim:
    """The right to a name, held until :meth:`close`, or until the process ends.

    ``place`` is the directory, the user's own unless given; it is made if it is not there. Raises ControlError: EEXIST
    if a machine of that name runs, and what :func:`prepare` raises.
    """

    def __init__(self, name: str, place: Path | None = None) -> None:
        self.name = name
        self.path = socket_path(name, place)
        prepare(self.path.parent)
        deadline = time.monotonic() + _SWEEPING
        while (fd := _lock(self.path.with_suffix(".lock"))) is None:
            # Somebody who sweeps up what a dead machine left holds it for an instant; a machine, for good.
            if time.monotonic() > deadline:
                pid = holder(name, place)
                raise ControlError(
                    errno.EEXIST,
                    f"a virtual machine {name} is running already{f', process {pid}' if pid else ''}\n"
                    f"        use another name, or end it: bhyvectl --vm={name} --destroy",
                )
            time.sleep(0.01)
        self._fd = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the name up, and remove its files. Harmless when repeated."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _remove(self.path, fd)


def names(place: Path | None = None) -> list[str]:
    """The names in the directory, of machines that run and of those that left something behind, in order."""
    try:
        entries = [entry.name for entry in (place or directory()).iterdir()]
    except OSError:
        return []
    found = {entry.removesuffix(suffix) for entry in entries for suffix in (".sock", ".lock") if entry.endswith(suffix)}
    return sorted(name for name in found if is_name(name))


def is_held(name: str, place: Path | None = None) -> bool:
    """Whether a machine ``name`` is there, listening or not."""
    lock = socket_path(name, place).with_suffix(".lock")
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # A shared lock, which several who look can have at once; one who claims the name tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def holder(name: str, place: Path | None = None) -> int | None:
    """The process that claimed ``name`` last, if that can be read."""
    lock = socket_path(name, place).with_suffix(".lock")
    try:
        pid = int(lock.read_bytes()[:20])
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def sweep(name: str, place: Path | None = None) -> bool:
    """Remove what a dead machine ``name`` left; False if one is alive, or nothing is there."""
    path = socket_path(name, place)
    lock = path.with_suffix(".lock")
    if not (path.is_socket() or lock.exists()):
        return False
    try:
        fd = _lock(lock)
    except ControlError:
        return False
    if fd is None:
        return False
    _remove(path, fd)
    return True


def prepare(place: Path) -> None:
    """Make the directory ``place``, and the one it is in, for the user alone.

    Raises ControlError if that cannot be, or if others could have put something there: EACCES, ELOOP, ENOTDIR.
    """
    for each in (place.parent, place):
        try:
            each.mkdir(mode=0o700, exist_ok=True)
            found = each.lstat()
        except OSError as error:
            raise ControlError(
                error.errno or errno.EIO,
                f"cannot make the directory {each} for the sockets of virtual machines: {error.strerror}\n"
                "        set XDG_RUNTIME_DIR to a directory of your own",
            ) from error
        if stat.S_ISLNK(found.st_mode):
            code, fault = errno.ELOOP, "is a symbolic link"
        elif found.st_uid != os.geteuid():
            code, fault = errno.EACCES, f"belongs to uid {found.st_uid}, not to you (uid {os.geteuid()})"
        elif found.st_mode & 0o022:
            code, fault = errno.EACCES, f"has mode {stat.S_IMODE(found.st_mode):04o}, so that others may write there"
        else:
            continue
        raise ControlError(
            code,
            f"the directory {each} for the sockets of virtual machines {fault}\n"
            "        have it removed, or set XDG_RUNTIME_DIR to a directory of your own",
        )


def _lock(file: Path) -> int | None:
    """Lock ``file``, making it if need be, and return the open file; None if somebody else has it."""
    while True:
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ControlError(
                error.errno or errno.EIO,
                f"cannot open {file}: {error.strerror}\n        set XDG_RUNTIME_DIR to a directory of your own",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), file.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)  # its holder removed it meanwhile: that file is nobody's lock any more


def _remove(path: Path, fd: int) -> None:
    """Remove a socket and its lock, whose open file ``fd`` is, in an order that leaves no socket without a lock."""
    for each in (path, path.with_suffix(".lock")):
        with contextlib.suppress(OSError):
            each.unlink()
    os.close(fd)

# SPDX-License-Identifier: BSD-2-Clause
"""Which socket: ``$NETMAP_SOCKET``, else the system's if there is one, else the user's."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from ptnetmap.netmap.daemon.errors import DaemonError

SYSTEM = Path("/run/netmap/socket")
TEMPORARY = Path("/tmp")  # not $TMPDIR: all processes of a user have to agree
LONGEST = 107
"""Bytes of a socket's path: sun_path without its NUL."""


class Place(NamedTuple):
    """A netmapd's socket, and whether a client may start a daemon there."""

    path: Path
    may_start: bool


def find(asked: str | os.PathLike[str] | None = None) -> Place:
    """Return the socket to use: ``asked`` (an option of a program), or the first of the usual ones.

    Nothing is created. Raises DaemonError: EINVAL for a ``NETMAP_SOCKET`` that is not absolute, ENAMETOOLONG, and
    EACCES, ENOTDIR or ELOOP if the user's directory is not what :func:`check_private` wants.
    """
    named = os.environ.get("NETMAP_SOCKET")
    if asked is not None:
        path = Path.cwd() / asked
    elif named:
        path = Path(named)
        if not path.is_absolute():
            raise DaemonError(
                errno.EINVAL,
                f"netmap: NETMAP_SOCKET is {named!r}, which is not an absolute path\n"
                f"        set it to one, such as {Path.cwd() / named}, or unset it",
            )
    elif SYSTEM.exists():
        return Place(SYSTEM, may_start=False)
    else:
        path = user_socket()
    _check_path(path)
    if path == user_socket():
        check_private(path.parent)
        return Place(path, may_start=True)
    return Place(path, may_start=path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK))


def user_socket() -> Path:
    """The user's socket: ``$XDG_RUNTIME_DIR/netmap/socket``, else ``/tmp/netmap-UID/socket``.

    A runtime directory of somebody else, as ``sudo -E`` leaves it behind, does not count.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        try:
            found = Path(runtime).stat()
        except OSError:
            found = None
        if found is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            return Path(runtime) / "netmap" / "socket"
    return TEMPORARY / f"netmap-{os.geteuid()}" / "socket"


def check_private(directory: Path) -> None:
    """Raise DaemonError if ``directory`` exists but others could have put a socket there."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        code, fault = errno.ELOOP, "is a symbolic link"
    elif not stat.S_ISDIR(found.st_mode):
        code, fault = errno.ENOTDIR, "is not a directory"
    elif found.st_uid != os.geteuid():
        code, fault = errno.EACCES, f"belongs to uid {found.st_uid}, not to you (uid {os.geteuid()})"
    elif found.st_mode & 0o077:
        code, fault = errno.EACCES, f"has mode {stat.S_IMODE(found.st_mode):04o}, so that others get in"
        raise _untrusted(code, directory, fault, f"chmod 700 {directory}")
    else:
        return
    raise _untrusted(code, directory, fault, "have it removed, or set NETMAP_SOCKET to a path of your own")


def _is_directory(path: Path) -> bool:
    """Whether there is a directory. Raises DaemonError (EACCES) if that is not for us to know."""
    try:
        return path.is_dir()
    except PermissionError:
        raise DaemonError(
            errno.EACCES,
            f"netmap: you may not look into {path.parent}, for netmapd's directory {path}\n"
            "        set NETMAP_SOCKET to a path in a directory that you may write to",
        ) from None


def prepare(path: Path) -> None:
    """Make the user's own directory, mode 0700, if ``path`` is in it; any other directory has to be there.

    Raises DaemonError as :func:`check_private`, or with ENOENT for another directory that does not exist.
    """
    if path == user_socket():
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:  # FileExistsError too: something that is not a directory
            check_private(path.parent)
            raise DaemonError(
                error.errno or errno.EIO,
                f"netmap: cannot make netmapd's directory {path.parent}: {error.strerror}\n"
                "        set NETMAP_SOCKET to a path in a directory that you may write to",
            ) from error
        check_private(path.parent)
    elif not _is_directory(path.parent):
        raise DaemonError(
            errno.ENOENT,
            f"netmap: no netmapd can listen at {path}: there is no directory {path.parent}\n"
            f"        create it (mkdir {path.parent}), or choose another path",
        )


def describe(path: Path) -> str:
    """``path`` and where it comes from, for messages: "/run/netmap/socket (the system's)"."""
    if os.environ.get("NETMAP_SOCKET") == str(path):
        return f"{path} (from NETMAP_SOCKET)"
    if path == SYSTEM:
        return f"{path} (the system's)"
    return f"{path} (yours)" if path == user_socket() else str(path)


def check_socket(path: Path) -> None:
    """Raise DaemonError (ENOTSOCK) if something other than a socket is at ``path``: it is not ours to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device or pipe"
        raise DaemonError(
            errno.ENOTSOCK,
            f"netmap: {describe(path)} is {kind}, not netmapd's socket\n"
            "        name a path where nothing is, or where a netmapd listens",
        )


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to the socket ``path``: its lock, its log."""
    return path.with_name(f"{path.name}.{suffix}")


def _untrusted(code: int, directory: Path, fault: str, remedy: str) -> DaemonError:
    return DaemonError(code, f"netmap: netmapd's directory {directory} {fault}\n        {remedy}")


def _check_path(path: Path) -> None:
    size = len(os.fsencode(path))
    if size > LONGEST:
        raise DaemonError(
            errno.ENAMETOOLONG,
            f"netmap: {path} is too long for a socket: {size} bytes, at most {LONGEST}\n"
            "        set NETMAP_SOCKET to a shorter path",
        )
    if "\0" in str(path) or not path.name:
        raise DaemonError(
            errno.EINVAL, f"netmap: {str(path)!r} cannot be a socket's path\n        name a file, such as /tmp/x/socket"
        )

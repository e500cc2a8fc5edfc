# SPDX-License-Identifier: BSD-2-Clause
"""Collecting what checks judge. Thin: every function asks the system something, and decides nothing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import importlib
import importlib.metadata
import math
import os
import resource
import select
import socket as _socket
import struct
from pathlib import Path

from ptnetmap.errors import PtnetmapError
from ptnetmap.netmap.daemon import place
from ptnetmap.tools.doctor.guest import Device
from ptnetmap.tools.doctor.python import LEAST, SETS
from ptnetmap.tools.doctor.service import Daemon, SocketFile, SocketPlace

_F_ADD_SEALS = 1033
_F_SEAL_FUTURE_WRITE = 0x10
_PATIENCE = 3  # seconds for a netmapd that may hang
_UNIT_NAMES = ("netmapd.socket", "netmapd.service")
_UNIT_DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")


def read(path: str | Path) -> str:
    """Return what is in a file, "" if it cannot be read."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


# Python ---------------------------------------------------------------------------------------------------------------


def versions() -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions of the packages that can be imported, and why others cannot."""
    found: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name in LEAST:
        try:
            importlib.import_module(name)
            found[name] = importlib.metadata.version(name)
        except Exception as error:  # a package that is half installed raises anything
            broken[name] = " ".join(f"{type(error).__name__}: {error}".split())
    return found, broken


def kernel_cache() -> tuple[str, str | None, list[str], int, bool]:
    """Return the arguments of :func:`ptnetmap.tools.doctor.python.kernel_cache`."""
    from numba import config

    from ptnetmap.jit.kernel import CACHE_DIR, cache_root

    sets: list[str] = []
    functions = 0
    if CACHE_DIR is not None:
        sets = [name for name in SETS if (Path(CACHE_DIR) / f"{name}.compiled").exists()]
        functions = sum(1 for _ in Path(CACHE_DIR).rglob("*.nbi"))
    return str(cache_root()), CACHE_DIR, sets, functions, bool(config.DISABLE_JIT)


# Machine --------------------------------------------------------------------------------------------------------------


def _groups() -> dict[str, str]:
    """Return the control groups of this process: path by controllers, "" for version 2."""
    lines = (line.split(":", 2) for line in read("/proc/self/cgroup").splitlines() if line.count(":") >= 2)
    return {controllers: path for _, controllers, path in lines}


def _upwards(root: Path, group: str) -> list[Path]:
    """The directories of a control group and of those around it; a container sees its own as the root."""
    inner = root / group.lstrip("/")
    return [root / directory for directory in (inner, *inner.parents) if directory.is_relative_to(root)]


def cpu_limits() -> list[str]:
    """Return ``cpu.max`` of all control groups around this process, of either version."""
    limits = []
    for controllers, group in _groups().items():
        if not controllers:
            limits += [read(directory / "cpu.max") for directory in _upwards(Path("/sys/fs/cgroup"), group)]
        elif "cpu" in controllers.split(","):
            for directory in _upwards(Path("/sys/fs/cgroup") / controllers, group):
                allowed, period = (read(directory / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
                if allowed.isdecimal():  # -1: no limit
                    limits.append(f"{allowed} {period}")
    return [limit for limit in limits if limit]


def memory_left() -> float:
    """Return the bytes that the control groups around this process leave it."""
    left = math.inf
    for controllers, group in _groups().items():
        if controllers:
            continue
        for directory in _upwards(Path("/sys/fs/cgroup"), group):
            most, used = (read(directory / f"memory.{what}").strip() for what in ("max", "current"))
            if most.isdecimal() and used.isdecimal():
                left = min(left, max(int(most) - int(used), 0))
    return left


def meminfo() -> dict[str, int]:
    """Return /proc/meminfo, in bytes."""
    fields = (line.split() for line in read("/proc/meminfo").splitlines())
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) == 3 and field[1].isdecimal()}


def sealing_error() -> str:
    """Seal a memfd as netmapd does; return "", or what went wrong."""
    try:
        fd = os.memfd_create("netmap-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        finally:
            os.close(fd)
    except (OSError, AttributeError) as error:
        return str(error)
    return ""


def events_error() -> str:
    """Wait for an eventfd as programs and netmapd do; return "", or what went wrong."""
    try:
        event = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with select.epoll() as inner, select.epoll() as outer:
                inner.register(event, select.EPOLLIN | select.EPOLLET)
                outer.register(inner.fileno(), select.EPOLLIN)
                return "" if outer.poll(1) else "no event arrives"
        finally:
            os.close(event)
    except (OSError, AttributeError) as error:
        return str(error)


def file_limits() -> tuple[float, float]:
    """Return the limits of open files, soft and hard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    return math.inf if soft == infinite else soft, math.inf if hard == infinite else hard


def lockable_bytes() -> float:
    """Return how many bytes this process may lock in memory without CAP_IPC_LOCK."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def effective_capabilities() -> int | None:
    """Return this process's capabilities, a set of bits; None if unknown."""
    for line in read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None


# netmapd --------------------------------------------------------------------------------------------------------------


def socket_place(asked: str | None) -> SocketPlace:
    """Return the socket that a program would use; ``asked`` is its --socket."""
    try:
        found = place.find(asked)
    except PtnetmapError as error:
        return SocketPlace(error=str(error))
    if asked is not None:
        chosen = "from --socket"
    elif os.environ.get("NETMAP_SOCKET"):
        chosen = "from NETMAP_SOCKET"
    elif found.path == place.SYSTEM:
        chosen = "the system's, because it exists"
    elif found.path.parent.parent == place.TEMPORARY:
        chosen = "yours, because XDG_RUNTIME_DIR is not set or not yours"
    else:
        chosen = "yours, in XDG_RUNTIME_DIR"
    return SocketPlace(str(found.path), chosen, found.may_start, found.path == place.SYSTEM)


def socket_file(found: SocketPlace) -> SocketFile | None:
    """Return what is at the socket's path, None if nothing is."""
    if found.error:
        return None
    try:
        status = Path(found.path).stat()
    except OSError:
        return None
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return SocketFile(status.st_mode, status.st_uid, status.st_gid, group)


def listens(found: SocketPlace) -> bool:
    """Whether anybody listens at the socket."""
    from ptnetmap.netmap.daemon.listener import listens

    return not found.error and listens(Path(found.path))


def life_lock(found: SocketPlace) -> tuple[bool, int | None]:
    """Return whether a daemon holds the lock of its life, and its process id."""
    from ptnetmap.netmap.daemon.locks import holder

    if found.error:
        return False, None
    file = place.beside(Path(found.path), "lock")
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True, holder(file)
    finally:
        os.close(fd)
    return False, None


def daemon(found: SocketPlace) -> Daemon | str | None:
    """Ask the netmapd at the socket who it is; an error's message, or None if nobody listens. Starts none."""
    from ptnetmap.netmap.client.dial import dial
    from ptnetmap.netmap.client.error import DaemonGoneError

    try:
        connection = dial(found.path, start=False, timeout=_PATIENCE)
    except PtnetmapError as error:
        return None if error.errno == errno.ENOENT else str(error)
    with connection:
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("ll", _PATIENCE, 0))
        try:
            return _ask(connection, found)
        except DaemonGoneError:
            return (
                f"netmapd at {found.path} has not answered in {_PATIENCE} s, or is gone\nlook again; its log may tell"
            )
        except PtnetmapError as error:
            return str(error)


def _ask(connection: _socket.socket, found: SocketPlace) -> Daemon:
    from ptnetmap.netmap.client.session import Session
    from ptnetmap.netmap.daemon.spawn import log_file
    from ptnetmap.netmap.wire import extension

    session = Session(connection, found.path)
    ports = extension.introspect(session.request, extension.PORT_LIST)
    kthreads = extension.introspect(session.request, extension.KTHREAD_LIST)
    log = log_file(Path(found.path))
    return Daemon(
        session.daemon.version,
        session.daemon.generation,
        life_lock(found)[1],
        len({port["name"] for port in ports}),
        len(kthreads),
        str(log) if log.exists() else "",
    )


def installed_units() -> list[str]:
    """Return the paths of netmapd's systemd units, the system's and the user's."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    directories = [f"{root}/{kind}" for root in _UNIT_DIRECTORIES for kind in ("system", "user")]
    candidates = [
        Path(directory) / name for directory in (*directories, f"{home}/systemd/user") for name in _UNIT_NAMES
    ]
    return [str(path) for path in candidates if path.exists()]


def passed_through() -> tuple[list[Device], list[Device]]:
    """Return the ptnets and the memdevs of this machine, and what is in their way."""
    from ptnetmap.netmap.linuxguest.names import memdevs, ptnets
    from ptnetmap.netmap.linuxguest.pci import PciFunction, check_lockdown

    def device(function: PciFunction) -> Device:
        try:
            function.check_free()
            check_lockdown()
        except PtnetmapError as error:
            return Device(function.address, function.driver, str(error))
        return Device(function.address, function.driver)

    return [device(function) for function in ptnets()], [device(function) for function in memdevs()]

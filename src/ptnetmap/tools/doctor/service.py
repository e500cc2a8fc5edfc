# SPDX-License-Identifier: BSD-2-Clause
"""Checks of netmapd: its socket, itself, and what earlier ones left behind."""

from __future__ import annotations

import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ptnetmap.tools.doctor.finding import NOTE, OK, PROBLEM, Finding, from_message


@dataclass(frozen=True)
class SocketPlace:
    """Which socket programs use; ``error`` if that cannot be told, in the words of their own message.

    ``chosen`` says what decided, ``may_start`` whether a client may start a daemon there, ``system`` if it is the system's.
    """

    path: str = ""
    chosen: str = ""
    may_start: bool = False
    system: bool = False
    error: str = ""


@dataclass(frozen=True)
class Daemon:
    """A netmapd that answers: ``pid`` if it is known, and how many ports and kthreads it has."""

    version: str
    generation: int
    pid: int | None
    ports: int
    kthreads: int
    log: str = ""


@dataclass(frozen=True)
class SocketFile:
    """What is at the socket's path, as in stat(2); ``group`` is the name of its gid."""

    mode: int
    uid: int
    gid: int
    group: str


def place(found: SocketPlace) -> Finding:
    """Judge which socket programs use, and why that one."""
    if found.error:
        return from_message("socket", found.error)
    return Finding("socket", OK, f"{found.path}, {found.chosen}")


def daemon(found: SocketPlace, answered: Daemon | str | None, version: str) -> Finding:
    """Judge who answers at the socket: a netmapd, an error's message, or nobody; ``version`` is ours."""
    subject = "netmapd"
    if found.error:
        return Finding(subject, NOTE, "not looked for: there is no socket to use")
    if isinstance(answered, str):
        return from_message(subject, answered)
    if answered is None:
        if found.may_start:
            return Finding(subject, OK, "none runs; the first program that opens a port starts one")
        remedy = "sudo systemctl start netmapd.socket" if found.system else "have it started there"
        return Finding(subject, PROBLEM, f"none runs at {found.path}, and you may not start one there", remedy)
    text = (
        f"version {answered.version}, {_counted(answered.ports, 'port')}, {_counted(answered.kthreads, 'kthread')}, "
        f"generation {answered.generation:x}"
    )
    if answered.pid is not None:
        text += f", process {answered.pid}"
    if answered.log:
        text += f", log {answered.log}"
    if answered.version != version:
        return Finding(subject, NOTE, f"{text}; this is {version}", "restart netmapd to have the same")
    return Finding(subject, OK, text)


def permissions(file: SocketFile | None, euid: int, groups: Collection[int]) -> Finding:
    """Judge who may connect to the socket: those who may write to it."""
    subject = "permissions"
    if file is None:
        return Finding(subject, OK, "no socket there yet")
    mode = stat.S_IMODE(file.mode)
    who = f"uid {file.uid}"
    if mode & stat.S_IWGRP:
        who += f" and group {file.group}"
    if mode & stat.S_IWOTH:
        return Finding(
            subject,
            NOTE,
            f"everybody may connect (mode {mode:04o})",
            "use --group, or a private directory, to keep others out",
        )
    needed = stat.S_IWUSR if euid == file.uid else stat.S_IWGRP if file.gid in groups else stat.S_IWOTH
    if euid != 0 and not mode & needed:
        remedy = "set NETMAP_SOCKET to a path of your own"
        if mode & stat.S_IWGRP and file.gid not in groups:
            remedy = f"sudo usermod -aG {file.group} $USER, and log in again; or {remedy}"
        return Finding(subject, PROBLEM, f"the socket is for {who} (mode {mode:04o}), not for you", remedy)
    return Finding(subject, OK, f"the socket is for {who} (mode {mode:04o})")


def leftovers(
    found: SocketPlace, file: SocketFile | None, listens: bool, lock_held: bool, holder: int | None
) -> Finding:
    """Judge what is at the socket's path while nobody listens; ``lock_held`` if a daemon lives, of pid ``holder``."""
    subject = "leftovers"
    if found.error or file is None or listens:
        return Finding(subject, OK, "none")
    if not stat.S_ISSOCK(file.mode):
        return Finding(subject, PROBLEM, f"{found.path} is not a socket", "move it away, or set NETMAP_SOCKET")
    if lock_held:
        return Finding(
            subject,
            NOTE,
            f"netmapd{f' (process {holder})' if holder else ''} lives and does not listen: it starts, leaves, or hangs",
            "look again; end it if that stays so",
        )
    if found.system:
        return Finding(
            subject,
            PROBLEM,
            f"{found.path} is stale, and keeps programs from starting one of their own",
            f"sudo systemctl start netmapd.socket, or sudo rm {found.path}",
        )
    return Finding(subject, NOTE, f"{found.path} is stale; the next netmapd replaces it")


def units(installed: Sequence[str]) -> Finding:
    """Judge the systemd units that are installed, by path."""
    subject = "systemd"
    names = {path.rpartition("/")[2] for path in installed}
    if names == {"netmapd.service"}:
        return Finding(
            subject, NOTE, f"{installed[0]} without netmapd.socket: nothing starts it", "install systemd/netmapd.socket"
        )
    if names == {"netmapd.socket"}:
        return Finding(
            subject,
            PROBLEM,
            f"{installed[0]} without netmapd.service: whoever connects waits in vain",
            "install systemd/netmapd.service",
        )
    if not names:
        return Finding(subject, OK, "no units installed; none are needed unless users share a netmapd")
    return Finding(subject, OK, ", ".join(installed))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

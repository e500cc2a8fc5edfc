# SPDX-License-Identifier: BSD-2-Clause
"""A daemon from its command line to its exit, around the server that does the work."""

from __future__ import annotations

import errno
import os
import socket as _socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import ptnetmap
from ptnetmap.netmap.daemon.errors import DaemonError
from ptnetmap.netmap.daemon.lifetime import IDLE_SECONDS, IdleTimer, Stop, raise_open_files
from ptnetmap.netmap.daemon.listener import Listener, adopt, bind, listens, notify
from ptnetmap.netmap.daemon.locks import Lock, holder, life_lock, start_lock
from ptnetmap.netmap.daemon.patience import Patience
from ptnetmap.netmap.daemon.place import beside, describe, find, prepare
from ptnetmap.netmap.daemon.readiness import Reporter
from ptnetmap.netmap.daemon.spawn import NETMAPD, log_file, start

_LEAVING = 10.0  # seconds that the previous daemon may take to give its memory and interfaces back
_AGAIN = 0.05


@dataclass
class Life:
    """What the server needs to know of its process.

    A server's loop, where ``keep`` says whether there are persistent ports::

        life.ready()
        while not life.stop.requested:
            wait = life.idle.look(time.monotonic(), len(connections), keep)
            if wait == 0:
                ...  # take the listening socket out of the selector
                late = life.leave()
                if late is None:
                    break
                life.idle.restart()
                ...  # put it back, serve each of late
            ...  # wait for life.stop, the listening socket, connections; at most that long
    """

    path: Path
    idle: IdleTimer
    stop: Stop
    ready: Callable[[], None]
    """To be called once, when requests can be answered: only then does the socket listen and the starter go on."""
    leave: Callable[[], list[_socket.socket] | None]
    """:meth:`ptnetmap.netmap.daemon.listener.Listener.leave`."""


@dataclass
class Options:
    """netmapd's command line. ``None`` and empty: not given, the runtime's default.

    ``idle`` is in seconds, 0 for never; ``detached`` the files of the readiness pipe and of the start lock, in a process
    that :func:`ptnetmap.netmap.daemon.spawn.start` made. ``life`` is set before the server is called.
    """

    socket: str | None = None
    mode: int | None = None
    group: str | None = None
    idle: float | None = None
    foreground: bool = False
    detached: tuple[int, int] | None = None
    kthreads: int = 1
    cpus: tuple[int, ...] = ()
    spin: int | None = None
    max_switches: int | None = None
    ageing: int | None = None
    force_xdp: bool = False
    nic_mode: str = "auto"
    busy_poll: int = 0
    relay: str | None = None
    pools: dict[str, int] = field(default_factory=dict)
    verbose: bool = False
    life: Life = field(init=False, repr=False, compare=False)


Serve = Callable[[_socket.socket, Options], int]
"""A server: given the socket to accept from (call ``options.life.ready()`` first), returns an exit code.

It meets connections that end without a word, by EOF, EPIPE or ECONNRESET: another netmapd looked whether it is alive.
"""


def run(options: Options, serve: Serve | None = None) -> int:
    """Be the daemon, in this process, until told to stop or idle; returns the exit code.

    ``serve`` is :func:`ptnetmap.netmap.daemon.server.serve` unless given. Raises DaemonError if it cannot start; a
    process that was started with ``--detached`` reports that to its starter, too.
    """
    if options.detached is not None and os.fork():
        os._exit(0)  # the starter waits for this process, and has no other child that it would have to look after
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        raise_open_files()
        listener = None if options.detached else adopt()
        path = listener.path if listener is not None else find(options.socket).path
        reporter = _reporter(options, None if listener is not None else path)
        try:
            if listener is None:
                stack.enter_context(_live(path))
                listener = bind(path, options.mode, options.group)
            stack.callback(listener.close)
            return _serve(options, serve, listener, stop, reporter)
        except BaseException as error:
            reporter.failed(error)
            raise


def start_in_background(options: Options, arguments: Sequence[str], program: Sequence[str] = NETMAPD) -> int:
    """Start a daemon as a client would, with ``arguments`` from the command line; say where it is, return 0.

    Raises DaemonError: EADDRINUSE if there is one already.
    """
    path = find(options.socket).path
    prepare(path)
    with Patience(30) as patience, start_lock(path) as lock:
        lock.acquire(patience)
        if listens(path):
            raise _already(path)
        pid = start(path, lock, patience, [*program, *arguments])
    print(f"netmapd: process {pid} listens at {path}; its log is {log_file(path)}")
    return 0


def _reporter(options: Options, path: Path | None) -> Reporter:
    """Report to the starter; without one, hold the start lock of ``path`` all the same, if there is a path to take."""
    if path is None:
        return Reporter(None, None)
    if options.detached is not None:
        pipe, lock_fd = options.detached
        lock = Lock.inherited(beside(path, "start"), lock_fd)
    else:
        pipe = None
        prepare(path)
        lock = start_lock(path)
        with Patience(30) as patience:
            lock.acquire(patience)
    lock.sign()
    return Reporter(pipe, lock)


def _live(path: Path) -> Lock:
    """Take the life lock, waiting for a daemon that is on its way out."""
    lock = life_lock(path)
    deadline = time.monotonic() + _LEAVING
    while not lock.try_acquire():
        if listens(path):
            raise _already(path)
        if time.monotonic() >= deadline:
            raise DaemonError(
                errno.EADDRINUSE,
                f"netmap: netmapd{_process(path)} still runs and does not listen at {describe(path)} any more\n"
                "        end it",
            )
        time.sleep(_AGAIN)
    lock.sign()
    return lock


def _already(path: Path) -> DaemonError:
    return DaemonError(
        errno.EADDRINUSE,
        f"netmap: netmapd{_process(path)} listens at {describe(path)} already\n"
        "        use that one, end it, or choose another path (--socket, or NETMAP_SOCKET)",
    )


def _process(path: Path) -> str:
    pid = holder(beside(path, "lock"))
    return f" (process {pid})" if pid else ""


def _serve(options: Options, serve: Serve | None, listener: Listener, stop: Stop, reporter: Reporter) -> int:
    if serve is None:
        from ptnetmap.netmap.daemon.server import serve as real_serve

        serve = real_serve
    is_ready = False

    def ready() -> None:
        nonlocal is_ready
        listener.listen()
        stop.defer()
        reporter.ready()
        notify("READY=1")
        is_ready = True
        now = time.strftime("%F %T")
        told = f"{now} netmapd {ptnetmap.__version__}: process {os.getpid()} listens at {listener.path}"
        print(told, file=sys.stderr, flush=True)

    seconds = options.idle
    if seconds is None:
        seconds = 0.0 if options.foreground or listener.activated else IDLE_SECONDS
    options.life = Life(listener.path, IdleTimer(seconds), stop, ready, listener.leave)
    try:
        code = serve(listener.socket, options)
    finally:
        notify("STOPPING=1")
    if not is_ready:
        raise DaemonError(errno.EIO, f"netmapd: the server ended with {code} before it was ready\n        see its log")
    return code

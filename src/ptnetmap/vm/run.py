# SPDX-License-Identifier: BSD-2-Clause
"""Starts and stops machines: the keeper is a process of its own, and answers come from bhyve's control socket."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from ptnetmap.bhyve.control import client
from ptnetmap.bhyve.control import place as sockets
from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.errors import ConfigError, HypervisorError
from ptnetmap.vm import images, store
from ptnetmap.vm.definition import Definition

STARTING = 120.0
"""Seconds for bhyve to answer: kernels may have to be compiled."""

_INTERVAL = 0.05
_TAIL = 4096


def console_path(name: str) -> Path:
    """The socket of com1, beside the machine's control socket and no longer than that."""
    return sockets.socket_path(name).with_name(f"{name}.com1")


def arguments(machine: Definition) -> list[str]:
    """Return bhyve's arguments for a machine that is started here."""
    return machine.command(f"unix={console_path(machine.name)}")


def check_files(machine: Definition) -> None:
    """Raise ConfigError unless all files of the machine are there and are what they should be."""
    images.check_image(machine.image)
    for what in ("kernel", "initrd", "seed"):
        if path := getattr(machine, what):
            images.check_file(path, what)


def start(machine: Definition, *, patience: float = STARTING) -> None:
    """Start a machine and return when it runs; raises ConfigError, ControlError or HypervisorError if it does not."""
    check_files(machine)
    name = machine.name
    words = arguments(machine)
    lock = store.lock(name)
    if lock is None:
        raise ConfigError(
            f"the virtual machine {name} is running already\n        ptnetmap vm console {name} shows its console",
            errno.EBUSY,
        )
    path = store.place(name)
    locks = [lock]
    try:
        locks.append(images.lock_image(machine.image))
        if sockets.is_held(name):
            raise ConfigError(
                f"a bhyve that was not started here runs under the name {name}\n"
                f"        end it: bhyvectl --vm={name} --destroy",
                errno.EBUSY,
            )
        try:
            (path / store.ENDED).unlink(missing_ok=True)
            with (path / store.LOG).open("wb") as log:
                keeper = subprocess.Popen(
                    [sys.executable, "-m", "ptnetmap.vm.keeper", str(path), ",".join(map(str, locks)), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=locks,
                    start_new_session=True,
                )
        except OSError as error:
            raise HypervisorError(
                error.errno or errno.EIO, f"cannot start the virtual machine {name}: {error}\n        see {path}"
            ) from error
    finally:
        for fd in locks:
            os.close(fd)
    deadline = time.monotonic() + patience
    while keeper.poll() is None:
        if (client.describe(name) or {}).get("answers"):
            # It outlives a command, and a longer-lived caller of ours has to be told by somebody when it ends.
            threading.Thread(target=keeper.wait, daemon=True).start()
            return
        if time.monotonic() > deadline:
            raise ControlError(
                errno.ETIMEDOUT,
                f"the virtual machine {name} does not answer after {patience:g} s\n"
                f"        look into {path / store.LOG}, or end it: ptnetmap vm stop {name} --force",
            )
        time.sleep(_INTERVAL)
    # One that ran and ended before it was looked at did start.
    if keeper.returncode not in (1, 2):
        raise HypervisorError(errno.EIO, f"the virtual machine {name} did not start\n{_tail(path / store.LOG)}")


def stop(name: str, *, force: bool = False, patience: float = 60.0) -> None:
    """Press the power button, or with ``force`` pull the plug, and return when the machine has ended.

    Raises ControlError: ENOENT if it does not run, EAGAIN if its guest does not listen, ETIMEDOUT if it did not end.
    """
    store.load(name)
    if not store.is_running(name):
        raise ControlError(errno.ENOENT, f"the virtual machine {name} is not running\n        there is nothing to stop")
    deadline = time.monotonic() + patience
    if not force:
        _press(name)
    while store.is_running(name):
        if time.monotonic() > deadline:
            raise ControlError(
                errno.ETIMEDOUT,
                f"the guest of {name} was asked to shut down, and has not within {patience:g} s; it still runs\n"
                f"        wait longer with --timeout, or end it as a loss of power would: ptnetmap vm stop {name} --force",
            )
        if force:
            # Again and again: the guest may just be rebooting, and have no bhyve for a moment.
            try:
                client.destroy(name)
            except ControlError as error:
                if error.errno != errno.ENOENT:
                    raise
        time.sleep(_INTERVAL)


def _press(name: str) -> None:
    with client.Connection(name) as connection:
        heard = connection.request("power-button")
    if not heard:
        raise ControlError(
            errno.EAGAIN,
            f"the guest of {name} does not listen to the power button: it may be booting, or has no ACPI; it still runs\n"
            f"        try later, or end it as a loss of power would: ptnetmap vm stop {name} --force",
        )


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
    except OSError:
        text = ""
    lines = text.splitlines()[-10:] or [f"look into {log}"]
    return "\n".join(f"        {line.strip()}" for line in lines)

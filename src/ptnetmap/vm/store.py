# SPDX-License-Identifier: BSD-2-Clause
"""Where machines are kept: ``$XDG_STATE_HOME/ptnetmap/vm/NAME``, with ``vm.toml``, its seed, log and lock.

A machine appears whole or not at all: its directory is filled under another name, then renamed. Who holds the lock on
``lock`` runs the machine, or removes it: the kernel gives the lock up when the last process that has it is gone,
however that went, so no process number is ever trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from ptnetmap.bhyve.settings import check_name, is_name
from ptnetmap.errors import ConfigError, HypervisorError
from ptnetmap.vm import definition
from ptnetmap.vm.definition import Definition

CONFIG, SEED, LOG, LOCK, ENDED = "vm.toml", "seed.iso", "bhyve.log", "lock", "ended"


def directory() -> Path:
    """The directory of all machines; nothing is created."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "ptnetmap" / "vm"


def place(name: str) -> Path:
    """The directory of the machine ``name``. Raises ConfigError for a name that cannot be."""
    check_name(name)
    return directory() / name


def names() -> list[str]:
    """The machines that there are, in order."""
    try:
        return sorted(each.name for each in directory().iterdir() if is_name(each.name) and (each / CONFIG).exists())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed("list", directory(), error) from error


def create(machine: Definition, seed: bytes = b"") -> None:
    """Keep a machine, whose ``seed`` is its directory's. Raises ConfigError (EEXIST), HypervisorError."""
    machine.check()
    path = place(machine.name)
    if path.exists():
        raise _exists(machine.name)
    new = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
        if seed:
            _write(new / SEED, seed)
        _write(new / CONFIG, definition.dumps(machine).encode())
        new.rename(path)
    except OSError as error:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _exists(machine.name) from error
        raise _failed("keep the virtual machine in", path, error) from error


def load(name: str) -> Definition:
    """Return the machine ``name``. Raises ConfigError (ENOENT if there is none)."""
    path = place(name) / CONFIG
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no virtual machine {name}\n        ptnetmap vm list shows those that are", errno.ENOENT
        ) from error
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}\n        check who may read it") from error
    return definition.loads(name, text, path)


def lock(name: str) -> int | None:
    """Lock the machine ``name``, and return the open file, whose close unlocks; None if somebody else has it."""
    path = place(name) / LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no virtual machine {name}\n        ptnetmap vm list shows those that are", errno.ENOENT
        ) from error
    except OSError as error:
        raise _failed("lock", path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def is_running(name: str) -> bool:
    """Whether somebody runs the machine ``name``."""
    try:
        fd = os.open(place(name) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def delete(name: str) -> None:
    """Remove the machine ``name``, but not its image. Raises ConfigError (EBUSY if it runs)."""
    fd = lock(name)
    if fd is None:
        raise ConfigError(
            f"the virtual machine {name} is running\n        stop it first: ptnetmap vm stop {name}", errno.EBUSY
        )
    path = place(name)
    try:
        # Under another name first: one that is half removed is none.
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=path.parent))
        path.rename(gone / name)
        shutil.rmtree(gone)
    except OSError as error:
        raise _failed("remove", path, error) from error
    finally:
        os.close(fd)


def ended(name: str) -> str:
    """How the machine ``name`` ended last; "" if it never ran."""
    with contextlib.suppress(OSError):
        return (place(name) / ENDED).read_text().strip()
    return ""


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _exists(name: str) -> ConfigError:
    return ConfigError(
        f"there is a virtual machine {name} already, in {place(name)}\n"
        f"        use another name, or remove it: ptnetmap vm delete {name}",
        errno.EEXIST,
    )


def _failed(what: str, path: Path, error: OSError) -> HypervisorError:
    advice = {
        errno.ENOSPC: "make room there, or set XDG_STATE_HOME to a directory elsewhere",
        errno.EDQUOT: "make room there, or set XDG_STATE_HOME to a directory elsewhere",
    }.get(error.errno or 0, "check who may write there, or set XDG_STATE_HOME to a directory of your own")
    return HypervisorError(error.errno or errno.EIO, f"cannot {what} {path}: {error.strerror}\n        {advice}")

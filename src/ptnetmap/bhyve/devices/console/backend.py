# SPDX-License-Identifier: BSD-2-Clause
"""What a serial line can be connected to, by what follows the port's name in ``-l com1,TEXT``.

================== ===================================================================================================
text               the other end
================== ===================================================================================================
stdio              our standard input and output; a terminal is made raw, and Ctrl-] ? tells how to get out
pty                a new pseudo-terminal, whose name is printed; ``pty=PATH`` makes PATH lead to it
tcp=[ADDRESS:]PORT one TCP client at a time; ADDRESS is 127.0.0.1 unless given, [...] around IPv6
unix=PATH          the same on a Unix socket, which only our user can reach
PATH               a terminal or other character device; a FIFO, written only; else a file, appended to
================== ===================================================================================================

Whoever comes late or again gets what the guest has sent meanwhile (:mod:`~ptnetmap.bhyve.devices.console.console`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ptnetmap.bhyve.devices.console.terminal import HELP, EscapeFilter, RawMode
from ptnetmap.bhyve.devices.console.wire import End, Wire, inherited
from ptnetmap.errors import ConfigError


class Backend:
    """The other end of a line; ``name`` is what messages call it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listener: int | None = None
        """A descriptor that is readable when :meth:`open` would succeed; None: nothing tells."""
        self.is_kept = False
        """Whether the end of its input, or an error, is not the end of the connection: nobody can come anew."""
        self.is_interactive = False
        """Whether input is read at all times, to hear commands, and lost if the guest reads none."""

    def open(self) -> Wire | None:
        """Return a line; None, or OSError, while nobody is there."""
        raise NotImplementedError

    def filter_input(self, data: bytes) -> bytes:
        """Return what of the input is for the guest."""
        return data

    def is_current(self, wire: Wire) -> bool:
        """Whether the line still leads where it should."""
        return True

    def close(self) -> None:
        """Give everything back but the lines that were opened."""


class Stdio(Backend):
    """Standard input and output, for one port; ``command`` gets what keys after Ctrl-] ask for."""

    _users: ClassVar[list[Stdio]] = []

    def __init__(self, name: str, command: Callable[[str], None]) -> None:
        super().__init__(name)
        self.is_kept = True
        if self._users:
            raise ConfigError(f"stdio is connected to {self._users[0].name}\n        use pty, tcp=PORT or a file here")
        self._command = command
        self._escape = EscapeFilter()
        self._raw: RawMode | None = None
        self._users.append(self)

    def open(self) -> Wire | None:
        """Return both; what is closed, or not there, is missing."""
        ends: list[End | None] = []
        for fd in (0, 1):
            try:
                ends.append(inherited(fd))
            except OSError:
                ends.append(None)
        if ends[0] is not None and os.isatty(0):
            self._raw = RawMode(0)
            self.is_interactive = True
            sys.stderr.write(
                f"bhyve: the terminal is {self.name}'s; Ctrl-] x ends the machine, Ctrl-] ? lists more\r\n"
            )
        return Wire(ends[0], ends[1])

    def filter_input(self, data: bytes) -> bytes:
        """Take out the commands, and carry them out."""
        if self._raw is None:
            return data
        data, commands = self._escape.feed(data)
        for command in commands:
            if command == "help":
                sys.stderr.write(HELP)
            else:
                self._command(command)
        return data

    def close(self) -> None:
        """Make the terminal what it was."""
        if self._raw is not None:
            self._raw.restore()
        if self in self._users:
            self._users.remove(self)


class Pty(Backend):
    """A pseudo-terminal of ours; somebody is there while anybody has its other side open."""

    def __init__(self, name: str, link: str = "") -> None:
        super().__init__(name)
        self._master, slave = os.openpty()
        try:
            self.path = os.ttyname(slave)
            tty.setraw(slave)
            os.set_blocking(self._master, False)
            self._link = Path(link) if link else None
            if self._link is not None:
                if self._link.is_symlink():
                    self._link.unlink()
                self._link.symlink_to(self.path)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        print(f"bhyve: {name} is on {self.path}", file=sys.stderr)

    def open(self) -> Wire | None:
        """Return a line if somebody has opened the other side."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            return None
        end = End(os.dup(self._master))
        return Wire(end, end)

    def close(self) -> None:
        """Close it, and remove the link."""
        os.close(self._master)
        if self._link is not None:
            with contextlib.suppress(OSError):
                if str(self._link.readlink()) == self.path:
                    self._link.unlink()


class Listener(Backend):
    """A socket that listens; one client at a time, others wait until it leaves."""

    def __init__(self, name: str, address: Any, family: int, path: str = "") -> None:
        super().__init__(name)
        self._path = path
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if path:
                os.fchmod(self._socket.fileno(), 0o600)
                _remove_stale(path)
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(4)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self.address = self._socket.getsockname()
        self.listener = self._socket.fileno()

    def open(self) -> Wire | None:
        """Return a client's line."""
        client, _ = self._socket.accept()
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self._path:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end = End(os.dup(client.fileno()))
        return Wire(end, end)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        if self._path:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()


class Device(Backend):
    """A character device; a terminal is made raw, and opened again when it was hung up."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path
        self._before: list[Any] | None = None
        self._first: Wire | None = self._open()

    def open(self) -> Wire | None:
        """Return a line; raises OSError while the device does not let us."""
        wire, self._first = self._first, None
        return wire or self._open()

    def _open(self) -> Wire:
        fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if os.isatty(fd):
            self._before = self._before or termios.tcgetattr(fd)
            tty.setraw(fd, termios.TCSANOW)
        else:
            self.is_kept = True
        end = End(fd)
        return Wire(end, end)

    def close(self) -> None:
        """Make a terminal what it was."""
        if self._first is not None:
            self._first.close()
        if self._before is not None:
            with contextlib.suppress(OSError, termios.error):
                fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                try:
                    termios.tcsetattr(fd, termios.TCSANOW, self._before)
                finally:
                    os.close(fd)


class File(Backend):
    """A file that is appended to, or a FIFO that somebody reads; made anew when it was renamed or removed."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path
        if not Path(path).is_fifo():
            os.close(self._open())

    def open(self) -> Wire | None:
        """Return a line; raises OSError while nobody reads the FIFO, or the file cannot be made."""
        return Wire(None, End(self._open()))

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(self._path, flags, 0o644)

    def is_current(self, wire: Wire) -> bool:
        """Whether the path still names the file."""
        assert wire.output is not None
        try:
            return os.path.samestat(Path(self._path).stat(), os.fstat(wire.output.fd))
        except OSError:
            return False


def parse_backend(name: str, text: str, command: Callable[[str], None]) -> Backend:
    """Make the backend that ``text`` says for the port ``name``; raises ConfigError.

    ``command`` is called with "poweroff", "reset" or "button" when somebody asks for that at the terminal.
    """
    kind, equals, rest = text.partition("=")
    try:
        if text == "stdio":
            return Stdio(name, command)
        if text == "pty" or (kind == "pty" and rest):
            return Pty(name, rest)
        if equals and kind == "tcp":
            family, address = _tcp_address(rest)
            return Listener(name, address, family)
        if equals and kind == "unix" and rest:
            return Listener(name, rest, socket.AF_UNIX, rest)
        if "/" in text:
            path = Path(text)
            if path.parent == Path("/dev") and not path.exists():  # root would make a file there
                raise FileNotFoundError(errno.ENOENT, "there is no such device")
            return Device(name, text) if path.is_char_device() else File(name, text)
        problem = "this is none"
    except ConfigError as error:
        problem = str(error)
    except OSError as error:
        problem = (error.strerror or str(error)) + _advice(text, error)
    if "\n" not in problem:
        problem += (
            "\n        use stdio, pty, tcp=ADDRESS:PORT, unix=PATH, or the path of a terminal or file, with a / in it"
        )
    raise ConfigError(f"Unable to initialize backend '{text}' for LPC device {name}: {problem}")


def _advice(text: str, error: OSError) -> str:
    if text.startswith("/dev/nmdm"):
        return "\n        Linux has no null-modem devices: use pty, or pty=PATH"
    if error.errno == errno.EADDRINUSE:
        return "\n        choose another port, or end what listens there"
    return ""


def _tcp_address(text: str) -> tuple[int, Any]:
    """Read ``[ADDRESS:]PORT``; raises OSError for one that cannot be found, ConfigError for one that is none."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16) or (colon and not host):
        raise ConfigError("this is no address\n        write tcp=ADDRESS:PORT, as in tcp=127.0.0.1:4555")
    found = socket.getaddrinfo(host or "127.0.0.1", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens to any more, and nothing else."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except BlockingIOError:  # somebody listens, and has enough to do
            pass

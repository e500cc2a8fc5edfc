# SPDX-License-Identifier: BSD-2-Clause
"""The machine's side: a socket in bhyve's event loop that answers ``bhyvectl``.

Clients are the user's own programs, and still must not be able to hurt the machine: each has its own small buffer,
answers to it are written before it is read on, one that does not read its answer is dropped, and so is the one that was
silent for longest when there are too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptnetmap import __version__
from ptnetmap.bhyve.control import lines
from ptnetmap.bhyve.control.error import ControlError
from ptnetmap.bhyve.control.place import Claim
from ptnetmap.errors import PtnetmapError

MAX_CLIENTS = 16
READING_SECONDS = 5.0
"""How long a client may take to read an answer."""

PARTING_SECONDS = 1.0
"""How long :meth:`ControlServer.close` waits for answers that are on their way."""

_CHUNK = 4096


class ControlServer:
    """The control socket of the machine ``name``, and its claim on that name.

    ``actions`` are what clients may ask for, by command: functions, or coroutine functions, that take the request's
    arguments as keywords and return what JSON can say. They are called in the event loop. A PtnetmapError that they
    raise is the answer; any other exception too, as EIO, and goes to the loop's exception handler. ``info`` is always
    there: name, process, start time, version and commands, and whatever an action of that name adds.

    ``place`` is the directory for the socket, the user's own unless given.
    """

    def __init__(self, name: str, actions: Mapping[str, Callable[..., Any]], *, place: Path | None = None) -> None:
        self.name = name
        self._actions = dict(actions)
        self._more_info = self._actions.get("info")
        self._actions["info"] = self._info
        self._place = place
        self._claim: Claim | None = None
        self._started = time.time()
        self._accepting: asyncio.Task[None] | None = None
        self._clients: dict[asyncio.Task[None], _Client] = {}

    @property
    def path(self) -> Path | None:
        """The socket, once the name is claimed."""
        return None if self._claim is None else self._claim.path

    def claim(self) -> None:
        """Claim the name, before anything else is started; :meth:`start` does it otherwise.

        Raises ConfigError for a name that cannot be, and ControlError: EEXIST if such a machine runs already.
        """
        if self._claim is None:
            self._claim = Claim(self.name, self._place)

    async def start(self) -> None:
        """Listen. Raises what :meth:`claim` does, and ControlError if the socket cannot be made."""
        self.claim()
        assert self._claim is not None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(str(self._claim.path))
            self._claim.path.chmod(0o600)
            listener.listen(MAX_CLIENTS)
        except OSError as error:
            listener.close()
            raise ControlError(
                error.errno or errno.EIO,
                f"cannot listen at {self._claim.path}: {error.strerror}\n"
                "        set XDG_RUNTIME_DIR to a directory of your own",
            ) from error
        self._accepting = asyncio.create_task(self._accept(listener), name=f"control {self.name}")

    async def close(self) -> None:
        """Stop listening, let answers on their way go out, and give the name up. May be called by an action."""
        if self._accepting is not None:
            accepting, self._accepting = self._accepting, None
            await _end(accepting)
        own = asyncio.current_task()
        clients = {task: client for task, client in self._clients.items() if task is not own}
        busy = {task for task, client in clients.items() if client.busy}
        for task in clients.keys() - busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=PARTING_SECONDS)
        for task in clients:
            await _end(task)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    # Out of file descriptors: whoever waits is served when there are some again.
                    loop.call_exception_handler({"message": f"control socket of {self.name}", "exception": error})
                    await asyncio.sleep(0.1)
                    continue
                connection.setblocking(False)
                self._make_room()
                client = _Client(connection)
                task = asyncio.create_task(self._serve(client))
                self._clients[task] = client
                task.add_done_callback(self._forget)

    def _make_room(self) -> None:
        staying = [task for task in self._clients if not task.cancelling()]
        if len(staying) >= MAX_CLIENTS:
            min(staying, key=lambda task: (self._clients[task].busy, self._clients[task].heard)).cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._clients.pop(task).connection.close()
        if not task.cancelled():
            task.exception()  # a client that went away is nothing to report

    async def _serve(self, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        stream = lines.Lines(lines.MAX_REQUEST)
        while data := await loop.sock_recv(client.connection, _CHUNK):
            client.heard = time.monotonic()
            try:
                requests = stream.feed(data)
            except ControlError as error:
                await client.send(lines.encode_error(error))
                return
            for line in requests:
                client.busy = True
                try:
                    await client.send(await self._answer(line))
                finally:
                    client.busy = False
                if self._accepting is None:
                    return

    async def _answer(self, line: bytes) -> bytes:
        try:
            return lines.encode_result(await self._perform(lines.decode_request(line)))
        except PtnetmapError as error:
            return lines.encode_error(error)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a command to the virtual machine {self.name} failed", "exception": error}
            )
            return lines.encode_error(ControlError(errno.EIO, f"the command failed: {type(error).__name__}: {error}"))

    async def _perform(self, request: lines.Request) -> Any:
        action = self._actions.get(request.command)
        if action is None:
            raise ControlError(
                errno.EOPNOTSUPP,
                f"this virtual machine cannot {request.command!r}\n        it can {', '.join(sorted(self._actions))}",
            )
        try:
            inspect.signature(action).bind(**request.arguments)
        except TypeError as error:
            raise ControlError(errno.EINVAL, f"wrong arguments of {request.command}: {error}") from error
        result = action(**request.arguments)
        return await result if inspect.isawaitable(result) else result

    async def _info(self) -> dict[str, Any]:
        info = {
            "name": self.name,
            "pid": os.getpid(),
            "started": self._started,
            "version": __version__,
            "commands": sorted(self._actions),
        }
        if self._more_info is not None:
            more = self._more_info()
            info |= await more if inspect.isawaitable(more) else more
        return info


class _Client:
    """A connection, when it was last heard of, and whether it is being answered."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = time.monotonic()
        self.busy = False

    async def send(self, line: bytes) -> None:
        """Send a line; raises TimeoutError for a client that does not read it."""
        async with asyncio.timeout(READING_SECONDS):
            await asyncio.get_running_loop().sock_sendall(self.connection, line)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task

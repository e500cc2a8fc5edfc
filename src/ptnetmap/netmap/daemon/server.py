# SPDX-License-Identifier: BSD-2-Clause
"""netmapd's control thread: connections, messages, and what becomes of them when their process dies.

A connection is what an open of /dev/netmap is upstream: at most one port is bound to it, and goes with it. One request
at a time is read from each, and none before the last answer has left, so a client that never reads its answers holds
up nobody but itself.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable

from ptnetmap import __version__
from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.daemon.closing import close_connection, close_received
from ptnetmap.netmap.daemon.host import Host
from ptnetmap.netmap.daemon.introspection import Client
from ptnetmap.netmap.daemon.kthreads import DEFAULT_SPIN, KThreads, interruptible
from ptnetmap.netmap.daemon.requests import Dispatcher, Result
from ptnetmap.netmap.daemon.startup import Life, Options
from ptnetmap.netmap.shared import check_lasting
from ptnetmap.netmap.wire import frame as frames
from ptnetmap.netmap.wire import legacy, request, rules
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.netmap.wire.frame import MAX_FDS, MAX_FRAME, Frame
from ptnetmap.netmap.wire.hello import Hello, greet

_LOOKS = (abi.NETMAP_REQ_PORT_INFO_GET, abi.NETMAP_REQ_POOLS_INFO_GET)
"""What makes ports for as long as it takes to answer a question."""
_AGAIN_S = 0.05
_TIDY_S = 0.01
_TIDY_SHARE = 10
_OBJECTS_BETWEEN_LOOKS = 50_000
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


class Connection:
    """One client: its socket, and the message that is on its way out."""

    def __init__(self, server: Server, peer: socket.socket) -> None:
        self._server = server
        self._socket = peer
        self._greeted = False
        self._pending: tuple[bytes, list[int]] | None = None
        self._waiting: tuple[Frame, request.Request, Result] | None = None
        pid, uid = _credentials(peer)
        self._could_end_us = uid in (0, os.geteuid())
        self.client = Client(pid)
        peer.setblocking(False)
        server.loop.add_reader(peer, self._readable)

    def close(self) -> None:
        """End the connection and undo what it holds."""
        if self._socket.fileno() < 0:
            return
        self._server.loop.remove_reader(self._socket)
        self._server.loop.remove_writer(self._socket)
        self._server.forget(self)
        close_connection(self._socket)  # last: it tells the client that all is given back

    # -- reading ------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        fds: list[int] = []
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(MAX_FRAME + 1, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
            fds = _descriptors(ancillary)
            if not data:
                self.close()  # the client has gone; no message is empty
            elif flags & socket.MSG_CTRUNC:
                raise WireError(errno.EMFILE, "netmap: a message's file descriptors did not fit")
            else:
                self._take(data, fds)
        except (BlockingIOError, InterruptedError):
            pass
        except WireError as error:
            self._send(frames.encode(frames.refusal(0, error)), [])
            self.close()
        except OSError:
            self.close()
        finally:
            close_received(fds)

    def _take(self, data: bytes, fds: list[int]) -> None:
        if not self._greeted:
            greeting = greet(data, self._server.hello, self._server.address)
            self._send(frames.encode(greeting.frame), [])
            self._greeted = greeting.client is not None
            if not self._greeted:
                self.close()
            return
        frame = frames.decode_request(data)
        asked = None
        try:
            asked = _decode(frame)
            rules.check(asked)
            if not self._could_end_us:  # who could, has simpler ways than taking memory away
                check_lasting(fds)
            if asked.reqtype in _LOOKS:
                self._server.tidy_soon()
            opened = self.client.opened
            result = self._server.dispatcher.grant(self.client, asked, fds)
            if self.client.opened != opened:
                self._server.tell(f"process {self.client.pid} opens {self.client.opened}")
            answers = self._answers(frame, asked, result)
        except OSError as error:  # ours, or the kernel's own: no descriptors left, no memory
            self._refuse(frame, asked, error)
        except Exception as error:
            self._server.report(error)
            self._refuse(frame, asked, OSError(errno.EIO, f"netmapd: internal error: {error!r}"))
        else:
            for data, sent in answers:
                self._send(data, sent)

    # -- answering ----------------------------------------------------------------------------------------------------

    def _answers(self, frame: Frame, asked: request.Request, result: Result) -> list[tuple[bytes, list[int]]]:
        """Return what is to be sent now: the answer, none yet, or that to an earlier request as well."""
        if result.later:
            self._waiting = (frame, asked, result)
            return []
        answers = [_answer(frame, asked, result)]
        if asked.reqtype == abi.NETMAP_REQ_SYNC_KLOOP_STOP and self._waiting is not None:
            answers.append(_answer(*self._waiting))
            self._waiting = None
        return answers

    def _refuse(self, frame: Frame, asked: request.Request | None, error: OSError) -> None:
        argument = b""
        if asked is not None:
            self._server.tidy_soon()  # something may have been made before it was refused
            argument = request.answer(asked, error=error.errno or errno.EIO)
            if frame.ioctl != abi.NIOCCTRL:
                argument = legacy.answer(frame.argument, asked, argument, error.errno or errno.EIO)
        self._send(frames.encode(frames.refusal(frame.ioctl, error, argument)), [])

    def _send(self, data: bytes, fds: list[int]) -> None:
        if self._socket.fileno() < 0:
            return
        if self._pending is not None:
            # Two answers at a time happen only around a sync loop; whoever reads none of them is not served on.
            self.close()
            return
        if not self._sent(data, fds):
            self._pending = (data, _duplicates(fds))
            self._server.loop.remove_reader(self._socket)
            self._server.loop.add_writer(self._socket, self._writable)

    def _sent(self, data: bytes, fds: list[int]) -> bool:
        try:
            socket.send_fds(self._socket, [data], fds, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS):
                # Others have not received what was sent to them. The socket does not tell when that has changed.
                self._server.loop.remove_writer(self._socket)
                self._server.loop.call_later(_AGAIN_S, self._look_again)
                return False
            self.close()
        return True

    def _look_again(self) -> None:
        if self._pending is not None and self._socket.fileno() >= 0:
            self._server.loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        if self._pending is None:
            return
        if self._sent(*self._pending):
            self.drop_pending()
            if self._socket.fileno() >= 0:
                self._server.loop.remove_writer(self._socket)
                self._server.loop.add_reader(self._socket, self._readable)

    def drop_pending(self) -> None:
        """Close the descriptors of an answer that never left."""
        pending, self._pending = self._pending, None
        for fd in pending[1] if pending else ():
            os.close(fd)


class Server:
    """Serves clients on a listening socket.

    ``report`` is told of what went wrong inside, ``tell`` which process opens and closes which port.
    """

    def __init__(
        self,
        host: Host,
        listener: socket.socket,
        *,
        address: str = "",
        report: Callable[[BaseException], None] = lambda error: None,
        tell: Callable[[str], None] = lambda event: None,
    ) -> None:
        self.host = host
        self.dispatcher = Dispatcher(host)
        self.connections: set[Connection] = set()
        self.dispatcher.clients = lambda: [connection.client for connection in self.connections]
        self.hello = Hello(__version__, self.dispatcher.generation)
        self.address = address or str(listener.getsockname())
        self.report = report
        self.tell = tell
        self._listener = listener
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._untidy = False
        self._tidying_s = 0.0
        self.loop: asyncio.AbstractEventLoop
        self._changed: asyncio.Event

    async def run(self, life: Life) -> None:
        """Serve until told to stop, or idle for long enough; then close everything."""
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.loop.add_reader(life.stop.fileno(), self._changed.set)
        gc.collect()
        gc.freeze()  # what is there now stays, and need not be looked at again
        gc.set_threshold(_OBJECTS_BETWEEN_LOOKS)  # a port is hundreds of objects; what ends is tidied up for itself
        life.ready()
        self.loop.add_reader(self._listener, self.accept)
        try:
            while not life.stop.requested:
                self._changed.clear()
                keeps_state = not self.connections and self.host.keeps_state
                wait = life.idle.look(time.monotonic(), len(self.connections), keeps_state)
                if wait != 0.0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), wait)
                elif self._leave(life):
                    break
        finally:
            self.loop.remove_reader(life.stop.fileno())
            self.loop.remove_reader(self._listener)
            for connection in list(self.connections):
                connection.close()
            self.host.close()
            if self._reserve is not None:
                os.close(self._reserve)

    def _leave(self, life: Life) -> bool:
        """Stop listening for good, unless somebody came at this very moment."""
        self.loop.remove_reader(self._listener)
        late = life.leave()
        if late is None:
            return True
        life.idle.restart()
        self.loop.add_reader(self._listener, self.accept)
        for peer in late:
            self.connections.add(Connection(self, peer))
        return False

    def accept(self) -> int:
        """Take the clients that wait at the listening socket; return how many there were."""
        taken = 0
        while True:
            try:
                peer, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return taken
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                if not self._turn_away():
                    # It stays readable, but we can do nothing about it before something is closed.
                    self.loop.remove_reader(self._listener)
                    self.loop.call_later(_AGAIN_S, self._accept_again)
                    return taken
                continue
            taken += 1
            self._keep_reserve()
            try:
                self.connections.add(Connection(self, peer))
            except OSError:  # no memory to watch it with
                close_connection(peer)
            self._changed.set()

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self.loop.add_reader(self._listener, self.accept)

    def _turn_away(self) -> bool:
        """Close a connection for which there is no descriptor left; return whether that was possible."""
        turned_away = False
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with contextlib.suppress(OSError):
                close_connection(self._listener.accept()[0])
                turned_away = True
        self._keep_reserve()
        return turned_away

    def _keep_reserve(self) -> None:
        """Have one descriptor that can be given up, if there is one to be had."""
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def forget(self, connection: Connection) -> None:
        """Undo what a closed connection holds."""
        self.connections.discard(connection)
        connection.drop_pending()
        if connection.client.opened:
            self.tell(f"process {connection.client.pid} closes {connection.client.opened}")
        if connection.client.descriptor is not None:
            self.tidy_soon()
        try:
            self.dispatcher.gone(connection.client)
        except Exception as error:
            self.report(error)
        self._changed.set()

    def tidy_soon(self) -> None:
        """Let go of bindings that have ended: they are part of cycles, and have megabytes of memory mapped."""
        if not self._untidy:
            self._untidy = True
            self.loop.call_later(max(_TIDY_S, _TIDY_SHARE * self._tidying_s), self._tidy)

    def _tidy(self) -> None:
        self._untidy = False
        began = time.monotonic()
        gc.collect()
        self._tidying_s = time.monotonic() - began


def serve(listener: socket.socket, options: Options) -> int:
    """Be netmapd, on a socket that is bound and will listen; returns the exit code."""
    runtime = {"max_switches": options.max_switches, "ageing": options.ageing}
    given = {name: value for name, value in runtime.items() if value is not None}
    spin = DEFAULT_SPIN if options.spin is None else options.spin
    interruptible()
    host = Host(
        lambda: KThreads(options.kthreads, options.cpus, spin),
        relay=options.relay,
        force_xdp=options.force_xdp,
        nic_mode=options.nic_mode,
        busy_poll=options.busy_poll,
        **given,
        **options.pools,
    )
    tell = {"tell": _print} if options.verbose else {}
    server = Server(host, listener, address=str(options.life.path), report=_print_traceback, **tell)
    asyncio.run(server.run(options.life))
    return 0


def _print(event: str) -> None:
    print(time.strftime("%F %T"), event, file=sys.stderr, flush=True)


def _print_traceback(error: BaseException) -> None:
    traceback.print_exception(error, file=sys.stderr)


def _decode(frame: Frame) -> request.Request:
    if frame.ioctl == abi.NIOCCTRL:
        return request.decode(frame.argument)
    if frame.ioctl in (abi.NIOCREGIF, abi.NIOCGINFO):
        return legacy.decode(frame.ioctl, frame.argument)
    raise WireError(
        errno.EOPNOTSUPP,
        f"netmap: ioctl {frame.ioctl:#x} is no message\n        syncs are done through memory, not through the socket",
    )


def _answer(frame: Frame, asked: request.Request, result: Result) -> tuple[bytes, list[int]]:
    argument = request.answer(asked, body=result.body, name=result.name, option_status=result.option_status)
    if frame.ioctl != abi.NIOCCTRL:
        argument = legacy.answer(frame.argument, asked, argument)
    return frames.encode(Frame(frame.ioctl, argument)), result.fds


def _duplicates(fds: list[int]) -> list[int]:
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


def _credentials(peer: socket.socket) -> tuple[int, int]:
    """Return the process id and user id of the process at the other end."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", credentials)
    return pid, uid


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)

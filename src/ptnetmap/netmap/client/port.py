# SPDX-License-Identifier: BSD-2-Clause
"""Ports of netmapd: the same Port as the embedded runtime's, with rings that another process serves or shares."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.warmup import warm_up
from ptnetmap.netmap import binding, names, sync
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.client.adapter import RemoteAdapter
from ptnetmap.netmap.client.error import DaemonGoneError
from ptnetmap.netmap.client.session import Session, connect
from ptnetmap.netmap.client.watcher import watcher
from ptnetmap.netmap.descriptor import POLLIN, deadline_after, is_over, next_look
from ptnetmap.netmap.frames import FrameBatch
from ptnetmap.netmap.kring import KIND_CSB, STATE_STOPPED
from ptnetmap.netmap.linuxguest.names import device_number
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.nic.message import gone
from ptnetmap.netmap.port import PacketHeader, Port
from ptnetmap.netmap.registration import check_counts
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.runtime import KERNELS
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.stats import PortStats
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.registration import register_request
from ptnetmap.netmap.wire.request import Request

R = TypeVar("R")
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.2


def time_left(deadline: int) -> float | None:
    """Return the seconds until a deadline, None if it never comes."""
    return None if deadline == binding.FOREVER else max(0.0, (deadline - time.monotonic_ns()) / 1e9)


class Binding:
    """A port as netmapd has granted it: the connection that holds it, and what came with it."""

    def __init__(self, session: Session, request: Request) -> None:
        self.session = session
        answer, fds = session.ask(request)
        body = answer.body or {}
        self.nifp_offset: int = body["nr_offset"]
        self.extra_bufs: int = body["nr_extra_bufs"]
        memory: list[int] = []

        def ask(reqtype: int, name: str, values: Any) -> Any:
            page, more = session.ask(Request(reqtype, name, values))
            memory.extend(more)
            return page.fields

        try:
            description = extension.introspect(ask, extension.BINDING)
        except BaseException:
            for fd in (*fds, *memory):
                os.close(fd)
            raise
        self.flags: int = description["flags"]
        self.adapter = RemoteAdapter(description, body["nr_mem_id"], fds, memory)
        try:
            self._fetch_notifiers()
        except BaseException:
            for ring in self.adapter.rings:
                ring.close()
            raise

    def _fetch_notifiers(self) -> None:
        rings = self.adapter.rings
        done = 0
        while done < len(rings) and self.adapter.kind != 0:
            wanted = {"first": done, "count": len(rings) - done}
            answer, fds = self.session.ask(Request(extension.NOTIFIERS, "", wanted))
            count = (answer.body or {})["count"]
            for i in range(count):
                cast(Any, rings[done + i]).use(fds[2 * i], fds[2 * i + 1])
            done += count
        for ring in rings:
            ring.turn(on=True)

    def release(self) -> None:
        """End the connection, and with it all that netmapd holds for it."""
        for ring in self.adapter.rings:
            ring.turn(on=False)
            ring.close()
        self.session.close()


class RemotePort(Port):
    """A port of netmapd. Made by :func:`open`; see :class:`~ptnetmap.netmap.port.Port` for what it can do.

    With ``reconnect``, methods that find netmapd gone wait for the next one, until their timeout, bind the port there by
    the same name, and go on. What was in the old rings is lost; frames in hand are sent again. The rings are others
    then: take ``tx_rings`` and ``rx_rings`` afresh when :attr:`generation` has changed.
    """

    def __init__(self, name: str, bind: Callable[[], Binding], reconnect: bool) -> None:
        self._bind = bind
        self._reconnect = reconnect
        self._recovering = threading.Lock()
        self._past: list[Any] = []
        first = bind()
        self._bound = first
        self._gone = False
        adapter = cast(Adapter, first.adapter)
        end = cast(
            Any, RemotePort._end
        )  # the function, and the watcher's weak reference: no cycle keeps a dropped port
        super().__init__(name, adapter, first.adapter.rings, first.flags, first.nifp_offset, end)
        self._begin(first)

    def _begin(self, bound: Binding) -> None:
        self.extra_bufs = bound.extra_bufs
        port = weakref.ref(self)

        def notice() -> None:
            lost = port()
            if lost is not None:
                lost._notice(bound)

        watcher.watch(bound.session.fileno(), notice)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        # As the interpreter ends, this module's names may be gone already: an argument is not.
        gate = getattr(self, "_gate", None)
        if gate is not None and not gate.is_shut:
            _warn(f"unclosed port {self.name}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    # -- when netmapd goes --------------------------------------------------------------------------------------------

    def _lasting(self, deadline: int, action: Callable[[], R], late: R) -> R:
        """Do ``action``; if netmapd has gone, do it again at the next one, or return ``late`` after the deadline."""
        while True:
            bound = self._bound
            try:
                return action()
            except DaemonGoneError:
                if not self._reconnect or self.closed:
                    raise
            except PortError as error:
                # On the old rings still, while another thread has moved the port: they are stopped.
                if self._bound is bound or self.closed or error.errno not in (errno.EIO, errno.EBADF):
                    raise
            if not self._recover(bound, deadline):
                return late

    def _recover(self, lost: Binding, deadline: int) -> bool:
        """Bind the port again. Returns False if that was not possible until the deadline."""
        pause = _FIRST_PAUSE
        while not self._recovering.acquire(timeout=pause):
            if is_over(deadline):
                return False
        try:
            while self._bound is lost:
                if self.closed:
                    raise self._closed_meanwhile()
                watcher.forget(lost.session.fileno())
                lost.session.close()
                try:
                    bound = self._bind()
                except OSError as error:
                    self.last_error = error
                    if is_over(deadline):
                        return False
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                try:
                    with self._gate:  # close() waits, or has come first
                        self._move_to(bound)
                except PortError:
                    bound.release()
                    raise
        finally:
            self._recovering.release()
        return True

    def _move_to(self, bound: Binding) -> None:
        """Take over a new binding. Threads inside a kernel may still use the old one, which therefore stays."""
        with self._fds_lock:
            self._past.append((self._bound, self._binding))
            self._take(cast(Adapter, bound.adapter), bound.adapter.rings, bound.nifp_offset)
            self._bound = bound
            self._gone = False
        self._begin(bound)
        if self._epolls:
            self._make_fds()
            for events in self._epolls:
                self._watch(events)

    def _send_batch(self, batch: FrameBatch, ring: int | None, deadline: int) -> int:
        send = super()._send_batch
        return self._lasting(deadline, lambda: send(batch, ring, deadline), 0)

    def _flush(self, ring: int | None, deadline: int) -> None:
        flush = super()._flush
        self._lasting(deadline, lambda: flush(ring, deadline), None)

    def recv_into(
        self, out: npt.NDArray[np.uint8], limit: int = 256, *, timeout: float | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Receive frames, as :meth:`Port.recv_into`."""
        deadline = deadline_after(timeout)
        receive = super().recv_into
        return self._lasting(
            deadline,
            lambda: receive(out, limit, timeout=time_left(deadline)),
            (out[:0], np.zeros(0, np.int64)),
        )

    def poll(self, events: int = POLLIN, timeout: float | None = None) -> int:
        """Wait for packets or space, as :meth:`Descriptor.poll`."""
        deadline = deadline_after(timeout)
        poll = super().poll
        return self._lasting(deadline, lambda: poll(events, time_left(deadline)), 0)

    def txsync(self, wait: bool = True) -> None:
        """Send what has been released, as :meth:`Descriptor.txsync`."""
        sync = super().txsync
        self._lasting(binding.FOREVER, lambda: sync(wait), None)

    def rxsync(self) -> None:
        """Give back what has been released, as :meth:`Descriptor.rxsync`."""
        self._lasting(binding.FOREVER, super().rxsync, None)

    def dispatch(self, callback: Callable[[PacketHeader, memoryview], object], limit: int = -1) -> int:
        """Call back for each packet that has come, as :meth:`Port.dispatch`."""
        dispatch = super().dispatch
        return self._lasting(binding.FOREVER, lambda: dispatch(callback, limit), 0)

    @property
    def address(self) -> str:
        """The socket of the netmapd that the port is of."""
        return self._bound.session.address

    @property
    def generation(self) -> int:
        """A number that this netmapd gave itself when it started: another one means other memory."""
        return self._bound.session.daemon.generation

    last_error: OSError | None = None
    """Why the last attempt to come back failed, while there is no netmapd."""

    def _notice(self, bound: Binding) -> None:
        """Netmapd has gone: let no sync and no wait on its memory begin or go on. Runs in the watcher's thread."""
        with self._fds_lock:
            if bound is not self._bound:
                return
            self._gone = True
            for ring in bound.adapter.rings:
                ring.block["state"] = STATE_STOPPED
                ring.wake()
            self._binding["closed"] = 1
            if self._binding["close_fd"] >= 0:
                os.eventfd_write(self._binding["close_fd"], 1)

    def _lost(self) -> PortError | None:
        if self.closed:
            return None
        if self._gone:
            return DaemonGoneError(self.address)
        return gone(self.adapter.name) if any(r.block["state"] == STATE_STOPPED for r in self.rings) else None

    def _end(self) -> None:
        """Give everything back, once no thread is inside."""
        watcher.forget(self._bound.session.fileno())
        with self._fds_lock:
            self._close_fds()
        for past, block in self._past:
            if block["close_fd"] >= 0:
                os.close(block["close_fd"])
            past.release()
        self._past = []
        self._bound.release()

    def _wait_served(self, states: list[RingState]) -> None:
        if self.adapter.kind != KIND_CSB:
            return
        for state in states:
            while True:
                result = int(binding.wait_served(self._binding.address, state.address, scratch(), next_look(-1)))
                if result == binding.CLOSED:
                    raise self._closed_meanwhile()
                if result == binding.NEED_FDS:
                    self._make_fds()
                if result > 0:
                    break
            self._raise(sync.txsync(state.address, scratch()))

    @property
    def stats(self) -> PortStats:
        """Counters of the port, of all who use it, since it was created; drops by reason."""
        return PortStats(**extension.stats_fields(self._ask(extension.PORT_STATS)))

    @property
    def lossless(self) -> bool:
        """Whether senders to this port wait while it is full, instead of losing packets (VALE)."""
        return bool(self._ask(extension.LOSSLESS_GET)["on"])

    @lossless.setter
    def lossless(self, on: bool) -> None:
        self._ask(extension.LOSSLESS_SET, {"on": int(on)})

    def _ask(self, reqtype: int, body: Any = None) -> Any:
        with self._gate:
            return self._bound.session.request(reqtype, "", body if body is not None else {})


def open(  # noqa: A001 - as the embedded runtime's, and netmap's
    name: str,
    *,
    lossless: bool = False,
    extra_bufs: int = 0,
    flags: int = 0,
    tx_rings: int = 0,
    rx_rings: int = 0,
    tx_slots: int = 0,
    rx_slots: int = 0,
    socket: str | None = None,
    start: bool = True,
    reconnect: bool = False,
) -> Port:
    """Open a port of netmapd, which other processes' ports can talk to; netmapd is started if need be.

    As :meth:`Netmap.open`, with the same names and counts. ``socket`` is netmapd's (default: $NETMAP_SOCKET, the
    system's, or the user's own); ``start`` says whether it may be started. With ``reconnect``, a port whose netmapd goes
    waits for the next one and goes on there. Raises DaemonError if there is no netmapd, PortError with upstream's
    errno, and DaemonGoneError, also from the port's methods, when netmapd goes.

    In a guest, ``netmap:ptnet0`` is the first port that the host passes through. Its host has decided of rings and slots, so
    counts mean nothing there, and ``lossless`` is refused.
    """
    if not isinstance(name, str):
        raise PortError(errno.EINVAL, f"netmap: {name!r} is no port name\n        give a str such as 'vale0:1'")
    parsed = names.parse(name)
    counts = {"tx_rings": tx_rings, "rx_rings": rx_rings, "tx_slots": tx_slots, "rx_slots": rx_slots}
    check_counts(name, {**counts, "extra_bufs": extra_bufs})
    if parsed.extmem is not None or parsed.offset is not None:
        option = "@extmem" if parsed.extmem is not None else "@offset"
        raise PortError(
            errno.EOPNOTSUPP, f"netmap: cannot open {name}: {option} is not supported\n        leave it out"
        )

    number = device_number(parsed)
    if number is not None:
        from ptnetmap.netmap.linuxguest.port import open_device

        warm_up("runtime", KERNELS)
        return open_device(name, parsed, number, flags, lossless=lossless)

    def bind() -> Binding:
        session = connect(socket, start=start)
        try:
            shared = 0
            if parsed.share is not None:
                shared = session.request(abi.NETMAP_REQ_PORT_INFO_GET, parsed.share, {})["nr_mem_id"]
            request = register_request(
                parsed, conf=Conf(**counts), flags=flags, extra_bufs=extra_bufs, shared_mem_id=shared
            )
            bound = Binding(session, request)
        except BaseException:
            session.close()
            raise
        if lossless:
            try:
                session.request(extension.LOSSLESS_SET, "", {"on": 1})
            except BaseException:
                bound.release()
                raise
        return bound

    warm_up("runtime", KERNELS)
    return RemotePort(name, bind, reconnect)


__all__ = ["RemotePort", "open"]

# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors: rings that somebody has bound. Their life, their memory, syncing and waiting; packets are Port's."""

from __future__ import annotations

import errno
import functools
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.netmap import binding, sync
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.audit import Indices, extra_list, reclaim
from ptnetmap.netmap.gate import Gate
from ptnetmap.netmap.ring import Ring
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.stats import PortStats, port_stats

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D", bound="Descriptor")

POLLIN = binding.READABLE
POLLOUT = binding.WRITABLE
POLLERR = binding.ERROR


def while_open(method: Callable[Concatenate[D, P], R]) -> Callable[Concatenate[D, P], R]:
    """Let a method run only while its descriptor is open, and let close() wait for it."""

    @functools.wraps(method)
    def guarded(self: D, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._gate:
            return method(self, *args, **kwargs)

    return guarded  # type: ignore[return-value]


def deadline_after(timeout: float | None) -> int:
    """Return the time (ns, monotonic) at which ``timeout`` seconds are over; None never is.

    Raises PortError (EINVAL) for what is no number of seconds.
    """
    if timeout is None:
        return binding.FOREVER
    if not isinstance(timeout, int | float) or not 0 <= timeout <= _LONGEST:
        raise PortError(
            errno.EINVAL,
            f"netmap: cannot wait for {timeout!r} seconds\n        give a number from 0 to {_LONGEST:.0e}, or None for ever",
        )
    return time.monotonic_ns() + int(timeout * 1e9)


_LOOK_UP = 1_000_000_000
_LONGEST = 1e9
_EVENTS = (POLLIN, POLLOUT, POLLIN | POLLOUT)


def check_events(events: int) -> None:
    """Raise PortError (EINVAL) unless ``events`` is POLLIN, POLLOUT or both."""
    if events not in _EVENTS:
        raise PortError(errno.EINVAL, f"netmap: cannot wait for events {events!r}\n        use POLLIN, POLLOUT or both")


def next_look(deadline: int) -> int:
    """Until when to wait in one go: to the deadline, but in the main thread for a second at most.

    A signal that arrives just before the kernel goes to sleep does not wake it, and only the main thread can handle it.
    """
    if threading.current_thread() is not threading.main_thread():
        return deadline
    soon = time.monotonic_ns() + _LOOK_UP
    return soon if deadline == binding.FOREVER else min(deadline, soon)


def is_over(deadline: int) -> bool:
    """Whether a deadline has passed."""
    return deadline != binding.FOREVER and time.monotonic_ns() >= deadline


def _too_late(name: str) -> PortError:
    return PortError(errno.EBADF, f"netmap: {name} is closed\n        open it again")


class Descriptor:
    """Rings of an adapter, bound: what a netmap file descriptor is upstream. A context manager.

    ``rings`` are the bound ones, ``flags`` those of the registration (NR_*), and ``if_object`` the number of the
    netmap_if that was allocated for it. ``on_close`` is called once, when it is closed and no thread is inside.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        rings: list[RingState],
        flags: int,
        if_object: int,
        on_close: Callable[[Any], None],
    ) -> None:
        self.name = name
        self.flags = flags
        self._on_close = on_close
        self._gate = Gate(functools.partial(_too_late, name))  # no method: a cycle would keep the memory for a while
        self._fds_lock = threading.Lock()
        self._epolls: dict[int, int] = {}
        self._take(adapter, rings, if_object)

    def _take(self, adapter: Adapter, rings: list[RingState], if_object: int) -> None:
        """Be a descriptor of these rings."""
        self.adapter = adapter
        self.mem_id = adapter.allocator.id
        self.extra_bufs = 0
        self._rings = rings
        self._if_object = if_object
        self._tx_states = [r for r in rings if r.direction == abi.TX]
        self._rx_states = [r for r in rings if r.direction == abi.RX]
        region = adapter.allocator.region
        self.tx_rings = [Ring(region, r.offset, abi.TX, r.index, r.num_slots) for r in self._tx_states]
        self.rx_rings = [Ring(region, r.offset, abi.RX, r.index, r.num_slots) for r in self._rx_states]
        self._region = region
        block = Block(binding.binding)
        block["flush"] = int(not self.flags & abi.NR_NO_TX_POLL)
        block["close_fd"] = -1
        block["naps"] = int(any(r.silent for r in rings))
        for kind, states in (("tx", self._tx_states), ("rx", self._rx_states)):
            block[f"{kind}_count"] = len(states)
            block.items[kind][0, : len(states)] = [r.address for r in states]
        self._binding = block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- life ---------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._gate.is_shut

    def close(self) -> None:
        """Unbind the rings. Other threads that wait on it get a PortError. Closing again does nothing.

        Returns when everything is given back; called inside a callback of :meth:`Port.dispatch`, at once, and the last
        thread to leave the descriptor's methods does the rest.
        """
        if not self._gate.shut():
            return
        self._binding["closed"] = 1
        with self._fds_lock:
            if self._binding["close_fd"] >= 0:
                os.eventfd_write(self._binding["close_fd"], 1)
        self._gate.finish(lambda: self._on_close(self))

    def release(self) -> None:
        """Give back what the descriptor holds; called by the runtime, once no thread is inside."""
        self._close_fds()
        allocator = self.adapter.allocator
        if self.extra_bufs:
            named = self.claims()
            allocator.owners.discard(self)
            reclaim(allocator, self.extra_bufs, named)
        allocator.ifs.release([self._if_object])

    def _close_fds(self) -> None:
        for fd in (self._binding["close_fd"], *self._epolls.values()):
            if fd >= 0:
                os.close(fd)
        self._binding["close_fd"] = -1
        self._epolls = {}

    @property
    def rings(self) -> list[RingState]:
        """The bound rings, TX first."""
        return self._rings

    @property
    def in_use(self) -> Gate:
        """A context manager for loops of the caller's own over :attr:`tx_krings` and :attr:`rx_krings`.

        While a thread is inside, close() waits for it. Raises PortError (EBADF) on a closed descriptor.
        """
        return self._gate

    # -- memory -------------------------------------------------------------------------------------------------------

    @property
    def nifp_offset(self) -> int:
        """Offset of this descriptor's netmap_if in the region (nr_offset)."""
        return self.adapter.allocator.if_offset(self._if_object)

    @property
    def memsize(self) -> int:
        """Bytes of the region (nr_memsize)."""
        return self._region.geometry.total

    @property
    def region_fd(self) -> int:
        """The region's memfd, for mapping it elsewhere; it belongs to the region."""
        return self._region.fd

    @property
    def interface(self) -> npt.NDArray[Any]:
        """The netmap_if of this descriptor, an array of one structure."""
        return self._region.view(self.nifp_offset, abi.netmap_if, 1)

    def claims(self) -> Indices:
        """Extra buffers, as the list at ``ni_bufs_head`` has them now."""
        first_words = self._region.view(
            self._region.geometry.buf_offset,
            np.dtype({"names": ["next"], "formats": ["u4"], "itemsize": self._region.geometry.buf_pool.objsize}),
            self._region.geometry.buf_pool.objtotal,
        )["next"]
        head = int(self.interface["ni_bufs_head"][0])
        return np.fromiter(extra_list(head, first_words, self.extra_bufs), np.int64)

    @property
    def loose(self) -> int:
        """Extra buffers may be in the program's hands, or swapped into rings, in place of the ones listed."""
        return self.extra_bufs

    @property
    def label(self) -> str:
        """What the audit calls this owner of buffers."""
        return f"{self.name}'s extra buffers"

    @property
    def tx_krings(self) -> list[int]:
        """Addresses of the bound TX rings' krings, for kernels; valid while the descriptor is :attr:`in_use`."""
        return [state.address for state in self._tx_states]

    @property
    def rx_krings(self) -> list[int]:
        """Addresses of the bound RX rings' krings, for kernels; valid while the descriptor is :attr:`in_use`."""
        return [state.address for state in self._rx_states]

    # -- syncing and waiting ------------------------------------------------------------------------------------------

    @while_open
    def txsync(self, wait: bool = True) -> None:
        """Send what has been released on all bound TX rings, and take back what is done (NIOCTXSYNC).

        On a port that a kthread of netmapd serves, this waits until it has done so, unless ``wait`` is False. Raises
        PortError (EIO) on a ring that cannot send. A ring found overwritten is put in order and counted.
        """
        for state in self._tx_states:
            self._raise(sync.txsync(state.address, scratch()))
        if wait:
            self._wait_served(self._tx_states)

    def _wait_served(self, states: list[RingState]) -> None:
        """Wait until whoever serves these rings has done all that can be done; syncs of this thread's own have."""

    @while_open
    def rxsync(self) -> None:
        """Give released slots back on all bound RX rings, and see what has come (NIOCRXSYNC)."""
        for state in self._rx_states:
            self._raise(sync.rxsync(state.address, scratch(), 0))

    def _raise(self, result: int) -> None:
        if result < 0:
            raise self._lost() or (
                _too_late(self.name)
                if self.closed
                else PortError(-result, f"netmap: {self.name} cannot be synced: {os.strerror(-result)}")
            )

    def _lost(self) -> PortError | None:
        """Why the rings have stopped for good, if they have."""
        return self.adapter.failure()

    def _closed_meanwhile(self) -> PortError:
        return self._lost() or PortError(errno.EBADF, f"netmap: {self.name} was closed while waiting on it")

    @while_open
    def poll(self, events: int = POLLIN, timeout: float | None = None) -> int:
        """Wait until packets can be read (POLLIN) or sent (POLLOUT), as poll(2) on a netmap descriptor.

        Syncs the rings; also sends what is pending, unless opened with NR_NO_TX_POLL. ``timeout`` is in seconds: None
        waits for ever, 0 only looks. Returns the events that hold, POLLERR among them after a ring reinit, 0 after the
        timeout. Raises PortError (EBADF) if another thread closes the port.
        """
        check_events(events)
        return self._wait(events, deadline_after(timeout))

    def _wait(self, events: int, deadline: int, only: int = 0) -> int:
        while True:
            result = int(binding.wait(self._binding.address, scratch(), events, next_look(deadline), only))
            if result > 0 or (result == binding.TIMEOUT and is_over(deadline)):
                return result
            if result == binding.CLOSED:
                raise self._closed_meanwhile()
            if result == binding.NEED_FDS:
                self._make_fds()
            # INTERRUPTED: Python has run the signal's handler by now; wait on.

    def _make_fds(self) -> None:
        with self._fds_lock:
            if self.closed:  # by another thread, which has not seen these descriptors
                raise _too_late(self.name)
            for state in self._rings:
                state.make_eventfd()
            if self._binding["close_fd"] < 0:
                self._binding["close_fd"] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @while_open
    def fileno(self, events: int = POLLIN) -> int:
        """A file descriptor for select, poll, epoll or asyncio, readable while a bound RX ring has packets.

        With ``POLLOUT``: readable while a bound TX ring has space; with both, while either holds. It stays readable
        until a sync finds the rings empty (full), which :meth:`recv`, :meth:`poll` and the sync methods do; so read
        until there is nothing left. Raises PortError (EOPNOTSUPP) for a guest's port without interrupts.
        """
        check_events(events)
        if self._binding["naps"]:
            raise PortError(
                errno.EOPNOTSUPP,
                f"netmap: {self.name} has no interrupts, so no descriptor can tell of its packets\n"
                "        wait with poll(), or give its device to uio_pci_generic: see docs/linux-guests.md",
            )
        if events not in self._epolls:
            self._make_fds()
            epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
            self._epolls[events] = os.dup(epoll.fileno())
            epoll.close()
            self._watch(events)
        return self._epolls[events]

    def _watch(self, events: int) -> None:
        """Let the epoll descriptor for ``events`` become readable with the rings' own."""
        epoll = select.epoll.fromfd(os.dup(self._epolls[events]))
        states = self._rx_states if events & POLLIN else []
        states = states + (self._tx_states if events & POLLOUT else [])
        for state in states:
            for fd in (state.eventfd, state.block["irqfd"]):
                if fd != -1:
                    epoll.register(fd, select.EPOLLIN)
            if state.news is not None:
                epoll.register(*state.news)
            state.block["watched"] = 1
            # From here on syncs keep the eventfd in step; this one puts it there.
            state.wake()
        epoll.close()
        self.poll(events, 0)

    # -- settings and figures -----------------------------------------------------------------------------------------

    @property
    def stats(self) -> PortStats:
        """Counters of the port, of all who use it, since it was created; drops by reason."""
        return port_stats(self.adapter, self._rings)

    @property
    def lossless(self) -> bool:
        """Whether senders to this port wait while it is full, instead of losing packets (VALE)."""
        return self.adapter.is_lossless

    @lossless.setter
    def lossless(self, on: bool) -> None:
        self.adapter.lossless(on)

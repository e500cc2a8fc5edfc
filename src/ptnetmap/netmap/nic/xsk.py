# SPDX-License-Identifier: BSD-2-Clause
"""AF_XDP sockets: one for each queue of an interface, all on one UMEM."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import xdp as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.shared import Mapping

_LEAVING = 2.0
"""Seconds that the kernel may take to let go of a queue: it does so in the background after a socket is closed."""
_AGAIN = 0.002
_SEND_BUFFER = 1 << 22
_SO_SNDBUFFORCE, _SO_BUSY_POLL, _SO_PREFER_BUSY_POLL, _SO_BUSY_POLL_BUDGET = 32, 46, 69, 70
_BUSY_POLL_US = 20
"""Any number turns polling on: a call that does not wait polls once."""
MOST_BUSY_POLL = 0xFFFF
"""Frames that a driver can be polled for at a time."""
_libc = ctypes.CDLL(None, use_errno=True)

MODES = (
    (abi.XDP_ZEROCOPY | abi.XDP_USE_NEED_WAKEUP, 1),
    (abi.XDP_COPY | abi.XDP_USE_NEED_WAKEUP | abi.XDP_USE_SG, abi.MAX_COPY_FRAGMENTS),
    (abi.XDP_COPY | abi.XDP_USE_NEED_WAKEUP, 1),
)
"""How to bind, the best first, and how many buffers a frame may then consist of."""


@dataclass(frozen=True)
class Umem:
    """Memory for frames: ``size`` bytes at ``address``, which is on a page, in chunks of ``chunk`` bytes."""

    address: int
    size: int
    chunk: int


@dataclass(frozen=True)
class Ring:
    """Addresses of the parts of one ring: of its indices, its flags and its first entry."""

    producer: int
    consumer: int
    flags: int
    entries: int


class Socket:
    """A socket for one queue of an interface, with all four rings, of ``entries`` (a power of two) each.

    ``beside`` is a socket of the same interface whose UMEM it shares; the first one registers it. ``zero_copy`` says
    whether the driver uses the UMEM's buffers, ``most_fragments`` how many a frame may consist of. With ``busy_poll``
    system calls on the socket poll the driver for up to so many frames, in place of its interrupts. Raises PortError.
    """

    def __init__(
        self,
        interface: Interface,
        queue: int,
        umem: Umem,
        entries: int,
        beside: Socket | None = None,
        busy_poll: int = 0,
    ) -> None:
        self.interface = interface
        self.queue = queue
        self.entries = entries
        try:
            self._socket = socket.socket(abi.AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise self._refusal("no AF_XDP socket can be made", error) from None
        self._mappings: list[Mapping] = []
        self.busy_poll = busy_poll
        try:
            self._prepare(umem, register=beside is None)
            self.most_fragments = self._bind(beside)
        except BaseException:
            self.close()
            raise
        self.zero_copy = bool(self._get(abi.XDP_OPTIONS, np.dtype("<u4"))[0] & abi.XDP_OPTIONS_ZEROCOPY)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the queue. Nobody may be inside a sync of its rings: these are unmapped."""
        self._socket.close()
        self._mappings.clear()  # a mapping keeps the socket open

    def statistics(self) -> npt.NDArray[Any]:
        """What became of its frames, a :data:`~ptnetmap.abi.xdp.xdp_statistics` of one."""
        return self._get(abi.XDP_STATISTICS, abi.xdp_statistics)

    def _get(self, option: int, layout: np.dtype[Any]) -> npt.NDArray[Any]:
        return np.frombuffer(self._socket.getsockopt(abi.SOL_XDP, option, layout.itemsize), layout, 1)

    def _prepare(self, umem: Umem, *, register: bool) -> None:
        with contextlib.suppress(OSError):  # without CAP_NET_ADMIN the system's default has to do
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        with contextlib.suppress(OSError):  # since Linux 6.17
            self._socket.setsockopt(abi.SOL_XDP, abi.XDP_MAX_TX_SKB_BUDGET, self.entries)
        if self.busy_poll:
            self._prefer_busy_polling()
        if register:
            request = np.zeros(1, abi.xdp_umem_reg)
            request["addr"], request["len"], request["chunk_size"] = umem.address, umem.size, umem.chunk
            try:
                self._socket.setsockopt(abi.SOL_XDP, abi.XDP_UMEM_REG, request.tobytes())
            except OSError as error:
                raise self._refusal(f"{umem.size:,} bytes cannot be locked in memory for it", error) from None
        try:
            for option in (
                abi.XDP_UMEM_FILL_RING,
                abi.XDP_UMEM_COMPLETION_RING,
                abi.XDP_RX_RING,
                abi.XDP_TX_RING,
            ):
                self._socket.setsockopt(abi.SOL_XDP, option, self.entries)
            self._map_rings()
        except OSError as error:
            raise self._refusal(f"no rings of {self.entries:,} entries can be made for it", error) from None

    def _prefer_busy_polling(self) -> None:
        values = {_SO_PREFER_BUSY_POLL: 1, _SO_BUSY_POLL: _BUSY_POLL_US, _SO_BUSY_POLL_BUDGET: self.busy_poll}
        try:
            for option, value in values.items():
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)
        except OSError as error:
            raise self._refusal(f"it cannot be polled for {self.busy_poll:,} frames at a time", error) from None

    def _map_rings(self) -> None:
        places = self._get(abi.XDP_MMAP_OFFSETS, abi.xdp_mmap_offsets)[0]
        address, desc = np.dtype("<u8").itemsize, abi.xdp_desc.itemsize
        self.fill = self._map(places["fr"], abi.XDP_UMEM_PGOFF_FILL_RING, address)
        self.completion = self._map(places["cr"], abi.XDP_UMEM_PGOFF_COMPLETION_RING, address)
        self.rx = self._map(places["rx"], abi.XDP_PGOFF_RX_RING, desc)
        self.tx = self._map(places["tx"], abi.XDP_PGOFF_TX_RING, desc)

    def _map(self, places: np.void, offset: int, entry: int) -> Ring:
        mapping = Mapping(self.fileno(), int(places["desc"]) + self.entries * entry, offset=offset)
        self._mappings.append(mapping)
        return Ring(*(mapping.address + int(places[part]) for part in ("producer", "consumer", "flags", "desc")))

    def _bind(self, beside: Socket | None) -> int:
        """Bind to the queue in the best mode that there is; return how many buffers a frame may consist of."""
        if beside is not None:
            self._bind_with(abi.XDP_SHARED_UMEM, beside.fileno())  # takes over the other's mode
            return beside.most_fragments
        refusal: PortError | None = None
        for flags, fragments in MODES:
            try:
                self._bind_with(flags, 0)
            except PortError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                refusal = error
            else:
                return fragments
        assert refusal is not None
        raise refusal

    def _bind_with(self, flags: int, shared: int) -> None:
        request = np.zeros(1, abi.sockaddr_xdp)
        request["sxdp_family"], request["sxdp_flags"] = abi.AF_XDP, flags
        request["sxdp_ifindex"], request["sxdp_queue_id"] = self.interface.index, self.queue
        request["sxdp_shared_umem_fd"] = shared
        _until_it_is_free(lambda: self._try_to_bind(request))

    def _try_to_bind(self, request: npt.NDArray[Any]) -> None:
        if _libc.bind(self.fileno(), ctypes.c_void_p(request.ctypes.data), request.nbytes) < 0:
            number = ctypes.get_errno()
            raise self._refusal(
                f"its queue {self.queue} cannot be bound", OSError(number, os.strerror(number))
            ) from None

    def _refusal(self, what: str, error: OSError) -> PortError:
        advice = {
            errno.ENOBUFS: "raise the limit (ulimit -l, LimitMEMLOCK=), run with CAP_IPC_LOCK, use fewer slots, "
            "or AF_PACKET (netmapd --nic-mode=af_packet)",
            errno.ENOPROTOOPT: "use Linux 5.11 or later, or leave out busy polling",
            errno.EBUSY: "end whatever other AF_XDP program has the queue",
            errno.EPERM: "run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF",
            errno.EAFNOSUPPORT: "use a kernel with CONFIG_XDP_SOCKETS",
            errno.ENETDOWN: f"turn the interface on (ip link set dev {self.interface.name} up)",
        }.get(error.errno or 0, "see what the kernel says (dmesg), or use another interface")
        return PortError(
            error.errno or errno.EIO,
            f"netmap: cannot open {self.interface.name}: {what}: {error.strerror}\n        {advice}",
        )


def _until_it_is_free(bind: Callable[[], None]) -> None:
    """Bind, again and again while the kernel is still letting go of what had the queue before."""
    deadline = time.monotonic() + _LEAVING
    while True:
        try:
            bind()
        except PortError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN)
        else:
            return

# SPDX-License-Identifier: BSD-2-Clause
"""The front-end's side of a vhost-user connection: a method for each request.

Each returns when the back-end has done what was asked, if acknowledgements were agreed on (REPLY_ACK), and when the
request was sent otherwise. Usual order: features, owner, memory, then for each queue its size, where it stands, its
addresses, its descriptors, and that it is enabled.
"""

from __future__ import annotations

import errno
import os
import select
import socket as _socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap.vhost import message
from ptnetmap.netmap.vhost.channel import Channel, Message
from ptnetmap.netmap.vhost.message import Config, Inflight, Log, MemoryRegion, VringAddress, VringFile, VringState


class FrontEnd:
    """A connection to a back-end; it owns ``socket``, and waits ``timeout`` seconds for each reply, None: for ever.

    Descriptors that are passed to it stay the caller's. Methods raise PortError with the back-end's errno if it refuses;
    PeerError if it goes (ECONNRESET), is silent (ETIMEDOUT), or answers something else (EPROTO): close it then.
    """

    def __init__(self, socket: _socket.socket, *, timeout: float | None = None) -> None:
        self._channel = Channel(socket)
        self._timeout = timeout
        self._protocol_features = 0

    def close(self) -> None:
        """End the connection; the back-end stops all queues."""
        self._channel.close()

    def fileno(self) -> int:
        """Return the socket's descriptor: it becomes readable when the back-end goes."""
        return self._channel.fileno()

    def __enter__(self) -> FrontEnd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- negotiation ---------------------------------------------------------------------------------------------------

    def get_features(self) -> int:
        """Return the features that the back-end has, VHOST_USER_F_PROTOCOL_FEATURES perhaps among them."""
        return self._number(abi.VHOST_USER_GET_FEATURES)

    def set_features(self, features: int) -> None:
        """Use these features."""
        self._tell(abi.VHOST_USER_SET_FEATURES, features)

    def get_protocol_features(self) -> int:
        """Return VHOST_USER_PROTOCOL_F_* that the back-end has."""
        return self._number(abi.VHOST_USER_GET_PROTOCOL_FEATURES)

    def set_protocol_features(self, features: int) -> None:
        """Use these protocol features; with REPLY_ACK, later requests are acknowledged."""
        self._send(abi.VHOST_USER_SET_PROTOCOL_FEATURES, features)
        self._protocol_features = features

    def set_owner(self) -> None:
        """Begin a session."""
        self._tell(abi.VHOST_USER_SET_OWNER)

    def get_queue_num(self) -> int:
        """Return how many queues the back-end has."""
        return self._number(abi.VHOST_USER_GET_QUEUE_NUM)

    def get_status(self) -> int:
        """Return the device's status (virtio 1.2 §2.1)."""
        return self._number(abi.VHOST_USER_GET_STATUS)

    def set_status(self, status: int) -> None:
        """Set the device's status; 0 stops all queues."""
        self._tell(abi.VHOST_USER_SET_STATUS, status)

    def reset_device(self) -> None:
        """Make the device as new; memory and protocol features stay."""
        self._tell(abi.VHOST_USER_RESET_DEVICE)

    # -- memory --------------------------------------------------------------------------------------------------------

    def set_memory(self, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> None:
        """Let these regions be the guest's memory; each is in the file of the descriptor at its place, 8 at the most."""
        if len(regions) != len(fds) or len(fds) > message.MAX_FDS:
            raise ValueError(
                f"{len(regions)} regions with {len(fds)} descriptors; give as many, {message.MAX_FDS} at most"
            )
        self._tell(abi.VHOST_USER_SET_MEM_TABLE, tuple(regions), fds)

    def get_max_mem_slots(self) -> int:
        """Return how many regions the back-end can have."""
        return self._number(abi.VHOST_USER_GET_MAX_MEM_SLOTS)

    def add_memory(self, region: MemoryRegion, fd: int) -> None:
        """Add a region, which is in this file."""
        self._tell(abi.VHOST_USER_ADD_MEM_REG, region, [fd])

    def remove_memory(self, region: MemoryRegion) -> None:
        """Remove a region; queues in it stop until it is there again."""
        self._tell(abi.VHOST_USER_REM_MEM_REG, region)

    # -- queues --------------------------------------------------------------------------------------------------------

    def set_vring_num(self, index: int, num: int) -> None:
        """Let queue ``index`` have ``num`` entries."""
        self._tell(abi.VHOST_USER_SET_VRING_NUM, VringState(index, num))

    def set_vring_base(self, index: int, base: int) -> None:
        """Say where a queue stands, as :meth:`get_vring_base` returned it."""
        self._tell(abi.VHOST_USER_SET_VRING_BASE, VringState(index, base))

    def set_vring_addr(self, index: int, descriptor: int, available: int, used: int, log: int | None = None) -> None:
        """Say at which user addresses a queue's parts are; ``log``: where writes to the used ring are logged, if at all."""
        flags = 0 if log is None else abi.VHOST_VRING_F_LOG
        address = VringAddress(index, flags, descriptor, used, available, log or 0)
        self._tell(abi.VHOST_USER_SET_VRING_ADDR, address)

    def set_vring_kick(self, index: int, fd: int | None) -> None:
        """Start a queue; ``fd`` is the eventfd that is signalled when there are buffers, None: it is to be polled."""
        self._file(abi.VHOST_USER_SET_VRING_KICK, index, fd)

    def set_vring_call(self, index: int, fd: int | None) -> None:
        """Have an eventfd signalled when buffers were used."""
        self._file(abi.VHOST_USER_SET_VRING_CALL, index, fd)

    def set_vring_err(self, index: int, fd: int | None) -> None:
        """Have an eventfd signalled when a queue breaks."""
        self._file(abi.VHOST_USER_SET_VRING_ERR, index, fd)

    def set_vring_enable(self, index: int, on: bool) -> None:
        """Enable or disable a queue."""
        self._tell(abi.VHOST_USER_SET_VRING_ENABLE, VringState(index, int(on)))

    def get_vring_base(self, index: int) -> int:
        """Stop a queue; return where it stands."""
        state = self._ask(abi.VHOST_USER_GET_VRING_BASE, VringState(index, 0))
        if state.queue != index:
            raise _strange("GET_VRING_BASE", f"queue {state.queue} for queue {index}")
        return int(state.num)

    # -- migration and recovery ----------------------------------------------------------------------------------------

    def set_log_base(self, fd: int, size: int, offset: int = 0) -> None:
        """Have written pages marked in ``size`` bytes at an offset of this file. The back-end always replies."""
        number = abi.VHOST_USER_SET_LOG_BASE
        self._send(number, Log(size, offset), [fd], abi.VHOST_USER_NEED_REPLY if self._acknowledged else 0)
        self._check(number)

    def set_log_fd(self, fd: int) -> None:
        """Have an eventfd signalled when pages were marked."""
        self._tell(abi.VHOST_USER_SET_LOG_FD, None, [fd])

    def get_inflight(self, queues: int, queue_size: int) -> tuple[int, Inflight]:
        """Have memory made to note buffers in flight in; return its descriptor, which is the caller's, and the rest."""
        number = abi.VHOST_USER_GET_INFLIGHT_FD
        self._send(number, Inflight(0, 0, queues, queue_size))
        reply = self._receive(number)
        try:
            inflight = self._value(number, reply)
            if len(reply.fds) != 1:
                raise _strange("GET_INFLIGHT_FD", f"{len(reply.fds)} file descriptors")
            return reply.fds.pop(), inflight
        finally:
            _close(reply.fds)

    def set_inflight(self, fd: int, inflight: Inflight) -> None:
        """Hand such memory over, again perhaps: what was in flight is done again."""
        self._tell(abi.VHOST_USER_SET_INFLIGHT_FD, inflight, [fd])

    # -- the network device --------------------------------------------------------------------------------------------

    def set_mtu(self, mtu: int) -> None:
        """Let the guest see this MTU."""
        self._tell(abi.VHOST_USER_NET_SET_MTU, mtu)

    def send_rarp(self, mac: bytes) -> None:
        """Have 6 bytes of MAC address announced to the network."""
        if len(mac) != 6:
            raise ValueError(f"a MAC address of {len(mac)} bytes; give 6")
        self._tell(abi.VHOST_USER_SEND_RARP, int.from_bytes(mac, "little"))

    def get_config(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of the configuration space. Raises PortError (EINVAL) if they are not there."""
        number = abi.VHOST_USER_GET_CONFIG
        self._send(number, Config(offset, 0, bytes(size)))
        reply = self._receive(number)
        _close(reply.fds)
        if not reply.payload:
            raise _refused("GET_CONFIG", errno.EINVAL)
        config = self._value(number, reply)
        if len(config.data) != size:
            raise _strange("GET_CONFIG", f"{len(config.data)} bytes for {size}")
        return bytes(config.data)

    # -- messages ------------------------------------------------------------------------------------------------------

    def _file(self, request: int, index: int, fd: int | None) -> None:
        self._tell(request, VringFile(index, fd is not None), [] if fd is None else [fd])

    def _number(self, request: int) -> int:
        return int(self._ask(request))

    def _tell(self, request: int, value: Any = None, fds: Sequence[int] = ()) -> None:
        """Send a request that has no reply of its own, and see that it is done if that can be."""
        if not self._acknowledged:
            self._send(request, value, fds)
            return
        self._send(request, value, fds, abi.VHOST_USER_NEED_REPLY)
        self._check(request)

    @property
    def _acknowledged(self) -> bool:
        return bool(self._protocol_features & abi.VHOST_USER_PROTOCOL_F_REPLY_ACK)

    def _check(self, request: int) -> None:
        """Receive an acknowledgement, and see that it is one."""
        reply = self._receive(request)
        _close(reply.fds)
        code = self._value(request, reply)
        if code:
            raise _refused(message.name_of(request), code)

    def _ask(self, request: int, value: Any = None, fds: Sequence[int] = ()) -> Any:
        """Send a request that has a reply, and return its value."""
        self._send(request, value, fds)
        reply = self._receive(request)
        _close(reply.fds)
        return self._value(request, reply)

    def _send(self, request: int, value: Any = None, fds: Sequence[int] = (), flags: int = 0) -> None:
        payload = message.REQUESTS[request].payload.encode(value)
        self._channel.send_waiting(message.encode(request, payload, flags), fds, self._timeout)

    def _receive(self, request: int) -> Message:
        while (reply := self._channel.receive()) is None:
            self._channel.wait(select.POLLIN, self._timeout)
        if reply.request != request or not reply.flags & abi.VHOST_USER_REPLY:
            _close(reply.fds)
            raise _strange(message.name_of(request), f"{message.name_of(reply.request)}, flags {reply.flags:#x}")
        return reply

    def _value(self, request: int, reply: Message) -> Any:
        expected = message.REQUESTS[request].reply or message.ACK
        try:
            return expected.decode(reply.payload)
        except PeerError as error:
            raise _strange(message.name_of(request), str(error)) from error


def _refused(name: str, code: int) -> PortError:
    number = code if code < 4096 else errno.EIO  # others say no more than that it failed
    return PortError(
        number, f"vhost-user: the back-end refused {name}: {os.strerror(number)}\n        its own log may say why"
    )


def _strange(name: str, found: str) -> PeerError:
    return PeerError(
        errno.EPROTO,
        f"vhost-user: the back-end's reply to {name} is none: {found}\n        is it one that speaks vhost-user?",
    )


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()

# SPDX-License-Identifier: BSD-2-Clause
"""One front end: what it has said so far, and what follows from its next message. No socket in sight.

A front end describes queues piece by piece, in nearly any order. A queue is *started* by a kick descriptor, and stopped
when its position is asked for; it is *enabled* by a message of its own, or from the beginning if there are no protocol
features. When it is both, and all of it is known, the device serves it. What is known can change at any time: then the
device lets go of the queue, and takes it anew where it stood.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ptnetmap.abi import vhost_user as abi
from ptnetmap.abi import virtio_pci
from ptnetmap.errors import PeerError, PtnetmapError
from ptnetmap.netmap.client.virtioport import QueueSetup
from ptnetmap.vhost import message
from ptnetmap.vhost.memory import MemoryTable, Region
from ptnetmap.vhost.message import violation

PROTOCOL_FEATURES = (
    abi.VHOST_USER_PROTOCOL_F_MQ
    | abi.VHOST_USER_PROTOCOL_F_REPLY_ACK
    | abi.VHOST_USER_PROTOCOL_F_MTU
    | abi.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
    | abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE
    | abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
    | abi.VHOST_USER_PROTOCOL_F_STATUS
)
"""What this back end offers."""

MAX_MEM_SLOTS = 32
"""Regions of guest memory that may be added one by one."""
MAX_QUEUE = 32768
_INFLIGHT_HEAD = 16
_INFLIGHT_ENTRY = 16
_INFLIGHT_ALIGN = 64
_KICKED = (abi.VHOST_USER_SET_VRING_KICK, abi.VHOST_USER_SET_VRING_CALL, abi.VHOST_USER_SET_VRING_ERR)


class Device(Protocol):
    """What serves the queues of a connection. Descriptors that it is given stay the connection's.

    Every method may raise PtnetmapError, and has then changed nothing.
    """

    @property
    def features(self) -> int:
        """Features that it has, of the device and its queues."""

    @property
    def queues(self) -> int:
        """How many queues it has."""

    def set_memory(self, regions: Sequence[Region]) -> None:
        """Know the guest's memory by these regions from now on; queues that are served go on."""

    def start(self, index: int, setup: QueueSetup, features: int, kick: int, call: int) -> None:
        """Serve a queue, ``kick`` and ``call`` being eventfds or -1."""

    def stop(self, index: int) -> tuple[int, int]:
        """Serve a queue no longer; return the positions of the next chain to take and the next to return."""

    def set_mtu(self, mtu: int) -> None:
        """Take notice of the device's MTU."""


@dataclass
class _Ring:
    """What is known of a queue. ``user`` are the addresses of its parts in the front end."""

    num: int = 0
    base: int = 0
    user: tuple[int, int, int] | None = None
    kick: int = -1
    call: int = -1
    err: int = -1
    started: bool = False
    enabled: bool = False
    served: bool = False


class Connection:
    """A front end's state. :meth:`receive` takes its messages, :meth:`close` ends it.

    ``features`` and ``protocol_features`` are what the front end has taken, ``table`` the guest's memory, ``status`` the
    driver's status as last told.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._rings = [_Ring() for _ in range(device.queues)]
        self.table = MemoryTable()
        self.features = 0
        self.protocol_features = 0
        self.status = 0
        self._owned = False

    @property
    def offered(self) -> int:
        """The features that the front end may take."""
        return self._device.features | abi.VHOST_USER_F_PROTOCOL_FEATURES

    @property
    def served(self) -> list[int]:
        """Numbers of the queues that are served now."""
        return [index for index, ring in enumerate(self._rings) if ring.served]

    def receive(self, request: int, flags: int, payload: bytes, fds: Sequence[int]) -> bytes | None:
        """Do what a message says; return the answer, if there is one. The descriptors are the connection's from now on.

        Raises PeerError for what breaks the protocol, or cannot be: nothing has changed then, and if the front end waits
        for an answer, it is the caller's to close the connection. With REPLY_ACK the answer says so instead.
        """
        wants_ack = bool(flags & abi.VHOST_USER_NEED_REPLY and self._has(abi.VHOST_USER_PROTOCOL_F_REPLY_ACK))
        left = list(fds)
        try:
            message.check_shape(request, payload, len(fds))
            answer = self._take(request, payload, left)
        except PtnetmapError as error:
            if wants_ack and request in _ACKNOWLEDGED:
                return message.reply_number(request, error.errno or errno.EIO)
            raise
        finally:
            for fd in left:
                os.close(fd)
        if answer is None and wants_ack:
            return message.reply_number(request, 0)
        return answer

    @property
    def _is_packed(self) -> bool:
        """Whether a queue's base has both positions, with wrap counters: the second one in its upper half, if not 0."""
        return bool(self.features & virtio_pci.VIRTIO_F_RING_PACKED)

    def close(self) -> None:
        """Serve nothing any more, and close what was received. Harmless when repeated."""
        self._reset()
        self._forget(self.table)
        self.table = MemoryTable()

    def _has(self, feature: int) -> bool:
        return bool(self.protocol_features & feature)

    # -- messages -----------------------------------------------------------------------------------------------------

    def _take(self, request: int, payload: bytes, fds: list[int]) -> bytes | None:
        match request:
            case abi.VHOST_USER_GET_FEATURES:
                return message.reply_number(request, self.offered)
            case abi.VHOST_USER_GET_PROTOCOL_FEATURES:
                return message.reply_number(request, PROTOCOL_FEATURES)
            case abi.VHOST_USER_GET_QUEUE_NUM:
                return message.reply_number(request, len(self._rings))
            case abi.VHOST_USER_GET_MAX_MEM_SLOTS:
                return message.reply_number(request, MAX_MEM_SLOTS)
            case abi.VHOST_USER_GET_STATUS:
                return message.reply_number(request, self.status)
            case abi.VHOST_USER_SET_OWNER:
                self._owned = True
            case abi.VHOST_USER_RESET_OWNER | abi.VHOST_USER_RESET_DEVICE:
                self._reset()
            case abi.VHOST_USER_SET_FEATURES:
                self._set_features(message.number(payload))
            case abi.VHOST_USER_SET_PROTOCOL_FEATURES:
                asked = message.number(payload)
                if unknown := asked & ~PROTOCOL_FEATURES:
                    raise violation(request, f"{unknown:#x} was not offered")
                self.protocol_features = asked
            case abi.VHOST_USER_SET_STATUS:
                self.status = message.number(payload) & 0xFF
            case abi.VHOST_USER_SET_MEM_TABLE:
                self._set_table(payload, fds)
            case abi.VHOST_USER_ADD_MEM_REG:
                self._add_region(payload, fds)
            case abi.VHOST_USER_REM_MEM_REG:
                self._remove_region(payload)
            case abi.VHOST_USER_GET_INFLIGHT_FD:
                return self._make_inflight(payload)
            case abi.VHOST_USER_SET_INFLIGHT_FD:
                pass  # chains are returned in order, and never held: there is nothing to find in it
            case abi.VHOST_USER_NET_SET_MTU:
                self._device.set_mtu(message.number(payload))
            case _ if request in _KICKED:
                self._set_fd(request, message.number(payload), fds)
            case _:
                return self._take_ring(request, payload)
        return None

    def _take_ring(self, request: int, payload: bytes) -> bytes | None:
        layout = abi.vring_addr if request == abi.VHOST_USER_SET_VRING_ADDR else abi.vring_state
        fields = message.structure(layout, payload)
        index = fields["index"]
        ring = self._ring(request, index)
        match request:
            case abi.VHOST_USER_SET_VRING_NUM:
                num = fields["num"]
                if not 1 <= num <= MAX_QUEUE:
                    raise violation(request, f"a queue of {num} entries")
                self._change(index, num=num)
            case abi.VHOST_USER_SET_VRING_BASE:
                if ring.served:
                    raise violation(request, f"queue {index} is in use", errno.EBUSY)
                ring.base = fields["num"]
            case abi.VHOST_USER_SET_VRING_ADDR:
                user = (fields["desc"], fields["avail"], fields["used"])
                if any(self.table.guest_address(address) is None for address in user):
                    raise violation(request, f"queue {index} is not in the guest's memory", errno.EFAULT)
                self._change(index, user=user)
            case abi.VHOST_USER_SET_VRING_ENABLE:
                if fields["num"] > 1:
                    raise violation(request, f"{fields['num']} is neither 0 nor 1")
                self._change(index, enabled=bool(fields["num"]))
            case abi.VHOST_USER_GET_VRING_BASE:
                self._change(index, started=False)
                self._drop_fd(ring, "kick")
                self._drop_fd(ring, "call")
                state = index.to_bytes(4, "little") + ring.base.to_bytes(4, "little")
                return message.reply(request, state)
        return None

    def _ring(self, request: int, index: int) -> _Ring:
        if index >= len(self._rings):
            raise violation(request, f"there is no queue {index}: there are {len(self._rings)}")
        return self._rings[index]

    def _set_features(self, features: int) -> None:
        if unknown := features & ~self.offered:
            raise violation(abi.VHOST_USER_SET_FEATURES, f"{unknown:#x} was not offered")
        before = self.features
        self.features = features
        try:
            self._renew()
        except PtnetmapError:
            self.features = before
            raise
        if not features & abi.VHOST_USER_F_PROTOCOL_FEATURES:
            for index in range(len(self._rings)):
                self._change(index, enabled=True)

    # -- memory -------------------------------------------------------------------------------------------------------

    def _set_table(self, payload: bytes, fds: list[int]) -> None:
        size = abi.memory_region.itemsize
        pieces = [payload[at : at + size] for at in range(abi.memory_table.itemsize, len(payload), size)]
        regions = [_region(piece, fd) for piece, fd in zip(pieces, fds, strict=True)]
        self._use_table(abi.VHOST_USER_SET_MEM_TABLE, MemoryTable(regions))
        fds.clear()

    def _add_region(self, payload: bytes, fds: list[int]) -> None:
        if len(self.table) >= MAX_MEM_SLOTS:
            raise violation(abi.VHOST_USER_ADD_MEM_REG, f"there are {MAX_MEM_SLOTS} regions", errno.ENOSPC)
        region = _region(payload[8:], fds[0])
        self._use_table(abi.VHOST_USER_ADD_MEM_REG, MemoryTable([*self.table, region]))
        fds.clear()

    def _remove_region(self, payload: bytes) -> None:
        wanted = _region(payload[8:], -1)
        kept = [region for region in self.table if not region.is_at(wanted.guest, wanted.size, wanted.user)]
        if len(kept) != len(self.table) - 1:
            raise violation(abi.VHOST_USER_REM_MEM_REG, f"no region is at {wanted.guest:#x}", errno.ENOENT)
        self._use_table(abi.VHOST_USER_REM_MEM_REG, MemoryTable(kept))

    def _use_table(self, request: int, table: MemoryTable) -> None:
        if not table.is_possible:
            raise violation(request, "regions that are empty, overlap, or end beyond 2**63")
        before = self.table
        if table.regions:
            self._device.set_memory(table.regions)
        self.table = table
        try:
            self._renew()
        except PtnetmapError:
            self.table = before
            if before.regions:
                self._device.set_memory(before.regions)
            raise
        kept = {region.fd for region in table}
        self._forget(region for region in before if region.fd not in kept)

    @staticmethod
    def _forget(regions: Iterable[Region]) -> None:
        for region in regions:
            os.close(region.fd)

    # -- descriptors --------------------------------------------------------------------------------------------------

    def _set_fd(self, request: int, word: int, fds: list[int]) -> None:
        index = word & abi.VHOST_USER_VRING_INDEX_MASK
        ring = self._ring(request, index)
        if bool(word & abi.VHOST_USER_VRING_NOFD_MASK) == bool(fds):
            raise violation(request, f"{len(fds)} descriptors, and it says {'none' if fds else 'one'} comes")
        fd = fds[0] if fds else -1
        kind = {abi.VHOST_USER_SET_VRING_KICK: "kick", abi.VHOST_USER_SET_VRING_CALL: "call"}.get(request, "err")
        if kind == "kick" and fd < 0:
            raise violation(request, "a queue that is to be polled", errno.EOPNOTSUPP)
        before = getattr(ring, kind)
        self._change(index, **{kind: fd}, **({"started": True} if kind == "kick" else {}))
        fds.clear()
        if before >= 0:
            os.close(before)

    @staticmethod
    def _drop_fd(ring: _Ring, kind: str) -> None:
        fd = getattr(ring, kind)
        setattr(ring, kind, -1)
        if fd >= 0:
            os.close(fd)

    def _make_inflight(self, payload: bytes) -> bytes:
        asked = message.structure(abi.inflight, payload)
        entries = _INFLIGHT_HEAD + asked["queue_size"] * _INFLIGHT_ENTRY
        size = asked["queues"] * -(-entries // _INFLIGHT_ALIGN) * _INFLIGHT_ALIGN
        if not size or asked["queues"] > len(self._rings):
            raise violation(
                abi.VHOST_USER_GET_INFLIGHT_FD, f"{asked['queues']} queues of {asked['queue_size']} entries"
            )
        self.pending_fd = _inflight_memory(size)
        body = size.to_bytes(8, "little") + bytes(8) + payload[16:24]
        return message.reply(abi.VHOST_USER_GET_INFLIGHT_FD, body)

    pending_fd = -1
    """A descriptor that the last answer comes with, the caller's to send and close; -1: none."""

    # -- queues -------------------------------------------------------------------------------------------------------

    def _change(self, index: int, **values: object) -> None:
        """Change what is known of a queue, and serve it or not, accordingly. All of it, or nothing and an error."""
        ring = self._rings[index]
        before = {name: getattr(ring, name) for name in values}
        self._release(index)
        for name, value in values.items():
            setattr(ring, name, value)
        try:
            self._serve(index)
        except PtnetmapError:
            for name, value in before.items():
                setattr(ring, name, value)
            with contextlib.suppress(PtnetmapError):
                self._serve(index)
            raise

    def _release(self, index: int) -> None:
        ring = self._rings[index]
        if ring.served:
            ring.served = False
            taken, returned = self._device.stop(index)
            ring.base = taken | returned << 16 if self._is_packed else taken

    def _serve(self, index: int) -> None:
        ring = self._rings[index]
        if ring.served or not (ring.started and ring.enabled and ring.num and ring.user and ring.kick >= 0):
            return
        places = [self.table.guest_address(address) for address in ring.user]
        if None in places:
            raise PeerError(
                errno.EFAULT,
                f"vhost-user: queue {index} is not in the guest's memory any more\n        the front end has to move it",
            )
        desc, avail, used = (place or 0 for place in places)
        returned = ring.base >> 16 if self._is_packed and ring.base >> 16 else None
        setup = QueueSetup(ring.num, desc, avail, used, ring.base & 0xFFFF, returned)
        self._device.start(index, setup, self.features, ring.kick, ring.call)
        ring.served = True

    def _renew(self) -> None:
        """Take all queues anew, after what holds for all of them has changed."""
        served = self.served
        for index in served:
            self._release(index)
        for index in served:
            self._serve(index)

    def _reset(self) -> None:
        for index, ring in enumerate(self._rings):
            self._release(index)
            for kind in ("kick", "call", "err"):
                self._drop_fd(ring, kind)
            self._rings[index] = _Ring()
        self.features = 0
        self.status = 0


_ACKNOWLEDGED = frozenset(message.SHAPES) - {
    abi.VHOST_USER_GET_FEATURES,
    abi.VHOST_USER_GET_PROTOCOL_FEATURES,
    abi.VHOST_USER_GET_QUEUE_NUM,
    abi.VHOST_USER_GET_VRING_BASE,
    abi.VHOST_USER_GET_INFLIGHT_FD,
    abi.VHOST_USER_GET_MAX_MEM_SLOTS,
    abi.VHOST_USER_GET_STATUS,
}
"""Requests whose failure REPLY_ACK can tell: those without an answer of their own."""


def _region(data: bytes, fd: int) -> Region:
    fields = message.structure(abi.memory_region, data)
    return Region(fields["guest"], fields["size"], fields["user"], fields["offset"], fd)


def _inflight_memory(size: int) -> int:
    fd = os.memfd_create("vhost-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd

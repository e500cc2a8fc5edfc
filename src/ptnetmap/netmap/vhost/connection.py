# SPDX-License-Identifier: BSD-2-Clause
"""The back-end's side of a vhost-user connection: messages in, replies out, and calls of a device; no socket here.

A queue runs when SET_VRING_KICK has come, its size and addresses are known, these are in the memory table, and features
are settled, in whatever order; it runs disabled until it is enabled, unless there are no protocol features. What arrives
and cannot be is refused, and changes nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from ptnetmap.abi import vhost_user as abi
from ptnetmap.errors import PeerError
from ptnetmap.netmap.vhost import memory, message
from ptnetmap.netmap.vhost import queue as queues
from ptnetmap.netmap.vhost.device import Device
from ptnetmap.netmap.vhost.memory import Region, Table
from ptnetmap.netmap.vhost.message import (
    Config,
    Inflight,
    Log,
    MemoryRegion,
    Request,
    VringAddress,
    VringFile,
    VringState,
    wrong,
)
from ptnetmap.netmap.vhost.queue import Queue

PROTOCOL_FEATURES = (
    abi.VHOST_USER_PROTOCOL_F_MQ
    | abi.VHOST_USER_PROTOCOL_F_LOG_SHMFD
    | abi.VHOST_USER_PROTOCOL_F_RARP
    | abi.VHOST_USER_PROTOCOL_F_REPLY_ACK
    | abi.VHOST_USER_PROTOCOL_F_NET_MTU
    | abi.VHOST_USER_PROTOCOL_F_CONFIG
    | abi.VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD
    | abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE
    | abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS
    | abi.VHOST_USER_PROTOCOL_F_STATUS
)
"""All protocol features that a connection knows; a device may offer fewer."""

MIN_MTU = 68
MAX_MTU = 65535

MAX_QUEUES = 256
"""Queues at the most: messages have 8 bits for their numbers."""

_MAC = 6
_END = 1 << 63

# Features that may change while queues run.
_ON_THE_FLY = abi.VHOST_F_LOG_ALL | abi.VHOST_USER_F_PROTOCOL_FEATURES


class Reply(NamedTuple):
    """A message for the front-end, and descriptors that go with it, which whoever sends it closes afterwards."""

    message: bytes
    fds: tuple[int, ...] = ()


class Connection:
    """What one front-end has said, and the device that follows it.

    ``features`` are the device's own (VIRTIO_F_*, VIRTIO_NET_F_*); VHOST_USER_F_PROTOCOL_FEATURES is added if there are
    any ``protocol_features`` (some of :data:`PROTOCOL_FEATURES`), VHOST_F_LOG_ALL with LOG_SHMFD. ``max_queues``: queues
    that it has, receive and transmit ones counted apart; ``max_regions``: regions of memory; ``config_size``: bytes
    of its configuration space; ``queue_num``: what GET_QUEUE_NUM answers, pairs for a network device, else
    ``max_queues``. The calling thread is always the same, or others wait.
    """

    def __init__(
        self,
        device: Device,
        *,
        features: int,
        protocol_features: int = PROTOCOL_FEATURES,
        max_queues: int,
        max_regions: int = abi.VHOST_MEMORY_BASELINE_NREGIONS,
        config_size: int = 0,
        queue_num: int = 0,
    ) -> None:
        if not 1 <= max_queues <= MAX_QUEUES:
            raise ValueError(f"vhost-user: a device of {max_queues} queues; give it 1 to {MAX_QUEUES}")
        if strange := protocol_features & ~PROTOCOL_FEATURES:
            raise ValueError(f"vhost-user: protocol features {strange:#x} are not served; leave them out")
        self._device = device
        self.offered_protocol_features = protocol_features
        self.offered_features = features
        if protocol_features:
            self.offered_features |= abi.VHOST_USER_F_PROTOCOL_FEATURES
        if protocol_features & abi.VHOST_USER_PROTOCOL_F_LOG_SHMFD:
            self.offered_features |= abi.VHOST_F_LOG_ALL
        self._max_regions = max_regions
        self._config_size = config_size
        self._queue_num = queue_num or max_queues
        self.owned = False
        self.features: int | None = None
        """Those that are used, as the front-end sent them; None before SET_FEATURES."""
        self.protocol_features = 0
        self.status = 0
        self.memory: Table = ()
        """The table; its descriptors are the device's."""
        self.queues = [Queue() for _ in range(max_queues)]
        self._log_event = -1

    def receive(self, request: int, flags: int, payload: bytes, fds: list[int]) -> Reply | None:
        """Do what a message asks for, and return the reply, if there is one. The descriptors are taken over in any case.

        Raises PeerError for what cannot be when the front-end cannot be told so: close the connection then. Nothing has
        changed, except where features or memory did change and the device cannot serve a queue after: that does not run.
        """
        received = list(fds)
        try:
            return self._receive(request, flags, payload, received)
        finally:
            _close(received)

    def close(self) -> None:
        """Stop all queues, reset the device, close all descriptors that are not the device's. It keeps its memory."""
        self._reset()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _receive(self, number: int, flags: int, payload: bytes, fds: list[int]) -> Reply | None:
        name = message.name_of(number)
        if flags & abi.VHOST_USER_REPLY or flags & abi.VHOST_USER_VERSION_MASK != abi.VHOST_USER_VERSION:
            raise PeerError(
                errno.EPROTO,
                f"vhost-user: cannot take {name}: its flags are {flags:#x}\n"
                f"        send requests of version {abi.VHOST_USER_VERSION}, and no replies",
            )
        request = message.REQUESTS.get(number)
        try:
            if request is None:
                raise wrong("it is not served", "send those that belong to offered features", errno.EOPNOTSUPP)
            self._check_offered(request)
            answer = _HANDLERS[number](self, message.decode(request, payload, len(fds)), fds)
        except OSError as error:
            code = error.errno or errno.EIO
            if self._acknowledges(flags) and (request is None or request.reply in (None, message.ACK)):
                return _reply(number, message.U64.encode(code))
            raise PeerError(code, f"vhost-user: cannot take {name}: {error}") from error
        if answer is not None:
            return _reply(number, *answer)
        return _reply(number, message.U64.encode(0)) if self._acknowledges(flags) else None

    def _acknowledges(self, flags: int) -> bool:
        """Whether a message is to be acknowledged."""
        agreed = self.protocol_features & abi.VHOST_USER_PROTOCOL_F_REPLY_ACK
        return bool(agreed and flags & abi.VHOST_USER_NEED_REPLY)

    def _check_offered(self, request: Request) -> None:
        needed = request.protocol_feature
        if needed & ~self.offered_protocol_features:
            raise wrong(f"protocol feature {needed:#x} is not offered", "do without it", errno.EOPNOTSUPP)

    # -- negotiation ---------------------------------------------------------------------------------------------------

    def _get_features(self, _: None, __: list[int]) -> _Answer:
        return _number(self.offered_features)

    def _set_features(self, features: int, _: list[int]) -> None:
        if strange := features & ~self.offered_features:
            raise wrong(f"features {strange:#x} are not offered", "use some of those that are", errno.EOPNOTSUPP)
        changed = (features ^ (self.features or 0)) & ~_ON_THE_FLY
        if changed and any(queue.running for queue in self.queues):
            raise wrong(
                f"features {changed:#x} change while queues run", "stop these first (GET_VRING_BASE)", errno.EBUSY
            )
        if self.features is None:
            for queue in self.queues:  # that may run from now on
                queues.setup(queue, features, self.memory)
        self._device.set_features(features & ~abi.VHOST_USER_F_PROTOCOL_FEATURES)
        self.features = features
        if not features & abi.VHOST_USER_F_PROTOCOL_FEATURES:
            for index in range(len(self.queues)):
                self._enable(index, on=True)
        self._resume(range(len(self.queues)))

    def _get_protocol_features(self, _: None, __: list[int]) -> _Answer:
        return _number(self.offered_protocol_features)

    def _set_protocol_features(self, features: int, _: list[int]) -> None:
        if strange := features & ~self.offered_protocol_features:
            raise wrong(f"protocol features {strange:#x} are not offered", "use those that are", errno.EOPNOTSUPP)
        self.protocol_features = features

    def _set_owner(self, _: None, __: list[int]) -> None:
        self.owned = True

    def _reset_owner(self, _: None, __: list[int]) -> None:
        """Ignore it, as is recommended: to some it meant to disable all queues, to others to forget everything."""

    def _get_queue_num(self, _: None, __: list[int]) -> _Answer:
        return _number(self._queue_num)

    def _set_status(self, status: int, _: list[int]) -> None:
        if status > 0xFF:
            raise wrong(f"a status of {status:#x}", "send 0xff at the most")
        if status == 0:
            # The driver resets the device, which touches no queue after (virtio 1.2 §2.4).
            for index in range(len(self.queues)):
                self._stop(index)
        self.status = status

    def _get_status(self, _: None, __: list[int]) -> _Answer:
        return _number(self.status)

    def _reset_device(self, _: None, __: list[int]) -> None:
        # Front-ends go on with the memory and the protocol features that they have sent.
        self._reset()

    def _reset(self) -> None:
        for index in range(len(self.queues)):
            self._stop(index)
            self._put(index, Queue())
        self._device.reset()
        self.features = None
        self.status = 0
        if self._log_event >= 0:
            _close([self._log_event])
            self._log_event = -1

    # -- memory --------------------------------------------------------------------------------------------------------

    def _set_mem_table(self, regions: tuple[MemoryRegion, ...], fds: list[int]) -> None:
        table = tuple(Region(*region, fd) for region, fd in zip(regions, fds, strict=True))
        self._check_table(table)
        for index, queue in enumerate(self.queues):
            if queue.running:
                try:
                    queues.setup(queue, self.features or 0, table)
                except PeerError as error:
                    raise wrong(
                        f"queue {index} runs, and would be outside it", "stop it first (GET_VRING_BASE)", errno.EBUSY
                    ) from error
        self._replace_memory(table, fds)

    def _get_max_mem_slots(self, _: None, __: list[int]) -> _Answer:
        return _number(self._max_regions)

    def _add_mem_reg(self, region: MemoryRegion, fds: list[int]) -> None:
        table = (*self.memory, Region(*region, fds[0]))
        self._check_table(table)
        self._replace_memory(table, fds)

    def _rem_mem_reg(self, region: MemoryRegion, _: list[int]) -> None:
        # Queues in it do not run until it is there again: front-ends remove and add a region to change it.
        table = tuple(known for known in self.memory if known[:3] != region[:3])
        if len(table) == len(self.memory):
            raise wrong(
                f"there is no region of {region.size:#x} bytes at guest address {region.guest:#x} and user address "
                f"{region.user:#x}",
                "remove one that was added",
                errno.ENOENT,
            )
        self._replace_memory(table, [])

    def _check_table(self, table: Table) -> None:
        if len(table) > self._max_regions:
            raise wrong(f"{len(table)} regions", f"send {self._max_regions} at the most", errno.ENOSPC)
        memory.check(table)

    def _replace_memory(self, table: Table, fds: list[int]) -> None:
        """Use other memory; ``fds`` are those in the table, which are the device's from now on."""
        paused = [index for index, queue in enumerate(self.queues) if queue.running]
        for index in paused:
            self._pause(index)
        try:
            self._device.set_memory(table)
        except OSError:
            self._resume(paused)
            raise
        fds.clear()
        self.memory = tuple(region._replace(fd=-1) for region in table)
        self._resume(range(len(self.queues)))

    # -- queues --------------------------------------------------------------------------------------------------------

    def _set_vring_num(self, state: VringState, _: list[int]) -> None:
        queue = self._queue(state.queue)
        if queue.running and state.num != queue.num:
            raise _busy(state.queue, "size")
        if not queue.running:
            # Before features are settled it may become a packed queue.
            queues.check_num(state.num, self.features is None or bool(self.features & queues.RING_PACKED))
            self._start(state.queue, replace(queue, num=state.num))

    def _set_vring_base(self, state: VringState, _: list[int]) -> None:
        queue = self._queue(state.queue)
        if queue.running:
            raise _busy(state.queue, "base")
        queues.check_base(state.num, self.features is None or bool(self.features & queues.RING_PACKED))
        self._start(state.queue, replace(queue, base=state.num))

    def _set_vring_addr(self, address: VringAddress, _: list[int]) -> None:
        queue = self._queue(address.queue)
        new = replace(queue, address=address)
        if not queue.running:
            packed = bool((self.features or 0) & queues.RING_PACKED)
            queues.locate(address, queue.num or 1, packed, self.memory)
            self._start(address.queue, new)
            return
        if queue.address is None or address[2:5] != queue.address[2:5]:
            raise _busy(address.queue, "address")
        self._device.log_queue(address.queue, new.log)
        self._put(address.queue, new)

    def _set_vring_kick(self, file: VringFile, fds: list[int]) -> None:
        queue = self._queue(file.queue)
        new = replace(queue, kick=fds[0] if fds else -1, started=True)
        if queue.running:
            queues.setup(new, self.features or 0, self.memory)
            self._pause(file.queue)
            paused = self.queues[file.queue]
            new = replace(new, base=paused.base, running=False)
        try:
            self._start(file.queue, new)
        except OSError:
            if queue.running:
                self._start(file.queue, self.queues[file.queue])
            raise
        fds.clear()

    def _set_vring_call(self, file: VringFile, fds: list[int]) -> None:
        queue = self._queue(file.queue)
        fd = fds[0] if fds else -1
        if queue.running:
            self._device.set_call(file.queue, fd)
        fds.clear()
        self._put(file.queue, replace(queue, call=fd))

    def _set_vring_err(self, file: VringFile, fds: list[int]) -> None:
        queue = self._queue(file.queue)
        fd = fds[0] if fds else -1
        if queue.running:
            self._device.set_error(file.queue, fd)
        fds.clear()
        self._put(file.queue, replace(queue, error=fd))

    def _set_vring_enable(self, state: VringState, _: list[int]) -> None:
        self._queue(state.queue)
        used = self.offered_features if self.features is None else self.features
        if not used & abi.VHOST_USER_F_PROTOCOL_FEATURES:
            raise wrong("there are no protocol features", "do without it: queues are enabled", errno.EOPNOTSUPP)
        if state.num > 1:
            raise wrong(f"{state.num} is neither on nor off", "send 1 or 0")
        self._enable(state.queue, on=bool(state.num))

    def _get_vring_base(self, state: VringState, _: list[int]) -> _Answer:
        self._queue(state.queue)
        self._stop(state.queue)
        return message.STATE.encode(VringState(state.queue, self.queues[state.queue].base)), ()

    def _queue(self, index: int) -> Queue:
        if index >= len(self.queues):
            raise wrong(f"there is no queue {index}", f"use 0 to {len(self.queues) - 1}")
        return self.queues[index]

    def _put(self, index: int, queue: Queue) -> None:
        """Have a queue as it is now, and close the descriptors that it does not have any more."""
        old = self.queues[index]
        self.queues[index] = queue
        _close(old.fds - queue.fds)

    def _start(self, index: int, queue: Queue) -> None:
        """Have a queue that does not run as it is now; if nothing is missing, it runs."""
        if self.features is not None:
            setup = queues.setup(queue, self.features, self.memory)
            if setup is not None:
                self._device.start_queue(index, setup)
                queue = replace(queue, running=True)
        self._put(index, queue)

    def _pause(self, index: int) -> None:
        """Let a queue not run for a moment."""
        queue = self.queues[index]
        if queue.running:
            self._put(index, replace(queue, base=self._device.stop_queue(index), running=False))

    def _stop(self, index: int) -> None:
        """Let a queue not run until the next SET_VRING_KICK."""
        self._pause(index)
        self._put(index, replace(self.queues[index], kick=-1, started=False))

    def _resume(self, indices: Iterable[int]) -> None:
        """Let queues run that can. Raises the first error of the device; other queues run even so."""
        failed = None
        for index in indices:
            queue = self.queues[index]
            if not queue.running and self._is_placed(queue):
                try:
                    self._start(index, queue)
                except OSError as error:
                    failed = failed or error
        if failed:
            raise failed

    def _is_placed(self, queue: Queue) -> bool:
        try:
            return queues.setup(queue, self.features or 0, self.memory) is not None
        except PeerError:
            return False

    def _enable(self, index: int, *, on: bool) -> None:
        queue = self.queues[index]
        if queue.running and queue.enabled != on:
            self._device.enable_queue(index, on)
        self._put(index, replace(queue, enabled=on))

    # -- migration and recovery ----------------------------------------------------------------------------------------

    def _set_log_base(self, log: Log, fds: list[int]) -> _Answer:
        _check_area(log.size, log.offset)
        self._device.set_log(fds[0], log.size, log.offset)
        fds.clear()
        return _number(0)

    def _set_log_fd(self, _: None, fds: list[int]) -> None:
        self._device.set_log_event(fds[0])
        old, self._log_event = self._log_event, fds.pop()
        if old >= 0:
            _close([old])

    def _get_inflight_fd(self, asked: Inflight, _: list[int]) -> _Answer:
        self._check_inflight(asked)
        fd, size, offset = self._device.make_inflight(asked.queues, asked.queue_size)
        return message.INFLIGHT.encode(asked._replace(size=size, offset=offset)), (fd,)

    def _set_inflight_fd(self, inflight: Inflight, fds: list[int]) -> None:
        self._check_inflight(inflight)
        _check_area(inflight.size, inflight.offset)
        if any(queue.running for queue in self.queues):
            raise wrong("queues run", "stop them first (GET_VRING_BASE)", errno.EBUSY)
        self._device.set_inflight(fds[0], *inflight[:4])
        fds.clear()

    def _check_inflight(self, inflight: Inflight) -> None:
        if not 1 <= inflight.queues <= len(self.queues) or not 1 <= inflight.queue_size <= queues.MAX_SIZE:
            raise wrong(
                f"{inflight.queues} queues of {inflight.queue_size} entries",
                f"use 1 to {len(self.queues)} queues, of 1 to {queues.MAX_SIZE} entries",
            )

    # -- the network device --------------------------------------------------------------------------------------------

    def _send_rarp(self, mac: int, _: list[int]) -> None:
        self._device.send_rarp(message.U64.encode(mac)[:_MAC])

    def _net_set_mtu(self, mtu: int, _: list[int]) -> None:
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise wrong(f"an MTU of {mtu}", f"use {MIN_MTU} to {MAX_MTU}")
        self._device.set_mtu(mtu)

    def _get_config(self, asked: Config, _: list[int]) -> _Answer:
        size = len(asked.data)
        if asked.offset + size > self._config_size:
            return b"", ()  # which says that it cannot be
        try:
            data = self._device.get_config(asked.offset, size)
        except OSError:
            return b"", ()
        return message.CONFIG.encode(asked._replace(data=data)), ()

    def _set_config(self, _: Config, __: list[int]) -> None:
        raise wrong("the configuration space is read-only", "leave it", errno.EROFS)


_Answer = tuple[bytes, tuple[int, ...]]  # payload and descriptors of a reply


def _number(number: int) -> _Answer:
    return message.U64.encode(number), ()


def _reply(request: int, payload: bytes, fds: tuple[int, ...] = ()) -> Reply:
    return Reply(message.encode(request, payload, abi.VHOST_USER_REPLY), fds)


def _busy(index: int, what: str) -> PeerError:
    return wrong(f"queue {index} runs, and cannot have another {what}", "stop it first (GET_VRING_BASE)", errno.EBUSY)


def _check_area(size: int, offset: int) -> None:
    if size == 0 or offset + size > _END:
        raise wrong(f"{size:#x} bytes at offset {offset:#x}", "send at least 1 byte that ends below 2**63")


def _close(fds: list[int] | set[int]) -> None:
    for fd in fds:
        os.close(fd)


_HANDLERS: Mapping[int, Callable[[Connection, Any, list[int]], _Answer | None]] = MappingProxyType(
    {number: getattr(Connection, f"_{request.name.lower()}") for number, request in message.REQUESTS.items()}
)

# SPDX-License-Identifier: BSD-2-Clause
"""What a front-end has said about one queue, and what a device needs to serve it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ptnetmap.abi import vhost_user as abi
from ptnetmap.abi import virtio
from ptnetmap.netmap.vhost import memory
from ptnetmap.netmap.vhost.memory import Table
from ptnetmap.netmap.vhost.message import VringAddress, wrong

MAX_SIZE = 32768
"""Entries of a queue at the most (virtio 1.2 §2.7, §2.8)."""

RING_PACKED = 1 << 34
"""VIRTIO_F_RING_PACKED: queues are packed, not split (virtio 1.2 §6)."""

_EVENT_SUPPRESSION = 4  # bytes, aligned to as many (virtio 1.2 §2.8)
_HALF = 0xFFFF


@dataclass(frozen=True, slots=True)
class Queue:
    """What is known of a queue; descriptors that are not there are -1.

    ``started``: SET_VRING_KICK came and GET_VRING_BASE did not come since; ``running``: it is started, nothing is missing
    any more, and the device serves it. ``base``: where it stood when it was stopped.
    """

    num: int = 0
    base: int = 0
    address: VringAddress | None = None
    kick: int = -1
    call: int = -1
    error: int = -1
    enabled: bool = False
    started: bool = False
    running: bool = False

    @property
    def fds(self) -> set[int]:
        """The descriptors that it has."""
        return {self.kick, self.call, self.error} - {-1}

    @property
    def log(self) -> int | None:
        """The guest address that stands for the used ring in the log; None if that is not to be logged."""
        address = self.address
        return address.log if address and address.flags & abi.VHOST_VRING_F_LOG else None


class Setup(NamedTuple):
    """A queue to serve: ``size`` entries, guest addresses of its parts, where it stands, and its descriptors.

    Of a split queue, ``desc``, ``avail`` and ``used`` are the descriptor table and the two rings, ``base`` is the next
    entry of the available ring to look at (modulo 65536); where the used ring stands is in its ``idx``. Of a ``packed``
    queue they are the ring, the driver's and the device's event suppression, and ``base`` has both sides: :attr:`next_avail`,
    :attr:`next_used` and their wrap counters.

    ``kick`` is -1 for a queue to be polled, ``call`` and ``error`` for one that does not want to be told. They are the
    connection's, which closes them after the device has been told of others, or to stop. ``log`` is the guest address
    that stands for the first byte of the used ring in the log; None: writes to it are not logged.
    """

    size: int
    packed: bool
    desc: int
    avail: int
    used: int
    base: int
    log: int | None
    kick: int
    call: int
    error: int
    enabled: bool

    @property
    def next_avail(self) -> int:
        """Of a packed queue: the next entry to look at."""
        return self.base & abi.VHOST_USER_VRING_BASE_MASK

    @property
    def avail_wrap(self) -> bool:
        """Of a packed queue: the driver's wrap counter there."""
        return bool(self.base & abi.VHOST_USER_VRING_BASE_WRAP)

    @property
    def next_used(self) -> int:
        """Of a packed queue: the next entry to use."""
        return self.base >> 16 & abi.VHOST_USER_VRING_BASE_MASK

    @property
    def used_wrap(self) -> bool:
        """Of a packed queue: the device's wrap counter there."""
        return bool(self.base >> 16 & abi.VHOST_USER_VRING_BASE_WRAP)


def check_num(num: int, packed: bool) -> None:
    """Raise PeerError (EINVAL) unless a queue can have so many entries (virtio 1.2 §2.7, §2.8)."""
    if not 1 <= num <= MAX_SIZE or (not packed and num & (num - 1)):
        kind = "1" if packed else "a power of two"
        raise wrong(f"a queue of {num} entries", f"choose {kind}{' to' if packed else ' up to'} {MAX_SIZE}")


def check_base(base: int, packed: bool) -> None:
    """Raise PeerError (EINVAL) unless a queue can stand there."""
    if not packed and base > _HALF:
        raise wrong(f"a split queue that stands at {base:#x}", f"send {_HALF:#x} at the most")


def setup(queue: Queue, features: int, table: Table) -> Setup | None:
    """Return a queue as the device needs it; None while it is not started, or something is missing.

    Raises PeerError (EINVAL, EFAULT) for a queue that cannot be.
    """
    if not queue.started or not queue.num or queue.address is None:
        return None
    packed = bool(features & RING_PACKED)
    check_num(queue.num, packed)
    check_base(queue.base, packed)
    base = queue.base
    if packed:
        # Front-ends that know one side only send that: nothing is in flight in a stopped queue, both sides are equal.
        base |= 0 if base >> 16 else base << 16
        for side in (base & _HALF, base >> 16):
            if side & abi.VHOST_USER_VRING_BASE_MASK >= queue.num:
                raise wrong(f"a packed queue of {queue.num} entries that stands at {base:#x}", "send an entry of it")
    return Setup(
        queue.num,
        packed,
        *locate(queue.address, queue.num, packed, table),
        base,
        queue.log,
        queue.kick,
        queue.call,
        queue.error,
        queue.enabled,
    )


def locate(address: VringAddress, num: int, packed: bool, table: Table) -> tuple[int, int, int]:
    """Return the guest addresses of the parts of a queue: desc, avail, used.

    Raises PeerError: EFAULT if one is not in the table, EINVAL if it is not aligned (virtio 1.2 §2.7, §2.8).
    """
    avail = used = (_EVENT_SUPPRESSION, _EVENT_SUPPRESSION)
    if not packed:
        avail = (virtio.virtq_avail_size(num), virtio.VIRTQ_AVAIL_ALIGN)
        used = (virtio.virtq_used_size(num), virtio.VIRTQ_USED_ALIGN)
    parts = (
        ("descriptor part", address.descriptor, num * virtio.virtq_desc.itemsize, virtio.VIRTQ_DESC_ALIGN),
        ("available part", address.available, *avail),
        ("used part", address.used, *used),
    )
    found = []
    for what, user, size, align in parts:
        guest = memory.translate(table, user, size, what)
        if guest % align:
            raise wrong(f"the {what} is at guest address {guest:#x}", f"align it to {align} bytes")
        found.append(guest)
    return found[0], found[1], found[2]

# SPDX-License-Identifier: BSD-2-Clause
"""The device's side of a split virtqueue, over guest memory (virtio 1.2 §2.7).

For devices that move little: requests of a disk, bytes of entropy. Packets go through queues that another process
serves; it takes them over with what :meth:`Queue.state` says.

The driver may write anything anywhere at any time. Each word of its memory is therefore read once, checked, and used
from the copy, and every address is translated by the guest memory's own table. What a driver does wrong is a GuestError;
nothing has then been changed in the guest's memory.

Indices are 16 bits wide and must be loaded and stored whole: typed memoryviews do that with one instruction each, which
neither struct nor slices promise. The processor keeps loads in order, and stores (x86-TSO); what remains, a store
before a load, is where :data:`_barrier` is used.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ptnetmap.abi import virtio as abi
from ptnetmap.bhyve.host import Memory
from ptnetmap.errors import GuestError

MAX_SIZE = 32768
"""Entries of a queue at the most (virtio 1.2 §2.7)."""

MAX_SEGMENTS = 1024
"""Buffers of a chain at the most, indirect ones included."""

_DESC = struct.Struct("<QIHH")
_DESC_BYTES = abi.virtq_desc.itemsize
_AVAIL_FLAGS = abi.virtq_avail.fields["flags"][1] // 2  # type: ignore[index]
_AVAIL_IDX = abi.virtq_avail.fields["idx"][1] // 2  # type: ignore[index]
_AVAIL_ENTRIES = abi.virtq_avail.itemsize // 2
_USED_FLAGS = abi.virtq_used.fields["flags"][1] // 2  # type: ignore[index]
_USED_IDX = abi.virtq_used.fields["idx"][1] // 2  # type: ignore[index]
_USED_ENTRIES = abi.virtq_used.itemsize // 4
_USED_ENTRY = abi.virtq_used_elem.itemsize // 4
_INDEX_MASK = 0xFFFF

_barrier = threading.Lock()
"""Taking it is an atomic read-modify-write, which lets no later load pass an earlier store."""


class Segment(NamedTuple):
    """A buffer of a chain: ``length`` bytes at the guest-physical address ``gpa``, all in guest memory."""

    gpa: int
    length: int


class Chain:
    """What the driver offered with one entry of the available ring, checked.

    ``head`` is its first descriptor; ``readable`` and ``writable`` are its buffers, in order. The two sides are each one
    stream of bytes, however the driver cut them (virtio 1.2 §2.7.4.1).
    """

    def __init__(self, memory: Memory, head: int, readable: list[Segment], writable: list[Segment]) -> None:
        self._memory = memory
        self.head = head
        self.readable = readable
        self.writable = writable
        self.readable_bytes = sum(segment.length for segment in readable)
        self.writable_bytes = sum(segment.length for segment in writable)

    def read(self, length: int, offset: int = 0) -> bytes:
        """Return a copy of at most ``length`` bytes that the driver wrote, from ``offset`` bytes on."""
        return b"".join(bytes(view) for view in self.views(self.readable, offset, length))

    def write(self, data: bytes, offset: int = 0) -> int:
        """Store ``data`` for the driver, ``offset`` bytes from the start. Returns how many bytes had room."""
        done = 0
        for view in self.views(self.writable, offset, len(data)):
            view[:] = data[done : done + len(view)]
            done += len(view)
        return done

    def views(self, segments: Sequence[Segment], offset: int, length: int) -> Iterator[memoryview]:
        """Yield the guest's memory itself, for ``length`` bytes of ``segments`` from ``offset`` on, or what there is."""
        for gpa, size in segments:
            if length <= 0:
                return
            if offset >= size:
                offset -= size
                continue
            part = min(size - offset, length)
            yield self._memory.view(gpa + offset, part)
            offset = 0
            length -= part


@dataclass(frozen=True, slots=True)
class QueueState:
    """All that whoever serves a queue has to know of it, as plain data; addresses are guest-physical."""

    index: int
    """The queue's number in its device."""
    size: int
    """Entries."""
    enabled: bool
    """Whether the driver has put it into use."""
    desc: int
    """The descriptor table."""
    avail: int
    """The available ring."""
    used: int
    """The used ring."""
    last_avail: int
    """Position of the next chain to take, modulo 65536."""
    used_idx: int
    """Position of the next used element, modulo 65536; chains that were taken and not returned lie between the two."""
    event_idx: bool
    """VIRTIO_F_EVENT_IDX is negotiated."""
    indirect: bool
    """VIRTIO_F_INDIRECT_DESC is negotiated."""
    vector: int
    """MSI-X vector, or VIRTIO_MSI_NO_VECTOR."""


class Queue:
    """Queue ``index`` of a device, of at most ``max_size`` entries.

    ``size``, ``desc``, ``avail``, ``used`` and ``vector`` are what the driver's registers say, unchecked until
    :meth:`start`; ``event_idx`` and ``indirect`` what it negotiated. Users of one queue are serialised by the caller.
    Raises ValueError for a ``max_size`` that is no power of two up to 32768.
    """

    def __init__(self, memory: Memory, index: int, max_size: int) -> None:
        if not 1 <= max_size <= MAX_SIZE or max_size & (max_size - 1):
            raise ValueError(f"a queue of {max_size} entries: use a power of two up to {MAX_SIZE}")
        self._memory = memory
        self.index = index
        self.max_size = max_size
        self.event_idx = False
        self.indirect = False
        self._views: list[memoryview] = []
        self.reset()

    def reset(self) -> None:
        """Return to the state before any driver."""
        self.stop()
        self.size = self.max_size
        self.desc = self.avail = self.used = 0
        self.vector = 0xFFFF
        self.last_avail = self.used_idx = 0
        self._signalled = 0
        self._armed = True

    def start(self, last_avail: int = 0, used_idx: int = 0) -> None:
        """Put the queue into use, with the geometry that the driver gave, from these positions on.

        Raises GuestError: EINVAL for a size or an alignment that virtio 1.2 §2.7 forbids, EFAULT for a part that is
        not in guest memory; the queue is then as it was.
        """
        size = self.size
        if not 1 <= size <= self.max_size or size & (size - 1):
            raise self._error(
                f"its driver gave it {size} entries\n        it must choose a power of two up to {self.max_size}"
            )
        views = []
        for name, gpa, length, align in (
            ("descriptor table", self.desc, size * _DESC_BYTES, abi.VIRTQ_DESC_ALIGN),
            ("available ring", self.avail, abi.virtq_avail_size(size), abi.VIRTQ_AVAIL_ALIGN),
            ("used ring", self.used, abi.virtq_used_size(size), abi.VIRTQ_USED_ALIGN),
        ):
            if gpa % align:
                raise self._error(f"its {name} is at {gpa:#x}\n        the driver must align it to {align} bytes")
            if self._memory.host(gpa, length) is None:
                raise self._error(
                    f"its {name}, {length:,} bytes at {gpa:#x}, is not in guest memory\n"
                    "        the driver must place it there",
                    errno.EFAULT,
                )
            views.append(self._memory.view(gpa, length).cast("B"))
        self.stop()
        desc, avail, used = views
        self._desc = desc
        self._avail = avail.cast("H")
        self._used_words = used.cast("H")
        self._used_elements = used[:-2].cast("I")
        self._views = [self._used_elements, self._used_words, self._avail, used, avail, desc]
        self.last_avail = last_avail & _INDEX_MASK
        self.used_idx = self._signalled = used_idx & _INDEX_MASK
        self._armed = True

    def stop(self) -> None:
        """Touch the guest's memory no more; the positions stay."""
        for view in self._views:
            view.release()
        self._views = []

    @property
    def enabled(self) -> bool:
        """Whether the queue is in use."""
        return bool(self._views)

    @property
    def state(self) -> QueueState:
        """The queue as data, for whoever takes it over."""
        return QueueState(
            self.index,
            self.size,
            self.enabled,
            self.desc,
            self.avail,
            self.used,
            self.last_avail,
            self.used_idx,
            self.event_idx,
            self.indirect,
            self.vector,
        )

    def available(self) -> int:
        """Return how many chains wait to be taken; 0 if the queue is not in use.

        Raises GuestError if the driver's index says that more chains are with the device than the queue has entries.
        """
        if not self._views:
            return 0
        index = self._avail[_AVAIL_IDX]
        if (index - self.used_idx) & _INDEX_MASK > self.size:
            raise self._error(
                f"its available index is {index}, with {self.used_idx} chains returned (modulo 65536) and "
                f"{self.size} entries\n        the driver must offer a chain only once it has a free entry"
            )
        return (index - self.last_avail) & _INDEX_MASK

    def take(self) -> Chain | None:
        """Return the next chain, or None if there is none; the driver notifies after None, and need not before.

        Raises GuestError for a chain that breaks a rule; it stays in the queue.
        """
        if not self.available():
            if not self._views or not self.ask_for_kicks():
                return None
        elif self._armed and not self.event_idx:
            self._used_words[_USED_FLAGS] = abi.VIRTQ_USED_F_NO_NOTIFY
        self._armed = False
        head = self._avail[_AVAIL_ENTRIES + self.last_avail % self.size]
        chain = self._walk(head)
        self.last_avail = (self.last_avail + 1) & _INDEX_MASK
        return chain

    def put(self, chain: Chain, written: int) -> None:
        """Return ``chain`` to the driver; the first ``written`` bytes of its writable side are valid.

        Chains may be returned in any order. A queue that has been stopped since forgets them.
        """
        if not self._views:
            return
        element = _USED_ENTRIES + self.used_idx % self.size * _USED_ENTRY
        self._used_elements[element] = chain.head
        self._used_elements[element + 1] = written
        self.used_idx = (self.used_idx + 1) & _INDEX_MASK
        # The last store: the driver that sees the index sees the element, and the data before it.
        self._used_words[_USED_IDX] = self.used_idx

    def wants_interrupt(self) -> bool:
        """Return whether the driver asked to be interrupted for what was returned since this was last called."""
        if not self._views or self.used_idx == self._signalled:
            return False
        old, self._signalled = self._signalled, self.used_idx
        with _barrier:  # the index above is visible before the driver's wish is read (§2.7.7.2)
            pass
        if not self.event_idx:
            return not self._avail[_AVAIL_FLAGS] & abi.VIRTQ_AVAIL_F_NO_INTERRUPT
        event = self._avail[_AVAIL_ENTRIES + self.size]
        return (self.used_idx - event - 1) & _INDEX_MASK < (self.used_idx - old) & _INDEX_MASK

    def ask_for_kicks(self) -> int:
        """Tell the driver to notify, and return how many chains it had offered before it could know."""
        if self._armed and not self.event_idx:
            return 0
        self._armed = True
        if self.event_idx:
            self._used_words[_USED_ENTRIES * 2 + self.size * _USED_ENTRY * 2] = self.last_avail
        else:
            self._used_words[_USED_FLAGS] = 0
        with _barrier:
            pass
        return self.available()

    def _walk(self, head: int) -> Chain:
        """Check the chain ``head``; each descriptor is copied once."""
        readable: list[Segment] = []
        writable: list[Segment] = []
        table = self._desc
        entries = self.size
        position = head
        walked = total = 0
        nested = False
        while True:
            if position >= entries:
                raise self._error(f"descriptor {position} of chain {head} is outside its table of {entries}")
            if walked == entries or len(readable) + len(writable) == MAX_SEGMENTS:
                raise self._error(
                    f"chain {head} is a loop, or longer than {min(entries, MAX_SEGMENTS)}\n"
                    "        the driver must offer each descriptor once"
                )
            start = position * _DESC_BYTES
            gpa, length, flags, position = _DESC.unpack(bytes(table[start : start + _DESC_BYTES]))
            if length == 0 or self._memory.host(gpa, length) is None:
                raise self._error(
                    f"chain {head} has a buffer of {length:,} bytes at {gpa:#x}\n"
                    "        the driver must offer memory that the guest has",
                    errno.EFAULT,
                )
            if flags & abi.VIRTQ_DESC_F_INDIRECT:
                if not self.indirect or nested or flags & abi.VIRTQ_DESC_F_NEXT or length % _DESC_BYTES:
                    raise self._error(
                        f"chain {head} has an indirect descriptor of {length:,} bytes, flags {flags:#x}, where none "
                        "may be\n        the driver must negotiate them, not nest them, and end the chain with them"
                    )
                nested = True
                table = self._memory.view(gpa, length).cast("B")
                entries = length // _DESC_BYTES
                position = walked = 0
                continue
            walked += 1
            total += length
            if flags & abi.VIRTQ_DESC_F_WRITE:
                writable.append(Segment(gpa, length))
            elif writable:
                raise self._error(f"chain {head} has a buffer to read after one to write")
            else:
                readable.append(Segment(gpa, length))
            if total > 1 << 32:
                raise self._error(f"chain {head} has more than 4 GiB")
            if not flags & abi.VIRTQ_DESC_F_NEXT:
                return Chain(self._memory, head, readable, writable)

    def _error(self, what: str, number: int = errno.EINVAL) -> GuestError:
        return GuestError(number, f"virtqueue {self.index}: {what}")

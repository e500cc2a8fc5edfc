# SPDX-License-Identifier: BSD-2-Clause
"""Ports: descriptors on which a program sends and receives whole packets."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.netmap import binding, packets, sync
from ptnetmap.netmap.adapter import Adapter
from ptnetmap.netmap.descriptor import (
    POLLERR,
    POLLIN,
    POLLOUT,
    Descriptor,
    deadline_after,
    is_over,
    next_look,
    while_open,
)
from ptnetmap.netmap.frames import FrameBatch, Frames, batches
from ptnetmap.netmap.kring import KIND_NULL
from ptnetmap.netmap.ring import Ring
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.scratch import scratch


@dataclass(frozen=True)
class PacketHeader:
    """What :meth:`Port.dispatch` tells about a packet: time of its sync (s), length, and ring it came on."""

    ts: float
    length: int
    ring: int
    flags: int


class Port(Descriptor):
    """An open port: rings of an adapter, bound to this descriptor. Made by :meth:`Netmap.open`; a context manager.

    Sending and receiving whole packets::

        port.send([b"..."])            # or an array of shape (n, length), or a generator
        for frame in port.recv(timeout=1.0): ...

    Or work on the rings themselves, without copying: fill ``port.tx_rings[0].slots`` and buffers, move ``head`` and
    ``cur``, call :meth:`txsync`. One thread at a time may use a ring; different rings may have different threads.

    ``name`` is what was opened, ``mem_id`` the allocator, ``extra_bufs`` the buffers granted beyond the rings'.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        rings: list[RingState],
        flags: int,
        if_object: int,
        on_close: Callable[[Port], None],
    ) -> None:
        super().__init__(name, adapter, rings, flags, if_object, on_close)
        self._next_rx = 0
        self._out = np.zeros(1 << 18, np.uint8)
        self._lengths = np.zeros(4096, np.int64)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.tx_rings)} TX and {len(self.rx_rings)} RX rings"
        return f"<Port {self.name}: {state}>"

    def send(self, frames: Frames, *, timeout: float | None = None, ring: int | None = None) -> int:
        """Send frames, in batches; return how many were accepted.

        ``frames`` is bytes, an iterable of bytes-like objects (a generator too), or a uint8 array of shape
        (n, length). A frame longer than a buffer is sent as a chain of up to 64 slots. On a full ring this waits, up to
        ``timeout`` seconds in all (None: as long as it takes; 0: not at all), and returns the number accepted so far.
        What a lossless destination cannot take yet waits in the ring and counts as accepted. ``ring`` selects a TX ring
        (default: the first with room; host rings only on a port of nothing else).
        """
        deadline = deadline_after(timeout)
        if not self._tx_states:
            raise PortError(errno.EIO, f"netmap: {self.name} has no TX ring bound\n        open it without /R")
        if ring is not None and ring not in range(len(self._tx_states)):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot send on ring {ring!r} of {self.name}: {len(self._tx_states)} are bound\n"
                "        rings are counted from 0",
            )
        if self.adapter.kind == KIND_NULL:
            raise PortError(errno.EIO, f"netmap: {self.name} moves no packets\n        it is a handle on memory only")
        sent = 0
        for batch in batches(frames):
            with self._gate:
                accepted = self._send_batch(batch, ring, deadline)
            sent += accepted
            if accepted < len(batch):
                return sent
        with self._gate:
            self._flush(ring, deadline)
        return sent

    def _chosen(self, ring: int | None) -> list[RingState]:
        """Return the TX rings to send on; a frame goes to the host only if that is said, or there is nothing else."""
        if ring is not None:
            return [self._tx_states[ring]]
        return [state for state in self._tx_states if state.index < self.adapter.shape.tx_rings] or self._tx_states

    def _send_batch(self, batch: FrameBatch, ring: int | None, deadline: int) -> int:
        """Put and send the frames of one batch, waiting for room. Returns how many were accepted by the deadline."""
        states = self._chosen(ring)
        rings = self.tx_rings if ring is None else [self.tx_rings[ring]]
        self._check_lengths(batch.lengths)
        first = 0
        tails: list[int] = []
        while first < len(batch):
            before = first
            for state in states:
                first = self._put(state, batch.addresses, batch.lengths, first, len(batch))
                self._push(state)
                if first == len(batch):
                    break
            if first > before:
                tails = []
                continue
            # Space that is there may be too little for a chain: what is waited for is more than the last try found.
            if tails and not self._wait_for_more(rings, tails, deadline, 0 if ring is None else states[0].address):
                break
            tails = [r.tail for r in rings]
        return first

    def _wait_for_more(self, rings: list[Ring], tails: list[int], deadline: int, only: int) -> bool:
        """Wait until some ring has more space than when its tail was where ``tails`` says; False after the deadline."""
        for ring, tail in zip(rings, tails, strict=True):
            ring.cur = tail
        try:
            ready = self._wait(POLLOUT, deadline, only)
        finally:
            for ring in rings:
                ring.cur = ring.head
        return bool(ready) and (deadline == binding.FOREVER or time.monotonic_ns() < deadline)

    def _push(self, state: RingState) -> None:
        """Sync a TX ring that :meth:`send` has filled; a ring whose indices make no sense would be waited for in vain."""
        result = sync.txsync(state.address, scratch())
        self._raise(result)
        if result == sync.REINIT and sync.unsent(state.address):
            raise PeerError(
                errno.EIO,
                f"netmap: {self.name}: head or cur of TX ring {state.index} is outside the slots that are free\n"
                f"        set both to {state.block['rhead']}",
            )

    def _put(
        self, state: RingState, addresses: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], first: int, last: int
    ) -> int:
        done = packets.put_frames(state.address, addresses.ctypes.data, lengths.ctypes.data, first, last)
        if done == -1:
            raise PeerError(
                errno.EFAULT,
                f"netmap: {self.name}: a slot of TX ring {state.index} names no buffer of the region\n"
                "        something has overwritten buf_idx: close the port and open it again",
            )
        return int(done)

    def _flush(self, ring: int | None, deadline: int) -> None:
        """Wait until what is in the rings has left them, or the deadline."""
        for state in self._chosen(ring):
            while sync.unsent(state.address):
                if not self._wait_unsent(state, deadline):
                    return

    def _wait_unsent(self, state: RingState, deadline: int) -> bool:
        result = int(binding.wait_sent(self._binding.address, state.address, scratch(), next_look(deadline)))
        if result == binding.CLOSED:
            raise self._closed_meanwhile()
        if result == binding.NEED_FDS:
            self._make_fds()
        return result != binding.TIMEOUT or not is_over(deadline)

    def _check_lengths(self, lengths: npt.NDArray[np.int64]) -> None:
        fragments = min([packets.MAX_FRAGMENTS, *(state.num_slots - 1 for state in self._tx_states)])
        most = fragments * self._region.geometry.room
        longest = int(lengths.max(initial=0))
        if longest > most:
            raise PortError(
                errno.EMSGSIZE,
                f"netmap: cannot send a frame of {longest:,} bytes on {self.name}: {fragments} fragments of "
                f"{self._region.geometry.room:,} bytes is the most\n        split it",
            )

    @while_open
    def inject(self, frame: bytes | bytearray | memoryview) -> bool:
        """Put one frame into a TX ring if there is room, without waiting or syncing (nm_inject). Return whether it was.

        It leaves at the next :meth:`txsync`, :meth:`send` or :meth:`poll`.
        """
        (batch,) = batches(frame)
        self._check_lengths(batch.lengths)
        return any(self._put(state, batch.addresses, batch.lengths, 0, 1) == 1 for state in self._chosen(None))

    def recv(self, limit: int = 256, *, timeout: float | None = None) -> list[bytes]:
        """Receive up to ``limit`` frames: at least one, unless ``timeout`` seconds pass first (None: for ever).

        Returns the frames as bytes, chains put together; an empty list after the timeout.
        """
        data, lengths = self.recv_into(self._out, limit, timeout=timeout)
        ends = np.cumsum(lengths).tolist()
        whole = data.tobytes()
        return [whole[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]

    @while_open
    def recv_into(
        self, out: npt.NDArray[np.uint8], limit: int = 256, *, timeout: float | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Receive frames into a uint8 array of the caller's, one behind the other.

        Returns (the part of ``out`` that was filled, array of the frames' lengths). Raises PortError (EMSGSIZE) if the
        first frame is longer than ``out``; it stays in the ring. Raises PeerError (EIO) for a ring that was overwritten
        with indices that upstream's ring reinit leaves alone.
        """
        if not self._rx_states:
            raise PortError(errno.EIO, f"netmap: {self.name} has no RX ring bound\n        open it without /T")
        if not isinstance(limit, int):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot receive {limit!r} frames\n        give a whole number; a time is given as timeout=",
            )
        if (
            not isinstance(out, np.ndarray)
            or out.dtype != np.uint8
            or not out.flags.c_contiguous
            or not out.flags.writeable
        ):
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot receive into {getattr(out, 'dtype', type(out).__name__)}\n"
                "        use a writable, contiguous array of uint8",
            )
        if limit <= 0:
            return out[:0], np.zeros(0, np.int64)
        deadline = deadline_after(timeout)
        lengths = self._lengths if limit <= len(self._lengths) else np.zeros(limit, np.int64)
        received, used = self._get(out, lengths, limit)
        while received == 0:
            if not self._wait(POLLIN, deadline):
                break
            received, used = self._get(out, lengths, limit)
            if received == 0 and deadline != binding.FOREVER and time.monotonic_ns() >= deadline:
                break  # empty packets, or a ring that somebody keeps overwriting
        return out[:used], lengths[:received].copy()

    def _get(self, out: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], limit: int) -> tuple[int, int]:
        """Take packets from the RX rings in turn, then give the slots back."""
        received, used = 0, 0
        spoilt: RingState | None = None
        states = self._rx_states
        for i in range(len(states)):
            state = states[(self._next_rx + i) % len(states)]
            if not self._pull(state):
                spoilt = state
                continue
            count, left, too_long = packets.get_frames(
                state.address,
                out.ctypes.data + used,
                len(out) - used,
                lengths[received:].ctypes.data,
                min(limit - received, len(lengths) - received),
            )
            if too_long and received + count == 0:
                raise PortError(
                    errno.EMSGSIZE,
                    f"netmap: the next packet of {self.name} has {too_long:,} bytes, and there is room for {len(out):,}"
                    "\n        receive into a larger array",
                )
            received += count
            used = len(out) - left
            self._raise(sync.rxsync(state.address, scratch(), 0))
            if received == limit:
                break
        self._next_rx = (self._next_rx + 1) % len(states)
        if spoilt is not None and received == 0:
            raise PeerError(
                errno.EIO,
                f"netmap: {self.name}: head or cur of RX ring {spoilt.index} is outside the slots that have come\n"
                f"        set both to {spoilt.block['hwcur']}",
            )
        return received, used

    def _pull(self, state: RingState) -> bool:
        """Sync an RX ring; return whether its indices make sense, if need be after they have been put in order."""
        for _ in range(2):
            result = sync.rxsync(state.address, scratch(), 0)
            self._raise(result)
            if result == sync.OK:
                return True
        return False

    @while_open
    def dispatch(self, callback: Callable[[PacketHeader, memoryview], object], limit: int = -1) -> int:
        """Call ``callback(header, data)`` for each packet that has come, at most ``limit`` (-1: all); return how many.

        ``data`` is a memoryview of the netmap buffer itself (of a chain: a copy), valid until the callback returns.
        Does not wait (nm_dispatch): :meth:`poll` first.
        """
        done = 0
        for state, ring in zip(self._rx_states, self.rx_rings, strict=True):
            if sync.rxsync(state.address, scratch(), 1) == sync.REINIT:
                continue
            left = ring.space()
            while done != limit and left > 0:
                head = ring.head % ring.num_slots
                count, data = _next_packet(ring, head, left)
                header = PacketHeader(ring.ts, len(data), state.index, int(ring.slots["flags"][head]))
                callback(header, data)
                done += 1
                if self.closed:  # by the callback, or by another thread: it waits for this one to leave
                    return done
                ring.release_to((head + count) % ring.num_slots)
                left -= count
            self._raise(sync.rxsync(state.address, scratch(), 0))
        return done

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames as they come, until the port is closed."""
        while not self.closed:
            try:
                yield from self.recv()
            except PortError as error:
                if error.errno == errno.EBADF:
                    return
                raise


def _next_packet(ring: Ring, index: int, left: int) -> tuple[int, memoryview]:
    """Return the slots and the bytes of the packet at ``index``, where ``left`` slots are the user's."""
    if not int(ring.slots["flags"][index]) & abi.NS_MOREFRAG:
        return 1, _bytes_at(ring, index).data
    parts = []
    count = 0
    while count < left:
        parts.append(_bytes_at(ring, index))
        count += 1
        if not int(ring.slots["flags"][index]) & abi.NS_MOREFRAG:
            break
        index = ring.next(index)
    return count, np.concatenate(parts).data


def _bytes_at(ring: Ring, index: int) -> npt.NDArray[np.uint8]:
    try:
        return ring.packet(index)
    except IndexError:  # a slot that names no buffer is an empty packet
        return np.zeros(0, np.uint8)


__all__ = ["POLLERR", "POLLIN", "POLLOUT", "PacketHeader", "Port"]

# SPDX-License-Identifier: BSD-2-Clause
"""A netmap ring as its user sees it: live memory, no copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptnetmap.abi import netmap as abi
from ptnetmap.netmap.region import Region


class Ring:
    """One bound ring. ``head``, ``cur``, ``tail``, ``flags`` and ``ts`` are the netmap_ring's, live.

    What does not change (``num_slots``, ``nr_buf_size``, ``ringid``, ``dir``) is the runtime's own knowledge: the copy in
    shared memory, seen through ``header``, can be overwritten.

    The slots in ``[head, tail)`` are the user's. To give slots back (or, on a TX ring, to send them), set ``head`` and
    ``cur`` past them and sync the port. Indices are modulo ``num_slots``.

    ``slots`` is a structured array (fields ``buf_idx``, ``len``, ``flags``, ``ptr``); ``buffer(i)`` the bytes of the
    buffer that slot ``i`` has now. Arrays stay valid, but not meaningful, after the port is closed.
    """

    __slots__ = ("_buffers", "_header", "dir", "nr_buf_size", "num_slots", "offset", "ringid", "slots")

    def __init__(self, region: Region, offset: int, direction: int, ringid: int, num_slots: int) -> None:
        self._header = region.view(offset, abi.ring, 1)
        self.offset = offset
        self.dir = direction
        self.ringid = ringid
        self.num_slots = num_slots
        self.nr_buf_size = region.geometry.buf_pool.objsize
        self.slots: npt.NDArray[Any] = region.view(offset + abi.ring.itemsize, abi.slot, num_slots)
        self._buffers = region.view(
            region.geometry.buf_offset,
            np.dtype((np.uint8, (self.nr_buf_size,))),
            region.geometry.buf_pool.objtotal,
        )

    def __repr__(self) -> str:
        return (
            f"<{'RX' if self.dir == abi.RX else 'TX'} ring {self.ringid}: {self.num_slots} slots, "
            f"head {self.head}, cur {self.cur}, tail {self.tail}>"
        )

    def __len__(self) -> int:
        """Return the number of slots that are the user's now."""
        return self.space()

    @property
    def tail(self) -> int:
        """End of the user's slots; the runtime writes it."""
        return int(self._header["tail"][0])

    @property
    def head(self) -> int:
        """First slot that is the user's."""
        return int(self._header["head"][0])

    @head.setter
    def head(self, index: int) -> None:
        self._header["head"] = index

    @property
    def cur(self) -> int:
        """Slot from which poll waits: at or after head."""
        return int(self._header["cur"][0])

    @cur.setter
    def cur(self, index: int) -> None:
        self._header["cur"] = index

    @property
    def flags(self) -> int:
        """Ring flags: NR_TIMESTAMP asks for ``ts`` at every sync."""
        return int(self._header["flags"][0])

    @flags.setter
    def flags(self, value: int) -> None:
        self._header["flags"] = value

    @property
    def ts(self) -> float:
        """Time of the last sync that stamped the ring, in seconds since 1970."""
        return int(self._header["ts_sec"][0]) + int(self._header["ts_usec"][0]) / 1_000_000

    @property
    def header(self) -> npt.NDArray[Any]:
        """The netmap_ring itself, an array of one structure."""
        return self._header

    def space(self) -> int:
        """Slots that are the user's now: to fill on a TX ring, to read on an RX ring."""
        return (self.tail - self.head) % self.num_slots

    def empty(self) -> bool:
        """Whether no slot is the user's."""
        return self.head == self.tail

    def next(self, index: int) -> int:
        """Index after ``index``, round the ring."""
        return (index + 1) % self.num_slots

    def advance(self, count: int) -> None:
        """Release ``count`` slots: move head and cur past them. Takes effect at the next sync."""
        self.release_to((self.head + count) % self.num_slots)

    def release_to(self, index: int) -> None:
        """Release the slots before ``index``: set head and cur to it. Takes effect at the next sync."""
        self.cur = index
        self.head = index

    def buffer_at(self, buf_idx: int) -> npt.NDArray[np.uint8]:
        """Buffer number ``buf_idx`` of the region, whole; IndexError if there is none."""
        if not 0 <= buf_idx < len(self._buffers):
            raise IndexError(f"buffer {buf_idx}: the region has buffers 2 to {len(self._buffers) - 1}")
        return self._buffers[buf_idx]  # type: ignore[no-any-return]

    def buffer(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the buffer of slot ``index``, whole, as a writable array."""
        return self.buffer_at(int(self.slots["buf_idx"][index]))

    def packet(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of the packet (or fragment) in slot ``index``: the first ``len`` of its buffer."""
        return self.buffer(index)[: int(self.slots["len"][index])]

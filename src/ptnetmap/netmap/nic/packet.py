# SPDX-License-Identifier: BSD-2-Clause
"""AF_PACKET sockets behind the rings of an interface's queue, where there is no AF_XDP for it.

The host's stack keeps receiving the frames too. TPACKET_V3 hands over frames by the block: a block that does not fill is
handed over after a millisecond.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Iterable

import numpy as np

from ptnetmap.abi import netmap
from ptnetmap.abi import packet as abi
from ptnetmap.abi.xdp import XDP_PACKET_HEADROOM
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block, offsets
from ptnetmap.netmap.nic.message import Interface
from ptnetmap.netmap.nic.ring import xskrings
from ptnetmap.netmap.ringstate import RingState
from ptnetmap.netmap.shared import Mapping

_BLOCK_SIZE = 1 << 17  # more than the longest frame
_BLOCKS = 32
_FRAME_SIZE = 2048
_RETIRE_MS = 1
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_NOTHING = np.array([(0x06, 0, 0, 0)], np.dtype([("code", "u2"), ("jt", "u1"), ("jf", "u1"), ("k", "u4")]))
"""A classic BPF program that lets no frame pass: return 0."""
_STATUS = offsets(abi.tpacket_block_desc)["block_status"]
_AT = offsets(xskrings)


class PacketQueue:
    """One queue by AF_PACKET: a socket to send by, and one with a ring of blocks to receive from. Raises PortError.

    Frames come once :meth:`let_come` was called.
    """

    def __init__(self, interface: Interface, rings: Iterable[RingState], chunk: int) -> None:
        self.rings = list(rings)
        self._interface = interface
        self._bound = False
        self._missed = 0
        self._blocks: dict[int, Block] = {}
        with contextlib.ExitStack() as undo:
            try:
                self._out, self._in = (undo.enter_context(_open()) for _ in range(2))
                self._out.bind((interface.name, 0))
                self._mapping = self._make_ring()
            except OSError as error:
                raise _refusal(interface, error) from None
            undo.pop_all()
        for ring in self.rings:
            self._join(ring, chunk)

    def _make_ring(self) -> Mapping:
        self._in.setsockopt(abi.SOL_PACKET, abi.PACKET_VERSION, abi.TPACKET_V3)
        self._in.setsockopt(abi.SOL_PACKET, abi.PACKET_VNET_HDR, 1)
        with contextlib.suppress(OSError):  # since Linux 4.20
            self._in.setsockopt(abi.SOL_PACKET, abi.PACKET_IGNORE_OUTGOING, 1)
        request = np.zeros(1, abi.tpacket_req3)
        request["block_size"], request["block_nr"] = _BLOCK_SIZE, _BLOCKS
        request["frame_size"], request["frame_nr"] = _FRAME_SIZE, _BLOCKS * (_BLOCK_SIZE // _FRAME_SIZE)
        request["retire_blk_tov"] = _RETIRE_MS
        self._in.setsockopt(abi.SOL_PACKET, abi.PACKET_RX_RING, request.tobytes())
        return Mapping(self._in.fileno(), _BLOCK_SIZE * _BLOCKS)

    def _join(self, ring: RingState, chunk: int) -> None:
        block = Block(xskrings)
        block["packet"] = 1
        block["room"] = chunk - XDP_PACKET_HEADROOM
        block["give_consumer"] = block.address + _AT["waiting"]
        block["give_flags"] = block.address + _AT["down"]
        if ring.direction == netmap.TX:
            used, event = self._out, select.EPOLLOUT
            block["take_producer"] = block.address + _AT["taken"]
        else:
            used, event = self._in, select.EPOLLIN
            block["take_entries"] = self._mapping.address
            block["take_producer"] = self._mapping.address + _STATUS
            block["mask"], block["shift"] = _BLOCKS - 1, _BLOCK_SIZE.bit_length() - 1
            self._missed = ring.counters()["missed"]
            ring.lost_outside = self._count_missed
        block["fd"] = used.fileno()
        self._blocks[ring.direction] = block
        ring.news = os.dup(used.fileno()), event
        ring.block["nic"] = block.address

    def _count_missed(self) -> int:
        """Frames for the RX ring that found no room in the blocks."""
        layout = abi.tpacket_stats_v3
        found = self._in.getsockopt(abi.SOL_PACKET, abi.PACKET_STATISTICS, layout.itemsize)
        self._missed += int(np.frombuffer(found, layout, 1)["drops"][0])
        return self._missed

    def let_come(self, group: int | None, *, alone: bool) -> int | None:
        """Receive from now on. Raises OSError.

        ``group`` is that of the sockets which share the interface's frames by their queues, None to begin one. Returns it; a
        queue that is ``alone``, the interface's only one, needs none.
        """
        if self._bound:
            self._in.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        else:
            self._filter()  # until it is in the group, it would have the frames of all queues
            self._in.bind((self._interface.name, abi.ETH_P_ALL))
            if not alone:
                self._join_group(group)
            self._bound = True
            self._in.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return None if alone else self._in.getsockopt(abi.SOL_PACKET, abi.PACKET_FANOUT) & 0xFFFF

    def _join_group(self, group: int | None) -> None:
        # The socket's own PACKET_IGNORE_OUTGOING means nothing in a group; the flag is Linux 5.11's.
        kind = abi.PACKET_FANOUT_QM | abi.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
        if group is None:
            kind |= abi.PACKET_FANOUT_FLAG_UNIQUEID
        self._in.setsockopt(abi.SOL_PACKET, abi.PACKET_FANOUT, struct.pack("=I", (group or 0) | kind << 16))

    def take(self) -> None:
        """Receive no longer."""
        with contextlib.suppress(OSError):
            self._filter()

    def _filter(self) -> None:
        program = struct.pack("HxxxxxxQ", len(_NOTHING), _NOTHING.ctypes.data)
        self._in.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def tell_up(self) -> None:
        """Let syncs send again, after the interface was down."""
        for block in self._blocks.values():
            block["down"] = 0

    def close(self) -> None:
        """Let go of the queue; nobody is inside a sync of its rings."""
        for ring in self.rings:
            ring.counters()  # what it has missed is told for the last time
            ring.lost_outside = None
            ring.block["nic"] = 0
            if ring.news is not None:
                os.close(ring.news[0])
                ring.news = None
        self._out.close()
        self._in.close()
        del self._mapping  # a mapping keeps the socket open


def _open() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)


def _refusal(interface: Interface, error: OSError) -> PortError:
    advice = "see what the kernel says (dmesg), or use another interface"
    if error.errno == errno.EPERM:
        advice = "run as root, or with CAP_NET_RAW"
    return PortError(
        error.errno or errno.EIO,
        f"netmap: cannot open {interface.name}: no AF_PACKET socket can be had on it: {error.strerror}\n        {advice}",
    )

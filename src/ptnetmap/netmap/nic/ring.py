# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""The two rings of an AF_XDP socket that stand behind one netmap ring, as kernels see them.

By one of them we *give* buffers to the kernel: the TX ring with frames in them, or the fill ring. By the other we *take*
them back: the completion ring, or the RX ring with frames in them. Each netmap slot whose buffer the kernel has is noted
in memory of our own: what the user does to the slot meanwhile changes nothing.
"""

from __future__ import annotations

import numpy as np

from ptnetmap.abi import netmap as abi
from ptnetmap.abi.xdp import XDP_RING_NEED_WAKEUP
from ptnetmap.jit.atomic import fence, load32_acquire
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import load32, load64, store32
from ptnetmap.netmap.kring import DIRECTION, HWCUR, HWTAIL, NIC, NUM_SLOTS, after, wake

xskrings = np.dtype(
    [
        ("give_producer", "u8"),
        ("give_consumer", "u8"),
        ("give_flags", "u8"),
        ("give_entries", "u8"),
        ("take_producer", "u8"),
        ("take_consumer", "u8"),
        ("take_entries", "u8"),
        ("held", "u8"),
        ("mask", "u4"),
        ("shift", "u4"),
        ("headroom", "u4"),
        ("room", "u4"),
        ("most_fragments", "u4"),
        ("zero_copy", "u4"),
        ("fd", "i4"),
        ("down", "u4"),
        ("given", "u4"),
        ("taken", "u4"),
        ("packet", "u4"),
        ("waiting", "u4"),
        ("next", "u8"),
        ("left", "u4"),
        ("sending", "u4"),
        ("beside", "u8"),
        ("busy_poll", "u4"),
        ("_pad", "V52"),
    ]
)
"""What stands behind one netmap ring: 192 bytes.

============== =====================================================================================================
field          meaning
============== =====================================================================================================
give_...       addresses of the ring by which the kernel is given buffers: its indices, flags and entries
take_...       the same of the ring by which it gives them back
held           address of a u32 for each slot: the buffer that the kernel has of it, or 0
mask           entries of either ring, less 1
shift          a buffer's number is its UMEM address shifted right by this
headroom       bytes of a chunk before a frame: where the buffer begins in its chunk
room           bytes of a frame that a buffer holds
most_fragments buffers that a frame may consist of
zero_copy      1 if the driver uses the buffers themselves
fd             the socket
down           1 while the interface is down: the kernel need not be woken
given, taken   our indices of the two rings
packet         1 for AF_PACKET (:mod:`~ptnetmap.netmap.nic.packetsync`): then take_producer is the address of the status of
               the block to be read next, take_entries that of the first block, mask and shift tell the number and size
               of blocks, and given is the number of the block
waiting        1 while the socket has no room for a frame
next, left     the packet to be read next in its block, 0 for the first, and how many are left
sending        of an RX ring: 1 while a kthread sends by the same socket
beside         of a TX ring: address of the kring that receives by the same socket, or 0
busy_poll      1 if our system calls poll the driver, whether it asks to be woken or not
============== =====================================================================================================
"""

_AT = offsets(xskrings)
GIVE_PRODUCER = _AT["give_producer"]
GIVE_CONSUMER = _AT["give_consumer"]
GIVE_FLAGS = _AT["give_flags"]
GIVE_ENTRIES = _AT["give_entries"]
TAKE_PRODUCER = _AT["take_producer"]
TAKE_CONSUMER = _AT["take_consumer"]
TAKE_ENTRIES = _AT["take_entries"]
HELD = _AT["held"]
MASK = _AT["mask"]
SHIFT = _AT["shift"]
HEADROOM = _AT["headroom"]
ROOM = _AT["room"]
MOST_FRAGMENTS = _AT["most_fragments"]
ZERO_COPY = _AT["zero_copy"]
FD = _AT["fd"]
DOWN = _AT["down"]
GIVEN = _AT["given"]
TAKEN = _AT["taken"]
PACKET = _AT["packet"]
WAITING = _AT["waiting"]
NEXT = _AT["next"]
LEFT = _AT["left"]
BUSY_POLL = _AT["busy_poll"]
_SENDING = _AT["sending"]
_BESIDE = _AT["beside"]

U32 = 0xFFFFFFFF
_TX = abi.TX


@piece
def has_come(k):
    """Whether the kernel has given something back that no sync has taken: two loads."""
    x = load64(k + NIC)
    return load32_acquire(load64(x + TAKE_PRODUCER)) != load32(x + TAKEN)


@piece
def is_taken(x):
    """Whether the kernel has taken all that it was given."""
    return load32_acquire(load64(x + GIVE_CONSUMER)) == load32(x + GIVEN)


@piece
def have_all_left(k):
    """Whether no frame that a TX ring has given is still on its way out."""
    return after(load32(k + HWTAIL), load32(k + NUM_SLOTS)) == load32(k + HWCUR)


@piece
def tell_sending(k, on):
    """Tell the RX ring that has the same socket whether a kthread serves this TX ring, and wake it if so."""
    x = load64(k + NIC)
    if load32(k + DIRECTION) != _TX or x == 0 or load64(x + _BESIDE) == 0:
        return
    receiver = load64(x + _BESIDE)
    store32(load64(receiver + NIC) + _SENDING, on)
    if on != 0:
        wake(receiver)


@piece
def is_sent_beside(k):
    """Whether frames are being sent by the socket of this RX ring: each that leaves wakes whoever waits on that."""
    x = load64(k + NIC)
    return x != 0 and load32(x + _SENDING) != 0


@piece
def nic_has_news(k):
    """Whether a sync may move something though its user has done nothing: something has come, or is yet to be taken."""
    if has_come(k):
        return True
    x = load64(k + NIC)
    return load32(k + DIRECTION) == _TX and load32(x + DOWN) == 0 and not is_taken(x)


@piece
def is_polled(k):
    """Whether this RX ring's driver is polled by our system calls, so that a sync may find what nothing tells of."""
    x = load64(k + NIC)
    return load32(k + DIRECTION) != _TX and x != 0 and load32(x + BUSY_POLL) != 0


@piece
def wants_waking(x):
    """Whether the kernel asks to be woken; what it was given is there to be seen by it before."""
    fence()
    return load32_acquire(load64(x + GIVE_FLAGS)) & XDP_RING_NEED_WAKEUP != 0


@piece
def held_at(x, position):
    """Return the buffer that the kernel has of a slot, or 0."""
    return load32(load64(x + HELD) + 4 * position)


@piece
def hold(x, position, index):
    """Note which buffer the kernel has of a slot; 0 for none."""
    store32(load64(x + HELD) + 4 * position, index)


@piece
def find_held(k, x, index, start, end):
    """Return the slot in ``[start, end)`` whose buffer ``index`` the kernel has; -1 if there is none.

    Almost always it is the first: buffers come back in the order in which they were given, but for those that a driver
    has used for something else in between.
    """
    n = load32(k + NUM_SLOTS)
    while start != end:
        if held_at(x, start) == index:
            return start
        start = after(start, n)
    return -1

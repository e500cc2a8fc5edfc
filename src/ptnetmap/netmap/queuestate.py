# SPDX-License-Identifier: BSD-2-Clause
"""The control side of one virtqueue, split or packed: the device's private view of it, and how serving it begins and ends.

The queue's three parts and all that they point to are the driver's memory. What the device believes of them instead is
one flat structure, :data:`virtqueue`, which the kernels of :mod:`ptnetmap.netmap.queuering` get by its address. Source:
virtio 1.2 §2.7, §2.8.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptnetmap.abi import virtio as abi
from ptnetmap.errors import PeerError, PortError
from ptnetmap.jit.block import offsets
from ptnetmap.jit.memory import load16
from ptnetmap.netmap.batch import MAX_FRAGMENTS

MAX_SIZE = 32768
"""Entries of a queue at the most (virtio 1.2 §2.7)."""

MAX_REGIONS = 32
"""Regions of guest memory that a queue knows at the most."""

STATE_STOPPED = 0
STATE_RUNNING = 1
STATE_BROKEN = 2
"""The driver's index jumped: nothing more is read from this queue until it is started again."""

memory_region = np.dtype([("guest", "u8"), ("size", "u8"), ("host", "u8")])
"""Guest addresses ``[guest, guest + size)`` are the memory at the address ``host`` of this process."""

virtqueue = np.dtype(
    [
        ("desc", "u8"),
        ("avail", "u8"),
        ("used", "u8"),
        ("size", "u4"),
        ("state", "u4"),
        ("last_avail", "u2"),
        ("used_idx", "u2"),
        ("used_flags", "u2"),
        ("header", "u2"),
        ("mergeable", "u4"),
        ("accepts", "u4"),
        ("event_idx", "u4"),
        ("packed", "u4"),
        ("in_order", "u4"),
        ("signalled", "u2"),
        ("avail_wrap", "u2"),
        ("used_wrap", "u2"),
        ("_pad_events", "V2"),
        ("collected", "u4"),
        ("regions", "u4"),
        ("memory", memory_region, MAX_REGIONS),
        ("packets", "u8"),
        ("bytes", "u8"),
        ("bad_chain", "u8"),
        ("bad_address", "u8"),
        ("too_long", "u8"),
        ("no_buffer", "u8"),
        ("bad_index", "u8"),
        ("bad_header", "u8"),
        ("snapshot", "u8", 2),
        ("vnet", "u8", 2),
        ("frame_address", "u8"),
        ("frame_length", "u4"),
        ("_pad_frame", "V4"),
        ("empty_looks", "u4"),
        ("trouble", "i4"),
        ("one", "u8"),
        ("log", "u8"),
        ("log_pages", "u8"),
        ("first_word", "u8"),
        ("used_cursor", "u4"),
        ("used_any", "u4"),
        ("chain_address", "u8", 2 * MAX_FRAGMENTS),
        ("chain_length", "u4", 2 * MAX_FRAGMENTS),
        ("chain_cursor", "u2", MAX_FRAGMENTS),
        ("chain_id", "u2", MAX_FRAGMENTS),
        ("chain_used", "u4", MAX_FRAGMENTS),
    ],
    align=True,
)
"""The device's private view of one queue.

=============== =======================================================================================
field           meaning
=============== =======================================================================================
desc ... used   addresses, in this process, of the three parts of the queue; of a packed one, the ring and the two event
                suppression structures
size            entries, a power of two
state           STATE_*
last_avail      next entry of the available ring to return, modulo 65536; of a packed ring, the place in it
used_idx, flags what the used ring's first word says; of a packed ring, the place of the next used descriptor
packed          1 for a packed ring (VIRTIO_F_RING_PACKED); avail_wrap and used_wrap are its wrap counters
in_order        1 with VIRTIO_F_IN_ORDER: one used element stands for all before it
header          bytes of virtio-net header that packets of this queue start with: 0, 10 or 12
mergeable       1 if a delivered packet may fill several chains (VIRTIO_NET_F_MRG_RXBUF)
accepts         ACCEPT_*: what the driver takes unfinished
event_idx       1 with VIRTIO_F_EVENT_IDX; signalled is then the used index that the last question for interrupts was about
collected       packets of the last collect that wait to be completed
regions, memory the guest memory that chains may point to
packets, bytes  completed (driver to device) or delivered (device to driver)
bad_chain       chains refused: a loop, an index out of range, an empty or misdirected descriptor, nested tables
bad_address     chains refused: a descriptor or table is not within one region of guest memory
too_long        chains of more than MAX_FRAGMENTS descriptors, and packets dropped for not fitting their chains
no_buffer       deliveries that ended early because the driver offered no chain
bad_index       times that the queue broke: an index more than a queue ahead
bad_header      chains without a whole header, or one that lies about its packet
snapshot        the descriptor that is being looked at
vnet            the header of the packet that is being delivered
frame_*         a frame that finishing a packet's offloads has given, as an array of one fragment
empty_looks     looks at a packed ring that found nothing, since there was something
trouble         eventfd that is written to when the queue breaks, with ``one``, which is 1; or -1
log, log_pages  where to note the pages that are written to, and how many have a bit there; 0: nowhere
first_word, ... used descriptors of a packed ring that wait to be published: the first one's id, flags and place
chain_address.. the descriptors of the chains that are being filled
chain_cursor... of each of these chains its place, its number and the bytes that it gets
=============== =======================================================================================
"""

COUNTERS = ("packets", "bytes", "bad_chain", "bad_address", "too_long", "no_buffer", "bad_index", "bad_header")
"""The fields that only grow, also from one start to the next."""

ACCEPT_CSUM = 0x01
ACCEPT_TSO4 = 0x02
ACCEPT_TSO6 = 0x04
ACCEPT_UFO = 0x08
ACCEPT_USO = 0x10
ACCEPT_ECN = 0x20
ACCEPT_ALL = 0x3F
"""What a driver may take unfinished: missing checksums, packets to be segmented, and with ECN bits."""

_USED_IDX = offsets(abi.virtq_used)["idx"]
_PLACE = 0x7FFF
_LONG_HEADER = abi.virtio_net_hdr_mrg_rxbuf.itemsize


class Region(NamedTuple):
    """A piece of guest memory: ``size`` bytes from ``guest`` on are at the address ``host`` of this process."""

    guest: int
    size: int
    host: int


def start_virtqueue(
    queue: np.void,
    *,
    size: int,
    desc: int,
    avail: int,
    used: int,
    regions: Sequence[Region],
    last_avail: int = 0,
    used_idx: int | None = 0,
    header: int = 0,
    mergeable: bool = False,
    accepts: int = 0,
    event_idx: bool = False,
    packed: bool = False,
    in_order: bool = False,
    trouble: int = -1,
    log: tuple[int, int] = (0, 0),
) -> None:
    """Make a queue ready to be served, or ready again after it broke; its counters go on.

    ``queue`` is one item of an array of :data:`virtqueue`. ``desc``, ``avail`` and ``used`` are guest addresses, and
    each part lies within one of at most 32 ``regions``, as every buffer has to. The indices are those of a queue that
    was in use before, of a packed ring with the wrap counters in bit 15; ``used_idx`` may be None for what the used
    ring says. ``accepts`` (ACCEPT_*) is what the driver takes unfinished, ``trouble`` an eventfd that nobody else has, to
    be written to if the queue breaks, or -1. ``log`` is the address, aligned to 4 bytes, of the log of what is written to
    (:mod:`~ptnetmap.netmap.dirtylog`), and the pages that have bits in it. Raises PeerError (EINVAL, EFAULT) for a geometry
    that virtio 1.2 §2.7 forbids or memory that is not there, PortError (EINVAL) for what no guest can have asked for; the
    queue is then as it was.
    """
    if size < 1 or size > MAX_SIZE or (size & (size - 1) and not packed):
        raise PeerError(
            errno.EINVAL,
            f"virtqueue: cannot start a queue of {size} entries\n"
            f"        the driver must choose a power of two up to {MAX_SIZE:,}",
        )
    if len(regions) > MAX_REGIONS:
        raise PortError(
            errno.EINVAL,
            f"virtqueue: cannot serve guest memory of {len(regions)} regions, a queue knows {MAX_REGIONS}\n"
            "        give the guest fewer, larger regions",
        )
    for region in regions:
        if (
            min(region.guest, region.host) < 0
            or region.size < 1
            or max(region.guest, region.host) + region.size > 2**63
        ):
            raise PortError(
                errno.EINVAL,
                f"virtqueue: impossible region of guest memory: {region.size} bytes at {region.guest:#x}\n"
                "        addresses end below 2**63",
            )
    if header not in (0, abi.virtio_net_hdr.itemsize, _LONG_HEADER) or (mergeable and header != _LONG_HEADER):
        raise PortError(
            errno.EINVAL,
            f"virtqueue: header of {header} bytes with mergeable={mergeable}\n"
            "        use 0, 10 or 12, and 12 for mergeable buffers",
        )
    parts = {"desc": (desc, size * abi.virtq_desc.itemsize, abi.VIRTQ_DESC_ALIGN)}
    if packed:
        parts |= {name: (at, abi.pvirtq_event_suppress.itemsize, 4) for name, at in (("avail", avail), ("used", used))}
    else:
        parts["avail"] = (avail, abi.virtq_avail_size(size), abi.VIRTQ_AVAIL_ALIGN)
        parts["used"] = (used, abi.virtq_used_size(size), abi.VIRTQ_USED_ALIGN)
    hosts = {name: _locate(name, *part, regions) for name, part in parts.items()}
    if used_idx is None:
        used_idx = last_avail if packed else load16(hosts["used"] + _USED_IDX)
    if packed and max(last_avail & _PLACE, used_idx & _PLACE) >= size:
        raise PeerError(
            errno.EINVAL,
            f"virtqueue: positions {last_avail:#x} and {used_idx:#x} in a packed ring of {size}\n"
            "        the driver, or who served it before, must say where it stands",
        )

    queue["state"] = STATE_STOPPED
    queue["size"] = size
    for name, host in hosts.items():
        queue[name] = host
    queue["packed"] = packed
    queue["in_order"] = in_order
    queue["avail_wrap"], queue["used_wrap"] = last_avail >> 15, used_idx >> 15
    mask = _PLACE if packed else 0xFFFF
    queue["last_avail"] = last_avail & mask
    queue["used_idx"] = used_idx & mask
    queue["used_flags"] = 0
    queue["header"] = header
    queue["mergeable"] = mergeable
    queue["accepts"] = accepts
    queue["event_idx"] = event_idx
    queue["signalled"] = used_idx & mask
    queue["collected"] = 0
    queue["trouble"], queue["one"] = trouble, 1
    queue["log"], queue["log_pages"] = log
    queue["regions"] = len(regions)
    for number, region in enumerate(regions):
        queue["memory"][number] = tuple(region)
    queue["state"] = STATE_RUNNING


def stop_virtqueue(queue: np.void) -> tuple[int, int]:
    """Serve this queue no more. Returns (last_avail, used_idx), with which it can be started again later.

    Of a packed ring they have the wrap counters in bit 15.
    """
    queue["state"] = STATE_STOPPED
    queue["collected"] = 0
    if queue["packed"]:
        return (
            int(queue["last_avail"]) | int(queue["avail_wrap"]) << 15,
            int(queue["used_idx"]) | int(queue["used_wrap"]) << 15,
        )
    return int(queue["last_avail"]), int(queue["used_idx"])


def _locate(name: str, guest: int, size: int, align: int, regions: Sequence[Region]) -> int:
    """Return the host address of one part of a queue."""
    for region in regions:
        if region.guest <= guest and guest + size <= region.guest + region.size:
            host = region.host + guest - region.guest
            if host % align:
                raise PeerError(
                    errno.EINVAL,
                    f"virtqueue: the {name} part is at {guest:#x}\n        the driver must align it to {align} bytes",
                )
            return host
    raise PeerError(
        errno.EFAULT,
        f"virtqueue: the {name} part, {size:,} bytes at {guest:#x}, is not within one region of guest memory\n"
        "        the driver must place it in its memory",
    )

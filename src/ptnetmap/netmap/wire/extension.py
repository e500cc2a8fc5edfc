# SPDX-License-Identifier: BSD-2-Clause
"""Requests of our own, which upstream does not have: NIOCCTRL requests like all others, from number 0x8001 up.

=============== ====== =================== ======================================================================
request         number body                meaning
=============== ====== =================== ======================================================================
LOSSLESS_SET    0x8001 :data:`lossless`    let senders wait while the port of this name, or else the one bound, is full
PORT_STATS      0x8002 :data:`port_stats`  counters of a port
KTHREAD_LIST    0x8003 text                list of :class:`KthreadEntry`
KTHREAD_MOVE    0x8004 :data:`kthread`     let another kthread serve this port
PORT_LIST       0x8005 text                list of :class:`PortEntry`: all ports there are, on switches or not
LEARNED         0x8006 text                what the switch of this name has learned: MAC address to port number
AGEING_SET      0x8007 :data:`ageing`      what the switch of this name forgets silent addresses after
AUDIT           0x8008 text                list of :class:`AuditEntry`, one per region
BINDING         0x8009 text                what the port bound here consists of; comes with its memory's descriptors
NOTIFIERS       0x800a :data:`notifiers`   descriptors to wake who serves some of its rings, and to wait on
TOP             0x800c text                :class:`TopEntry`; comes with the memory of all counters
LOSSLESS_GET    0x800b :data:`lossless`    whether senders wait while that port is full
PTNETMAP_CREATE 0x800d :data:`ptnetmap`    serve the port bound here to a guest, through a CSB in the guest's memory
PTNETMAP_DELETE 0x800e none                serve it no longer
VIRTIO_CREATE   0x800f :data:`virtio_port` make a port of a switch for a virtio-net device, which goes with this connection;
                                           comes with a descriptor that is readable when a queue has broken
VIRTIO_MEMORY   0x8010 :data:`virtio_memory` know its guest's memory; a memfd comes for each region
VIRTIO_START    0x8011 :data:`virtio_queue` serve one of its queues; one or two eventfds come: to be kicked by, to interrupt
VIRTIO_STOP     0x8012 :data:`virtio_queue` serve it no longer
VIRTIO_SET      0x8013 :data:`virtio_port` change its MTU, or how many pairs of queues its driver uses
VIRTIO_STATE    0x8014 :data:`virtio_state` whether a driver has broken one of its queues, and what was counted there
VIRTIO_LOG      0x8015 :data:`virtio_log`   note which pages of guest memory are written to; a memfd comes, or none to stop
=============== ====== =================== ======================================================================

Those that answer with a *text* (JSON) have :data:`introspection` as their body, with room for a page of it after.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict

import numpy as np

from ptnetmap.netmap.wire.codec import Body, Bytes, Codec, Fixed, Values
from ptnetmap.netmap.wire.error import malformed, refused

LOSSLESS_SET = 0x8001
PORT_STATS = 0x8002
KTHREAD_LIST = 0x8003
KTHREAD_MOVE = 0x8004
PORT_LIST = 0x8005
LEARNED = 0x8006
AGEING_SET = 0x8007
AUDIT = 0x8008
BINDING = 0x8009
NOTIFIERS = 0x800A
LOSSLESS_GET = 0x800B
TOP = 0x800C
PTNETMAP_CREATE = 0x800D
PTNETMAP_DELETE = 0x800E
VIRTIO_CREATE = 0x800F
VIRTIO_MEMORY = 0x8010
VIRTIO_START = 0x8011
VIRTIO_STOP = 0x8012
VIRTIO_SET = 0x8013
VIRTIO_STATE = 0x8014
VIRTIO_LOG = 0x8015

CSB_ENTRIES = 0
"""``layout`` of PTNETMAP_CREATE: today's CSB, two arrays with an entry for each ring."""
CSB_PAGE_2015 = 1
"""``layout`` of PTNETMAP_CREATE: the CSB of 2015, one page for ring 0 of each direction."""

DROPS = (
    "bad_slot",
    "too_short",
    "bad_header",
    "bad_indirect",
    "fragments",
    "filtered",
    "same_port",
    "no_port",
    "no_reader",
    "no_room",
    "bridge_off",
    "too_long_for_xdp",
)
COUNTERS = (
    *("packets", "bytes", "syncs", "reinits", "skipped"),
    *DROPS[:-1],
    *("received", "received_bytes", "missed", "truncated"),
    *DROPS[-1:],
)
"""Names and order of the counters in :data:`port_stats`: those of :mod:`ptnetmap.netmap.counters`, whose meaning they
have. They are repeated here because this is a layout, and a change of it is a change of the protocol."""


class KthreadEntry(TypedDict):
    """One kthread: its number and operating-system thread id, the CPU it is pinned to, and the ports it serves."""

    kthread: int
    tid: int
    cpu: int | None
    ports: list[str]


class PortEntry(TypedDict):
    """One port: ``kind`` is vale, pipe, monitor, nic, null, ...; ``pid`` and ``kthread`` are None if it has none."""

    name: str
    kind: str
    tx_rings: int
    rx_rings: int
    tx_slots: int
    rx_slots: int
    mem_id: int
    pid: int | None
    kthread: int | None


class TopPort(TypedDict):
    """One port for ``top``: ``tx`` and ``rx`` are the places of its rings' counters in the memory that comes along.

    ``mode`` is how a network interface is read: "zero copy", "copy" or "AF_PACKET", None for other ports. -1 stands for
    a ring whose counters are elsewhere: a pipe's, which PORT_STATS tells. ``slots`` is per ring,
    ``switch`` the name of its switch or "", ``lossless`` whether it holds its senders back.
    """

    name: str
    kind: str
    switch: str
    tx: list[int]
    rx: list[int]
    slots: tuple[int, int]
    lossless: bool
    mode: NotRequired[str | None]
    pids: list[int]
    kthread: int | None


class TopKthread(TypedDict):
    """One kthread for ``top``: its rings, and nanoseconds since its start and of those asleep, as totals."""

    kthread: int
    cpu: int | None
    rings: int
    age_ns: int
    asleep_ns: int
    sleeps: int
    rounds: int
    kicks: int
    irqs: int


class TopEntry(TypedDict):
    """What ``top`` shows; ``size`` is of the counters' memory, an array of :data:`ptnetmap.netmap.counters.counters`."""

    generation: int
    size: int
    ports: list[TopPort]
    kthreads: list[TopKthread]


class AuditEntry(TypedDict):
    """One region: see :class:`ptnetmap.netmap.audit.Audit`; ``report`` is its sentence."""

    mem_id: int
    ok: bool
    report: str


lossless = np.dtype({"names": ["on"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of LOSSLESS_SET and LOSSLESS_GET: 8 bytes.

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    on      in/out 1: senders wait while the port is full; 0: what does not fit is dropped
====== ==== ======= ====== =======================================================================================
"""

kthread = np.dtype({"names": ["kthread"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of KTHREAD_MOVE: 8 bytes.

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    kthread in/out number of the kthread to serve the port from now on; the one that did
====== ==== ======= ====== =======================================================================================
"""

notifiers = np.dtype([("first", "u4"), ("count", "u4")])
"""Body of NOTIFIERS: 8 bytes; two descriptors come for each ring, to write to (an eventfd) and to wait on (an epoll).

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    first   in     number of the first ring, in the order of BINDING
4      4    count   in/out rings; as many as came, which is fewer when a message cannot carry all
====== ==== ======= ====== =======================================================================================
"""

ageing = np.dtype({"names": ["seconds"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of AGEING_SET: 8 bytes.

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    seconds in/out time after which a silent address is forgotten, 0 for never; the time before
====== ==== ======= ====== =======================================================================================
"""

ptnetmap = np.dtype({"names": ["layout"], "formats": ["u4"], "offsets": [0], "itemsize": 8})
"""Body of PTNETMAP_CREATE: 8 bytes.

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    layout  in     :data:`CSB_ENTRIES` or :data:`CSB_PAGE_2015`
====== ==== ======= ====== =======================================================================================

The port is one that was bound with NR_PTNETMAP_HOST. The options are those of CSB_ENABLE and SYNC_KLOOP_START in one: a
CSB option says where in a file that comes along (the guest's memory) the CSB is, of 2015 by ``csb_atok`` alone; an
eventfds option has a kick and an interrupt for each ring. Answered at once; the rings are served until PTNETMAP_DELETE
or the end of the connection.
"""

_counters = np.dtype([(name, "u8") for name in COUNTERS])

port_stats = np.dtype([("is_pipe", "u4"), ("reserved", "u4"), ("tx", _counters), ("rx", _counters)])
"""Body of PORT_STATS: 328 bytes, all out.

====== ==== ======== =============================================================================================
offset size field    meaning
====== ==== ======== =============================================================================================
0      4    is_pipe  1 for an end of a pipe, whose RX rings count what was received as ``packets`` and ``bytes``
8      160  tx       :data:`COUNTERS`, u64 each, summed over the TX rings
168    160  rx       the same, summed over the RX rings
====== ==== ======== =============================================================================================
"""

virtio_port = np.dtype([("pairs", "u4"), ("size", "u4"), ("features", "u8"), ("mtu", "u4"), ("flags", "u4")])
"""Body of VIRTIO_CREATE, and of VIRTIO_SET, where 0 changes nothing: 24 bytes.

====== ==== ======== ====== ======================================================================================
offset size field    in/out meaning
====== ==== ======== ====== ======================================================================================
0      4    pairs    in     pairs of a receive and a transmit queue, 1 to 16
4      4    size     in     entries that a queue may have, a power of two up to 32768
8      8    features out    features of the device, and of its queues, that the port has
16     4    mtu      in     longest packet behind the Ethernet header that others may send to it; 0 for 1500
20     4    flags    in     :data:`PORT_IS_TAP`, or 0
====== ==== ======== ====== ======================================================================================
"""

PORT_IS_TAP = 1
"""``flags`` of VIRTIO_CREATE: a descriptor of a tap device comes along, which the port is in place of a switch's."""

MAX_MEMORY = 32
"""Regions of guest memory at the most."""

memory_region = np.dtype([("guest", "u8"), ("size", "u8"), ("offset", "u8")])
"""One region: ``size`` bytes from the guest-physical address ``guest`` are at ``offset`` in its file."""

virtio_memory = np.dtype(
    [("count", "u4"), ("flags", "u4"), *((f"region{i}", memory_region) for i in range(MAX_MEMORY))]
)
"""Body of VIRTIO_MEMORY: 776 bytes.

====== ==== ======== ====== ======================================================================================
offset size field    in/out meaning
====== ==== ======== ====== ======================================================================================
0      4    count    in     regions, 1 to 32; as many descriptors come along
4      4    flags    in     0
8      24   region0  in     the first, and so on
====== ==== ======== ====== ======================================================================================
"""

virtio_queue = np.dtype(
    [
        ("index", "u4"),
        ("size", "u4"),
        ("desc", "u8"),
        ("avail", "u8"),
        ("used", "u8"),
        ("last_avail", "u2"),
        ("used_idx", "u2"),
        ("flags", "u4"),
        ("features", "u8"),
    ]
)
"""Body of VIRTIO_START and VIRTIO_STOP: 48 bytes.

====== ==== ========== ====== ====================================================================================
offset size field      in/out meaning
====== ==== ========== ====== ====================================================================================
0      4    index      in     number of the queue in its device: 2 i to receive, 2 i + 1 to transmit
4      4    size       in     entries
8      8    desc       in     guest-physical address of the descriptor table, or the ring
16     8    avail      in     of the available ring, or the driver's event suppression
24     8    used       in     of the used ring, or the device's event suppression
32     2    last_avail in/out position of the next chain to take; of STOP, an answer, as the next
34     2    used_idx   in/out position of the next used element
36     4    flags      in     :data:`QUEUE_RESUMES`, or 0
40     8    features   in     what the driver has taken
====== ==== ========== ====== ====================================================================================
"""

QUEUE_COUNTERS = ("packets", "bytes", "bad_chain", "bad_address", "too_long", "no_buffer", "bad_index", "bad_header")
"""What is counted in a virtqueue, see :data:`ptnetmap.netmap.queuestate.virtqueue`."""

virtio_state = np.dtype([("index", "u4"), ("broken", "u4"), *((name, "u8") for name in QUEUE_COUNTERS)])
"""Body of VIRTIO_STATE: 72 bytes.

====== ==== ======== ====== ======================================================================================
offset size field    in/out meaning
====== ==== ======== ====== ======================================================================================
0      4    index    in     number of the queue
4      4    broken   out    1 if its driver has broken it; it is served again once it is stopped and started
8      64   packets  out    and so on: :data:`QUEUE_COUNTERS`, u64 each
====== ==== ======== ====== ======================================================================================

The descriptor that VIRTIO_CREATE answers with is readable from when a queue breaks until this is asked.
"""

virtio_log = np.dtype([("size", "u8"), ("offset", "u8")])
"""Body of VIRTIO_LOG: 16 bytes.

====== ==== ======== ====== ======================================================================================
offset size field    in/out meaning
====== ==== ======== ====== ======================================================================================
0      8    size     in     bytes of the log; bit n stands for the page at guest-physical address 4,096 n
8      8    offset   in     where it begins in the memfd that comes along, aligned to 4
====== ==== ======== ====== ======================================================================================
"""

QUEUE_RESUMES = 1
"""``flags`` of VIRTIO_START: the position of the next used element is what the used ring says."""

introspection = np.dtype([("offset", "u4"), ("total", "u4"), ("length", "u4"), ("room", "u4")])
"""The head of a body for a text: 16 bytes, and then ``room`` bytes for a page of the text.

The answer is as long as the request, as all answers are. A new text is made when ``offset`` is 0; further pages are of
that one, as long as the client asks for nothing else (ESTALE).

====== ==== ======= ====== =======================================================================================
offset size field   in/out meaning
====== ==== ======= ====== =======================================================================================
0      4    offset  in     where in the text the page begins, in bytes
4      4    total   out    bytes of the whole text
8      4    length  in/out bytes of text in this body; 0 in requests
12     4    room    in     bytes that follow
====== ==== ======= ====== =======================================================================================
"""

PAGE = 32768
"""Room for text that clients offer: half a frame."""


class _Text:
    """A body with a page of text: ``length`` is that of ``text``, bytes, which ``room`` is as long as or longer."""

    minimum = introspection.itemsize
    _head = Fixed(introspection)

    def extent(self, data: Bytes, at: int) -> int:
        return self.minimum + int(self._head.unpack(data, at)["room"])

    def size(self, values: Values) -> int:
        return self.minimum + int(values["room"])

    def complete(self, values: Values) -> Body:
        text = values.get("text", b"")
        head = self._head.complete({name: value for name, value in values.items() if name != "text"})
        if not isinstance(text, bytes) or not len(text) <= head["room"]:
            raise refused(f"{len(text)} bytes of text do not fit", f"there is room for {head['room']}")
        return {**head, "length": len(text), "text": text}

    def unpack(self, data: Bytes, at: int) -> Body:
        head = self._head.unpack(data, at)
        if head["length"] > head["room"]:
            raise refused(f"{head['length']} bytes of text in a room of {head['room']}", "length is at most room")
        start = at + self.minimum
        return {**head, "text": bytes(data[start : start + head["length"]])}

    def pack_into(self, buffer: bytearray, at: int, values: Values) -> None:
        self._head.pack_into(buffer, at, values)
        start = at + self.minimum
        buffer[start : start + len(values["text"])] = values["text"]


TEXT_REQUESTS = frozenset({KTHREAD_LIST, PORT_LIST, LEARNED, AUDIT, BINDING, TOP})
"""The requests that are answered with JSON."""

EXTENSION_BODIES: Mapping[int, Codec | None] = MappingProxyType(
    {
        LOSSLESS_SET: Fixed(lossless),
        LOSSLESS_GET: Fixed(lossless),
        NOTIFIERS: Fixed(notifiers),
        PORT_STATS: Fixed(port_stats),
        KTHREAD_MOVE: Fixed(kthread),
        AGEING_SET: Fixed(ageing),
        PTNETMAP_CREATE: Fixed(ptnetmap),
        PTNETMAP_DELETE: None,
        VIRTIO_CREATE: Fixed(virtio_port),
        VIRTIO_MEMORY: Fixed(virtio_memory),
        VIRTIO_START: Fixed(virtio_queue),
        VIRTIO_STOP: Fixed(virtio_queue),
        VIRTIO_SET: Fixed(virtio_port),
        VIRTIO_STATE: Fixed(virtio_state),
        VIRTIO_LOG: Fixed(virtio_log),
        **dict.fromkeys(sorted(TEXT_REQUESTS), _Text()),
    }
)
"""The body of each request of ours."""


# Counters -------------------------------------------------------------------------------------------------------------


def stats_body(tx: Iterable[Values], rx: Iterable[Values], *, is_pipe: bool) -> Body:
    """Return the answer to PORT_STATS, from the counters of each TX and each RX ring by name."""
    directions = {"tx": list(tx), "rx": list(rx)}
    sums = {way: {n: sum(int(ring[n]) for ring in rings) for n in COUNTERS} for way, rings in directions.items()}
    return {"is_pipe": int(is_pipe), **sums}


def stats_fields(body: Values) -> dict[str, Any]:
    """Return what PORT_STATS answered as the fields of :class:`ptnetmap.netmap.stats.PortStats`, by name."""
    tx, rx = body["tx"], body["rx"]
    return {
        "tx_packets": tx["packets"],
        "tx_bytes": tx["bytes"],
        "rx_packets": rx["packets" if body["is_pipe"] else "received"],
        "rx_bytes": rx["bytes" if body["is_pipe"] else "received_bytes"],
        "missed": rx["missed"],
        "truncated": rx["truncated"],
        "drops": {reason: tx[reason] for reason in DROPS if tx[reason]},
        **{name: tx[name] + rx[name] for name in ("reinits", "syncs", "skipped")},
    }


# Texts ----------------------------------------------------------------------------------------------------------------


class Pages:
    """The text that a client is reading page by page; netmapd has one for each connection."""

    def __init__(self) -> None:
        self._subject: tuple[int, str] | None = None
        self._text = b""

    def page(self, reqtype: int, name: str, body: Values, produce: Callable[[], Any]) -> Body:
        """Return the fields to answer a text request with; ``produce`` makes the object, when a new text begins.

        Raises WireError: ESTALE for a page of a text that is not at hand, EINVAL without room.
        """
        offset, room = body["offset"], body["room"]
        if not room:
            raise refused("a text request without room for text", f"offer {PAGE} bytes")
        if offset == 0:
            self._subject, self._text = (reqtype, name), json.dumps(produce()).encode()
        if self._subject != (reqtype, name) or offset > len(self._text):
            raise refused(f"the page at {offset} of a text that is gone", "begin again at 0", errno.ESTALE)
        piece, total = self._text[offset : offset + room], len(self._text)
        if offset + len(piece) == total:
            self._subject, self._text = None, b""
        return {"total": total, "text": piece}


def introspect(ask: Callable[[int, str, Values], Values], reqtype: int, name: str = "") -> Any:
    """Return the object that a text request answers with, asking for page after page.

    ``ask`` takes number, name and body of a request and returns the fields of the answer. Raises what it raises, and
    WireError (EPROTO) for an answer that is no JSON text.
    """
    text = b""
    while True:
        answer = ask(reqtype, name, {"offset": len(text), "room": PAGE})
        text += answer["text"]
        if len(text) >= answer["total"]:
            break
        if not answer["text"]:
            raise malformed(f"the text of request {reqtype:#x} ends after {len(text)} of {answer['total']} bytes")
    try:
        return json.loads(text)
    except ValueError as error:
        raise malformed(f"the text of request {reqtype:#x} is not JSON: {error}") from None

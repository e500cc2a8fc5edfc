# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Forwarding: look a batch of packets up, and deliver it.

The second and third step of *collect, look up, deliver*. What goes in is a batch and integers that say where it came
from, so that any kind of ring can be a source; what goes out is a deliver kernel per kind of destination.

Packets of one batch for one destination ring form a queue and are delivered together, in their order. Room is leased
in all destinations before the first copy, because a lossless destination that is full cuts the batch short.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import fence, load32_acquire, load64_acquire, store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.memory import (
    fill_bytes,
    load8,
    load8_at,
    load16,
    load16_at,
    load32,
    load32_at,
    load64,
    store16,
    store32,
    store64,
)
from ptnetmap.netmap.batch import NO_PACKET, OFFSET
from ptnetmap.netmap.collect import ADDRESS, DROPPED, FIRST, FLAGS, FRAGMENTS_OF, LENGTH, VNETS
from ptnetmap.netmap.convert import deliver_converted, header_length, packet_slots
from ptnetmap.netmap.counters import (
    BAD_HEADER,
    BRIDGE_OFF,
    FILTERED,
    MISSED,
    NO_PORT,
    NO_READER,
    NO_ROOM,
    SAME_PORT,
    TOO_SHORT,
    TRUNCATED,
)
from ptnetmap.netmap.deliver import deliver_plain, deliver_slots
from ptnetmap.netmap.guestqueue import deliver_to_queue, hold_for_room
from ptnetmap.netmap.kring import (
    COPY_MONITORS,
    HELD,
    HWCUR,
    LOSSLESS,
    PATCH,
    SERVICE,
    STATE,
    STATE_ON,
    count_shared,
    wake,
)
from ptnetmap.netmap.lease import settle_lease, take_lease
from ptnetmap.netmap.lookup import call_lookup
from ptnetmap.netmap.monitor import fill_monitors
from ptnetmap.netmap.service import KTHREAD as SERVICE_KTHREAD
from ptnetmap.netmap.service import activate
from ptnetmap.netmap.view import BROADCAST, DROP, INGRESS, KIND_NETMAP, VIEW, VPORT

_HEAD_ADDRESS = OFFSET["head_address"]
_HEAD_LENGTH = OFFSET["head_length"]
_PORT = OFFSET["port"]
_RING = OFFSET["ring"]
_NEXT = OFFSET["next"]
_ORDER = OFFSET["order"]
_QUEUE_HEAD = OFFSET["queue_head"]
_QUEUE_TAIL = OFFSET["queue_tail"]
_QUEUE_SLOTS = OFFSET["queue_slots"]
_DESTINATION = OFFSET["destination"]
_GRANT_START = OFFSET["grant_start"]
_GRANT_SLOTS = OFFSET["grant_slots"]
_GRANT_LEASE = OFFSET["grant_lease"]
_KTHREAD = OFFSET["kthread"]
_PENDING = OFFSET["pending"]
_PENDING_COUNT = OFFSET["pending_count"]
PENDING_LIMIT = 64

_VIEW_LOOKUP = VIEW["lookup"]
_VIEW_TABLE = VIEW["table"]
_VIEW_TABLE_LENGTH = VIEW["table_length"]
_VIEW_ACTIVE_COUNT = VIEW["active_count"]
_VIEW_ACTIVE = VIEW["active"]
_VIEW_PORT = VIEW["port"]
_VPORT_KIND = VPORT["kind"]
_VPORT_RINGS = VPORT["rings"]
_VPORT_HEADER = VPORT["header"]
_VPORT_MFS = VPORT["mfs"]
_VPORT_RING = VPORT["ring"]
_INGRESS_VIEW_AT = INGRESS["view_at"]
_INGRESS_COUNTERS = INGRESS["counters"]
_INGRESS_PORT = INGRESS["port"]
_INGRESS_RING = INGRESS["ring"]
_INGRESS_HEADER = INGRESS["header"]

_MIN_FRAME = 14
_ONE_FRAGMENT = 1 << 8
_BROADCAST_QUEUE = BROADCAST * 16


@piece
def tally(counters, reason, amount):
    """Add to a counter of the source."""
    store64(counters + reason, load64(counters + reason) + amount)


@piece
def find_heads(batch, packets, header):
    """Note where each packet's Ethernet header is: after the virtio-net header, which may fill the first fragment."""
    for packet in range(packets):
        record = load16(batch + FIRST + 2 * packet)
        address = load64(batch + ADDRESS + 8 * record)
        length = load32(batch + LENGTH + 4 * record)
        if length > header or header == 0:
            address += header
            length -= header
        elif length == header and load16(batch + FRAGMENTS_OF + 2 * record) > 1:
            address = load64(batch + ADDRESS + 8 * (record + 1))
            length = load32(batch + LENGTH + 4 * (record + 1))
        else:
            length = 0
            if load16(batch + FLAGS + 2 * record) & DROPPED == 0:
                store16(batch + FLAGS + 2 * record, DROPPED | BAD_HEADER)
        store64(batch + _HEAD_ADDRESS + 8 * packet, address)
        store32(batch + _HEAD_LENGTH + 4 * packet, length)


@piece
def look_up(view, ingress, batch, records, packets):
    """Let the switch's lookup fill the batch's port and ring arrays. Returns the address of the packets' lengths."""
    heads = batch + _HEAD_ADDRESS
    lengths = batch + _HEAD_LENGTH
    header = load32(ingress + _INGRESS_HEADER)
    if header == 0 and records == packets:
        heads = batch + ADDRESS
        lengths = batch + LENGTH
    else:
        find_heads(batch, packets, header)
    # What a lookup does not answer is dropped, and goes to the ring of the same number.
    fill_bytes(batch + _PORT, DROP, packets)
    fill_bytes(batch + _RING, load32(ingress + _INGRESS_RING), packets)
    call_lookup(
        load64(view + _VIEW_LOOKUP),
        load64(view + _VIEW_TABLE),
        load64(view + _VIEW_TABLE_LENGTH),
        heads,
        lengths,
        packets,
        load32(ingress + _INGRESS_PORT),
        batch + _PORT,
        batch + _RING,
    )
    return lengths


@piece
def drop_reason(view, source, batch, lengths, packet):
    """Why a packet goes nowhere, as the counter of the reason, or -1."""
    flags = load16(batch + FLAGS + 2 * load16(batch + FIRST + 2 * packet))
    if flags & DROPPED:
        return flags & ~DROPPED
    if load32(lengths + 4 * packet) < _MIN_FRAME:
        return TOO_SHORT
    port = load8(batch + _PORT + packet)
    if port == BROADCAST:
        return -1
    if port == DROP:
        return FILTERED
    if port == source:
        return SAME_PORT
    if load64(view + _VIEW_PORT + 8 * port) == 0:
        return NO_PORT
    return -1


@piece
def tally_drops(view, ingress, batch, lengths, cut):
    """Count the packets below ``cut`` that go nowhere, each under its reason. The others may yet be tried again."""
    source = load32(ingress + _INGRESS_PORT)
    counters = load64(ingress + _INGRESS_COUNTERS)
    for packet in range(cut):
        reason = drop_reason(view, source, batch, lengths, packet)
        if reason != -1:
            tally(counters, reason, 1)
    if load16(batch + _QUEUE_HEAD + 2 * _BROADCAST_QUEUE) != NO_PACKET and not is_heard(view, source):
        tally(counters, NO_READER, queue_length(batch, _BROADCAST_QUEUE, cut))


@piece
def append(batch, queue, packet, destinations):
    """Put a packet at the end of a queue, which joins the list of destinations with its first one."""
    fragments = load16(batch + FRAGMENTS_OF + 2 * load16(batch + FIRST + 2 * packet))
    store16(batch + _NEXT + 2 * packet, NO_PACKET)
    if load16(batch + _QUEUE_HEAD + 2 * queue) == NO_PACKET:
        store16(batch + _QUEUE_HEAD + 2 * queue, packet)
        store16(batch + _QUEUE_SLOTS + 2 * queue, fragments)
        if queue != _BROADCAST_QUEUE:
            store16(batch + _DESTINATION + 2 * destinations, queue)
            destinations += 1
    else:
        last = load16(batch + _QUEUE_TAIL + 2 * queue)
        store16(batch + _NEXT + 2 * last, packet)
        store16(batch + _QUEUE_SLOTS + 2 * queue, load16(batch + _QUEUE_SLOTS + 2 * queue) + fragments)
    store16(batch + _QUEUE_TAIL + 2 * queue, packet)
    return destinations


@piece
def is_heard(view, source):
    """Whether some port other than ``source`` has ring 0, where broadcasts go, open."""
    for i in range(load32(view + _VIEW_ACTIVE_COUNT)):
        port = load8(view + _VIEW_ACTIVE + i)
        vport = load64(view + _VIEW_PORT + 8 * port)
        if port != source and load32(load64(vport + _VPORT_RING) + STATE) == STATE_ON:
            return True
    return False


@piece
def queue_length(batch, queue, cut):
    """Packets below ``cut`` in a queue of its own, broadcasts not counted."""
    n = 0
    packet = load16(batch + _QUEUE_HEAD + 2 * queue)
    while packet < cut:
        n += 1
        packet = load16(batch + _NEXT + 2 * packet)
    return n


@piece
def sort_packets(view, ingress, batch, packets, lengths):
    """Queue the packets by destination ring. Returns the number of destinations, those of broadcasts included."""
    source = load32(ingress + _INGRESS_PORT)
    destinations = 0
    for packet in range(packets):
        if drop_reason(view, source, batch, lengths, packet) != -1:
            continue
        port = load8(batch + _PORT + packet)
        ring = 0
        if port != BROADCAST:
            ring = load8(batch + _RING + packet)
            rings = load32(load64(view + _VIEW_PORT + 8 * port) + _VPORT_RINGS)
            if ring >= rings:
                ring %= rings
        destinations = append(batch, port * 16 + ring, packet, destinations)
    if load16(batch + _QUEUE_HEAD + 2 * _BROADCAST_QUEUE) != NO_PACKET:
        for i in range(load32(view + _VIEW_ACTIVE_COUNT)):
            port = load8(view + _VIEW_ACTIVE + i)
            if port != source and load16(batch + _QUEUE_HEAD + 2 * (port * 16)) == NO_PACKET:
                store16(batch + _QUEUE_SLOTS + 2 * (port * 16), 0)
                store16(batch + _DESTINATION + 2 * destinations, port * 16)
                destinations += 1
    return destinations


@piece
def merge(batch, queue, cut):
    """Write the numbers below ``cut`` of a queue's and of the broadcasts' packets to ``order``. Returns their count.

    Both queues are in order of arrival, and so is the result.
    """
    own = load16(batch + _QUEUE_HEAD + 2 * queue)
    common = NO_PACKET
    if queue & 15 == 0:
        common = load16(batch + _QUEUE_HEAD + 2 * _BROADCAST_QUEUE)
    n = 0
    while True:
        packet = min(own, common)
        if packet >= cut:  # NO_PACKET is larger than any
            return n
        store16(batch + _ORDER + 2 * n, packet)
        n += 1
        if packet == own:
            own = load16(batch + _NEXT + 2 * own)
        else:
            common = load16(batch + _NEXT + 2 * common)


@piece
def is_passed_on(ingress, batch, vport):
    """Whether a netmap ring gets a batch's packets as they are, fragment by fragment."""
    return load32(vport + _VPORT_HEADER) == load32(ingress + _INGRESS_HEADER) and load32(batch + VNETS) == 0


@piece
def slots_needed(ingress, batch, vport, ring, packet):
    """Slots that a packet takes in a destination ring: one a fragment, unless offloads have to be finished for it."""
    if load32(vport + _VPORT_KIND) != KIND_NETMAP:
        return 1
    if is_passed_on(ingress, batch, vport):
        return load16(batch + FRAGMENTS_OF + 2 * load16(batch + FIRST + 2 * packet))
    source = load32(ingress + _INGRESS_HEADER)
    return packet_slots(batch, packet, source, load32(vport + _VPORT_HEADER), load32(vport + _VPORT_MFS), ring)


@piece
def queued_slots(batch, queue):
    """Fragments of all packets that a destination gets, of its own queue and of the broadcasts'."""
    slots = load16(batch + _QUEUE_SLOTS + 2 * queue)
    if queue & 15 == 0 and load16(batch + _QUEUE_HEAD + 2 * _BROADCAST_QUEUE) != NO_PACKET:
        slots += load16(batch + _QUEUE_SLOTS + 2 * _BROADCAST_QUEUE)
    return slots


@piece
def converted_slots(ingress, batch, vport, ring, queue):
    """Slots for all packets of a destination whose virtio-net header differs from the source's."""
    slots = 0
    for i in range(merge(batch, queue, NO_PACKET)):
        slots += slots_needed(ingress, batch, vport, ring, load16(batch + _ORDER + 2 * i))
    return slots


@piece
def first_left_out(ingress, batch, vport, ring, queue, granted):
    """Return the first packet of a destination for which ``granted`` slots leave no room."""
    for i in range(merge(batch, queue, NO_PACKET)):
        packet = load16(batch + _ORDER + 2 * i)
        granted -= slots_needed(ingress, batch, vport, ring, packet)
        if granted < 0:
            return packet
    return NO_PACKET


@piece
def lease_all_or_some(ring, batch, queue, needed):
    """Lease ``needed`` slots of a ring for a queue. Returns how many were granted.

    A lossless ring with too little room is asked to tell of more. The news may come between the lease and the asking,
    so the reader's index is looked at once more after it: the fence pairs with the one in ``vale_rxsync``.
    """
    start, granted, lease, seen = take_lease(ring, needed)
    while granted < needed and load32(ring + LOSSLESS) != 0:
        store32_release(ring + HELD, 1)
        fence()
        if load32_acquire(ring + HWCUR) == seen:
            break
        if granted > 0:
            settle_lease(ring, start, granted, lease, 0, 0, 0)
        start, granted, lease, seen = take_lease(ring, needed)
    store32(batch + _GRANT_START + 4 * queue, start)
    store32(batch + _GRANT_SLOTS + 4 * queue, granted)
    store32(batch + _GRANT_LEASE + 4 * queue, lease)
    return granted


@piece
def lease_room(view, ingress, batch, queue, cut):
    """Lease what a destination's packets need. Returns ``cut``, lowered to the first packet that has to wait."""
    vport = load64(view + _VIEW_PORT + 8 * (queue >> 4))
    ring = load64(vport + _VPORT_RING + 8 * (queue & 15))
    store32(batch + _GRANT_SLOTS + 4 * queue, 0)
    if load32(ring + STATE) != STATE_ON:
        return cut
    if load32(vport + _VPORT_KIND) != KIND_NETMAP:
        if load32(ring + LOSSLESS) == 0:
            return cut
        needed = merge(batch, queue, NO_PACKET)
        granted = hold_for_room(ring, needed)
    else:
        needed = queued_slots(batch, queue)
        if not is_passed_on(ingress, batch, vport):
            needed = converted_slots(ingress, batch, vport, ring, queue)
        granted = lease_all_or_some(ring, batch, queue, needed)
    if granted < needed and load32(ring + LOSSLESS) != 0:
        cut = min(cut, first_left_out(ingress, batch, vport, ring, queue, granted))
    return cut


@piece
def announce(ring, batch):
    """Tell who waits on a ring that it has moved; a wrapped ring waits for its other switch.

    A ring that this very kthread serves goes on its list of active rings, without a system call.
    """
    if load64(ring + PATCH) == 0:
        service = load64(ring + SERVICE)
        if service != 0 and load64(service + SERVICE_KTHREAD) == load64(batch + _KTHREAD):
            activate(service)
        else:
            wake(ring)
        return
    n = load32(batch + _PENDING_COUNT)
    if n < PENDING_LIMIT:
        store64(batch + _PENDING + 8 * n, ring)
        store32(batch + _PENDING_COUNT, n + 1)


@piece
def deliver_to_ring(vport, ring, ingress, batch, queue, order, n):
    """Deliver ``n`` packets to a netmap RX ring where room is leased. Returns how many it took."""
    start = load32(batch + _GRANT_START + 4 * queue)
    granted = load32(batch + _GRANT_SLOTS + 4 * queue)
    delivered = 0
    dropped = 0
    if granted > 0:
        if is_passed_on(ingress, batch, vport):
            used, delivered, octets, truncated = deliver_slots(ring, batch, order, n, start, granted, 0)
        else:
            used, delivered, octets, truncated, dropped = deliver_converted(
                ring,
                batch,
                order,
                n,
                start,
                granted,
                header_length(batch, load32(ingress + _INGRESS_HEADER)),
                load32(vport + _VPORT_HEADER),
                load32(vport + _VPORT_MFS),
                load64(ingress + _INGRESS_COUNTERS) + BAD_HEADER,
            )
        lease = load32(batch + _GRANT_LEASE + 4 * queue)
        if load64(ring + COPY_MONITORS) != 0 and delivered > 0:
            fill_monitors(load64(ring + COPY_MONITORS), batch, order, delivered, queued_slots(batch, queue), False)
        if settle_lease(ring, start, granted, lease, used, delivered - dropped, octets):
            announce(ring, batch)
        count_shared(ring, TRUNCATED, truncated)
    count_shared(ring, MISSED, n - delivered)
    return delivered


@piece
def deliver_queue(view, ingress, batch, queue, order, n, cut):
    """Deliver one destination's packets, by the kind of its ring, and count what it could not take."""
    vport = load64(view + _VIEW_PORT + 8 * (queue >> 4))
    ring = load64(vport + _VPORT_RING + 8 * (queue & 15))
    counters = load64(ingress + _INGRESS_COUNTERS)
    if load32(ring + STATE) != STATE_ON:
        # Only what was meant for this port is lost: a broadcast goes to those who listen.
        tally(counters, NO_READER, queue_length(batch, queue, cut))
        return
    if load32(vport + _VPORT_KIND) != KIND_NETMAP:
        inline = load32(ingress + _INGRESS_HEADER)
        delivered = deliver_to_queue(ring, batch, order, n, inline, load32(vport + _VPORT_MFS))
    else:
        delivered = deliver_to_ring(vport, ring, ingress, batch, queue, order, n)
    tally(counters, NO_ROOM, n - delivered)


@piece
def only_destination(view, ingress, batch, packets, lengths):
    """Return the queue that all packets of a plain batch go to, or -1: several, none, or one that needs more care.

    The usual case, found out without a branch per packet.
    """
    port = load8(batch + _PORT)
    ring = load8(batch + _RING)
    differ = 0
    short = 0
    ports = batch + _PORT
    rings = batch + _RING
    flags = batch + FLAGS
    for packet in range(packets):
        differ |= (load8_at(ports, packet) ^ port) | (load8_at(rings, packet) ^ ring)
    for packet in range(packets):
        differ |= load16_at(flags, 2 * packet)
    for packet in range(packets):
        short |= load32_at(lengths, 4 * packet) - _MIN_FRAME
    if differ != 0 or short < 0 or port == BROADCAST:
        return -1
    if drop_reason(view, load32(ingress + _INGRESS_PORT), batch, lengths, 0) != -1:
        return -1
    vport = load64(view + _VIEW_PORT + 8 * port)
    if load32(vport + _VPORT_HEADER) != load32(ingress + _INGRESS_HEADER):
        return -1
    count = load32(vport + _VPORT_RINGS)
    queue = port * 16 + (ring if ring < count else ring % count)
    if load32(load64(vport + _VPORT_RING + 8 * (queue & 15)) + STATE) != STATE_ON:
        return -1
    return queue


@piece
def forward_to_queue(vport, ring, ingress, batch, packets):
    """Deliver all packets of a plain batch to one virtqueue. Returns how many were consumed."""
    room = packets
    if load32(ring + LOSSLESS) != 0:
        room = hold_for_room(ring, packets)
    delivered = deliver_to_queue(ring, batch, 0, room, load32(ingress + _INGRESS_HEADER), load32(vport + _VPORT_MFS))
    tally(load64(ingress + _INGRESS_COUNTERS), NO_ROOM, room - delivered)
    return room


@piece
def forward_plain(view, ingress, batch, queue, packets):
    """Deliver all packets of a plain batch to one ring. Returns how many were consumed."""
    vport = load64(view + _VIEW_PORT + 8 * (queue >> 4))
    ring = load64(vport + _VPORT_RING + 8 * (queue & 15))
    if load32(vport + _VPORT_KIND) != KIND_NETMAP:
        return forward_to_queue(vport, ring, ingress, batch, packets)
    granted = lease_all_or_some(ring, batch, queue, packets)
    if granted > 0:
        start = load32(batch + _GRANT_START + 4 * queue)
        octets, unusable = deliver_plain(ring, batch, granted, start, _ONE_FRAGMENT)
        if load64(ring + COPY_MONITORS) != 0:
            fill_monitors(load64(ring + COPY_MONITORS), batch, 0, granted, granted, False)
        lease = load32(batch + _GRANT_LEASE + 4 * queue)
        if settle_lease(ring, start, granted, lease, granted, granted, octets):
            announce(ring, batch)
        count_shared(ring, TRUNCATED, unusable)
    if granted == packets or load32(ring + LOSSLESS) != 0:
        return granted
    count_shared(ring, MISSED, packets - granted)
    tally(load64(ingress + _INGRESS_COUNTERS), NO_ROOM, packets - granted)
    return packets


@piece
def forward(ingress, batch, records, packets):
    """Look up and deliver ``packets`` packets of a batch, of ``records`` fragments in all.

    Returns how many were consumed: all of them, except that a packet for a lossless port which is full, and those
    behind it, are left to the sender.
    """
    view = load64_acquire(load64(ingress + _INGRESS_VIEW_AT))
    if view == 0:
        tally(load64(ingress + _INGRESS_COUNTERS), BRIDGE_OFF, packets)
        return packets
    lengths = look_up(view, ingress, batch, records, packets)
    if records == packets and load32(batch + VNETS) == 0:
        queue = only_destination(view, ingress, batch, packets, lengths)
        if queue != -1:
            return forward_plain(view, ingress, batch, queue, packets)
    destinations = sort_packets(view, ingress, batch, packets, lengths)
    cut = packets
    for i in range(destinations):
        cut = lease_room(view, ingress, batch, load16(batch + _DESTINATION + 2 * i), cut)
    tally_drops(view, ingress, batch, lengths, cut)
    for i in range(destinations):
        queue = load16(batch + _DESTINATION + 2 * i)
        n = merge(batch, queue, cut)
        deliver_queue(view, ingress, batch, queue, batch + _ORDER, n, cut)
        store16(batch + _QUEUE_HEAD + 2 * queue, NO_PACKET)
    store16(batch + _QUEUE_HEAD + 2 * _BROADCAST_QUEUE, NO_PACKET)
    return cut

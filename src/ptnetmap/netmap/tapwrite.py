# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Writing packets to a tap device, one at a time or as a destination of a switch.

The device's packets have virtio-net headers of 12 bytes. What the kernel takes unfinished goes to it whole; other offloads
are finished here.
"""

from __future__ import annotations

from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import write, writev
from ptnetmap.jit.memory import load16, load32, load64, store32, store64
from ptnetmap.netmap.batch import CONVERTED_BYTES, MAX_SEGMENTS, OFFSET
from ptnetmap.netmap.collect import ADDRESS, FIRST, FRAGMENTS_OF, LENGTH, VNETS
from ptnetmap.netmap.convert import make_linear
from ptnetmap.netmap.counters import MISSED, RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.deliver import copy_frame
from ptnetmap.netmap.joint import TAP
from ptnetmap.netmap.kring import PEER, count_shared
from ptnetmap.netmap.offload import convert, output_stride
from ptnetmap.netmap.queuestate import ACCEPT_CSUM, ACCEPT_ECN, ACCEPT_TSO4, ACCEPT_TSO6
from ptnetmap.netmap.vnet import HEADER, read_header, wanted

_LINEAR = OFFSET["linear"]
_CONVERTED = OFFSET["converted"]
_CONVERTED_LENGTH = OFFSET["converted_length"]
_BLANK = OFFSET["blank"]
_IOVEC = 16
_SHORT = 2048
_ACCEPTS = ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_TSO6 | ACCEPT_ECN
"""What the kernel takes, see :func:`~ptnetmap.netmap.tapdevice.open_tap`."""


@piece
def write_packet(fd, batch, header, record, skip):
    """Write one packet behind the header of 12 bytes at ``header``. Returns the bytes written, or -1.

    Its first ``skip`` bytes are left out.
    """
    fragments = load16(batch + FRAGMENTS_OF + 2 * record)
    length = -skip
    for i in range(fragments):
        length += load32(batch + LENGTH + 4 * (record + i))
    if length <= _SHORT:
        return _write_short(fd, batch, header, record, fragments, skip)
    pieces = load64(batch + _LINEAR)
    store64(pieces, header)
    store64(pieces + 8, HEADER)
    for i in range(fragments):
        at = pieces + _IOVEC * (i + 1)
        left_out = min(skip, load32(batch + LENGTH + 4 * (record + i)))
        store64(at, load64(batch + ADDRESS + 8 * (record + i)) + left_out)
        store64(at + 8, load32(batch + LENGTH + 4 * (record + i)) - left_out)
        skip -= left_out
    return writev(fd, pieces, fragments + 1)


@piece
def _write_short(fd, batch, header, record, fragments, skip):
    place = load64(batch + _LINEAR)
    store64(place, load64(header))
    store32(place + 8, load32(header + 8))
    at = place + HEADER
    for i in range(fragments):
        left_out = min(skip, load32(batch + LENGTH + 4 * (record + i)))
        octets = load32(batch + LENGTH + 4 * (record + i)) - left_out
        copy_frame(at, load64(batch + ADDRESS + 8 * (record + i)) + left_out, octets)
        at += octets
        skip -= left_out
    return write(fd, place, at - place)


@piece
def _write_finished(fd, batch, packet, skip, mfs):
    """Finish a packet's offloads, and write the frames that it becomes. Returns the bytes written, or -1."""
    length = make_linear(batch, packet)
    if length < 0:
        return -1
    source_header = HEADER if load32(batch + VNETS) != 0 else skip
    frames = load64(batch + _CONVERTED)
    lengths = batch + _CONVERTED_LENGTH
    pieces = load64(batch + _LINEAR)
    count = convert(pieces, length, source_header, 0, mfs, frames, CONVERTED_BYTES, lengths, MAX_SEGMENTS)
    octets = -1
    for i in range(count):
        store64(pieces, batch + _BLANK)
        store64(pieces + 8, HEADER)
        store64(pieces + _IOVEC, frames + i * output_stride(mfs, 0))
        store64(pieces + _IOVEC + 8, load32(lengths + 4 * i))
        n = writev(fd, pieces, 2)
        if n > 0:
            octets = max(octets, 0) + n
    return octets


@piece
def deliver_to_tap(ring, batch, order, n, inline, mfs):
    """Deliver ``n`` packets to the tap device of an RX kring. Returns how many it took; others are counted as missed.

    ``order`` is the address of packet numbers, or 0 for the batch as it is; ``inline`` the bytes of header that packets
    begin with. Senders need not take turns: the kernel arranges that.
    """
    fd = load32(load64(ring + PEER) + TAP)
    header = load64(batch + _CONVERTED)
    delivered = 0
    octets = 0
    for i in range(n):
        packet = i if order == 0 else load16(order + 2 * i)
        record = load16(batch + FIRST + 2 * packet)
        read_header(batch, packet, record, inline, header)
        if wanted(header) & ~_ACCEPTS != 0:
            written = _write_finished(fd, batch, packet, inline, mfs)
        else:
            written = write_packet(fd, batch, header, record, inline)
        if written >= 0:
            delivered += 1
            octets += written - HEADER
    count_shared(ring, RECEIVED, delivered)
    count_shared(ring, RECEIVED_BYTES, octets)
    count_shared(ring, MISSED, n - delivered)
    return delivered

# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Packets between VALE ports whose virtio-net headers have different lengths.

A port with a virtio-net header (10 or 12 bytes) may send frames that are not finished: a checksum is missing, or one
large packet stands for many. Another port with a header gets them as they are, with the header translated. A port
without one gets finished frames: :func:`convert` does what the network card would have done.

==================== =============================================================================================
gso_type             becomes
==================== =============================================================================================
NONE                 one frame, of any length, as between ports whose headers are equal
TCPV4, TCPV6         TCP segments of ``gso_size`` bytes of payload, or fewer if ``mfs`` is smaller
UDP_L4               datagrams of ``gso_size`` bytes; they are messages, so one that exceeds ``mfs`` is refused
UDP                  IP fragments of one datagram: the meaning that virtio gives it. (Upstream repeats the UDP header
                     in each piece, which makes several datagrams out of one.)
==================== =============================================================================================

Of the header, ``hdr_len`` is never used: the specification calls it a hint, and drivers get it wrong. The lengths in
IP and UDP headers are written anew. The packet may be changing while it is read (its sender owns the memory): every
field that decides where something is read or written is read once, so that the sender spoils nothing but its packet.

Source: virtio 1.2 §5.1.6.2, §5.1.6.4; virtio_net_hdr in Linux; RFC 791, 8200 (fragments), 9293, 3168 (CWR).
"""

from __future__ import annotations

from ptnetmap.abi import virtio
from ptnetmap.jit.block import offsets
from ptnetmap.jit.kernel import kernel, piece
from ptnetmap.jit.memory import (
    copy_bytes,
    fill_bytes,
    load8,
    load16,
    load16_be,
    load32,
    load32_be,
    store8,
    store16,
    store16_be,
    store32,
    store32_be,
)
from ptnetmap.netmap.checksum import fix_ipv4, store_checksum, sum_bytes, sum_pseudo_header

DROP_BAD_HEADER = -1
"""The packet is truncated, or its virtio-net header lies about it."""
DROP_TOO_MANY = -2
"""It makes more than ``max_frames`` frames."""
DROP_NO_ROOM = -3
"""The frames need more than ``capacity`` bytes."""
DROP_UNSUPPORTED = -4
"""A kind of segmentation, or of IP header, that is not known here."""
DROP_TOO_LONG = -5
"""It cannot be cut to the destination's ``mfs``."""

WORST_HEADER = 142
"""Longest headers of a packet to be segmented: Ethernet, two VLAN tags, and 60 bytes each of IP and TCP."""

_FLAGS = offsets(virtio.virtio_net_hdr)["flags"]
_GSO_TYPE = offsets(virtio.virtio_net_hdr)["gso_type"]
_GSO_SIZE = offsets(virtio.virtio_net_hdr)["gso_size"]
_CSUM_START = offsets(virtio.virtio_net_hdr)["csum_start"]
_CSUM_OFFSET = offsets(virtio.virtio_net_hdr)["csum_offset"]
_NUM_BUFFERS = offsets(virtio.virtio_net_hdr_mrg_rxbuf)["num_buffers"]
_SHORT = virtio.virtio_net_hdr.itemsize
_LONG = virtio.virtio_net_hdr_mrg_rxbuf.itemsize

_NEEDS_CSUM = virtio.VIRTIO_NET_HDR_F_NEEDS_CSUM
_ECN = virtio.VIRTIO_NET_HDR_GSO_ECN
_NONE = virtio.VIRTIO_NET_HDR_GSO_NONE
_TCPV4 = virtio.VIRTIO_NET_HDR_GSO_TCPV4
_TCPV6 = virtio.VIRTIO_NET_HDR_GSO_TCPV6
_UFO = virtio.VIRTIO_NET_HDR_GSO_UDP
_USO = virtio.VIRTIO_NET_HDR_GSO_UDP_L4

_ETHERNET = 14
_LAST_TAG = _ETHERNET + 4
_VLAN = 0x8100
_SERVICE_VLAN = 0x88A8
_IPV4 = 0x0800
_IPV6 = 0x86DD
_IP_MAX = 0xFFFF

_IPV4_SIZE = 20
_IPV4_IDENT = 4
_IPV4_FRAGMENT = 6
_IPV4_PROTOCOL = 9
_MORE_FRAGMENTS = 0x2000
_OFFSET_MASK = 0x1FFF

_IPV6_SIZE = 40
_IPV6_LENGTH = 4
_IPV6_NEXT = 6
_HOP_BY_HOP = 0
_FRAGMENT = 44
_FRAGMENT_SIZE = 8
_DESTINATION_OPTIONS = 60

_TCP = 6
_TCP_SIZE = 20
_TCP_SEQUENCE = 4
_TCP_DATA_OFFSET = 12
_TCP_FLAGS = 13
_TCP_CHECKSUM = 16
_FIN_PSH = 0x09
_CWR = 0x80

_UDP = 17
_UDP_SIZE = 8
_UDP_LENGTH = 4
_UDP_CHECKSUM = 6


@kernel
def output_stride(mfs, destination_header):
    """Bytes from one produced frame to the next: room for ``mfs`` and the header, in whole cache lines."""
    return (mfs + destination_header + 63) & ~63


@kernel
def segment_size(frame, length, source_header, destination_header):
    """Return the ``gso_size`` by which :func:`convert` would cut the packet at ``frame``; 0 if it would not.

    ``length`` is how many bytes are readable there; the virtio-net header suffices.
    """
    if destination_header != 0 or source_header < _SHORT or length < source_header:
        return 0
    return load16(frame + _GSO_SIZE) if load8(frame + _GSO_TYPE) & ~_ECN != _NONE else 0


@kernel
def frames_bound(length, mfs, gso_size):
    """Return a number of frames that :func:`convert` does not exceed for a packet of ``length`` bytes.

    ``gso_size`` is what :func:`segment_size` returned. It is upstream's scaling, length / (mfs - headers) + 1, where
    the sender did not ask for even smaller segments.
    """
    if gso_size == 0:
        return 1
    smallest = min(gso_size, min(mfs, _IP_MAX) - WORST_HEADER) & ~7  # fragments are cut to multiples of 8
    return length // max(smallest, 1) + 1


@kernel
def convert(frame, length, source_header, destination_header, mfs, out, capacity, lengths, max_frames):
    """Turn one packet into what a port with another header length takes; return the number of frames, or why not.

    ``frame`` is the address of ``length`` bytes in one piece, beginning with ``source_header`` (0, 10 or 12) bytes
    of virtio-net header. The frames, each behind ``destination_header`` bytes of header, are put at ``out``,
    :func:`output_stride` apart; their lengths, headers included, into the u32s at ``lengths``. Only a packet that
    becomes several frames is held to ``mfs``. A negative result is one of the ``DROP_*``, and what is in ``out`` then
    means nothing. Touches nothing outside ``length`` bytes of ``frame``, ``capacity`` bytes of ``out`` and
    ``max_frames`` words of ``lengths``.
    """
    packet = frame + source_header
    size = length - source_header
    if size < _ETHERNET:
        return DROP_BAD_HEADER
    if max_frames < 1:
        return DROP_TOO_MANY
    finish = source_header >= _SHORT and destination_header == 0
    kind = load8(frame + _GSO_TYPE) & ~_ECN if finish else _NONE
    if kind != _NONE:
        return _segment(frame, packet, size, kind, mfs, out, capacity, lengths, max_frames)
    if destination_header + size > capacity:
        return DROP_NO_ROOM
    copy_bytes(out + destination_header, packet, size)
    if finish and load8(frame + _FLAGS) & _NEEDS_CSUM:
        start = load16(frame + _CSUM_START)
        place = start + load16(frame + _CSUM_OFFSET)
        if place + 2 > size:
            return DROP_BAD_HEADER
        # What is there already, the sum of the pseudo-header, is part of what is summed.
        store_checksum(out + place, sum_bytes(out + start, size - start))
    if destination_header != 0:
        common = min(source_header, destination_header)
        copy_bytes(out, frame, common)
        fill_bytes(out + common, 0, destination_header - common)
        if destination_header == _LONG and common < _LONG:
            store16(out + _NUM_BUFFERS, 1)
    store32(lengths, destination_header + size)
    return 1


@piece
def _segment(frame, packet, size, kind, mfs, out, capacity, lengths, max_frames):
    """Check what was said about a packet to be segmented, decide where to cut it, and make the frames."""
    ip, is_ipv4, transport, protocol, head = _find_headers(packet, size)
    if ip < 0:
        return ip
    checksum = _TCP_CHECKSUM if protocol == _TCP else _UDP_CHECKSUM
    partial = load8(frame + _FLAGS) & _NEEDS_CSUM
    if partial and (load16(frame + _CSUM_START) != transport or load16(frame + _CSUM_OFFSET) != checksum):
        return DROP_BAD_HEADER
    # UDP over IPv4 may go without a checksum, and does if there is none and none is asked for.
    summed = protocol == _TCP or not is_ipv4 or partial != 0 or load16(packet + transport + checksum) != 0
    gso_size = load16(frame + _GSO_SIZE)
    if gso_size == 0:
        return DROP_BAD_HEADER
    limit = min(mfs, _IP_MAX)
    extra = 0
    ident = 0
    if protocol == _TCP:
        head = transport + (load8(packet + transport + _TCP_DATA_OFFSET) >> 4) * 4
        if kind != (_TCPV4 if is_ipv4 else _TCPV6) or head < transport + _TCP_SIZE or head > size:
            return DROP_BAD_HEADER
        step = min(gso_size, limit - head)
    elif kind == _USO:
        head = transport + _UDP_SIZE
        step = min(gso_size, max(size - head, 1))
        if head + step > limit:
            return DROP_TOO_LONG
    elif kind == _UFO:
        if size - ip > _IP_MAX:
            return DROP_TOO_LONG
        step = size - head
        if step > gso_size or size > limit:
            if not is_ipv4:
                extra = _FRAGMENT_SIZE
                ident = _identify(packet + transport, size - transport)
            step = min(gso_size, limit - head - extra) & ~7
            if head + step < transport + _UDP_SIZE:  # the first fragment has all headers (RFC 7112)
                return DROP_TOO_LONG
    else:
        return DROP_BAD_HEADER
    if head + extra > WORST_HEADER:
        return DROP_UNSUPPORTED
    if step < 1:
        return DROP_TOO_LONG
    payload = size - head
    count = max((payload + step - 1) // step, 1)
    if count > max_frames:
        return DROP_TOO_MANY
    stride = output_stride(mfs, 0)
    if (count - 1) * stride + head + extra + min(step, payload) > capacity:
        return DROP_NO_ROOM
    done = 0
    for i in range(count):
        at = out + i * stride
        part = min(step, payload - done)
        end = head + extra + part
        copy_bytes(at, packet, head)
        copy_bytes(at + head + extra, packet + head + done, part)
        if kind == _UFO:
            _fix_fragment(at, ip, is_ipv4, head, extra, ident, done, done + part == payload)
            if i == 0:
                udp = at + transport + extra
                store16_be(udp + _UDP_LENGTH, size - transport)
                store16(udp + checksum, 0)
                if summed:
                    total = sum_pseudo_header(at + ip, is_ipv4, protocol, size - transport)
                    total += sum_bytes(udp, at + end - udp) + sum_bytes(packet + head + part, payload - part)
                    store_checksum(udp + checksum, total)
        else:
            _fix_segment(at, end, ip, is_ipv4, transport, protocol, i, done, done + part == payload)
            store16(at + transport + checksum, 0)
            if summed:
                total = sum_pseudo_header(at + ip, is_ipv4, protocol, end - transport)
                store_checksum(at + transport + checksum, total + sum_bytes(at + transport, end - transport))
        if is_ipv4:
            fix_ipv4(at + ip, transport - ip, end - ip)
        else:
            store16_be(at + ip + _IPV6_LENGTH, end - ip - _IPV6_SIZE)
        store32(lengths + 4 * i, end)
        done += part
    return count


@piece
def _find_headers(packet, size):
    """Find the headers of a packet to be segmented, each known to be whole.

    Returns (offset of the IP header or a reason, whether it is IPv4, offset of the transport header, its protocol, end
    of what every IP fragment repeats). Behind Ethernet there may be two VLAN tags; in IPv6, hop-by-hop options, which
    every fragment repeats, and destination options. Fragments are refused, and so is a routing header, for its
    checksum is about another address.
    """
    ip = _ETHERNET
    ethertype = load16_be(packet + ip - 2)
    while ethertype != _IPV4 and ethertype != _IPV6:
        if (ethertype != _VLAN and ethertype != _SERVICE_VLAN) or ip > _LAST_TAG:
            return DROP_UNSUPPORTED, False, 0, 0, 0
        ip += 4
        if size < ip:
            return DROP_BAD_HEADER, False, 0, 0, 0
        ethertype = load16_be(packet + ip - 2)
    is_ipv4 = ethertype == _IPV4
    transport = ip + (_IPV4_SIZE if is_ipv4 else _IPV6_SIZE)
    if size < transport:
        return DROP_BAD_HEADER, False, 0, 0, 0
    first = load8(packet + ip)
    if is_ipv4:
        transport = ip + (first & 15) * 4
        if first >> 4 != 4 or transport < ip + _IPV4_SIZE:
            return DROP_BAD_HEADER, False, 0, 0, 0
        if load16_be(packet + ip + _IPV4_FRAGMENT) & (_MORE_FRAGMENTS | _OFFSET_MASK):
            return DROP_BAD_HEADER, False, 0, 0, 0
        protocol = load8(packet + ip + _IPV4_PROTOCOL)
        head = transport
    else:
        if first >> 4 != 6:
            return DROP_BAD_HEADER, False, 0, 0, 0
        protocol = load8(packet + ip + _IPV6_NEXT)
        head = transport
        while protocol == _DESTINATION_OPTIONS or (protocol == _HOP_BY_HOP and transport == ip + _IPV6_SIZE):
            if size < transport + 8:
                return DROP_BAD_HEADER, False, 0, 0, 0
            end = transport + (load8(packet + transport + 1) + 1) * 8
            if protocol == _HOP_BY_HOP:
                head = end
            protocol = load8(packet + transport)
            transport = end
    if protocol != _TCP and protocol != _UDP:
        return DROP_UNSUPPORTED, False, 0, 0, 0
    if size < transport + (_TCP_SIZE if protocol == _TCP else _UDP_SIZE):
        return DROP_BAD_HEADER, False, 0, 0, 0
    return ip, is_ipv4, transport, protocol, head


@piece
def _fix_segment(at, end, ip, is_ipv4, transport, protocol, index, done, last):
    """Make the headers at ``at`` those of segment ``index``: ``end`` bytes long, ``done`` bytes of payload before it.

    Only the first segment says CWR, and only the last one FIN and PSH.
    """
    if is_ipv4:
        store16_be(at + ip + _IPV4_IDENT, load16_be(at + ip + _IPV4_IDENT) + index)
    if protocol == _TCP:
        store32_be(at + transport + _TCP_SEQUENCE, load32_be(at + transport + _TCP_SEQUENCE) + done)
        cleared = (0 if last else _FIN_PSH) | (0 if index == 0 else _CWR)
        store8(at + transport + _TCP_FLAGS, load8(at + transport + _TCP_FLAGS) & ~cleared)
    else:
        store16_be(at + transport + _UDP_LENGTH, end - transport)


@piece
def _fix_fragment(at, ip, is_ipv4, head, extra, ident, done, last):
    """Say in the headers at ``at`` which fragment this is; ``extra`` is 0 if an IPv6 datagram remains whole."""
    if is_ipv4:
        if done != 0 or not last:
            store16_be(at + ip + _IPV4_FRAGMENT, (done >> 3) | (0 if last else _MORE_FRAGMENTS))
    elif extra != 0:
        place = at + ip + (_IPV6_NEXT if head == ip + _IPV6_SIZE else _IPV6_SIZE)
        store8(at + head, load8(place))
        store8(at + head + 1, 0)
        store16_be(at + head + 2, done | (0 if last else 1))
        store32_be(at + head + 4, ident)
        store8(place, _FRAGMENT)


@piece
def _identify(datagram, length):
    """Return an IPv6 fragment identification: a digest of the datagram, of which ``length`` is 4 at least.

    It needs no state, and where two datagrams get the same number because they are the same, it does no harm.
    """
    value = load32(datagram + length - 4)
    for i in range(length >> 2):
        value = ((value ^ load32(datagram + 4 * i)) * 0x2C1B3C6D) & 0xFFFFFFFF
        value ^= value >> 15
    return value

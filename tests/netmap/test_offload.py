# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.abi import virtio
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.netmap import offload
from ptnetmap.netmap.checksum import complement, sum_bytes

NEEDS_CSUM = virtio.VIRTIO_NET_HDR_F_NEEDS_CSUM
NONE = virtio.VIRTIO_NET_HDR_GSO_NONE
TCPV4 = virtio.VIRTIO_NET_HDR_GSO_TCPV4
TCPV6 = virtio.VIRTIO_NET_HDR_GSO_TCPV6
UFO = virtio.VIRTIO_NET_HDR_GSO_UDP
USO = virtio.VIRTIO_NET_HDR_GSO_UDP_L4
ECN = virtio.VIRTIO_NET_HDR_GSO_ECN

FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
GUARD = 256
ARENA = Block("u1", 1 << 20)
LENGTHS = Block("u4", 4096)


@kernel
def checksum_of(address, length):
    return complement(sum_bytes(address, length))


def ones_sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def run(frame, source, destination, mfs=1514, capacity=None, max_frames=512, guard=0xA5):
    """Convert between guards; a list of frames, or the negative reason."""
    stride = offload.output_stride(mfs, destination)
    if capacity is None:
        size = max(len(frame) - source, 0)
        gso_size = 0
        if len(frame) >= source >= 10 and destination == 0 and frame[1] & ~ECN:
            gso_size = struct.unpack_from("<H", frame, 4)[0]
        capacity = max(offload.frames_bound(len(frame), mfs, gso_size) * stride, size + destination)
        capacity = min(capacity, 700_000)
    memory = ARENA.items
    out = GUARD + len(frame) + GUARD
    end = out + capacity + GUARD
    assert end <= len(memory)
    memory[:end] = guard
    memory[GUARD : GUARD + len(frame)] = np.frombuffer(frame, "u1")
    LENGTHS.items[:] = 0xDEAD
    base = ARENA.address
    count = offload.convert(
        base + GUARD, len(frame), source, destination, mfs, base + out, capacity, LENGTHS.address, max_frames
    )
    assert memory[GUARD : GUARD + len(frame)].tobytes() == frame
    for start in (0, GUARD + len(frame), out + capacity):
        assert (memory[start : start + GUARD] == guard).all()
    assert (LENGTHS.items[max(max_frames, 0) :] == 0xDEAD).all()
    if count < 0:
        return count
    assert 1 <= count <= max_frames
    frames = []
    for i in range(count):
        length = int(LENGTHS.items[i])
        assert i * stride + length <= capacity
        assert count == 1 or length <= mfs
        frames.append(memory[out + i * stride : out + i * stride + length].tobytes())
    return frames


def vnet(kind=NONE, gso_size=0, flags=0, start=0, offset=0, header_length=0, size=12):
    return (struct.pack("<BBHHHH", flags, kind, header_length, gso_size, start, offset) + b"\7\0")[:size]


class Flow:
    """Builds finished Ethernet frames of one flow, from its addresses up."""

    def __init__(self, *, ipv4=True, tcp=True, tags=(), ip_options=b"", tcp_options=b"", extensions=()):
        self.ipv4, self.tcp, self.ip_options, self.tcp_options = ipv4, tcp, ip_options, tcp_options
        self.protocol = 6 if tcp else 17
        addresses = bytes(range(1, 9)) if ipv4 else bytes(range(1, 33))
        self.source, self.destination = addresses[: len(addresses) // 2], addresses[len(addresses) // 2 :]
        self.ethernet = bytes(range(12))
        for i, tag in enumerate(tags):
            self.ethernet += struct.pack("!HH", tag, 100 + i)
        self.ethernet += struct.pack("!H", 0x0800 if ipv4 else 0x86DD)
        self.extensions = list(extensions)
        kinds = [kind for kind, _ in self.extensions] + [self.protocol]
        self.chain = b"".join(
            struct.pack("!BB", following, (len(body) + 2) // 8 - 1) + body
            for (_, body), following in zip(self.extensions, kinds[1:], strict=True)
        )
        self.first = kinds[0]

    @property
    def ip_at(self):
        return len(self.ethernet)

    @property
    def transport_at(self):
        return self.ip_at + (20 + len(self.ip_options) if self.ipv4 else 40 + len(self.chain))

    @property
    def head(self):
        return self.transport_at + (20 + len(self.tcp_options) if self.tcp else 8)

    def ip(self, length, *, ident=0, fragment=0x4000, first=None, chain=None):
        """The IP header before ``length`` bytes."""
        if not self.ipv4:
            chain = self.chain if chain is None else chain
            first = self.first if first is None else first
            fields = struct.pack("!IHBB", 6 << 28 | 0x12345, len(chain) + length, first, 64)
            return fields + self.source + self.destination + chain
        size = 20 + len(self.ip_options)
        fields = [0x40 | size // 4, 0, size + length, ident & 0xFFFF, fragment, 64, self.protocol]
        rest = self.source + self.destination + self.ip_options
        total = ones_sum(struct.pack("!BBHHHBBH", *fields, 0) + rest)
        return struct.pack("!BBHHHBBH", *fields, total ^ 0xFFFF) + rest

    def pseudo(self, length):
        if self.ipv4:
            return self.source + self.destination + struct.pack("!BBH", 0, self.protocol, length)
        return self.source + self.destination + struct.pack("!II", length, self.protocol)

    def transport(self, payload, *, seq=0, flags=ACK, partial=False, check=True):
        """The transport header and payload: finished, or with only the pseudo-header summed."""

        def header(value):
            if self.tcp:
                words = (20 + len(self.tcp_options)) // 4
                fields = (4242, 80, seq & 0xFFFFFFFF, 77, words << 4, flags, 1000, value, 0)
                return struct.pack("!HHIIBBHHH", *fields) + self.tcp_options
            return struct.pack("!HHHH", 4242, 53, 8 + len(payload), value)

        length = len(header(0)) + len(payload)
        if partial:
            value = ones_sum(self.pseudo(length))
        elif not check:
            value = 0
        else:
            value = ones_sum(self.pseudo(length) + header(0) + payload) ^ 0xFFFF or 0xFFFF
        return header(value) + payload

    def frame(self, payload, *, ident=0, **options):
        body = self.transport(payload, **options)
        return self.ethernet + self.ip(len(body), ident=ident) + body

    def partial_header(self, kind, gso_size, size=12):
        offset = 16 if self.tcp else 6
        return vnet(kind, gso_size, NEEDS_CSUM, self.transport_at, offset, self.head, size)


def chunks(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


tags = st.sampled_from([(), (0x8100,), (0x88A8, 0x8100)])
extensions = st.sampled_from([(), ((0, bytes(6)),), ((60, bytes(14)),), ((0, bytes(14)), (60, bytes(6)))])
words = st.integers(0, 10).map(lambda n: b"\1" * 4 * n)
payloads = st.builds(lambda n, seed: random.Random(seed).randbytes(n), st.integers(0, 9000), st.integers(0, 1000))
flows = {"ipv4": st.booleans(), "tags": tags, "ip_options": words, "tcp_options": words, "extensions": extensions}


def make_flow(*, tcp, ipv4, tags, ip_options, tcp_options, extensions):
    return Flow(
        tcp=tcp,
        ipv4=ipv4,
        tags=tags,
        ip_options=ip_options if ipv4 else b"",
        tcp_options=tcp_options if tcp else b"",
        extensions=() if ipv4 else extensions,
    )


@given(st.binary(max_size=300), st.integers(0, 7))
@settings(deadline=None)
def test_the_sum_is_that_of_16_bit_words_at_any_length_and_alignment(data, shift):
    ARENA.items[:512] = 0xFF
    ARENA.items[shift : shift + len(data)] = np.frombuffer(data, "u1")
    value = checksum_of(ARENA.address + shift, len(data))
    assert struct.pack("<H", value) == struct.pack("!H", ones_sum(data) ^ 0xFFFF)


@pytest.mark.parametrize("length", [65534, 65535, 65536])
def test_the_sum_of_all_ones_does_not_overflow(length):
    ARENA.items[:length] = 0xFF
    value = checksum_of(ARENA.address, length)
    assert struct.pack("<H", value) == struct.pack("!H", ones_sum(b"\xff" * length) ^ 0xFFFF)


def test_a_header_that_grows_says_one_buffer():
    assert run(vnet(NONE, 5, 2, 3, 4, size=10) + b"p" * 60, 10, 12) == [
        vnet(NONE, 5, 2, 3, 4, size=10) + b"\1\0" + b"p" * 60
    ]


def test_a_header_that_shrinks_loses_only_the_buffer_count():
    assert run(vnet(TCPV4, 5, 1, 3, 4) + b"p" * 60, 12, 10) == [vnet(TCPV4, 5, 1, 3, 4, size=10) + b"p" * 60]


@pytest.mark.parametrize("size", [0, 10, 12])
def test_equal_headers_are_copied_as_they_are(size):
    frame = vnet(0xFF, 5, 0xFF, 3, 4, size=size) + b"p" * 60
    assert run(frame, size, size) == [frame]


@pytest.mark.parametrize(("size", "header"), [(10, bytes(10)), (12, bytes(10) + b"\1\0")])
def test_a_frame_without_header_gets_one_that_asks_for_nothing(size, header):
    assert run(b"p" * 60, 0, size) == [header + b"p" * 60]


def test_a_frame_that_is_not_segmented_may_exceed_mfs():
    assert run(vnet() + b"p" * 4000, 12, 0, mfs=1514) == [b"p" * 4000]


@given(st.booleans(), st.booleans(), tags, st.binary(max_size=100), st.sampled_from([10, 12]))
@settings(deadline=None)
def test_a_partial_checksum_is_finished(tcp, ipv4, tags, payload, size):
    flow = Flow(tcp=tcp, ipv4=ipv4, tags=tags)
    header = flow.partial_header(NONE, 0, size)
    assert run(header + flow.frame(payload, partial=True), size, 0) == [flow.frame(payload)]


def test_a_udp_checksum_of_zero_is_sent_as_all_ones():
    flow = Flow(tcp=False)
    zeroed = flow.frame(b"\0\0", partial=False)
    first = ones_sum(flow.pseudo(10) + zeroed[flow.transport_at : flow.transport_at + 6] + b"\0\0\0\0")
    payload = struct.pack("!H", first ^ 0xFFFF)
    [frame] = run(flow.partial_header(NONE, 0) + flow.frame(payload, partial=True), 12, 0)
    assert frame[flow.transport_at + 6 : flow.transport_at + 8] == b"\xff\xff"


@given(
    payload=payloads,
    gso_size=st.integers(90, 9000),
    mfs=st.integers(300, 4000),
    seq=st.integers(0, 2**32 - 1),
    ident=st.integers(0, 0xFFFF),
    flags=st.integers(0, 255),
    partial=st.booleans(),
    size=st.sampled_from([10, 12]),
    ecn=st.sampled_from([0, ECN]),
    **flows,
)
@settings(deadline=None)
def test_tcp_is_segmented_as_a_sender_would_have_sent_it(
    payload, gso_size, mfs, seq, ident, flags, partial, size, ecn, **shape
):
    flow = make_flow(tcp=True, **shape)
    kind = (TCPV4 if flow.ipv4 else TCPV6) | ecn
    header = flow.partial_header(kind, gso_size, size) if partial else vnet(kind, gso_size, size=size)
    frames = run(header + flow.frame(payload, seq=seq, ident=ident, flags=flags, partial=partial), size, 0, mfs)
    if flow.head > offload.WORST_HEADER:
        assert frames == offload.DROP_UNSUPPORTED
        return
    step = min(gso_size, mfs - flow.head)
    parts = chunks(payload, step)
    expected = []
    for i, part in enumerate(parts):
        keep = flags & ~(CWR if i else 0) & ~(0 if i == len(parts) - 1 else FIN | PSH)
        expected.append(flow.frame(part, seq=seq + i * step, ident=ident + i, flags=keep))
    assert frames == expected


@given(payload=payloads, gso_size=st.integers(60, 2000), partial=st.booleans(), ident=st.integers(0, 0xFFFF), **flows)
@settings(deadline=None)
def test_udp_l4_becomes_datagrams_of_the_size_asked_for(payload, gso_size, partial, ident, **shape):
    flow = make_flow(tcp=False, **shape)
    header = flow.partial_header(USO, gso_size) if partial else vnet(USO, gso_size)
    frames = run(header + flow.frame(payload, ident=ident, partial=partial), 12, 0)
    if flow.head + min(gso_size, max(len(payload), 1)) > 1514:
        assert frames == offload.DROP_TOO_LONG
    else:
        assert frames == [flow.frame(part, ident=ident + i) for i, part in enumerate(chunks(payload, gso_size))]


@given(payload=payloads, gso_size=st.integers(60, 9000), mfs=st.integers(300, 4000), partial=st.booleans(), **flows)
@settings(deadline=None)
def test_ufo_becomes_ip_fragments_of_one_datagram(payload, gso_size, mfs, partial, **shape):
    flow = make_flow(tcp=False, **shape)
    header = flow.partial_header(UFO, gso_size) if partial else vnet(UFO, gso_size)
    whole = flow.frame(payload, ident=99)
    frames = run(header + flow.frame(payload, ident=99, partial=partial), 12, 0, mfs)
    repeated = [(kind, body) for kind, body in flow.extensions if kind == 0]
    cut = flow.transport_at if flow.ipv4 else flow.ip_at + 40 + sum(2 + len(body) for _, body in repeated)
    if len(whole) - cut <= gso_size and len(whole) <= mfs:
        assert frames == [whole]
        return
    extra = 0 if flow.ipv4 else 8
    pieces = chunks(whole[cut:], min(gso_size, mfs - cut - extra) & ~7)
    idents = {frame[cut + 4 : cut + 8] for frame in frames}
    following = whole[flow.ip_at + 40 if repeated else flow.ip_at + 6]
    expected, done = [], 0
    for i, piece in enumerate(pieces):
        more = i < len(pieces) - 1
        if flow.ipv4:
            middle = flow.ip(len(piece), ident=99, fragment=done >> 3 | more << 13)
        else:
            [ident] = idents
            fragment = struct.pack("!BBH", following, 0, done | more) + ident
            if repeated:
                middle = flow.ip(0, chain=bytes([44]) + whole[flow.ip_at + 41 : cut] + fragment)
            else:
                middle = flow.ip(0, first=44, chain=fragment)
            middle = middle[:4] + struct.pack("!H", len(middle) - 40 + len(piece)) + middle[6:]
        expected.append(flow.ethernet + middle + piece)
        done += len(piece)
    assert frames == expected


@pytest.mark.parametrize("kind", [USO, UFO])
def test_udp_over_ipv4_that_has_no_checksum_gets_none(kind):
    flow = Flow(tcp=False)
    frames = run(vnet(kind, 496) + flow.frame(bytes(2000), check=False), 12, 0)
    assert len(frames) == 5
    assert frames[0][flow.transport_at + 6 : flow.transport_at + 8] == b"\0\0"


def test_different_datagrams_get_different_ipv6_identifications():
    flow = Flow(tcp=False, ipv4=False)
    idents = {run(vnet(UFO, 1000) + flow.frame(bytes([i]) + bytes(1500)), 12, 0)[0][58:62] for i in range(64)}
    assert len(idents) == 64


@given(st.integers(14, 70000), st.integers(0, 70000), st.integers(1, 65535), st.integers(0, 134))
@settings(deadline=None)
def test_the_bound_holds_for_every_header_up_to_the_worst(length, mfs, gso_size, header):
    payload = max(length - header - 10, 0)
    for step in (min(gso_size, min(mfs, 65535) - header), min(gso_size, min(mfs, 65535) - header - 8) & ~7):
        if step > 0:
            assert -(-payload // step) <= offload.frames_bound(length, mfs, gso_size)


def test_the_bound_of_a_packet_that_is_not_cut_is_one():
    ARENA.items[:12] = np.frombuffer(vnet(NONE, 77), "u1")
    assert offload.frames_bound(65000, 1514, offload.segment_size(ARENA.address, 12, 12, 0)) == 1
    ARENA.items[:12] = np.frombuffer(vnet(TCPV4, 77), "u1")
    assert offload.segment_size(ARENA.address, 12, 12, 0) == 77
    assert offload.segment_size(ARENA.address, 12, 12, 10) == 0
    assert offload.segment_size(ARENA.address, 11, 12, 0) == 0


def test_the_stride_holds_mfs_and_header_in_whole_lines():
    assert [offload.output_stride(n, 0) for n in (64, 65, 1514)] == [64, 128, 1536]
    assert offload.output_stride(1530, 12) == 1600


def patched(frame, at, value):
    return frame[:at] + bytes([value]) + frame[at + 1 :]


FOUR, SIX, UDP = Flow(), Flow(ipv4=False), Flow(tcp=False)
BIG = FOUR.frame(bytes(3000), partial=True)
BIG6 = SIX.frame(bytes(3000), partial=True)
BIGUDP = UDP.frame(bytes(3000), partial=True)
GOOD, GOOD6, GOODUDP = (
    FOUR.partial_header(TCPV4, 1000),
    SIX.partial_header(TCPV6, 1000),
    UDP.partial_header(UFO, 1000),
)
REFUSED = {
    "shorter than its header": (b"1234567890", offload.DROP_BAD_HEADER),
    "shorter than ethernet": (vnet() + b"p" * 13, offload.DROP_BAD_HEADER),
    "checksum starts behind the end": (vnet(NONE, 0, 1, 60, 0) + b"p" * 60, offload.DROP_BAD_HEADER),
    "checksum lies behind the end": (vnet(NONE, 0, 1, 34, 25) + b"p" * 60, offload.DROP_BAD_HEADER),
    "checksum wraps": (vnet(NONE, 0, 1, 0xFFFF, 0xFFFF) + b"p" * 60, offload.DROP_BAD_HEADER),
    "gso_size 0": (FOUR.partial_header(TCPV4, 0) + BIG, offload.DROP_BAD_HEADER),
    "csum_start elsewhere": (vnet(TCPV4, 1000, 1, 33, 16) + BIG, offload.DROP_BAD_HEADER),
    "csum_offset elsewhere": (vnet(TCPV4, 1000, 1, 34, 6) + BIG, offload.DROP_BAD_HEADER),
    "ihl 4": (GOOD + patched(BIG, 14, 0x44), offload.DROP_BAD_HEADER),
    "ip version 6 in 0x0800": (GOOD + patched(BIG, 14, 0x65), offload.DROP_BAD_HEADER),
    "ip version 4 in 0x86dd": (GOOD6 + patched(BIG6, 14, 0x45), offload.DROP_BAD_HEADER),
    "data offset 4": (GOOD + patched(BIG, 46, 0x40), offload.DROP_BAD_HEADER),
    "data offset behind the end": (GOOD + patched(BIG[:60], 46, 0xF0), offload.DROP_BAD_HEADER),
    "a fragment": (GOOD + patched(BIG, 20, 0x20), offload.DROP_BAD_HEADER),
    "tcpv6 that is ipv4": (FOUR.partial_header(TCPV6, 1000) + BIG, offload.DROP_BAD_HEADER),
    "tcpv4 that is udp": (UDP.partial_header(TCPV4, 1000) + BIGUDP, offload.DROP_BAD_HEADER),
    "udp that is tcp": (FOUR.partial_header(UFO, 1000) + BIG, offload.DROP_BAD_HEADER),
    "unknown kind": (UDP.partial_header(2, 1000) + BIGUDP, offload.DROP_BAD_HEADER),
    "arp": (GOOD + patched(BIG, 13, 6), offload.DROP_UNSUPPORTED),
    "icmp": (GOOD + patched(BIG, 23, 1), offload.DROP_UNSUPPORTED),
    "a routing header": (GOOD6 + patched(BIG6, 20, 43), offload.DROP_UNSUPPORTED),
    "three tags": (vnet(TCPV4, 1000) + Flow(tags=(0x8100,) * 3).frame(bytes(2000)), offload.DROP_UNSUPPORTED),
    "tags without end": (GOOD + bytes(12) + b"\x81\0", offload.DROP_BAD_HEADER),
    "truncated ipv4": (GOOD + BIG[:33], offload.DROP_BAD_HEADER),
    "truncated tcp": (GOOD + BIG[:53], offload.DROP_BAD_HEADER),
    "truncated ipv6": (GOOD6 + BIG6[:53], offload.DROP_BAD_HEADER),
    "truncated udp": (GOODUDP + BIGUDP[:41], offload.DROP_BAD_HEADER),
    "fragments below 8 bytes": (UDP.partial_header(UFO, 7) + BIGUDP, offload.DROP_TOO_LONG),
    "headers too long": (
        vnet(TCPV6, 500) + Flow(ipv4=False, extensions=((60, bytes(126)),)).frame(bytes(1000)),
        offload.DROP_UNSUPPORTED,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lies_is_refused(case):
    frame, reason = REFUSED[case]
    assert run(frame, 12, 0) == reason


@pytest.mark.parametrize(
    ("kind", "flow"),
    [
        (TCPV4, Flow(tags=(0x8100,), ip_options=b"\1" * 8, tcp_options=b"\1" * 12)),
        (TCPV6, Flow(ipv4=False, tcp_options=b"\1" * 4, extensions=((0, bytes(6)), (60, bytes(14))))),
        (USO, Flow(tcp=False, tags=(0x88A8, 0x8100))),
        (UFO, Flow(tcp=False, ipv4=False, extensions=((60, bytes(6)),))),
    ],
)
def test_headers_cut_anywhere_are_refused(kind, flow):
    frame = flow.partial_header(kind, 500) + flow.frame(bytes(10), partial=True)
    for length in range(12 + flow.head):
        assert run(frame[:length], 12, 0) == offload.DROP_BAD_HEADER
    assert [len(f) for f in run(frame[: 12 + flow.head], 12, 0)] == [flow.head]


@pytest.mark.parametrize("lie", [0, 1, 54, 0xFFFF])
def test_the_header_length_hint_changes_nothing(lie):
    header = vnet(TCPV4, 1000, NEEDS_CSUM, FOUR.transport_at, 16, lie)
    assert run(header + BIG, 12, 0) == run(GOOD + BIG, 12, 0)


def test_every_frame_must_fit():
    assert len(run(GOOD + BIG, 12, 0, max_frames=3)) == 3
    assert run(GOOD + BIG, 12, 0, max_frames=2) == offload.DROP_TOO_MANY
    assert run(vnet() + b"p" * 60, 12, 0, max_frames=0) == offload.DROP_TOO_MANY
    enough = 2 * 1536 + 54 + 1000
    assert len(run(GOOD + BIG, 12, 0, capacity=enough)) == 3
    assert run(GOOD + BIG, 12, 0, capacity=enough - 1) == offload.DROP_NO_ROOM
    assert run(b"p" * 60, 0, 12, capacity=71) == offload.DROP_NO_ROOM
    assert run(GOOD + BIG, 12, 0, mfs=54) == offload.DROP_TOO_LONG


def test_the_largest_packet_is_cut():
    payload = random.Random(7).randbytes(65535 - 40)
    frames = run(FOUR.partial_header(TCPV4, 1448) + FOUR.frame(payload, partial=True), 12, 0)
    assert frames == [
        FOUR.frame(part, seq=1448 * i, ident=i, flags=ACK) for i, part in enumerate(chunks(payload, 1448))
    ]


def hostile(rng):
    """A packet that is right, then hit a few times, or cut; and a setting for it."""
    tcp, ipv4 = rng.random() < 0.5, rng.random() < 0.5
    flow = Flow(
        tcp=tcp,
        ipv4=ipv4,
        tags=rng.choice([(), (0x8100,), (0x88A8, 0x8100)]),
        extensions=() if ipv4 else rng.choice([(), ((0, bytes(6)),), ((60, bytes(14)),)]),
    )
    kind = rng.choice([NONE, USO, UFO]) if not tcp else rng.choice([NONE, TCPV4 if ipv4 else TCPV6])
    header = flow.partial_header(kind, rng.choice([1, 7, 8, 100, 536, 1448, rng.randrange(65536)]))
    frame = bytearray(header + flow.frame(rng.randbytes(rng.choice([0, 1, 7, 600, 2000])), partial=True))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        frame[rng.randrange(min(len(frame), 90))] = rng.choice([0, 1, 0x0F, 0x45, 0x7F, 0xFF, rng.randrange(256)])
    if rng.random() < 0.2:
        del frame[rng.randrange(len(frame)) :]
    options = {"mfs": rng.choice([1514, 1514, 9018, 590, 142, 60, 0, 65600]), "max_frames": rng.choice([300, 3, 1])}
    if rng.random() < 0.3:
        options["capacity"] = rng.choice([0, 13, 60, 1536, 4000])
    return bytes(frame), rng.choice([12, 12, 12, 10, 0]), rng.choice([0, 0, 0, 10, 12]), options


def test_nothing_hostile_reaches_beyond_its_memory():
    rng = random.Random(2015)
    made = 0
    for _ in range(2500):
        frame, source, destination, options = hostile(rng)
        first = run(frame, source, destination, **options, guard=0x00)
        # Other bytes around the packet, same result: nothing outside was read.
        assert run(frame, source, destination, **options, guard=0xFF) == first
        if not isinstance(first, int):
            made += 1
            ARENA.items[: len(frame)] = np.frombuffer(frame, "u1")
            size = offload.segment_size(ARENA.address, len(frame), source, destination)
            assert len(first) <= offload.frames_bound(len(frame), options["mfs"], size)
    assert made > 500


def test_random_bytes_are_refused_or_converted():
    rng = random.Random(15)
    for _ in range(1000):
        frame = bytearray(rng.randbytes(rng.randrange(200)))
        if len(frame) > 2:
            frame[1] = rng.choice([0, 1, 3, 4, 5, 0x81, frame[1]])
        run(bytes(frame), 12, 0)


def test_a_packet_that_changes_meanwhile_stays_inside_its_memory():
    frame = GOOD + BIG
    stride, capacity = 1536, 64 * 1536
    memory, out = Block("u1", 8192), Block("u1", capacity + GUARD)
    memory.items[: len(frame)] = np.frombuffer(frame, "u1")
    out.items[capacity:] = 0xA5
    stop = threading.Event()

    def spoil():
        rng = random.Random(1)
        while not stop.is_set():
            at = rng.randrange(70)
            memory.items[at] = rng.randrange(256)
            memory.items[at] = frame[at]

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        for _ in range(400):
            count = offload.convert(
                memory.address, len(frame), 12, 0, 1514, out.address, capacity, LENGTHS.address, capacity // stride
            )
            assert offload.DROP_TOO_LONG <= count <= capacity // stride
            assert count != 0
    finally:
        stop.set()
        thread.join()
    assert (out.items[capacity:] == 0xA5).all()


def digest():
    """What :func:`hostile` packets become, as one number."""
    rng = random.Random(42)
    state = hashlib.sha256()
    for _ in range(400):
        frame, source, destination, options = hostile(rng)
        state.update(repr(run(frame, source, destination, **options)).encode())
    return state.hexdigest()


@pytest.mark.parametrize("jit", ["interpreted", "cached"])
def test_the_interpreted_twin_and_a_second_process_make_the_same_frames(jit):
    expected = digest()  # compiled by now, so that the second process finds it in the cache
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1" if jit == "interpreted" else "0")
    twin = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    assert twin.stdout.strip() == expected


if __name__ == "__main__":
    print(digest())

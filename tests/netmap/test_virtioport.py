# SPDX-License-Identifier: BSD-2-Clause
# A driver's virtqueues as a port of a switch: the kernels and the adapter, without a daemon or a guest.
import itertools
import os
import struct

import numpy as np
import pytest

from ptnetmap.abi import virtio
from ptnetmap.abi import virtio_pci as abi
from ptnetmap.errors import PortError
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.netmap import queueserve
from ptnetmap.netmap.queuestate import ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_TSO4
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch
from ptnetmap.netmap.service import service
from ptnetmap.netmap.virtioport import accepts, header_size
from ptnetmap.testing import MockDriver, PackedDriver

pytestmark = pytest.mark.interpreted


@kernel
def serve_queue(k, batch):
    return queueserve.serve_queue(k, batch)


class Wire:
    """A driver's queue pair as a port of switch vale0."""

    def __init__(self, runtime, size=16, name="vale0:wire", **options):
        self.adapter = runtime._directory.new_virtio(name, 1, 256)
        self.adapter.retain()
        self.transmit = MockDriver(size)
        self.receive = MockDriver(size)
        for driver, ring in ((self.transmit, self.adapter.tx[0]), (self.receive, self.adapter.rx[0])):
            driver.start(self.adapter.blocks[ring.address].items[0], **options)
            self.adapter.epoch.register(ring.block)
            ring.turn(on=True)

    def serve(self):
        """What a kthread does for the driver's transmit queue; returns how many packets were taken."""
        before = self.count("packets")
        serve_queue(self.adapter.tx[0].address, scratch())
        return self.count("packets") - before

    def count(self, name):
        return self.adapter.tx[0].counters()[name]


@pytest.fixture
def runtime():
    with Netmap() as netmap:
        yield netmap


def numbered(frame, count):
    return [frame(255, 1, 60 + i, i) for i in range(count)]


def test_a_drivers_virtqueue_sends_into_a_switch(runtime, frame):
    port = runtime.open("vale0:a", rx_slots=64)
    wire = Wire(runtime)
    frames = [frame(255, 9, size, size & 0xFF) for size in (60, 61, 1514, 300)]
    wire.transmit.send([frames[0]])
    wire.transmit.send([frames[1][:10], frames[1][10:14], frames[1][14:]])
    wire.transmit.send([frames[2][:1000], frames[2][1000:]], indirect=True)
    wire.transmit.send([frames[3][:20], frames[3][20:]])
    assert wire.serve() == 4
    received = port.recv(timeout=0)
    # A lookup sees the first fragment only, and 10 bytes are no Ethernet header.
    assert received == [frames[0], frames[2], frames[3]]
    assert wire.count("too_short") == 1
    assert [used.length for used in wire.transmit.reap()] == [0, 0, 0, 0]
    assert wire.transmit.outstanding == 0
    assert wire.transmit.intact()


def test_a_switch_delivers_into_a_drivers_virtqueue(runtime, frame):
    port = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime)
    frames = [frame(255, 1, size, size & 0xFF) for size in (60, 64, 65, 1514)]
    for lengths in ([2048], [100], [1, 63, 1], [1000, 1000]):
        wire.receive.post(lengths)
    assert port.send(frames, timeout=0) == 4
    assert [used.data for used in wire.receive.reap()] == frames
    assert port.stats.dropped == 0
    assert wire.receive.intact()


def test_packets_that_the_driver_offers_no_buffers_for_are_counted_at_their_sender(runtime, frame):
    port = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime)
    wire.receive.post([2048])
    assert port.send([frame(255, 1)] * 5, timeout=0) == 5
    assert len(wire.receive.reap()) == 1
    assert port.stats.drops == {"no_room": 4}


def test_a_driver_hears_of_chains_that_packets_too_long_for_them_have_used_up(runtime, frame):
    port = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime)
    interrupts = os.eventfd(0, os.EFD_NONBLOCK)
    served = Block(service)
    served["irqfd"] = interrupts
    wire.adapter.rx[0].block["service"] = served.address
    try:
        for _ in range(16):
            wire.receive.post([64])
        port.send([frame(255, 1, 100)] * 16, timeout=0)
        assert [used.length for used in wire.receive.reap()] == [0] * 16
        assert os.eventfd_read(interrupts) == 1
    finally:
        wire.adapter.rx[0].block["service"] = 0
        os.close(interrupts)


def test_what_a_full_lossless_port_cannot_take_stays_in_the_drivers_queue(runtime, frame):
    port = runtime.open("vale0:a", rx_slots=4, lossless=True)
    wire = Wire(runtime)
    frames = numbered(frame, 8)
    for data in frames:
        wire.transmit.send([data])
    received = []
    for _ in range(8):
        wire.serve()
        received += port.recv(timeout=0)
        if len(received) == 8:
            break
    assert received == frames
    assert len(wire.transmit.reap()) == 8
    assert port.stats.missed == 0


def test_both_virtqueues_of_a_driver_talk_through_a_switch_in_both_directions(runtime, frame):
    port = runtime.open("vale0:a", tx_slots=16, rx_slots=16)
    wire = Wire(runtime)
    for i in range(40):
        request, answer = frame(255, 9, 60 + i, i), frame(9, 1, 64 + i, i)
        wire.transmit.send([request])
        wire.receive.post([2048])
        assert wire.serve() == 1
        assert port.recv(timeout=0) == [request]
        assert port.send(answer, timeout=0) == 1
        assert [used.data for used in wire.receive.reap()] == [answer]
        wire.transmit.reap()


# Headers.


def header(flags=0, gso_type=0, gso_size=0, start=0, offset=0):
    return struct.pack("<BBHHHHH", flags, gso_type, 0, gso_size, start, offset, 0)


def tcp(payload, *, complete=True):
    """An Ethernet frame with TCP over IPv4; without ``complete`` only the pseudo-header is summed."""
    ip = bytearray(
        struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    )
    ip[10:12] = struct.pack(">H", ones(bytes(ip)))
    segment = bytearray(struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x18, 100, 0, 0) + payload)
    pseudo = bytes(ip[12:20]) + struct.pack(">HH", 6, len(segment))
    segment[16:18] = struct.pack(">H", ones(pseudo + bytes(segment)) if complete else ones(pseudo) ^ 0xFFFF)
    return b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + b"\x08\0" + bytes(ip) + bytes(segment)


def ones(data):
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


CSUM = header(virtio.VIRTIO_NET_HDR_F_NEEDS_CSUM, start=34, offset=16)


def tso(size):
    return header(virtio.VIRTIO_NET_HDR_F_NEEDS_CSUM, virtio.VIRTIO_NET_HDR_GSO_TCPV4, size, 34, 16)


@pytest.mark.parametrize("cut", [[], [12], [5], [12, 26], [3, 12, 40]])
@pytest.mark.parametrize("length", [10, 12])
def test_headers_are_taken_off_and_put_before_frames_however_they_lie(runtime, frame, cut, length):
    host = runtime.open("vale0:a")
    wire = Wire(runtime, header=length, mergeable=False)
    sent = bytes(length) + frame(255, 1, 100, 5)
    edges = [0, *(at - 12 + length for at in cut if at - 12 + length > 0), len(sent)]
    wire.transmit.send([sent[a:b] for a, b in itertools.pairwise(edges)])
    assert wire.serve() == 1
    assert host.recv(timeout=0) == [frame(255, 1, 100, 5)]
    wire.receive.post([length, 2000])
    wire.receive.post([2048])
    host.send([frame(255, 2, 60, 1), frame(255, 2, 61, 2)], timeout=0)
    blank = bytes(10) + b"\1\0"[: length - 10]
    assert [used.data for used in wire.receive.reap()] == [blank + frame(255, 2, 60, 1), blank + frame(255, 2, 61, 2)]
    assert wire.transmit.intact()
    assert wire.receive.intact()


@pytest.mark.parametrize(
    "lie", [bytes(12), header(1, start=60, offset=0), header(1, 1, 0, 34, 16), header(0, 4, 0)], ids=str
)
def test_a_header_that_lies_costs_its_packet_and_is_counted(runtime, frame, lie):
    host = runtime.open("vale0:a")
    wire = Wire(runtime, header=12)
    wire.transmit.send([lie + (frame(255, 1) if any(lie) else b"")])
    wire.transmit.send([bytes(12) + frame(255, 2)])
    assert wire.serve() == 2
    assert host.recv(timeout=0) == [frame(255, 2)]
    assert wire.count("bad_header") == 1


def test_what_a_process_gets_from_a_driver_is_finished(runtime):
    host = runtime.open("vale0:a")
    wire = Wire(runtime, header=12)
    payload = np.arange(3000, dtype=np.uint16).astype(np.uint8).tobytes()
    wire.transmit.send([CSUM, tcp(b"check", complete=False)])
    wire.transmit.send([tso(1000) + tcp(payload, complete=False)])
    assert wire.serve() == 2
    first, *segments = host.recv(timeout=0)
    assert first == tcp(b"check")
    assert b"".join(segment[54:] for segment in segments) == payload
    assert [len(segment) for segment in segments] == [1054] * 3


@pytest.mark.parametrize("accepted", [0, ACCEPT_CSUM, ACCEPT_CSUM | ACCEPT_TSO4, ACCEPT_ALL])
def test_a_driver_gets_from_another_what_it_accepts_whole_and_the_rest_finished(runtime, accepted):
    sender = Wire(runtime, header=12, name="vale0:s")
    receiver = Wire(runtime, size=64, header=12, mergeable=True, accepts=accepted, name="vale0:r")
    for _ in range(64):
        receiver.receive.post([2048])
    payload = bytes(range(200)) * 20
    sender.transmit.send([CSUM + tcp(b"check", complete=False)])
    sender.transmit.send([tso(1000) + tcp(payload, complete=False)])
    assert sender.serve() == 2
    used = receiver.receive.reap()
    partial = bool(accepted & ACCEPT_CSUM)
    assert used[0].data[:10] == (CSUM[:10] if partial else bytes(10))
    assert used[0].data[12:] == tcp(b"check", complete=not partial)
    if accepted & ACCEPT_TSO4:
        assert used[1].data[:10] == tso(1000)[:10]
        count = int.from_bytes(used[1].data[10:12], "little")
        assert count == len(used) - 1 == 2
        assert b"".join(one.data for one in used[1:])[12:] == tcp(payload, complete=False)
    else:
        assert [len(one.data) for one in used[1:]] == [12 + 1054] * 4
        assert all(one.data[:12] == bytes(10) + b"\1\0" for one in used[1:])
        assert b"".join(one.data[66:] for one in used[1:]) == payload
        assert all(ones(one.data[38:46] + struct.pack(">HH", 6, 1020) + one.data[46:]) == 0 for one in used[1:])


def test_a_full_lossless_queue_holds_its_senders_back_until_its_driver_offers_more(runtime, frame):
    host = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime, header=12)
    wire.adapter.lossless(True)
    for _ in range(3):
        wire.receive.post([2048])
    frames = numbered(frame, 10)
    host.send(frames, timeout=0)
    received = [used.data[12:] for used in wire.receive.reap()]
    assert len(received) == 3
    for _ in range(10):
        wire.receive.post([2048])
    assert serve_queue(wire.adapter.rx[0].address, scratch()) == queueserve.MOVED
    host.txsync()
    received += [used.data[12:] for used in wire.receive.reap()]
    assert received == frames
    assert host.stats.dropped == 0


def test_a_stopped_queue_is_not_touched(runtime, frame):
    host = runtime.open("vale0:a")
    wire = Wire(runtime, header=12)
    wire.receive.post([2048])
    wire.transmit.send([bytes(12) + frame(255, 1)])
    assert wire.adapter.stop_queue(0) == (0, 0)
    assert wire.adapter.stop_queue(1) == (0, 0)
    assert wire.serve() == 0
    host.send([frame(255, 2)], timeout=0)
    assert host.stats.drops == {"no_reader": 1}
    assert wire.receive.reap() == wire.transmit.reap() == []


def test_nobody_else_can_have_a_drivers_port(runtime):
    Wire(runtime)
    with pytest.raises(PortError, match="a virtio-net device has it"):
        runtime.open("vale0:wire")
    with pytest.raises(PortError, match="its driver's to choose"):
        runtime.set_header("vale0:wire", 12)
    with pytest.raises(PortError, match="there is such a port"):
        runtime._directory.new_virtio("vale0:wire", 1, 256)


def test_features_say_what_a_driver_accepts_and_how_long_its_header_is():
    assert accepts(abi.VIRTIO_NET_F_GUEST_CSUM | abi.VIRTIO_NET_F_GUEST_TSO4) == ACCEPT_CSUM | ACCEPT_TSO4
    assert accepts(abi.VIRTIO_NET_F_GUEST_USO4) == 0
    assert (header_size(0), header_size(abi.VIRTIO_NET_F_MRG_RXBUF), header_size(abi.VIRTIO_F_VERSION_1)) == (
        10,
        12,
        12,
    )


PAGE = 4096


@pytest.mark.parametrize("layout", ["split", "split with events", "packed"])
def test_the_log_names_every_page_that_is_written_to_and_no_page_that_the_device_may_not_write(runtime, frame, layout):
    port = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime)
    ring = wire.adapter.rx[0]
    driver = PackedDriver(16) if layout == "packed" else MockDriver(16, event_idx="events" in layout)
    gpa, memory = driver.gpa, driver.memory
    log = Block(np.uint8, (gpa + memory) // PAGE // 8)
    queue = wire.adapter.blocks[ring.address].items[0]
    driver.start(queue, header=12, mergeable=True, packed=layout == "packed", log=(log.address, (gpa + memory) // PAGE))

    allowed = {driver.desc // PAGE, driver.used // PAGE}
    places = [
        (gpa + at, length) for at, length in ((0x4FFE, 9000), (0x9000, 80), (0xA000, 40), (0xBFF0, 40), (0x3000, 1500))
    ]
    for address, length in places:
        driver.add([(address, length, virtio.VIRTQ_DESC_F_WRITE)])
        allowed |= set(range(address // PAGE, (address + length - 1) // PAGE + 1))
    posted = np.frombuffer(driver.read(gpa, memory), np.uint8)
    assert port.send([frame(255, 1, 8000, 1), frame(255, 1, 60, 2), frame(255, 1, 70, 3)], timeout=0) == 3
    queueserve.queue_suppress_kicks(ring.block["ring"], 0)
    after = np.frombuffer(driver.read(gpa, memory), np.uint8)
    assert len(driver.reap()) == 5  # a page of its own for almost each
    changed = {gpa // PAGE + int(at) // PAGE for at in np.flatnonzero(posted != after)}
    logged = set(map(int, np.flatnonzero(np.unpackbits(log.items, bitorder="little"))))
    assert len(changed) >= 4
    assert changed <= logged <= allowed


def test_a_page_without_a_bit_in_the_log_is_not_logged_and_the_log_not_left(runtime, frame):
    port = runtime.open("vale0:a", tx_slots=64)
    wire = Wire(runtime)
    driver = wire.receive
    ring = wire.adapter.rx[0]
    log = Block(np.uint8, 4 * PAGE)
    pages = (driver.gpa + 0x5000) // PAGE
    driver.start(wire.adapter.blocks[ring.address].items[0], log=(log.address, pages))
    driver.add([(driver.gpa + 0x4FF0, 2000, virtio.VIRTQ_DESC_F_WRITE)])
    assert port.send([frame(255, 1, 1514, 1)], timeout=0) == 1
    logged = set(map(int, np.flatnonzero(np.unpackbits(log.items, bitorder="little"))))
    assert logged == {driver.used // PAGE, pages - 1}

# SPDX-License-Identifier: BSD-2-Clause
# The loops take addresses, not objects: indices in a CSB, a region mapped elsewhere.
import mmap

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.jit.block import Block, offsets, view
from ptnetmap.netmap import sync
from ptnetmap.netmap.counters import counters
from ptnetmap.netmap.kring import KIND_NULL, KIND_VALE, ORDER_HWCUR_FIRST, ORDER_HWTAIL_FIRST, STATE_ON, kring
from ptnetmap.netmap.region import Region
from ptnetmap.netmap.runtime import Netmap
from ptnetmap.netmap.scratch import scratch

SLOTS = 8
pytestmark = pytest.mark.interpreted


class Pages:
    """Anonymous memory, as a guest's: only its address is known to the loops."""

    def __init__(self, length=8192):
        self._mapping = mmap.mmap(-1, length)
        self.memory = np.frombuffer(self._mapping, np.uint8)
        self.address = self.memory.ctypes.data

    def place(self, offset, dtype, count=1):
        return view(self.address + offset, dtype, count, self)


class Ends:
    """Where one ring's indices are: numbers to read and write, and their addresses for a kring."""

    def __init__(self, written, told, written_at, told_at):
        self.written, self.told = written, told
        self.written_at, self.told_at = written_at, told_at

    @property
    def indices(self):
        return int(self.told["hwcur"][0]), int(self.told["hwtail"][0])

    def release(self, index):
        self.written["cur"] = index
        self.written["head"] = index


def today(pages, number):
    """Entry of the present CSB: two pages, one per writer, 64 bytes a ring."""
    atok, ktoa = offsets(abi.nm_csb_atok), offsets(abi.nm_csb_ktoa)
    here, there = number * abi.nm_csb_atok.itemsize, 4096 + number * abi.nm_csb_ktoa.itemsize
    return Ends(
        pages.place(here, abi.nm_csb_atok),
        pages.place(there, abi.nm_csb_ktoa),
        {f: pages.address + here + atok[f] for f in ("head", "cur")},
        {f: pages.address + there + ktoa[f] for f in ("hwcur", "hwtail")},
    )


def of_2015(pages, number):
    """Ring block of the CSB of 2015: one page for both writers."""
    at = offsets(abi.csb_2015)[("tx_ring", "rx_ring")[number]]
    fields = offsets(abi.csb_2015_ring)
    block = pages.place(at, abi.csb_2015_ring)
    return Ends(
        block,
        block,
        {f: pages.address + at + fields[f] for f in ("head", "cur")},
        {f: pages.address + at + fields[f] for f in ("hwcur", "hwtail")},
    )


class Guest:
    """A port used from outside: indices only in a CSB, slots and buffers only through a second mapping of the region.

    The krings are the port's own with other addresses in them, which is all that it takes.
    """

    def __init__(self, port, layout, order):
        self.port = port
        self.pages = Pages()
        self._mapping = mmap.mmap(port.region_fd, port.memsize)
        self.region = np.frombuffer(self._mapping, np.uint8)
        self.rings = []
        for number, state in enumerate([port._tx_states[0], port._rx_states[0]]):
            ends = layout(self.pages, number)
            block = state.block
            block["head_at"] = ends.written_at["head"]
            block["cur_at"] = ends.written_at["cur"]
            block["hwcur_at"] = ends.told_at["hwcur"]
            block["tail_at"] = ends.told_at["hwtail"]
            block["order"] = order
            ends.told["hwtail"] = block["hwtail"]
            # What the kernel follows are its own mapping's addresses; what the guest follows are these.
            ring = self.region[state.offset :]
            header = ring[: abi.ring.itemsize].view(abi.ring)
            slots = ring[abi.ring.itemsize :][: SLOTS * abi.slot.itemsize].view(abi.slot)
            self.rings.append((state.address, ends, slots, state.offset + int(header["buf_ofs"][0])))

    def buffer(self, base, index):
        start = base + int(index) * 2048
        return self.region[start : start + 2048]

    def txsync(self):
        return sync.txsync(self.rings[0][0], scratch())

    def rxsync(self):
        return sync.rxsync(self.rings[1][0], scratch(), 0)

    def send(self, frames):
        """Learn what came back, put what fits, and sync. Returns how many that were."""
        assert self.txsync() == sync.OK
        _, ends, slots, base = self.rings[0]
        at = int(ends.written["head"][0])
        sent = 0
        for data in frames:
            if at == ends.indices[1]:
                break
            self.buffer(base, slots["buf_idx"][at])[: len(data)] = np.frombuffer(data, np.uint8)
            slots["len"][at] = len(data)
            slots["flags"][at] = 0
            at = (at + 1) % SLOTS
            sent += 1
        ends.release(at)
        assert self.txsync() == sync.OK
        return sent

    def recv(self):
        assert self.rxsync() == sync.OK
        _, ends, slots, base = self.rings[1]
        at = int(ends.written["head"][0])
        frames = []
        while at != ends.indices[1]:
            frames.append(self.buffer(base, slots["buf_idx"][at])[: int(slots["len"][at])].tobytes())
            at = (at + 1) % SLOTS
        ends.release(at)
        assert self.rxsync() == sync.OK
        return frames


@pytest.fixture
def runtime():
    with Netmap() as netmap:
        yield netmap


def open_pair(runtime, kind):
    shape = {"tx_slots": SLOTS, "rx_slots": SLOTS}
    if kind == "vale":
        return runtime.open("vale0:guest", **shape), runtime.open("vale0:host", **shape)
    return runtime.open("vale0:x{1", **shape), runtime.open("vale0:x}1", **shape)


def numbered(frame, count):
    return [frame(255, 1, 60 + i, i) for i in range(count)]


@pytest.mark.parametrize("kind", ["vale", "pipe"])
@pytest.mark.parametrize(
    ("layout", "order"), [(today, ORDER_HWCUR_FIRST), (of_2015, ORDER_HWTAIL_FIRST)], ids=["today", "2015"]
)
def test_a_guest_sends_and_receives_through_a_csb_and_its_own_mapping(runtime, frame, kind, layout, order):
    port, host = open_pair(runtime, kind)
    guest = Guest(port, layout, order)
    headers = [(r.head, r.cur, r.tail) for r in port.tx_rings + port.rx_rings]
    for _ in range(10):  # several times round the rings
        frames = numbered(frame, 5)
        assert guest.send(frames) == 5
        assert guest.rings[0][1].indices[0] == port._tx_states[0].block["hwcur"]
        assert host.recv(timeout=0) == frames
        assert host.send(frames, timeout=0) == 5
        assert guest.recv() == frames
        assert guest.rings[1][1].indices == (port._rx_states[0].block["hwcur"], port._rx_states[0].block["hwtail"])
    assert [(r.head, r.cur, r.tail) for r in port.tx_rings + port.rx_rings] == headers, "the netmap_rings were used"


@pytest.mark.parametrize(
    ("layout", "order"), [(today, ORDER_HWCUR_FIRST), (of_2015, ORDER_HWTAIL_FIRST)], ids=["today", "2015"]
)
def test_indices_of_a_guest_that_make_no_sense_reset_its_ring_and_nothing_else(runtime, frame, layout, order):
    port, host = open_pair(runtime, "vale")
    guest = Guest(port, layout, order)
    other = host.stats
    frames = numbered(frame, 3)
    assert guest.send(frames) == 3
    for head, cur in [(SLOTS, 0), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0x80000000)]:
        guest.rings[0][1].written["head"] = head
        guest.rings[0][1].written["cur"] = cur
        assert guest.txsync() == sync.REINIT
    assert int(guest.rings[0][1].written["head"][0]) == guest.rings[0][1].indices[0] == 3
    assert port.stats.reinits == 3
    assert host.recv(timeout=0) == frames
    assert guest.send(frames) == 3
    assert host.recv(timeout=0) == frames
    assert host.stats.rx_packets == other.rx_packets + 6


@pytest.mark.parametrize("order", [ORDER_HWCUR_FIRST, ORDER_HWTAIL_FIRST])
def test_a_kring_of_nothing_but_addresses_is_enough(order):
    pages, epoch = Pages(), Block(np.uint64)
    epoch.items[0] = 1
    ends = today(pages, 0)
    ring = Block(abi.ring)
    slots = Block(abi.slot, SLOTS)
    block, counted = Block(kring), Block(counters)
    for field, value in {
        "ring": ring.address, "slots": slots.address, "num_slots": SLOTS, "num_bufs": 2, "buf_size": 2048,
        "kind": KIND_NULL, "order": order, "epoch_at": epoch.address, "eventfd": -1, "state": STATE_ON,
        "head_at": ends.written_at["head"], "cur_at": ends.written_at["cur"], "hwcur_at": ends.told_at["hwcur"],
        "tail_at": ends.told_at["hwtail"], "hwtail": SLOTS - 1, "rtail": SLOTS - 1, "hwcur": 5, "rhead": 5, "rcur": 5,
        "counters_at": counted.address, "most": SLOTS,
    }.items():  # fmt: skip
        block[field] = value
    ends.release(6)
    assert sync.txsync(block.address, scratch()) == sync.OK
    assert ends.indices == (5, SLOTS - 1)


def test_a_region_seen_through_two_mappings_is_one_memory(runtime):
    port = runtime.open("vale0:a")
    mapping = mmap.mmap(port.region_fd, port.memsize)
    twin = np.frombuffer(mapping, np.uint8)
    port.tx_rings[0].buffer(3)[:] = 77
    region: Region = port._region
    start = region.geometry.buf_offset + int(port.tx_rings[0].slots["buf_idx"][3]) * 2048
    assert (twin[start : start + 2048] == 77).all()
    assert port._tx_states[0].block["kind"] == KIND_VALE

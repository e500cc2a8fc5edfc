# SPDX-License-Identifier: BSD-2-Clause
"""One ring of a passed-through port, by both generations' CSB, against a host that the test plays."""

import ctypes

import pytest

from ptnetmap.abi import netmap as abi
from ptnetmap.guest import netmapring
from ptnetmap.guest.heap import allocate
from ptnetmap.guest.hostile import next_random, target, write_junk
from ptnetmap.guest.layout import offsets
from ptnetmap.guest.netmapport import allocate_port, tx_ring

SLOTS = 8
KICK = 0x3000
VALUE = 5
VECTOR = 0x30
FIELDS = ("head", "cur", "hwcur", "hwtail", "appl_need_kick", "kern_need_kick")
STATE = offsets(netmapring.netmap_ring)
LATER = 1 << 60


def word(address):
    return ctypes.c_uint32.from_address(address)


def state(ring, name):
    return ctypes.c_uint64.from_address(ring + STATE[name])


class Ring:
    """A ring in memory and its CSB, of which each field has a word of its own."""

    def __init__(self, machine, address, is_2015):
        self.machine, self.address = machine, address
        self.csb = allocate(machine.boot, 4 * len(FIELDS), 64)
        self.memory = allocate(machine.boot, abi.ring.itemsize + SLOTS * abi.slot.itemsize, 64)
        self.buffers = allocate(machine.boot, 2048 * 2048 // 16, 64)
        word(self.memory + offsets(abi.ring)["num_slots"]).value = SLOTS
        word(self.memory + offsets(abi.ring)["nr_buf_size"]).value = 64
        place = offsets(abi.ring)["buf_ofs"]
        ctypes.c_uint64.from_address(self.memory + place).value = self.buffers - self.memory
        for i, name in enumerate(FIELDS):
            state(address, f"{name}_at").value = self.csb + 4 * i
        for name, value in {"is_2015": is_2015, "kick_port": KICK, "kick_value": VALUE, "vector": VECTOR}.items():
            state(address, name).value = value
        state(address, "block").value = machine.block(0)
        netmapring.join_ring(address, self.memory)

    def field(self, name):
        return word(self.csb + 4 * FIELDS.index(name))

    def begin(self, **fields):
        for name, value in fields.items():
            self.field(name).value = value
        netmapring.begin_ring(self.address)

    def kicks(self):
        return [write for write in self.machine.port_writes if write[0] == KICK]

    def is_seen(self):
        return state(self.address, "hwcur").value, state(self.address, "hwtail").value


@pytest.fixture(params=[0, 1], ids=["ptnet", "2015"])
def ring(request, machine):
    port = allocate_port(machine.boot, 1, 1)
    return Ring(machine, tx_ring(port, 0), request.param)


def test_the_host_is_kicked_when_it_asks_and_not_otherwise(ring):
    ring.begin(hwtail=7)
    netmapring.advance(ring.address, 1)
    assert ring.kicks() == []
    ring.field("kern_need_kick").value = 1
    netmapring.advance(ring.address, 1)
    size = 2 if state(ring.address, "is_2015").value else 4
    assert ring.kicks() == [(KICK, size, VALUE)]
    assert state(ring.address, "kicks").value == 1


def test_whoever_is_kicked_finds_what_was_released(ring):
    ring.begin(hwtail=7, kern_need_kick=1)
    found = []
    take = ring.machine.write_port
    ring.machine.write_port = lambda *write: (found.append(ring.field("head").value), take(*write))
    netmapring.advance(ring.address, 3)
    assert found == [ring.field("cur").value] == [3]


def test_head_goes_round(ring):
    ring.begin(head=6, hwcur=6, hwtail=5)
    netmapring.advance(ring.address, 5)
    assert (ring.field("head").value, ring.field("cur").value) == (3, 3)
    assert netmapring.available(ring.address) == 2


@pytest.mark.parametrize("lie", [{"hwcur": SLOTS}, {"hwtail": SLOTS}, {"hwtail": 2**32 - 1}])
def test_an_index_that_no_slot_has_is_not_believed(ring, lie):
    ring.begin(hwcur=0, hwtail=3)
    for name, value in lie.items():
        ring.field(name).value = value
    netmapring.refresh(ring.address)
    assert ring.is_seen() == (0, 3)
    ring.field("hwcur").value, ring.field("hwtail").value = 2, 4
    netmapring.refresh(ring.address)
    assert ring.is_seen() == (2, 4)


@pytest.mark.parametrize("ring", [1], indirect=True, ids=["2015"])
def test_a_new_hwtail_with_an_old_hwcur_makes_a_full_ring_and_no_more(ring):
    ring.begin(head=2, hwcur=2, hwtail=1)
    ring.field("hwtail").value = 4  # the host has gone on to 6, which the guest has not seen yet
    netmapring.refresh(ring.address)
    assert ring.is_seen() == (2, 1)


def test_a_sleeper_asks_for_an_interrupt_and_takes_its_request_back(ring):
    ring.begin()
    asked = []

    def interrupt(address, seen):
        asked.append(ring.field("appl_need_kick").value)
        ring.field("hwtail").value = 4
        ring.machine.deliver(VECTOR)

    ring.machine.wait = interrupt
    assert netmapring.await_slots(ring.address, ring.machine.boot, 4, 0, LATER) == 1
    assert asked == [1]
    assert ring.field("appl_need_kick").value == 0
    assert state(ring.address, "halts").value == 1


def test_what_comes_while_the_guest_goes_to_sleep_keeps_it_awake(ring, monkeypatch):
    ring.begin()
    monkeypatch.setattr(netmapring, "fence", lambda: setattr(ring.field("hwtail"), "value", 1))
    netmapring.halt_until_interrupt(ring.address, ring.machine.boot)
    assert state(ring.address, "halts").value == 0
    assert ring.machine.waits == 0
    assert netmapring.available(ring.address) == 1


def test_on_a_core_of_its_own_the_guest_looks_until_the_deadline(ring):
    ring.begin()
    boot = ring.machine.boot
    assert netmapring.await_slots(ring.address, boot, 1, netmapring.NEVER, ring.machine.now + 10_000) == 0
    assert ring.machine.waits == 0
    assert ring.field("appl_need_kick").value == 0


def test_a_host_that_takes_nothing_is_given_up(ring):
    ring.begin(hwtail=7)
    netmapring.advance(ring.address, 2)
    assert netmapring.await_taken(ring.address, ring.machine.boot, ring.machine.now + 10_000) == 0
    ring.field("hwcur").value = 2
    assert netmapring.await_taken(ring.address, ring.machine.boot, ring.machine.now + 10_000) == 1


def test_junk_goes_to_what_is_shared_and_nowhere_else(ring):
    seed, where = 1, set()
    shared = {
        "csb": (ring.csb, 4 * len(FIELDS)),
        "ring": (ring.memory, abi.ring.itemsize + SLOTS * abi.slot.itemsize),
        "buffers": (ring.buffers, 64 * 2048),
    }
    for _ in range(2000):
        seed = next_random(seed)
        address = target(ring.address, seed)
        at = [name for name, (start, size) in shared.items() if start <= address <= start + size - 4]
        assert len(at) == 1
        where.update(at)
    assert where == set(shared)


def test_the_same_seed_writes_the_same_junk(machine):
    port = allocate_port(machine.boot, 1, 1)
    rings = [Ring(machine, tx_ring(port, i), 0) for i in range(2)]

    def image():
        return [ctypes.string_at(r.csb, 4 * len(FIELDS)) + ctypes.string_at(r.buffers, 64 * 2048) for r in rings]

    images = []
    for seed in (7, 7, 8):
        for r in rings:
            ctypes.memset(r.csb, 0, 4 * len(FIELDS))
            ctypes.memset(r.buffers, 0, 64 * 2048)
        write_junk(port, 500, seed)
        images.append(image())
    assert images[0] == images[1] != images[2]

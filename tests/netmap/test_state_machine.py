# SPDX-License-Identifier: BSD-2-Clause
# Random programs over ports, pipes and monitors, with honest and hostile users, checked after every step. The same
# programs are then run compiled and interpreted, and compared. Run as a script, this file prints the traces.
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numba import config

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PtnetmapError
from ptnetmap.jit.memory import load8
from ptnetmap.netmap.counters import DROPS
from ptnetmap.netmap.lookup import BROADCAST, DROP, Lookup
from ptnetmap.netmap.port import POLLIN, POLLOUT
from ptnetmap.netmap.runtime import Netmap

VALE = {  # what is opened under a name, and how; k is attached and never opened
    "a": ("vale0:a", {"tx_rings": 2, "rx_rings": 2, "tx_slots": 8, "rx_slots": 8}),
    "b": ("vale0:b", {"tx_slots": 16, "rx_slots": 5}),
    "c": ("vale0:c", {"tx_slots": 8, "rx_slots": 8, "lossless": True}),
    "h": ("vale0:h", {"tx_rings": 2, "rx_rings": 1, "tx_slots": 8, "rx_slots": 8}),
}
PIPES = {
    "p{": ("netmap:p{1", {"tx_slots": 8, "rx_slots": 8}),
    "p}": ("netmap:p}1", {"tx_slots": 8, "rx_slots": 8}),
    "q{": ("netmap:q{1", {"tx_slots": 6, "rx_slots": 6}),
    "q}": ("netmap:q}1", {"tx_slots": 6, "rx_slots": 6}),
}
MONITORS = {
    "ma": ("vale0:a/rt@conf:slots=16", "a"),
    "mp": ("netmap:p{1/rt@conf:slots=16", "p{"),
    "zb": ("vale0:b/rtz@conf:slots=16", "b"),
    "zp": ("netmap:p}1/rtz@conf:slots=16", "p}"),
}
HONEST = ("a", "b", "c", "p{", "p}")
HOSTILE = ("h", "q{", "ma")
BUFFER = 2048
TAG = b"ptnt"
HEADER = 22  # bytes that every frame but a runt has: addresses, type, tag and number


def direct(packets, lengths, source, table, ports, rings):
    """The address says where to: its last byte the port, the one before the ring."""
    for i in range(len(packets)):
        if lengths[i] >= 14:
            ports[i] = load8(packets[i] + 5)
            rings[i] = load8(packets[i] + 4)


def shifted(packets, lengths, source, table, ports, rings):
    """One port further than the address says, ring 0, and nothing for runts or what is not a port."""
    for i in range(len(packets)):
        if lengths[i] >= 14 and load8(packets[i] + 5) < 8:
            ports[i] = load8(packets[i] + 5) + 1
            rings[i] = 0


LOOKUPS = {"direct": direct, "shifted": shifted}
_compiled = {}


def lookup_named(name):
    if name == "learning":
        return None
    if name not in _compiled:
        _compiled[name] = Lookup(LOOKUPS[name])
    return _compiled[name]


class Inbox:
    """What one RX ring of a switch ought to get, by sender's ring, and what its reader has seen of it."""

    def __init__(self):
        self.expected = defaultdict(list)
        self.seen = defaultdict(list)
        self.offered = 0

    def offer(self, flow, number):
        self.expected[flow].append(number)
        self.offered += 1

    def lost(self):
        return self.offered - sum(len(set(numbers)) for numbers in self.seen.values())


class World:
    """Ports of one Netmap, and a ledger of what was sent, was to arrive, and did."""

    def __init__(self, hostile=False):
        self.hostile = hostile
        self.nm = Netmap()
        self.nm.create("k", tx_slots=8, rx_slots=8)
        self.nm.attach("vale0:k")
        self.parents = []
        for name in ("p", "q"):
            self.nm.create(name, tx_slots=8, rx_slots=8)
            self.parents.append(self.nm.open(f"netmap:{name}"))
        self.ports = {}
        self.sequence = itertools.count(1)
        self.frames = {}  # number: (bytes, flow)
        self.pending = defaultdict(list)  # flow: frames in the TX ring that no sync has taken
        self.consumed = defaultdict(int)  # flow: packets that syncs have taken
        self.inboxes = {}  # (name, ring): Inbox
        self.pipes = defaultdict(list)  # name of the receiving end: frames published and not read
        self.lookup_name = "learning"
        self.learned = {}
        self.drops = defaultdict(int)  # (name, reason): predicted
        self.closed_no_room = 0
        self.closed_missed = 0
        self.shown_to_hostile = set()
        self.cut_short = set()  # frames whose first fragment is too short for a lookup
        self.last_counters = {}
        self.watched = defaultdict(lambda: [0, 0])  # monitor: [packets, slots] that passed through its parent
        self.log = []

    def close(self):
        self.nm.close()

    # -- opening and closing

    def open(self, name):
        if name in self.ports:
            return
        if name in MONITORS:
            path, parent = MONITORS[name]
            if parent not in self.ports:
                return
            self.ports[name] = self.nm.open(path)
            self.watched[name] = [0, 0]
            self._base(name, parent)
            return
        path, options = (VALE | PIPES)[name]
        self.ports[name] = port = self.nm.open(path, **options)
        if name in VALE:
            for ring in range(len(port.rx_rings)):
                self.inboxes[name, ring] = Inbox()

    def _base(self, name, parent):
        """Note what the monitored port has counted so far: the monitor sees what comes after."""
        self.watched[name] = self._passed(parent)

    def _passed(self, parent):
        """(packets, slots) that the monitors of a port may have seen."""
        port = self.ports[parent]
        tx = [r.counters() for r in port._tx_states]
        rx = [r.counters() for r in port._rx_states]
        return sum(c["packets"] for c in tx) + sum(c["received"] for c in rx)

    def shut(self, name):
        """Close a port, and the monitors on it, without emptying it."""
        if name not in self.ports:
            return
        for monitor, (_, parent) in MONITORS.items():
            if parent == name:
                self.shut(monitor)
        port = self.ports[name]
        if name in VALE:
            self.check_inboxes(name)
            self.closed_no_room += port.stats.drops.get("no_room", 0)
            self.closed_missed += port.stats.missed
            index = port.adapter.index
            self.learned = {mac: at for mac, at in self.learned.items() if at != index}
            for ring in range(len(port.rx_rings)):
                del self.inboxes[name, ring]
            for ring in range(len(port.tx_rings)):
                self.pending.pop((name, ring), None)
                self.consumed.pop((name, ring), None)
            for reason in DROPS:
                self.drops.pop((name, reason), None)
        for state in port._rings:
            self.last_counters.pop(state.address, None)
        port.close()
        del self.ports[name]
        if name in PIPES and other_end(name) not in self.ports:
            for end in (name, other_end(name)):
                self.pending.pop((end, 0), None)
                self.consumed.pop((end, 0), None)
                self.pipes.pop(end, None)

    # -- sending

    def make(self, name, ring, port, target_ring, size):
        number = next(self.sequence)
        source = self.ports[name].adapter.index if name in VALE else 0x40
        header = bytes((2, 0, 0, 0, target_ring, port, 2, 0, 0, 0, 0, source)) + b"\x88\xb5"
        body = header + TAG + number.to_bytes(4, "little")
        if size < HEADER:
            size = min(size, 13)
        body += bytes((number * 7 + i) & 0xFF for i in range(max(0, size - len(body))))
        self.frames[number] = (body[:size], (name, ring))
        return number

    def put(self, name, ring, port, target_ring, size, fragments, count):
        """Write frames into a TX ring by hand: fill the slots, move head and cur. No sync."""
        if name not in self.ports or name in MONITORS:
            return
        ring %= len(self.ports[name].tx_rings)
        view = self.ports[name].tx_rings[ring]
        size = max(size, 1)
        for _ in range(count):
            pieces = max(1, min(fragments, size), -(-size // BUFFER))
            if view.space() < pieces:
                return
            number = self.make(name, ring, port, target_ring, size)
            data = self.frames[number][0]
            step = -(-len(data) // pieces)
            if step < 14:
                self.cut_short.add(number)
            cut = [data[i : i + step] for i in range(0, len(data), step)]
            at = view.head
            for i, piece in enumerate(cut):
                if view.slots["buf_idx"][at] < 2:
                    return  # the slot lost its buffer to vandals
                view.buffer(at)[: len(piece)] = memoryview(piece)
                view.slots["len"][at] = len(piece)
                view.slots["flags"][at] = abi.NS_MOREFRAG if i + 1 < len(cut) else 0
                at = view.next(at)
            view.cur = at
            view.head = at
            self.pending[name, ring].append(number)

    def send(self, name, ring, port, target_ring, size, count):
        """Send by the library, without waiting."""
        if name not in self.ports or name in MONITORS:
            return None
        ring %= len(self.ports[name].tx_rings)
        before = next(self.sequence)
        numbers = [self.make(name, ring, port, target_ring, max(size, 1)) for _ in range(count)]
        sent = self.ports[name].send([self.frames[n][0] for n in numbers], timeout=0, ring=ring)
        self.pending[name, ring] += numbers[:sent]
        self.settle(name)
        return before, sent

    def txsync(self, name):
        if name not in self.ports or name in MONITORS:
            return
        self.ports[name].txsync()
        self.settle(name)

    def poll(self, name, events):
        if name not in self.ports:
            return None
        if name in MONITORS:
            events = POLLIN
        ready = self.ports[name].poll(events, 0)
        self.settle(name)
        return ready

    def settle(self, name):
        """Enter in the ledger what the last call's syncs have taken from a port's TX rings."""
        if name in MONITORS or name == "h" or (self.hostile and name in HOSTILE):
            return
        for ring, state in enumerate(self.ports[name]._tx_states):
            taken = state.counters()["packets"] - self.consumed[name, ring]
            self.consumed[name, ring] += taken
            fifo = self.pending[name, ring]
            numbers, fifo[:] = fifo[:taken], fifo[taken:]
            assert len(numbers) == taken, f"{name}: more packets taken than were put"
            for number in numbers:
                if name in PIPES:
                    self.pipes[other_end(name)].append(number)
                else:
                    self.route(name, ring, number)

    def route(self, name, ring, number):
        """What the switch is to do with a frame, by the book."""
        data, flow = self.frames[number]
        source = self.ports[name].adapter.index
        if len(data) < 14 or number in self.cut_short:
            self.drops[name, "too_short"] += 1
            return
        port, target = self.answer(data, source, ring)
        here = {p.index: p.name.split(":")[1] for p in self.nm.switch("vale0").ports.values()}
        reason = None
        if port == DROP:
            reason = "filtered"
        elif port == source:
            reason = "same_port"
        elif port != BROADCAST and port not in here:
            reason = "no_port"
        if reason:
            self.drops[name, reason] += 1
            return
        to = [n for i, n in here.items() if i != source] if port == BROADCAST else [here[port]]
        to = [receiver for receiver in to if receiver != "k"]
        if not to:
            self.drops[name, "no_reader"] += 1
        for receiver in to:
            place = 0 if port == BROADCAST else target % len(self.ports[receiver].rx_rings)
            self.inboxes[receiver, place].offer(flow, number)
            if receiver == "h":
                self.shown_to_hostile.add(number)

    def answer(self, data, source, ring):
        if self.lookup_name == "direct":
            return data[5], data[4]
        if self.lookup_name == "shifted":
            return (data[5] + 1, 0) if data[5] < 8 else (DROP, 0)
        self.learned[data[6:12]] = source
        return self.learned.get(data[:6], BROADCAST), ring

    def replace_lookup(self, name):
        self.lookup_name = name
        self.nm.switch("vale0").lookup = lookup_named(name)

    # -- receiving

    def rxsync(self, name):
        if name in self.ports:
            self.ports[name].rxsync()

    def read(self, name, limit, ahead):
        """Read some packets by hand and release them, without a second sync; leave cur ahead of head if asked."""
        if name not in self.ports:
            return []
        self.ports[name].rxsync()
        frames = []
        for ring, view in enumerate(self.ports[name].rx_rings):
            while limit > 0 and not view.empty():
                data = b""
                more = True
                at = view.head
                while more and at != view.tail:
                    data += view.packet(at).tobytes()
                    more = bool(view.slots["flags"][at] & abi.NS_MOREFRAG)
                    at = view.next(at)
                view.cur = at
                view.head = at
                self.arrived(name, ring, data)
                frames.append(data)
                limit -= 1
            if ahead:
                view.cur = view.tail
        return frames

    def recv(self, name, limit):
        """Receive by the library. Which ring a frame came on is then not known: only for ports with one."""
        if name not in self.ports or len(self.ports[name].rx_rings) > 1:
            return []
        frames = self.ports[name].recv(limit, timeout=0)
        for data in frames:
            self.arrived(name, 0, data)
        self.settle(name)
        return frames

    def arrived(self, name, ring, data):
        if name in PIPES:
            if not (self.hostile and name in (*HOSTILE, "q}")):
                number = self.pipes[name].pop(0)
                assert data == self.frames[number][0], f"{name}: pipe gave something else than what was sent next"
            return
        number = int.from_bytes(data[18:22], "little") if data[14:18] == TAG else 0
        known = self.frames.get(number)
        genuine = known is not None and known[0] == data
        if name in MONITORS:
            assert self.hostile or genuine or len(data) < 14 or name.startswith("z"), f"{name}: unknown frame"
            return
        if self.hostile and (not genuine or number in self.shown_to_hostile):
            return  # what the hostile port sends may be anything it has seen
        assert genuine, f"{name}: a frame that nobody sent"
        inbox = self.inboxes[name, ring]
        flow = known[1]
        assert number in inbox.expected[flow], f"{name}: a frame for somebody else"
        assert not inbox.seen[flow] or inbox.seen[flow][-1] < number, f"{name}: out of order, or twice"
        inbox.seen[flow].append(number)

    # -- vandalism

    def vandalise(self, name, tx, ring, field, position, value):
        """Overwrite one word of a hostile port's ring with anything."""
        if name not in self.ports or name not in HOSTILE:
            return
        rings = self.ports[name].tx_rings if tx else self.ports[name].rx_rings
        if not rings:
            return
        view = rings[ring % len(rings)]
        if field in ("head", "cur", "tail"):
            view.header[field] = value & 0xFFFFFFFF
        elif field == "ptr":
            view.slots["ptr"][position % len(view.slots)] = value & 0xFFFF
        else:
            bits = 0xFFFFFFFF if field == "buf_idx" else 0xFFFF
            view.slots[field][position % len(view.slots)] = value & bits

    def hostile_call(self, name, what):
        """Let the hostile port use the library on what is left of its rings. It may refuse."""
        if name not in self.ports:
            return None
        port = self.ports[name]
        try:
            if what == "send":
                return port.send([bytes((255,)) * 60, bytes(3000)], timeout=0)
            if what == "recv":
                return [bytes(f) for f in port.recv(8, timeout=0)]
            if what == "poll":
                return port.poll(POLLIN | POLLOUT, 0)
            if what == "txsync":
                return port.txsync()
            return port.rxsync()
        except PtnetmapError as error:
            return error.name

    # -- what holds after every step

    def check(self):
        for name, port in self.ports.items():
            spoilt = self.hostile and name in HOSTILE
            for view, state in zip(port.tx_rings + port.rx_rings, port._rings, strict=True):
                n = state.num_slots
                block = state.block
                for field in ("hwcur", "hwtail", "rhead", "rcur", "rtail", "peer_tail", "lease_tail"):
                    assert block[field] < n, f"{state}: {field} out of range"
                assert block["busy"] == 0
                if not spoilt:
                    assert max(view.head, view.cur, view.tail) < n
                    assert state.counters()["reinits"] == 0
                now = state.counters()
                before = self.last_counters.get(state.address, {})
                assert all(now[c] >= before.get(c, 0) for c in now), f"{state}: a counter went back"
                self.last_counters[state.address] = now
            if name in VALE and not spoilt and name != "h":
                self.check_sender(name)
                self.check_inboxes(name)
        self.check_audits()
        self.check_monitors()
        if not self.hostile:
            self.check_room()

    def check_sender(self, name):
        """Everything that a port has sent is in one of the predicted drop reasons, or was offered to somebody."""
        drops = self.ports[name].stats.drops
        predicted = {r: self.drops[name, r] for r in DROPS if r != "no_room" and self.drops[name, r]}
        assert {r: n for r, n in drops.items() if r != "no_room"} == predicted

    def check_inboxes(self, name):
        port = self.ports[name]
        for ring, state in enumerate(port._rx_states):
            counters = state.counters()
            inbox = self.inboxes[name, ring]
            arrived = counters["received"] + counters["missed"]
            waiting = (state.block["peer_tail"] - state.block["hwcur"]) % state.num_slots
            assert counters["truncated"] == 0 or name == "h"
            if port.lossless:
                assert counters["missed"] == 0
            if not self.hostile:
                assert arrived == inbox.offered, f"{state}: what was offered was neither received nor counted as missed"
                if waiting == 0 and port.rx_rings[ring].head == port.rx_rings[ring].tail:
                    assert inbox.lost() == counters["missed"]
            else:
                assert arrived >= inbox.offered

    def check_room(self):
        """Each copy that a sender counts as no_room is one that a receiver counts as missed."""
        vale = [p for n, p in self.ports.items() if n in VALE]
        no_room = self.closed_no_room + sum(p.stats.drops.get("no_room", 0) for p in vale)
        assert no_room == self.closed_missed + sum(p.stats.missed for p in vale)

    def check_monitors(self):
        for name, (_, parent) in MONITORS.items():
            if name == "ma" and name in self.ports:
                stats = self.ports[name].stats
                passed = self._passed(parent) - self.watched[name]
                assert stats.rx_packets + stats.missed == passed, "a copy monitor saw, or missed, every frame once"

    def check_audits(self):
        """Buffers of honest regions have one owner; what vandals did stays in theirs."""
        spoilt = set()
        if self.hostile:
            spoilt = {self.ports[n].mem_id for n in (*HOSTILE, "q}") if n in self.ports}
        for audit in self.nm.audit():
            assert audit.ok or audit.allocator in spoilt, str(audit)

    def check_secrets(self):
        """The region of the hostile port holds no frame that was not for it."""
        if "h" not in self.ports:
            return
        port = self.ports["h"]
        memory = os.pread(port.region_fd, port.memsize, 0)
        at = memory.find(TAG)
        while at >= 0:
            number = int.from_bytes(memory[at + 4 : at + 8], "little")
            if number in self.frames and self.frames[number][1][0] in HONEST:
                assert number in self.shown_to_hostile, "somebody else's frame in the hostile region"
            at = memory.find(TAG, at + 1)

    # -- the end

    def finish(self):
        """Let everybody read all there is, and draw up the balance."""
        for _ in range(8):
            for name in [n for n in self.ports if n in VALE or n in PIPES]:
                if self.hostile and name in (*HOSTILE, "q}"):
                    self.hostile_call(name, "recv")
                    continue
                self.txsync(name)
                self.read(name, 1000, False)
                self.rxsync(name)
        self.check()
        for name in self.ports:
            if self.hostile and name in (*HOSTILE, "q}"):
                continue
            if name in PIPES:
                assert self.pipes[name] == [], f"{name}: a pipe lost frames"
                assert not self.pending[name, 0] or other_end(name) not in self.ports
        if self.hostile:
            self.check_secrets()
            for name in HOSTILE:
                self.shut(name)
            self.shut("q}")
            assert all(audit.ok for audit in self.nm.audit()), "closing does not repair what was spoilt"
        while self.ports:
            self.shut(next(iter(self.ports)))
        for name, port in zip(("p", "q"), self.parents, strict=True):
            port.close()
            self.nm.delete(name)
        self.nm.detach("vale0:k")
        self.nm.delete("k")
        assert self.nm.audit() == []

    def state(self):
        """Everything that compiled and interpreted code have to agree on."""
        return [
            [name, [[v.head, v.cur, v.tail] for v in p.tx_rings + p.rx_rings], [r.counters() for r in p._rings]]
            for name, p in sorted(self.ports.items())
        ]


def other_end(name):
    return name[:-1] + ("}" if name.endswith("{") else "{")


names = st.sampled_from([*VALE, *PIPES, *MONITORS])
users = st.sampled_from([n for n in [*VALE, *PIPES] if n not in ("h", "q{", "q}")])
targets = st.one_of(st.integers(0, 6), st.sampled_from([BROADCAST, DROP, 200]))
sizes = st.one_of(st.integers(1, 13), st.integers(HEADER, 200), st.sampled_from([60, 1514, 2048, 2049, 5000]))
small = st.integers(0, 3)
words = st.one_of(
    st.integers(0, 20),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 4097, 4098, 2047, 2049, 0x20, 0x10, 0x1, 0x31]),
)


class HonestPorts(RuleBasedStateMachine):
    hostile = False

    @initialize(first=st.permutations([*VALE, *PIPES]), count=st.integers(2, 8))
    def begin(self, first, count):
        self.world = World(self.hostile)
        for name in first[:count]:
            self.world.open(name)

    @rule(name=names)
    def open(self, name):
        self.world.open(name)

    @rule(name=names)
    def close(self, name):
        self.world.shut(name)

    @rule(
        name=users, ring=small, port=targets, target_ring=small, size=sizes, fragments=st.integers(1, 4),
        count=st.integers(1, 9),
    )  # fmt: skip
    def put(self, **frame):
        self.world.put(**frame)

    @rule(name=users, ring=small, port=targets, target_ring=small, size=sizes, count=st.integers(1, 20))
    def send(self, **frame):
        self.world.send(**frame)

    @rule(name=users)
    def txsync(self, name):
        self.world.txsync(name)

    @rule(name=names)
    def rxsync(self, name):
        self.world.rxsync(name)

    @rule(name=users, limit=st.integers(1, 10), ahead=st.booleans())
    def read(self, name, limit, ahead):
        self.world.read(name, limit, ahead)

    @rule(name=st.sampled_from([*MONITORS, "b", "c", "p{", "p}"]), limit=st.integers(1, 10))
    def recv(self, name, limit):
        self.world.recv(name, limit)

    @rule(name=users, events=st.sampled_from([POLLIN, POLLOUT, POLLIN | POLLOUT]))
    def poll(self, name, events):
        self.world.poll(name, events)

    @rule(name=st.sampled_from(["learning", *LOOKUPS]))
    def replace_lookup(self, name):
        self.world.replace_lookup(name)

    @invariant()
    def everything_is_accounted_for(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            try:
                if sys.exc_info()[0] is None:
                    self.world.finish()
            finally:
                self.world.close()


class HostilePorts(HonestPorts):
    hostile = True

    @rule(
        name=st.sampled_from(HOSTILE), tx=st.booleans(), ring=small, position=st.integers(0, 15), value=words,
        field=st.sampled_from(["head", "cur", "tail", "flags", "buf_idx", "len", "ptr"]),
    )  # fmt: skip
    def vandalise(self, **where):
        self.world.vandalise(**where)

    @rule(name=st.sampled_from([*HOSTILE, "q}"]), what=st.sampled_from(["send", "recv", "poll", "txsync", "rxsync"]))
    def hostile_call(self, name, what):
        self.world.hostile_call(name, what)


def run_machine(machine, examples, steps):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.interpreted
def test_every_packet_of_honest_ports_arrives_or_is_counted_and_every_buffer_has_one_owner():
    run_machine(HonestPorts, 40, 40)


@pytest.mark.interpreted
def test_what_a_hostile_port_writes_to_its_rings_harms_nobody_else_and_is_repaired_when_it_closes():
    run_machine(HostilePorts, 40, 50)


@pytest.mark.interpreted
def test_a_drop_is_counted_once_though_the_sender_was_held_back(nm, frame):
    sink = nm.open("vale0:sink", rx_slots=4, lossless=True)
    port = nm.open("vale0:source", tx_slots=16)
    for data in [frame(255)] * 5 + [b"runt"]:
        assert port.inject(data)
    for _ in range(3):
        port.txsync()
    assert port.stats.drops == {}, "what is still in the ring has not been dropped"
    for _ in range(3):
        sink.recv(timeout=0)
        port.txsync()
    assert port.stats.tx_packets == 6
    assert port.stats.drops == {"too_short": 1}


# -- compiled against interpreted


def random_program(seed, steps=120):
    """Return a list of (method of World, keyword arguments), the same for the same seed."""
    rng = random.Random(seed)
    honest = [n for n in [*VALE, *PIPES] if n not in ("h", "q{", "q}")]
    everybody = [*VALE, *PIPES, *MONITORS]
    program = [("open", {"name": n}) for n in [*VALE, *PIPES]]

    def frame():
        return {
            "name": rng.choice(honest),
            "ring": rng.randrange(4),
            "port": rng.choice([0, 1, 2, 3, 4, 5, BROADCAST, DROP]),
            "target_ring": rng.randrange(4),
            "size": rng.choice([1, 13, 22, 60, 64, 65, 1514, 2048, 2049, 5000]),
            "count": rng.randint(1, 12),
        }

    def one():
        kind = rng.choice(
            ["open", "shut", "put", "put", "send", "send", "sync", "read", "read", "recv", "poll", "lookup"]
            + ["vandal"] * 5
        )
        if kind in ("open", "shut"):
            return kind, {"name": rng.choice(everybody)}
        if kind == "put":
            return kind, {**frame(), "fragments": rng.randint(1, 4)}
        if kind == "send":
            return kind, frame()
        if kind == "sync":
            return rng.choice(["txsync", "rxsync"]), {"name": rng.choice(honest)}
        if kind == "read":
            return kind, {"name": rng.choice(honest), "limit": rng.randint(1, 12), "ahead": rng.random() < 0.3}
        if kind == "recv":
            return kind, {"name": rng.choice([*MONITORS, "b", "c", "p{", "p}"]), "limit": rng.randint(1, 12)}
        if kind == "poll":
            return kind, {"name": rng.choice(honest), "events": rng.choice([POLLIN, POLLOUT, POLLIN | POLLOUT])}
        if kind == "lookup":
            return "replace_lookup", {"name": rng.choice(["learning", *LOOKUPS])}
        if rng.random() < 0.5:
            what = rng.choice(["send", "recv", "poll", "txsync", "rxsync"])
            return "hostile_call", {"name": rng.choice([*HOSTILE, "q}"]), "what": what}
        return "vandalise", {
            "name": rng.choice(HOSTILE),
            "tx": rng.random() < 0.5,
            "ring": rng.randrange(2),
            "field": rng.choice(["head", "cur", "tail", "buf_idx", "len", "flags", "ptr"]),
            "position": rng.randrange(16),
            "value": rng.choice(
                [rng.randrange(16), rng.getrandbits(32), 0xFFFFFFFF, 0x80000000, 4097, 4098, 0x20, 0x10]
            ),
        }

    return program + [one() for _ in range(steps)]


def trace(seed):
    """Run a program; return after each step a digest of its result and of all indices and counters."""
    world = World(hostile=True)
    lines = []
    try:
        for method, arguments in random_program(seed):
            result = getattr(world, method)(**arguments)
            whole = repr((result, world.state()))
            lines.append(f"{method} {arguments} {hashlib.sha256(whole.encode()).hexdigest()[:12]}")
    finally:
        world.close()
    return lines


SEEDS = range(25)


@pytest.mark.skipif(
    config.DISABLE_JIT, reason="the kernels of this process are interpreted: there is nothing to compare"
)
def test_compiled_and_interpreted_programs_give_the_same_frames_counters_and_indices():
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")
    twin = subprocess.Popen([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        ours = [trace(seed) for seed in SEEDS]
        output, _ = twin.communicate(timeout=300)
    finally:
        twin.kill()
    theirs = json.loads(output)
    for seed, compiled, interpreted in zip(SEEDS, ours, theirs, strict=True):
        differing = [(a, b) for a, b in zip(compiled, interpreted, strict=True) if a != b]
        assert differing[:1] == [], f"seed {seed}"


if __name__ == "__main__":
    print(json.dumps([trace(seed) for seed in SEEDS]))

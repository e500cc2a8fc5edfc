# SPDX-License-Identifier: BSD-2-Clause
import io
import os
from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ptnetmap.errors import PortError
from ptnetmap.netmap.counters import DROPS, counters
from ptnetmap.netmap.shared import SharedBlock
from ptnetmap.netmap.stats import PortStats
from ptnetmap.netmap.wire import extension
from ptnetmap.netmap.wire.error import WireError
from ptnetmap.tools.top import SORTS, Occupied, PortSample, Reader, Snapshot, compare, matching, page
from ptnetmap.tools.top.table import shortened, si

pytestmark = pytest.mark.interpreted

SECOND = 10**9
COUNTS = [field.name for field in fields(PortStats) if field.name != "drops"]


def port(name, tx=(0,), rx=(1,), kind="vale", pids=(7,), kthread=0, lossless=False):
    return {
        "name": name,
        "kind": kind,
        "switch": name.partition(":")[0] if kind == "vale" else "",
        "tx": list(tx),
        "rx": list(rx),
        "slots": [1024, 1024],
        "lossless": lossless,
        "pids": list(pids),
        "kthread": kthread,
    }


def stats(drops=(), **counts):
    return PortStats(drops=dict(drops), **{**dict.fromkeys(COUNTS, 0), **counts})


def sample(name, at=0, full=(0, 0), drops=(), where=(0, 1), **counts):
    known = {key: counts.pop(key) for key in ("kind", "pids", "kthread", "lossless") if key in counts}
    levels = (Occupied(part, 1024) for part in full)
    return PortSample(port(name, where[:1], where[1:], **known), stats(drops, **counts), *levels, at)


def thread(number=0, age=0, asleep=0, **totals):
    known = {"kthread": number, "cpu": None, "rings": 2, "age_ns": age, "asleep_ns": asleep}
    return known | {name: totals.get(name, 0) for name in ("sleeps", "rounds", "kicks", "irqs")}


def snapshot(*ports, at=0, generation=1, threads=()):
    return Snapshot("/run/netmap/socket", "0.1.0", generation, at, tuple(ports), tuple(threads))


def later(seconds, *ports, **others):
    return snapshot(*ports, at=int(seconds * SECOND), **others)


# Rates ----------------------------------------------------------------------------------------------------------------


def test_rates_are_differences_per_second():
    before = snapshot(sample("vale0:1", tx_packets=100, tx_bytes=6000, drops={"no_room": 3}))
    counts = {"tx_packets": 500, "tx_bytes": 30000, "rx_packets": 8, "rx_bytes": 800, "missed": 4}
    after = later(2, sample("vale0:1", 2 * SECOND, drops={"no_room": 5, "filtered": 6}, **counts))
    view = compare(before, after)
    (row,) = view.ports

    assert (view.seconds, row.tx_pps, row.tx_bps, row.rx_pps, row.rx_bps) == (2, 200, 96_000, 4, 3200)
    assert (row.dropped_pps, row.missed_pps) == (4, 2)
    assert [tuple(loss) for loss in row.losses] == [("no_room", 1, 5), ("filtered", 3, 6), ("missed", 2, 4)]


steps = st.lists(
    st.tuples(
        st.integers(1, 10**10),
        st.fixed_dictionaries({name: st.integers(0, 2**40) for name in COUNTS}),
        st.dictionaries(st.sampled_from(DROPS), st.integers(1, 2**40)),
    ),
    min_size=1,
    max_size=6,
)


@given(steps)
def test_no_rate_is_negative_and_windows_add_up_to_the_totals(steps):
    now, at = stats(), 0
    snapshots = [snapshot(PortSample(port("vale0:1"), now, Occupied(0, 1024), Occupied(0, 1024), 0))]
    for duration, counts, drops in steps:
        at += duration
        total = {reason: now.drops.get(reason, 0) + drops.get(reason, 0) for reason in {*now.drops, *drops}}
        now = PortStats(drops=total, **{name: getattr(now, name) + counts[name] for name in COUNTS})
        one = PortSample(port("vale0:1"), now, Occupied(0, 1024), Occupied(0, 1024), at)
        snapshots.append(snapshot(one, at=at))

    rows = [compare(*pair).ports[0] for pair in pairwise(snapshots)]
    assert all(rate >= 0 for row in rows for rate in (row.tx_pps, row.tx_bps, row.rx_pps, row.rx_bps, row.dropped_pps))
    assert all(row.tx_pps * row.seconds == pytest.approx(row.window.tx_packets) for row in rows)
    for name in COUNTS:
        assert sum(getattr(row.window, name) for row in rows) == getattr(now, name)
    for reason, total in now.drops.items():
        assert sum(row.window.drops.get(reason, 0) for row in rows) == total


@given(
    st.fixed_dictionaries({name: st.integers(0, 5) for name in COUNTS}),
    st.fixed_dictionaries({name: st.integers(0, 5) for name in COUNTS}),
)
def test_counters_that_went_backwards_are_another_ports(then, now):
    (row,) = compare(snapshot(sample("vale0:1", **then)), later(1, sample("vale0:1", SECOND, **now))).ports

    backwards = any(now[name] < then[name] for name in COUNTS)
    assert (row.window is None) == backwards
    assert (row.tx_pps is None) == backwards


@pytest.mark.parametrize(
    "other",
    [
        sample("vale0:2", SECOND, tx_packets=9),
        sample("vale0:1", SECOND, where=(4, 5), tx_packets=9),
        sample("vale0:1", SECOND, pids=(8,), tx_packets=9),
        sample("vale0:1", 0, tx_packets=9),
        sample("vale0:1", SECOND, tx_packets=9, drops={"filtered": 1}),
    ],
    ids=["name", "place", "process", "no time", "a drop forgotten"],
)
def test_what_is_not_the_same_port_has_totals_and_no_rates(other):
    before = snapshot(sample("vale0:1", tx_packets=5, drops={"filtered": 2}))
    (row,) = compare(before, later(1, other)).ports

    assert row.as_json()["tx"]["packets"] == 9
    assert row.as_json()["tx"]["pps"] is row.as_json()["seconds"] is row.dropped_pps is None


def test_ports_come_and_go_between_snapshots():
    before = snapshot(sample("vale0:1"), sample("vale0:2", where=(2, 3)))
    after = later(1, sample("vale0:2", SECOND, where=(2, 3), tx_packets=7), sample("vale0:3", SECOND, tx_packets=4))

    assert [(row.name, row.tx_pps) for row in compare(before, after).ports] == [("vale0:2", 7), ("vale0:3", None)]


def test_another_generation_has_no_rates_yet():
    before = snapshot(sample("vale0:1"), threads=[thread()])
    view = compare(before, later(1, sample("vale0:1", SECOND), generation=2, threads=[thread(age=SECOND)]))

    assert (view.seconds, view.ports[0].tx_pps, view.kthreads[0].load) == (0, None, None)


def test_a_kthreads_load_is_the_time_it_does_not_sleep():
    before = thread(age=5 * SECOND, asleep=SECOND, rounds=10, kicks=4)
    after = thread(age=7 * SECOND, asleep=SECOND + SECOND // 2, rounds=30, kicks=1)
    (row,) = compare(snapshot(threads=[before]), later(2, threads=[after])).kthreads

    assert (row.load, row.rounds, row.sleeps, row.kicks) == (0.75, 10, 0, None)


@given(st.integers(-(10**10), 10**10))
def test_load_stays_within_0_and_1(asleep):
    pair = snapshot(threads=[thread()]), later(1, threads=[thread(age=SECOND, asleep=asleep)])

    assert 0 <= compare(*pair).kthreads[0].load <= 1


# Order ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def view():
    """Four ports with a second of traffic, and a new one."""

    def some(at):
        return [
            sample("vale0:10", at, where=(0, 1), full=(10, 0), tx_packets=at // 1000, tx_bytes=at // 20, lossless=True),
            sample("vale0:2", at, where=(2, 3), full=(0, 1024), rx_packets=at // 2000, rx_bytes=at // 40, missed=at // 10**5),
            sample("vale1:x", at, where=(4, 5), tx_packets=at // 10**8, drops={"no_reader": 1 + at // 10**8}),
            sample("p{1", at, where=(-1, -1), kind="pipe", kthread=None, full=(None, None), pids=(3, 9), rx_packets=at // 70),
        ]  # fmt: skip

    before = snapshot(*some(0), threads=[thread(), thread(1)])
    new = sample("vale1:new", SECOND, where=(6, 7), rx_packets=5)
    threads = [thread(0, SECOND, SECOND // 4, rounds=5000, sleeps=2), thread(1, SECOND, SECOND)]
    return compare(before, later(1, *some(SECOND), new, threads=threads))


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("busy", ["p{1", "vale0:10", "vale0:2", "vale1:x", "vale1:new"]),
        ("tx", ["vale0:10", "vale1:x", "p{1", "vale0:2", "vale1:new"]),
        ("rx", ["p{1", "vale0:2", "vale0:10", "vale1:new", "vale1:x"]),
        ("lost", ["vale0:2", "vale1:x", "p{1", "vale0:10", "vale1:new"]),
        ("full", ["vale0:2", "vale0:10", "p{1", "vale1:new", "vale1:x"]),
        ("name", ["p{1", "vale0:2", "vale0:10", "vale1:new", "vale1:x"]),
    ],
)
def test_each_order_has_its_largest_first_and_names_in_natural_order(view, sort, first):
    assert [row.name for row in SORTS[sort](list(view.ports))] == first


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], ["p{1", "vale0:2", "vale0:10", "vale1:new", "vale1:x"]),
        (["vale1"], ["vale1:new", "vale1:x"]),
        (["vale0:2", "netmap:p{1"], ["p{1", "vale0:2"]),
        (["vale?:1*"], ["vale0:10"]),
        (["vale"], []),
    ],
)
def test_ports_are_chosen_by_name_or_switch(view, wanted, found):
    assert [row.name for row in SORTS["name"](matching(view.ports, wanted))] == found


# Text -----------------------------------------------------------------------------------------------------------------


def text(content, width):
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(content)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_a_page_of_80_columns(view):
    assert text(page(view, SORTS["busy"](list(view.ports)), 80), 80) == [
        "netmapd 0.1.0: 5 ports, tx 1.000M pps, rx 14.79M pps, dropped 10/s, 1.0 s; /run…",
        "",
        "kthread   cpu  rings  load  rounds/s  sleeps/s  kicks/s  irqs/s",
        "0           -      2   75%    5.000k         2        0       0",
        "1           -      2    0%         0         0        0       0",
        "",
        "port        tx pps  tx bit/s  rx pps  rx bit/s  drop/s  miss/s   tx%   rx%",
        "p{1              0         0  14.29M         0       0       0     -     -",
        "vale0:10    1.000M    400.0M       0         0       0       0    1%    0%",
        "vale0:2          0         0  500.0k    200.0M       0  10.00k    0%  100%",
        "vale1:x         10         0       0         0      10       0    0%    0%",
        "vale1:new        -         -       -         -       -       -    0%    0%",
        "",
        "lost at           reason  per second         total",
        "vale0:2           missed      10.00k        10,000",
        "vale1:x        no_reader          10            11",
    ]


def test_a_page_of_120_columns_tells_who_serves_and_who_uses_a_port(view):
    lines = text(page(view, SORTS["name"](list(view.ports)), 120), 120)

    assert lines[0].endswith("; /run/netmap/socket")
    assert lines[6:10] == [
        "port        tx pps  tx bit/s  rx pps  rx bit/s  drop/s  miss/s   tx%   rx%  kthread  lossless     process",
        "p{1              0         0  14.29M         0       0       0     -     -        -        no         3+1",
        "vale0:2          0         0  500.0k    200.0M       0  10.00k    0%  100%        0        no           7",
        "vale0:10    1.000M    400.0M       0         0       0       0    1%    0%        0       yes           7",
    ]


@pytest.mark.parametrize("width", [76, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_page(width):
    name = "vale0:" + "x" * 60
    view = compare(snapshot(sample(name)), later(1, sample(name, SECOND, drops={"bad_indirect": 2**40})))

    assert max(map(len, text(page(view, view.ports, width), 300)[1:])) <= width


@pytest.mark.parametrize("height", [8, 10, 12, 15, 24, 50, 400])
@pytest.mark.parametrize("count", [0, 1, 12, 300])
def test_a_page_fits_its_height_and_tells_how_many_ports_it_does_not_show(count, height):
    before = snapshot(*(sample(f"vale0:{i}") for i in range(count)), threads=[thread(i) for i in range(9)])
    ports = [sample(f"vale0:{i}", SECOND, tx_packets=i, drops={"no_reader": i} if i else {}) for i in range(count)]
    view = compare(before, later(1, *ports, threads=[thread(i, SECOND) for i in range(9)]))
    lines = text(page(view, SORTS["busy"](list(view.ports)), 80, height, "q ends"), 80)

    assert len(lines) <= height
    assert lines[-1] == "q ends"
    table = lines[lines.index("", lines.index("") + 1) + 1 :]
    shown = [line for line in table if line.startswith("vale0:") and "no_reader" not in line]
    assert [line.split()[0] for line in shown] == [f"vale0:{i}" for i in range(count - 1, count - 1 - len(shown), -1)]
    assert (f"{count - len(shown)} more not shown" in lines) == (len(shown) < count)


def test_a_name_is_no_markup():
    view = compare(snapshot(), later(1, sample("vale0:[red]x", SECOND)))

    assert any(line.startswith("vale0:[red]x") for line in text(page(view, view.ports, 80), 80))


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (None, "-"),
        (0, "0"),
        (0.01, "0"),
        (0.5, "0.5"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.000k"),
        (999_949, "999.9k"),
        (999_960, "1.000M"),
        (14_880_000, "14.88M"),
        (1.23e18, "1.230E"),
    ],
)
def test_numbers_are_short(value, short):
    assert si(value) == short


@given(st.floats(0, 9e20))
def test_numbers_have_at_most_six_characters(value):
    assert len(si(value)) <= 6


@given(st.text(max_size=70), st.integers(3, 40))
def test_a_shortened_name_keeps_both_ends(name, width):
    short = shortened(name, width)

    assert len(short) == min(len(name), width)
    assert name.startswith(short.partition("…")[0]) or "…" in name
    assert short == name or short[-1] == name[-1]


# Reading --------------------------------------------------------------------------------------------------------------


class FakeSession:
    """A netmapd whose answers a test writes."""

    address = "/run/netmap/socket"
    daemon = SimpleNamespace(version="0.1.0", generation=5)

    def __init__(self, *ports, places=4):
        self.memory = SharedBlock("test-counters", counters, places, read_only=True)
        self.ports = list(ports)
        self.threads = []
        self.pages = extension.Pages()
        self.pipes = {}
        self.sent = []

    def ask(self, request):
        entry = {"generation": 5, "size": self.memory.size, "ports": self.ports, "kthreads": self.threads}
        body = self.pages.page(request.reqtype, "", request.body, lambda: entry)
        fds = [os.dup(self.memory.fd)] if request.body["offset"] == 0 else []
        self.sent += fds
        return SimpleNamespace(fields=body), fds

    def request(self, reqtype, name, body=None):
        assert reqtype == extension.PORT_STATS
        if name not in self.pipes:
            raise PortError(6, f"netmap: no port is called {name}")
        return self.pipes[name]


def test_a_snapshot_sums_the_rings_of_a_port():
    session = FakeSession(port("vale0:1", tx=[0, 2], rx=[3]))
    for place, packets in ((0, 5), (2, 6)):
        session.memory.items[place]["packets"] = packets
        session.memory.items[place]["no_room"] = 1
        session.memory.items[place]["occupied"] = 100
    session.memory.items[3]["received"] = 7
    (one,) = Reader(session).read().ports

    assert (one.stats.tx_packets, one.stats.rx_packets, one.stats.drops) == (11, 7, {"no_room": 2})
    assert (one.tx, one.rx) == (Occupied(200, 2048), Occupied(0, 1024))


def test_a_port_that_no_kthread_serves_has_no_level():
    session = FakeSession(port("vale0:1", kthread=None))
    session.memory.items["occupied"] = 9

    assert Reader(session).read().ports[0].tx == Occupied(None, 1024)


def test_a_snapshot_stays_what_it_was():
    session = FakeSession(port("vale0:1"))
    reader = Reader(session)
    before = reader.read()
    session.memory.items[0]["packets"] = 8

    assert before.ports[0].stats.tx_packets == 0
    assert compare(before, reader.read()).ports[0].window.tx_packets == 8


def test_no_descriptor_stays_open():
    session = FakeSession(*(port(f"vale{i}:{'x' * 50}") for i in range(400)))
    reader = Reader(session)
    for _ in range(3):
        assert len(reader.read().ports) == 400

    assert len(session.sent) == 3
    for fd in session.sent:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_pipe_is_asked_for_and_one_that_has_gone_is_left_out():
    session = FakeSession(*(port(name, [-1], [-1], kind="pipe", kthread=None) for name in ("p{1", "p}1")))
    ring = dict.fromkeys(extension.COUNTERS, 0) | {"packets": 3, "bytes": 180}
    session.pipes["p}1"] = extension.stats_body([], [ring], is_pipe=True)
    (one,) = Reader(session).read().ports

    assert (one.port["name"], one.stats.rx_packets, one.tx) == ("p}1", 3, Occupied(None, 1024))


@pytest.mark.parametrize("place", [-2, 4096, 10**9])
def test_places_outside_of_the_memory_are_refused(place):
    with pytest.raises(WireError):
        Reader(FakeSession(port("vale0:1", tx=[place]))).read()


def test_memory_that_is_smaller_than_it_is_said_to_be_is_not_mapped():
    session = FakeSession(port("vale0:1"))
    session.memory.size *= 2
    with pytest.raises(PortError):
        Reader(session).read()


def test_the_counters_layout_is_read_without_their_padding():
    session = FakeSession(port("vale0:1"))
    session.memory.items[0] = np.ones((), counters)

    assert Reader(session).read().ports[0].stats.tx_bytes == 1

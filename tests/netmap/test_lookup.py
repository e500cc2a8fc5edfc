# SPDX-License-Identifier: BSD-2-Clause
import errno

import numpy as np
import pytest
from numba import config

from ptnetmap.errors import LookupCompileError
from ptnetmap.jit.memory import load8
from ptnetmap.netmap.lookup import BROADCAST, Lookup

pytestmark = pytest.mark.interpreted

compiled_only = pytest.mark.skipif(config.DISABLE_JIT, reason="an interpreted process compiles no lookups")


def test_a_switch_learns_until_it_is_told_otherwise_and_again_when_told_to(three, nm, frame, arrivals):
    a, b, c = three
    switch = nm.switch("vale0")
    assert switch.lookup.name == "learning"
    switch.lookup = nowhere
    a.send(frame(255))
    assert arrivals(three) == [[], [], []]
    switch.lookup = None
    a.send(frame(255))
    assert arrivals(three) == [[], [frame(255)], [frame(255)]]
    assert b.stats.drops == c.stats.drops == {}


def nowhere(packets, lengths, source, table, ports, rings):
    return


def by_table(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = table[0]
        table[1] += 1


def test_a_lookups_table_is_read_and_written_in_place(three, nm, frame, arrivals):
    table = np.array([1, 0], np.int64)
    nm.switch("vale0").lookup = by_table, table
    three[0].send([frame()] * 3)
    assert table.tolist() == [1, 3]
    nm.switch("vale0").lookup.table[0] = 2
    three[0].send([frame()] * 2)
    assert [len(x) for x in arrivals(three)] == [0, 3, 2]
    assert table.tolist() == [2, 5]


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8", "f8"])
def test_a_lookups_table_may_have_any_dtype(three, nm, frame, dtype, arrivals):
    def first_entry(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = int(table[0])

    nm.switch("vale0").lookup = first_entry, np.array([2, 0], dtype)
    three[0].send(frame())
    assert arrivals(three) == [[], [], [frame()]]


def test_what_a_lookup_does_not_answer_is_dropped(three, nm, frame):
    nm.switch("vale0").lookup = nowhere
    three[0].send([frame()] * 3)
    assert three[0].stats.drops == {"filtered": 3}


def test_a_lookup_chooses_the_ring_too(nm, frame):
    def spread(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = 1
            rings[i] = load8(packets[i] + 14)

    with nm.open("vale0:a") as a, nm.open("vale0:b@conf:rings=4") as b:
        nm.switch("vale0").lookup = spread
        a.send([frame(fill=i) for i in range(6)])
        b.rxsync()
        assert [r.space() for r in b.rx_rings] == [2, 2, 1, 1]


def test_broken_frames_are_dropped_whatever_the_lookup_says(three, nm, frame, arrivals):
    def everywhere(packets, lengths, source, table, ports, rings):
        for i in range(len(packets)):
            ports[i] = BROADCAST

    nm.switch("vale0").lookup = everywhere
    three[0].send([frame(), frame(size=13)])
    assert arrivals(three) == [[], [frame()], [frame()]]
    assert three[0].stats.drops == {"too_short": 1}


@pytest.mark.parametrize(
    "table", [[1, 2], np.zeros((2, 2)), np.zeros(8)[::2], np.frombuffer(b"12345678", np.int64)], ids=repr
)
def test_a_table_must_be_a_writable_contiguous_array_of_one_dimension(table):
    with pytest.raises(LookupCompileError, match="one-dimensional") as refused:
        Lookup(nowhere, table)
    assert refused.value.errno == errno.EINVAL


def test_a_lookup_with_other_arguments_is_refused_with_the_right_ones():
    with pytest.raises(LookupCompileError, match=r"def wrong\(packets, lengths, source, table, ports, rings\)"):
        Lookup(wrong)


def wrong(packet, port):
    return


def with_objects(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = {"a": 1}[str(object())]


@compiled_only
def test_a_lookup_that_cannot_be_compiled_says_why_and_where_in_its_own_lines():
    with pytest.raises(LookupCompileError) as refused:
        Lookup(with_objects)
    message = str(refused.value)
    line = with_objects.__code__.co_firstlineno + 2
    assert message.startswith("lookup with_objects cannot be compiled")
    assert f"{__file__} at line {line}" in message
    assert "no objects, strings or lists" in message
    assert len(message) < 800


@compiled_only
def test_a_lookup_that_cannot_be_compiled_leaves_the_old_one_in_place(three, nm, frame, arrivals):
    switch = nm.switch("vale0")
    switch.lookup = by_table, np.array([1, 0])
    with pytest.raises(LookupCompileError):
        switch.lookup = with_objects
    assert switch.lookup.name == "by_table"
    three[0].send(frame())
    assert arrivals(three) == [[], [frame()], []]


def differs(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        # Compiled, an 8-bit integer that was widened: 300. Interpreted, NumPy's uint8 wraps.
        ports[i] = 1 if ports[i] + ports[i] > 300 else 2


@compiled_only
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_lookup_whose_compiled_and_interpreted_forms_differ_is_refused():
    with pytest.raises(LookupCompileError, match="differs from its interpreted twin") as refused:
        Lookup(differs)
    assert "port 1, interpreted 2" in str(refused.value)


def raises(packets, lengths, source, table, ports, rings):
    for i in range(len(packets)):
        ports[i] = table[len(table) + i]


@compiled_only
def test_a_lookup_that_indexes_out_of_its_table_is_refused():
    with pytest.raises(LookupCompileError, match=r"IndexError.*\n.*guard"):
        Lookup(raises, np.zeros(4096, np.int64)[:64].copy())


@compiled_only
def test_trying_a_lookup_does_not_touch_the_users_table():
    table = np.zeros(16, np.int64)
    Lookup(by_table, table)
    assert not table.any()

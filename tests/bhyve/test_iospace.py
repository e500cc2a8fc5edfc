# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.iospace import IoSpace
from ptnetmap.errors import GuestError

LIMIT = 32


class Bytes:
    """Answers byte ``offset`` with ``tag + offset`` and notes every access."""

    def __init__(self, tag=0):
        self.tag = tag
        self.calls = []

    def byte(self, offset):
        return (self.tag + offset) & 0xFF

    def read(self, offset, size):
        self.calls.append(("read", offset, size))
        return sum(self.byte(offset + i) << 8 * i for i in range(size)) | 1 << 200

    def write(self, offset, size, value):
        self.calls.append(("write", offset, size, value))


@pytest.fixture
def space():
    return IoSpace("port", LIMIT)


def test_an_access_within_a_region_is_one_call_with_its_offset(space):
    device = Bytes(0x10)
    space.add(8, 8, device)

    assert space.read(12, 4) == 0x17161514
    space.write(9, 2, 0xABCDEF)
    assert device.calls == [("read", 4, 4), ("write", 1, 2, 0xCDEF)]


def test_what_nobody_answers_reads_as_ones_and_takes_no_write(space):
    space.write(3, 4, 5)
    assert [space.read(3, size) for size in (1, 2, 4, 8)] == [0xFF, 0xFFFF, 0xFFFFFFFF, (1 << 64) - 1]
    assert space.read(LIMIT - 1, 4) == 0xFFFFFFFF


def test_a_strict_space_refuses_what_nobody_answers():
    space = IoSpace("port", LIMIT, strict=True)
    space.add(0, 2, Bytes())

    for access in (lambda: space.read(5, 1), lambda: space.write(5, 4, 0), lambda: space.read(1, 2)):
        with pytest.raises(GuestError, match="port") as caught:
            access()
        assert caught.value.errno == errno.ENXIO


def test_an_access_over_an_edge_reaches_each_region_byte_by_byte(space):
    low, high = Bytes(0x10), Bytes(0x20)
    space.add(0, 3, low)
    space.add(4, 4, high)

    assert space.read(2, 4) == 0x2120FF12
    space.write(2, 4, 0x44332211)
    assert (low.calls[1:], high.calls[2:]) == (
        [("write", 2, 1, 0x11)],
        [("write", 0, 1, 0x33), ("write", 1, 1, 0x44)],
    )


@pytest.mark.parametrize(("start", "size"), [(7, 2), (8, 1), (0, 32), (11, 9), (-1, 4), (28, 5), (3, 0), (32, 1)])
def test_fixed_regions_neither_overlap_nor_leave_the_space(space, start, size):
    space.add(8, 4, Bytes(1))

    with pytest.raises(ValueError, match="port"):
        space.add(start, size, Bytes())
    assert space.read(8, 1) == 1
    assert space.read(7, 1) == 0xFF


def test_an_exact_register_leaves_other_widths_to_others(space):
    address, reset = Bytes(0x40), Bytes(0x90)
    exact = space.add(8, 4, address, exact=True)
    space.add(9, 1, reset)

    assert space.read(8, 4) == 0x43424140
    assert space.read(9, 1) == 0x90
    assert space.read(8, 2) == 0x90FF
    with pytest.raises(ValueError, match="taken"):
        space.add(8, 4, Bytes(), exact=True)
    space.remove(exact)
    assert space.read(8, 4) == 0xFFFF90FF
    with pytest.raises(ValueError, match="not in port"):
        space.remove(exact)


def test_a_region_that_was_removed_is_silent_and_cannot_be_removed_again(space):
    region = space.add(8, 4, Bytes())
    space.remove(region)

    assert space.read(8, 1) == 0xFF
    with pytest.raises(ValueError, match="not in"):
        space.remove(region)


def test_a_handler_may_take_its_own_region_away(space):
    class Leaving(Bytes):
        def write(self, offset, size, value):
            super().write(offset, size, value)
            space.remove(region)

    device = Leaving()
    region = space.add(8, 4, device)
    space.write(10, 4, 0x04030201)
    assert device.calls == [("write", 2, 1, 1)]


placements = st.lists(
    st.tuples(st.integers(0, LIMIT - 1), st.integers(1, LIMIT), st.one_of(st.none(), st.integers(0, 3))), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(placements, st.data())
def test_who_answers_depends_only_on_where_regions_are(places, data):
    space = IoSpace("port", LIMIT)
    there = []
    for n, (start, size, priority) in enumerate(places):
        handler = Bytes(n * 16)
        try:
            there.append(space.add(start, size, handler, priority=priority))
        except ValueError:
            assert start + size > LIMIT or priority is None
    for region in data.draw(st.lists(st.sampled_from(there), unique=True)) if there else []:
        space.remove(region)
        there.remove(region)

    def owner(address):
        here = [r for r in there if r.start <= address < r.end]
        return min(here, key=lambda r: (r.rank, places_order.index(r)), default=None)

    places_order = list(there)
    expected = [
        0xFF if (region := owner(address)) is None else region.handler.byte(address - region.start)
        for address in range(LIMIT + 8)
    ]
    for address in range(LIMIT):
        for size in (1, 2, 3, 8):
            assert space.read(address, size) == int.from_bytes(bytes(expected[address : address + size]), "little")
    for region in there:
        assert space.visible(region) == all(owner(a) is region for a in range(region.start, region.end))

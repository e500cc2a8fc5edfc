# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.bhyve.pci.bar import MEM64_WINDOW, Bar, BarKind, Window, Windows, mem64_window


@pytest.mark.parametrize(
    ("kind", "asked", "size"),
    [
        (BarKind.IO, 1, 4),
        (BarKind.IO, 10, 16),
        (BarKind.IO, 1 << 15, 1 << 15),
        (BarKind.MEM32, 1, 16),
        (BarKind.MEM32, 0x2868000, 64 << 20),
        (BarKind.MEM64, 334_980 << 10, 512 << 20),
    ],
)
def test_a_size_is_rounded_up_to_what_the_register_can_say(kind, asked, size):
    assert Bar(0, kind, asked).size == size


@pytest.mark.parametrize(
    ("number", "kind", "size"),
    [
        (6, BarKind.IO, 4),
        (-1, BarKind.IO, 4),
        (5, BarKind.MEM64, 4096),
        (0, BarKind.MEM32, 0),
        (0, BarKind.MEM32, -16),
        (0, BarKind.IO, (1 << 15) + 1),
        (0, BarKind.MEM32, (1 << 31) + 1),
    ],
)
def test_what_no_bar_can_be_is_refused(number, kind, size):
    with pytest.raises(ValueError, match=f"BAR {number}"):
        Bar(number, kind, size)


def test_small_64_bit_bars_stay_below_4_gb_and_large_ones_do_not():
    windows = Windows()
    assert windows.allocate(Bar(0, BarKind.MEM64, 4096)) == 0xC0000000
    assert windows.allocate(Bar(0, BarKind.MEM64, 64 << 20)) == 0xD000000000
    assert windows.allocate(Bar(0, BarKind.MEM32, 512 << 20)) is None
    assert windows.allocate(Bar(0, BarKind.IO, 10)) == 0x2000


def test_a_64_bit_bar_takes_the_other_window_when_its_own_is_full():
    windows = Windows(mem64=(0, 0))
    assert windows.allocate(Bar(0, BarKind.MEM64, 512 << 20)) == 0xC0000000
    windows = Windows()
    windows.allocate(Bar(0, BarKind.MEM32, 512 << 20))
    assert windows.allocate(Bar(0, BarKind.MEM64, 4096)) == 0xD000000000


@pytest.mark.parametrize(
    ("memory_end", "bits", "window"),
    [
        (0, 40, MEM64_WINDOW),
        (16 << 30, 52, MEM64_WINDOW),
        (16 << 30, 39, (1 << 38, 1 << 39)),
        ((300 << 30) + 4096, 39, (301 << 30, 1 << 39)),
        (1 << 39, 39, (1 << 39, 1 << 39)),
        (1 << 40, 46, (1 << 45, 1 << 46)),
    ],
)
def test_the_window_for_64_bit_bars_can_be_addressed_and_is_above_memory(memory_end, bits, window):
    start, end = mem64_window(memory_end, bits)
    assert end == window[1]
    assert memory_end <= start <= end <= 1 << bits
    assert start % (4 << 30) == 0
    if memory_end % (4 << 30) == 0:
        assert start == window[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(4, 12).map(lambda n: 1 << n), max_size=20), st.integers(0, 5000))
def test_what_a_window_gives_is_aligned_disjoint_inside_and_the_lowest(sizes, start):
    window = Window(start, start + 8192)
    given = []
    for size in sizes:
        largest = window.largest
        address = window.allocate(size)
        free = [
            a
            for a in range(-(-start // size) * size, start + 8192 - size + 1, size)
            if all(a + size <= b or b + n <= a for b, n in given)
        ]
        assert address == (free[0] if free else None)
        assert (address is not None) == (size <= largest)
        if address is not None:
            given.append((address, size))
    window.clear()
    assert window.largest >= 2048

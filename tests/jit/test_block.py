# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest

from ptnetmap.jit.block import CACHE_LINE, Block, offsets, view

LAYOUT = np.dtype([("head", "u4"), ("tail", "u2"), ("base", "i8")])


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_block_is_zeroed_and_begins_at_a_cache_line(count):
    blocks = [Block(LAYOUT, count) for _ in range(20)]
    for block in blocks:
        assert block.address % CACHE_LINE == 0
        assert block.items.ctypes.data == block.address
        assert block.items.shape == (count,)
        assert block.items.tobytes() == bytes(count * LAYOUT.itemsize)


def test_fields_of_the_first_item_are_read_and_written_by_name():
    block = Block(LAYOUT, 2)
    block["base"] = -5
    assert block["base"] == -5
    assert type(block["base"]) is int
    assert ctypes.c_int64.from_address(block.address + offsets(LAYOUT)["base"]).value == -5
    assert block.items[1].tobytes() == bytes(LAYOUT.itemsize)


def test_a_view_is_the_same_memory_in_both_directions():
    block = Block("u4", 4)
    window = view(block.address + 4, "u4", 2, block)
    block.items[1] = 7
    window[1] = 9
    assert window.tolist() == [7, 9]
    assert block.items.tolist() == [0, 7, 9, 0]


def test_a_view_and_its_slices_keep_the_owner_alive():
    class Mapping:
        def __init__(self):
            self.block = Block("u8", 4)

    owner = Mapping()
    gone = weakref.ref(owner)
    part = view(owner.block.address, "u8", 4, owner)[1:3]
    del owner
    gc.collect()
    assert gone() is not None
    part[0] = 3
    assert gone().block.items.tolist() == [0, 3, 0, 0]
    del part
    gc.collect()
    assert gone() is None


def test_offsets_are_those_of_the_layout():
    assert offsets(LAYOUT) == {"head": 0, "tail": 4, "base": 6}
    assert offsets("u4") == {}

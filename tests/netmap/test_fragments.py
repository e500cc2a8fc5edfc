# SPDX-License-Identifier: BSD-2-Clause
import ctypes
import os
from mmap import mmap

import numpy as np
import pytest

from ptnetmap.abi import netmap as abi

pytestmark = pytest.mark.interpreted

MOREFRAG = abi.NS_MOREFRAG


@pytest.mark.parametrize(("size", "slots"), [(2048, 1), (2049, 2), (9000, 5), (64 * 2048, 64)])
def test_a_frame_longer_than_a_buffer_travels_as_a_chain(pair, frame, size, slots):
    tx, rx = pair
    long = frame()[:14] + os.urandom(size - 14)
    assert tx.send([frame(), long, frame()]) == 3
    rx.rxsync()
    assert rx.rx_rings[0].space() == slots + 2
    flags = rx.rx_rings[0].slots["flags"][1 : slots + 1] & MOREFRAG
    assert flags.tolist() == [MOREFRAG] * (slots - 1) + [0]
    assert rx.recv(timeout=0) == [frame(), long, frame()]


def test_dispatch_puts_a_chain_together(pair, frame):
    tx, rx = pair
    long = frame()[:14] + os.urandom(5000)
    tx.send(long)
    seen = []
    assert rx.dispatch(lambda header, data: seen.append(bytes(data))) == 1
    assert seen == [long]


def test_a_frame_longer_than_64_buffers_is_refused(pair, frame, refusal):
    refusal("EMSGSIZE", pair[0].send, frame(size=64 * 2048 + 1), match="64 fragments")
    refusal("EMSGSIZE", pair[0].inject, frame(size=64 * 2048 + 1))


def test_a_chain_through_a_switch_tells_how_many_fragments_it_has(switch, frame):
    a, b = switch
    a.send(frame(size=5000))
    b.rxsync()
    assert (b.rx_rings[0].slots["flags"][:3] >> 8).tolist() == [3, 3, 3]


def unfinished(ring, fragments, size=60):
    """Release a chain whose last slot says that more follows."""
    for i in range(fragments):
        ring.slots["len"][ring.head + i] = size
        ring.slots["flags"][ring.head + i] = MOREFRAG
        ring.buffer(ring.head + i)[:size] = np.arange(size) & ~1
    ring.advance(fragments)


def test_a_pipe_shows_its_reader_whole_packets_only(small):
    tx, rx = small
    unfinished(tx.tx_rings[0], 2)
    tx.txsync()
    assert rx.recv(timeout=0) == []
    ring = tx.tx_rings[0]
    ring.slots["len"][2] = 60
    ring.slots["flags"][2] = 0
    ring.advance(1)
    tx.txsync()
    (packet,) = rx.recv(timeout=0)
    assert len(packet) == 180


def test_a_switch_ends_an_unfinished_chain_where_the_sender_does(switch):
    a, b = switch
    unfinished(a.tx_rings[0], 3)
    a.txsync()
    (packet,) = b.recv(timeout=0)
    assert len(packet) == 180


def test_a_chain_of_more_than_64_fragments_is_dropped_and_counted(nm, frame):
    with nm.open("vale0:a") as a, nm.open("vale0:b") as b:
        unfinished(a.tx_rings[0], 64)
        a.tx_rings[0].slots["flags"][63] = 0
        unfinished(a.tx_rings[0], 65)
        a.txsync()
        assert [len(p) for p in b.recv(timeout=0)] == [64 * 60]
        assert a.stats.drops == {"fragments": 1}
        a.tx_rings[0].slots["flags"] = 0
        a.send(frame())
        assert b.recv(timeout=0) == [frame()]


def indirect(port, address, size):
    ring = port.tx_rings[0]
    ring.slots[ring.head] = (0, size, abi.NS_INDIRECT, address)
    ring.advance(1)


def test_an_indirect_slot_sends_what_it_points_to(switch, frame):
    a, b = switch
    data = ctypes.create_string_buffer(frame(fill=5), 60)
    indirect(a, ctypes.addressof(data), 60)
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=5)]


@pytest.mark.parametrize("address", [0, 1, 0x7FFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000])
def test_an_indirect_slot_that_points_nowhere_is_dropped_and_counted(switch, frame, address):
    a, b = switch
    a.inject(frame(fill=1))
    indirect(a, address, 60)
    a.inject(frame(fill=2))
    a.txsync()
    assert b.recv(timeout=0) == [frame(fill=1), frame(fill=2)]
    assert a.stats.drops == {"bad_indirect": 1}


def test_an_indirect_frame_that_ends_where_memory_does_is_sent(switch, frame):
    a, b = switch
    page = np.frombuffer(mmap(-1, 8192), np.uint8)
    address = page.ctypes.data
    ctypes.memmove(address + 4096 - 61, frame(size=61), 61)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + 4096), 4096, 0) == 0
    try:
        indirect(a, address + 4096 - 61, 61)
        a.txsync()
        assert b.recv(timeout=0) == [frame(size=61)]
        indirect(a, address + 4096 - 60, 61)
        a.txsync()
        assert a.stats.drops == {"bad_indirect": 1}
    finally:
        libc.mprotect(ctypes.c_void_p(address + 4096), 4096, 3)

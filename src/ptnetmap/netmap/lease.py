# SPDX-License-Identifier: BSD-2-Clause
# mypy: ignore-errors
"""Leases: how several senders fill one RX ring without holding a lock while they copy.

A sender reserves a run of slots under a short lock, copies outside it, and settles. What is settled becomes visible to
the reader in the order of the reservations: whoever completes the earliest open lease publishes all that follow it.
"""

from __future__ import annotations

from ptnetmap.jit.atomic import cas32, load32_acquire, store32_release
from ptnetmap.jit.kernel import piece
from ptnetmap.jit.libc import sched_yield
from ptnetmap.jit.memory import load32, load64, store32
from ptnetmap.jit.wait import relax
from ptnetmap.netmap.counters import RECEIVED, RECEIVED_BYTES
from ptnetmap.netmap.kring import (
    HWCUR,
    LEASE_NEXT,
    LEASE_TAIL,
    LEASES,
    LOCK,
    NUM_SLOTS,
    PEER_TAIL,
    SEEN_HWCUR,
    SLOT_SIZE,
    SLOTS,
    after,
    count,
    distance,
)

_OPEN = 0xFFFFFFFF


@piece
def lock(word):
    """Take a spin lock that is only ever held for a few instructions."""
    attempt = 0
    while not cas32(word, 0, 1):
        attempt += 1
        if not relax(attempt):
            sched_yield()
    return


@piece
def unlock(word):
    """Release it."""
    store32_release(word, 0)


@piece
def room(ring):
    """Slots of an RX ring that senders may still fill; the caller holds its lock."""
    n = load32(ring + NUM_SLOTS)
    return n - 1 - distance(load32(ring + SEEN_HWCUR), load32(ring + LEASE_TAIL), n)


@piece
def take_lease(ring, needed):
    """Reserve up to ``needed`` slots. Returns (first slot, slots granted, lease, reader's index that this is based on).

    Nothing is reserved if no slot is free.
    """
    n = load32(ring + NUM_SLOTS)
    lock(ring + LOCK)
    space = room(ring)
    if space < needed:
        # The reader's index lives in its own cache line: fetch it only when the last known value is not enough.
        store32(ring + SEEN_HWCUR, load32_acquire(ring + HWCUR))
        space = room(ring)
    seen = load32(ring + SEEN_HWCUR)
    granted = min(needed, space)
    start = load32(ring + LEASE_TAIL)
    lease = load32(ring + LEASE_NEXT)
    if granted > 0:
        end = start + granted
        store32(ring + LEASE_TAIL, end if end < n else end - n)
        store32(ring + LEASE_NEXT, after(lease, n))
        store32(load64(ring + LEASES) + 4 * lease, _OPEN)
    unlock(ring + LOCK)
    return start, granted, lease, seen


@piece
def settle_lease(ring, start, granted, lease, used, packets, octets):
    """Publish the ``used`` first slots of a lease, of ``packets`` packets and ``octets`` bytes.

    Slots granted but not used go back if no later lease follows; else they become empty slots that the reader skips.
    Returns whether the reader has something new to see.
    """
    n = load32(ring + NUM_SLOTS)
    leases = load64(ring + LEASES)
    end = start + used
    if end >= n:
        end -= n
    published = False
    lock(ring + LOCK)
    if used < granted:
        granted_end = start + granted
        if granted_end >= n:
            granted_end -= n
        if load32(ring + LEASE_TAIL) == granted_end:
            store32(ring + LEASE_TAIL, end)
            if used == 0:
                # Nothing is left of the last lease: without its entry, entries are never more than slots.
                store32(ring + LEASE_NEXT, lease)
                unlock(ring + LOCK)
                return False
        else:
            while end != granted_end:
                store32(load64(ring + SLOTS) + end * SLOT_SIZE + 4, 0)
                end = after(end, n)
    store32(leases + 4 * lease, end)
    if load32(ring + PEER_TAIL) == start:
        following = after(lease, n)
        last = load32(ring + LEASE_NEXT)
        while following != last and load32(leases + 4 * following) != _OPEN:
            end = load32(leases + 4 * following)
            following = after(following, n)
        published = end != start
        store32_release(ring + PEER_TAIL, end)
    count(ring, RECEIVED, packets)
    count(ring, RECEIVED_BYTES, octets)
    unlock(ring + LOCK)
    return published

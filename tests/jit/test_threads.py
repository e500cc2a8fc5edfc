# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from ptnetmap.jit.atomic import add64, cas32, cas64, load32_acquire, load64_acquire, store32_release
from ptnetmap.jit.block import Block
from ptnetmap.jit.kernel import kernel
from ptnetmap.jit.libc import POLLIN, poll, read
from ptnetmap.jit.wait import SPINS, YIELDS, arm, kick, relax

THREADS = 4
TIMES = 50_000
PATIENCE_MS = 20_000  # a wake-up that takes longer is lost

side = np.dtype(
    [
        ("score", "u4"),
        ("need_kick", "u4"),
        ("eventfd", "u4"),
        ("pad", "u4"),
        ("pollfd", "u8"),
        ("scratch", "u8"),
        ("one", "u8"),
        ("sleeps", "u8"),
    ]
)
SCORE, NEED_KICK, EVENTFD, POLLFD, SCRATCH, ONE, SLEEPS = (
    side.fields[name][1] for name in ("score", "need_kick", "eventfd", "pollfd", "scratch", "one", "sleeps")
)


@kernel
def add_many(address, times):
    for _ in range(times):
        add64(address, 1)
        while True:
            seen = load32_acquire(address + 8)
            if cas32(address + 8, seen, seen + 1):
                break
        while True:
            seen = load64_acquire(address + 16)
            if cas64(address + 16, seen, seen + 1):
                break


@kernel
def await_score(mine, theirs, score, impatience):
    attempt = impatience
    while load32_acquire(theirs + SCORE) != score:
        attempt += 1
        if relax(attempt):
            continue
        arm(mine + NEED_KICK)
        if load32_acquire(theirs + SCORE) == score:
            break
        if poll(mine + POLLFD, 1, PATIENCE_MS) != 1:
            return False
        add64(mine + SLEEPS, 1)
        read(load32_acquire(mine + EVENTFD), mine + SCRATCH, 8)
        attempt = impatience
    return True


@kernel
def play(mine, theirs, serves, rounds, impatience):
    for score in range(1, rounds + 1):
        if serves == 0 and not await_score(mine, theirs, score, impatience):
            return score
        store32_release(mine + SCORE, score)
        kick(theirs + NEED_KICK, theirs + EVENTFD, mine + ONE)
        if serves != 0 and not await_score(mine, theirs, score, impatience):
            return score
    return 0


def together(*functions):
    """Run each function in a thread, all released at once; their results."""
    barrier = threading.Barrier(len(functions))
    results = [None] * len(functions)

    def body(i):
        barrier.wait()
        results[i] = functions[i]()

    threads = [threading.Thread(target=body, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_increments_of_many_threads_are_all_counted():
    words = Block("u8", 3)
    add_many(words.address, 0)
    together(*[lambda: add_many(words.address, TIMES)] * THREADS)
    assert words.items.tolist() == [THREADS * TIMES] * 3


@pytest.fixture
def table():
    """Two sides, each with an eventfd."""
    sides = [Block(side) for _ in range(2)]
    fds = [os.eventfd(0) for _ in sides]
    for block, fd in zip(sides, fds, strict=True):
        block["eventfd"] = fd
        block["pollfd"] = fd | POLLIN << 32
        block["one"] = 1
    yield sides
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("impatience", [SPINS + YIELDS, SPINS + YIELDS - 3, SPINS, 0])
def test_no_wake_up_is_lost_between_two_threads(table, impatience):
    a, b = table
    play(a.address, b.address, 1, 0, 0)
    rounds = 3000
    lost = together(
        lambda: play(a.address, b.address, 1, rounds, impatience),
        lambda: play(b.address, a.address, 0, rounds, impatience),
    )
    assert lost == [0, 0]
    assert a["score"] == b["score"] == rounds


def test_a_kick_is_sent_once_and_only_to_who_armed(table):
    a, _ = table
    need, fd, one = a.address + NEED_KICK, a.address + EVENTFD, a.address + ONE
    assert not kick(need, fd, one)
    arm(need)
    assert kick(need, fd, one)
    assert not kick(need, fd, one)
    assert os.eventfd_read(a["eventfd"]) == 1


def test_a_kick_without_eventfd_is_not_sent(table):
    a, _ = table
    a["eventfd"] = 0xFFFFFFFF
    arm(a.address + NEED_KICK)
    assert not kick(a.address + NEED_KICK, a.address + EVENTFD, a.address + ONE)
    assert a["need_kick"] == 0

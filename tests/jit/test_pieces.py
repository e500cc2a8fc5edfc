# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import subprocess
import sys

from ptnetmap.jit.kernel import kernel, kernels, piece


@piece
def scaled(value, factor):
    return value * factor


@piece
def chosen(value, wanted):
    return scaled(value, 3) if wanted else scaled(value, value)


@kernel
def doubled(value):
    return scaled(value, 2)


@piece
def through_a_kernel(value):
    return doubled(value) + 1


@kernel
def everything(value):
    return chosen(value, value > 4) + chosen(value, 1) * 1000 + through_a_kernel(value) * 1_000_000


def table():
    return [everything(value) for value in range(10)]


def test_pieces_within_pieces_give_what_python_gives():
    assert table() == [(v * 3 if v > 4 else v * v) + v * 3 * 1000 + (v * 2 + 1) * 1_000_000 for v in range(10)]
    assert [doubled(v) for v in (0, -4)] == [0, -8]


def test_the_interpreted_twin_gives_the_same():
    environment = dict(os.environ, NUMBA_DISABLE_JIT="1")
    twin = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    assert twin.stdout.strip() == str(table())


def test_a_callee_is_compiled_once_whatever_integers_it_is_given():
    table()
    if everything.stats.cache_misses:
        assert [len(f.signatures) for f in (scaled, chosen, doubled, through_a_kernel)] == [1, 1, 1, 1]


def test_only_kernels_are_listed():
    assert any(k is everything for k in kernels)
    assert not any(k is scaled for k in kernels)


if __name__ == "__main__":
    print(table())

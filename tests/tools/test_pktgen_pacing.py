# SPDX-License-Identifier: BSD-2-Clause
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.tools.pktgen import pacing

pytestmark = pytest.mark.interpreted
due_after = getattr(pacing.due_after, "py_func", pacing.due_after)


@given(st.lists(st.integers(1, 65536), max_size=60), st.integers(1, 10**9), st.integers(1, 256))
def test_a_schedule_never_drifts_from_the_exact_rate(bursts, rate, threads):
    period = 1_000_000_000 * threads
    due, rest = 0, 0
    for count in bursts:
        due, rest = due_after(due, rest, count, period, rate)

    exact = Fraction(sum(bursts) * period, rate)
    assert due == exact.__floor__()
    assert due + Fraction(rest, rate) == exact


@pytest.mark.parametrize("rate", [1, 299, 300, 1000, 14_880_952])
def test_a_second_of_packets_takes_a_second(rate):
    burst = max(1, min(512, rate // 300))
    due, rest, sent = 0, 0, 0
    while sent < rate:
        count = min(burst, rate - sent)
        due, rest = due_after(due, rest, count, 1_000_000_000, rate)
        sent += count

    assert (due, rest) == (1_000_000_000, 0)

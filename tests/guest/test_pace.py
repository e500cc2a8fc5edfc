# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptnetmap.guest import pace

TSC_KHZ = 2_500_000
SECOND = TSC_KHZ * 1000


@pytest.fixture
def boot(machine):
    machine.info["tsc_khz"] = TSC_KHZ
    return machine.boot


def test_what_is_due_is_the_rate_times_the_time(boot):
    @given(st.integers(0, 10**9), st.integers(0, 10**6 * SECOND))
    def check(rate, cycles):
        assert pace.due(boot, rate, cycles) == rate * cycles // SECOND

    check()


def test_a_nap_takes_time_and_halts(machine, boot):
    before = machine.now
    pace.nap(machine.block(0), boot)
    assert machine.now > before
    assert machine.waits >= 1

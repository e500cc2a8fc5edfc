# SPDX-License-Identifier: BSD-2-Clause
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bhyve.fuzz import STEP, drive


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "disk.img"
    path.write_bytes(bytes(1 << 16))
    return path


steps = st.lists(
    st.builds(
        STEP.pack, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), st.integers(0, (1 << 32) - 1)
    ),
    max_size=60,
).map(b"".join)


@given(data=steps)
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_accesses_fails_in_a_device_or_leaves_something_behind(disk, data):
    machine = drive(data, disk)
    host = machine.host
    machine.close()
    assert set(host.suspended) <= {"reset", "poweroff", "halt", "triplefault"}
    assert all(route.closed for route in host.interrupts.routes)
    assert host.interrupts.high == set()
    assert host.vm.bufs == []

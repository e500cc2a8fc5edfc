# SPDX-License-Identifier: BSD-2-Clause
import pytest

from ptnetmap.bench.tap import BATCH, Device

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def device():
    device = Device()
    yield device
    device.close()


@pytest.mark.parametrize("way", ["out", "in"])
@pytest.mark.parametrize("size", [60, 1514])
def test_both_loops_move_every_packet_that_is_offered(device, way, size):
    for whose in ("ours", "bare"):
        result = device.run(whose, way, size, 0.02, BATCH, None)
        assert result.received == result.offered > 0
        assert result.dropped == 0

# SPDX-License-Identifier: BSD-2-Clause
import pytest

from tests.bhyve.devices.console_pair import Pair


@pytest.fixture
def make_pair(make_host, tmp_path):
    pairs = []

    def make(*arguments, **more):
        pairs.append(Pair(make_host(), tmp_path, *arguments, **more))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()
        assert all(route.closed for route in pair.host.interrupts.routes)


@pytest.fixture(params=["legacy", "modern"])
def pair(request, make_pair):
    return make_pair(legacy=request.param == "legacy")

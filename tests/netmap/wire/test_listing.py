# SPDX-License-Identifier: BSD-2-Clause
import errno

import pytest

from ptnetmap.errors import PortError
from ptnetmap.netmap.wire.listing import NO_PORT, Listed, find_listed

PORTS = [("vale1:z", 1, 0), ("vale0:b", 0, 3), ("vale0:a", 0, 1), ("vale0:eth0^", 0, 2)]


def test_asking_for_what_comes_next_visits_every_port_once():
    seen = []
    place = {"nr_bridge_idx": 0, "nr_port_idx": 0}
    for _ in PORTS:
        found = find_listed(PORTS, "", place)
        seen.append(tuple(found))
        place = {**found.body, "nr_port_idx": found.port_idx + 1}

    assert seen == sorted(PORTS, key=lambda port: port[1:])
    with pytest.raises(PortError) as end:
        find_listed(PORTS, "", place)
    assert end.value.errno == errno.ENOENT


def test_a_port_is_found_by_its_name():
    assert find_listed(PORTS, "vale0:b", {}) == Listed("vale0:b", 0, 3)


@pytest.mark.parametrize("name", ["vale0", "vale0:", "vale0:none"])
def test_a_switch_is_found_without_a_port(name):
    assert find_listed(PORTS, name, {}) == Listed(name, 0, NO_PORT)


@pytest.mark.parametrize(("listing", "name"), [(PORTS, "vale"), (PORTS, "vale2:a"), ([], "vale0:a"), ([], "")])
def test_what_does_not_exist_is_no_entry(listing, name):
    with pytest.raises(PortError) as caught:
        find_listed(listing, name, {"nr_bridge_idx": 0, "nr_port_idx": 0})
    assert caught.value.errno == errno.ENOENT

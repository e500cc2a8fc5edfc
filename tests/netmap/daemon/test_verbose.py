# SPDX-License-Identifier: BSD-2-Clause
import os
import tempfile
from pathlib import Path

import pytest

from ptnetmap.netmap.wire import extension
from tests.netmap.daemon.conftest import Daemon, wait_until


@pytest.fixture
def make_daemon():
    with tempfile.TemporaryDirectory(prefix="netmapd-") as directory:
        daemons = []

        def make(*arguments):
            daemons.append(Daemon(Path(directory), *arguments))
            return daemons[-1]

        yield make
        for daemon in daemons:
            daemon.stop()


def use_ports(daemon):
    """Open a port, one that is refused, and a device's; return when netmapd has closed them."""
    said = len(daemon.log())
    daemon.client().register("vale0:1")
    assert daemon.client().register("vale0:1", nr_mode=99).errno
    assert daemon.client().request(extension.VIRTIO_CREATE, "vale0:2", pairs=1, size=256).errno == 0
    daemon.client().request(extension.TOP)
    daemon.close_clients()
    wait_until(daemon.rests, "it keeps something")
    return [line.split(" ", 2)[2] for line in daemon.log()[said:].splitlines()]


def test_a_verbose_netmapd_says_what_is_opened_and_closed_and_by_whom(make_daemon):
    daemon = make_daemon("--verbose")
    said = use_ports(daemon)
    us = os.getpid()
    assert said[:2] == [f"process {us} opens vale0:1", f"process {us} opens vale0:2"]
    assert sorted(said[2:]) == [f"process {us} closes vale0:1", f"process {us} closes vale0:2"]


def test_a_netmapd_that_is_not_asked_to_says_nothing_of_ports(make_daemon):
    assert use_ports(make_daemon()) == []
